"""The Helm values that the configuration means, for the charts of its version.

They give what istioctl gives for the profile, see docs/profiles-and-versions.md; `istio/paths.py` says which values
each version reads.
"""

from __future__ import annotations

from typing import Any, Final

import names
from config import Mesh, merged
from config.mesh import DEFAULT_REVISION, ChartKey
from config.versions import minor
from istio import profiles
from istio.paths import FLAT, GATEWAY_ROLLOUT, KNOWS_PROFILES, PILOT_CNI
from istio.sidecar import fingerprint

# Every version's images are there, and from 1.31 on nowhere else:
# https://istio.io/latest/blog/2026/retirement-of-gcp/
OFFICIAL_HUB = "docker.io/istio"

# AKS adds to the selectors of webhooks that do not say this. The charts have no platform of this name, and refuse it.
# https://learn.microsoft.com/en-us/azure/aks/faq#can-admission-controller-webhooks-impact-kube-system-and-internal-aks-namespaces
AKS: Final = "aks"
NOT_ENFORCED: Final = {"admissions.enforcer/disabled": "true"}

Values = dict[str, Any]


def with_own(mesh: Mesh, key: ChartKey, generated: Values) -> Values:
    """The user's own values laid over ours."""
    return merged(generated, mesh.values.get(key, {}))


def sidecar(mesh: Mesh) -> str:
    """What the sidecars of a mesh with one control plane are like: a text that changes when, and only when, they do.

    Of somebody else's control plane no more is known than its revision.
    """
    if mesh.mode == "existing":
        return mesh.default_revision
    return fingerprint(mesh.version, with_own(mesh, "istiod", istiod(mesh)))


def base(mesh: Mesh, default_revision: str) -> Values:
    values: Values = {"global": {"istioNamespace": mesh.namespace, **_pull_secrets(mesh)}}
    if default_revision != DEFAULT_REVISION:  # it checks the rules that name no revision
        values["defaultRevision"] = default_revision
    return values


def istiod(mesh: Mesh) -> Values:
    values = merged(_common(mesh), {"global": {"istioNamespace": mesh.namespace, **_proxy_images(mesh)}})
    if mesh_config := profiles.mesh_config(mesh.profile, mesh.version):
        values["meshConfig"] = mesh_config
    pilot: Values = {"image": mesh.images["pilot"]} if "pilot" in mesh.images else {}
    if minor(mesh.version) < PILOT_CNI:
        values["istio_cni"] = {"enabled": mesh.cni}
    else:
        pilot["cni"] = {"enabled": mesh.cni}
    if _is_spelled_out(mesh):
        values = merged(values, {"global": {"proxy": {"resources": profiles.SMALL_PROXY}}})
        pilot |= {"autoscaleEnabled": False, "traceSampling": 100, "resources": profiles.SMALL_PILOT}
    if mesh.platform == AKS:
        values["sidecarInjectorWebhookAnnotations"] = NOT_ENFORCED
    return merged(values, {**_below("pilot", pilot, mesh), **_revision(mesh)})


def cni(mesh: Mesh) -> Values:
    image: Values = {"image": mesh.images["install-cni"]} if "install-cni" in mesh.images else {}
    return merged(_common(mesh), _below("cni", image, mesh))


def ingress(mesh: Mesh) -> Values:
    ports = _INGRESS_PORTS + (_DEMO_PORTS if mesh.profile == "demo" else ())
    return _gateway(mesh, "istio-ingressgateway", ports, "LoadBalancer")


def egress(mesh: Mesh) -> Values:
    return _gateway(mesh, "istio-egressgateway", _EGRESS_PORTS, "ClusterIP")


def _common(mesh: Mesh) -> Values:
    """What the charts with pods take. `default` and `minimal` are the charts' own defaults and no profile of theirs."""
    values: Values = {"global": {"hub": mesh.hub or OFFICIAL_HUB, "tag": mesh.version, **_pull_secrets(mesh)}}
    if mesh.platform and mesh.platform != AKS:
        values["global"]["platform"] = mesh.platform
    if mesh.profile == "demo" and not _is_spelled_out(mesh):
        values["profile"] = "demo"
    return values


def _is_spelled_out(mesh: Mesh) -> bool:
    """Whether demo's values must be given one by one, as the charts have no profiles yet."""
    return mesh.profile == "demo" and minor(mesh.version) < KNOWS_PROFILES


def _below(key: str, values: Values, mesh: Mesh) -> Values:
    """What older charts have below the component's name and newer ones at the top."""
    if not values or minor(mesh.version) >= FLAT:
        return values
    return {key: values}


def _revision(mesh: Mesh) -> Values:
    return {"revision": mesh.revision} if mesh.revision else {}


def _pull_secrets(mesh: Mesh) -> Values:
    return {"imagePullSecrets": list(mesh.image_pull_secrets)} if mesh.image_pull_secrets else {}


def _proxy_images(mesh: Mesh) -> Values:
    """Sidecars, their init containers and the gateways, whose pods are filled in by injection, too."""
    if "proxyv2" not in mesh.images:
        return {}
    return {key: {"image": mesh.images["proxyv2"]} for key in ("proxy", "proxy_init")}


# Gateways: what the profiles of istioctl give them does not reach the gateway chart.

_Ports = tuple[tuple[str, int, int], ...]
_INGRESS_PORTS: Final[_Ports] = (("status-port", 15021, 15021), ("http2", 80, 8080), ("https", 443, 8443))
_DEMO_PORTS: Final[_Ports] = (("tcp", 31400, 31400), ("tls", 15443, 15443))
_EGRESS_PORTS: Final[_Ports] = (("http2", 80, 8080), ("https", 443, 8443))

# The injected one looks every 15 seconds, which is how long a gateway waits that just missed a look.
_READINESS: Final = {
    "httpGet": {"path": "/healthz/ready", "port": 15021, "scheme": "HTTP"},
    "initialDelaySeconds": 1,
    "periodSeconds": 2,
    "timeoutSeconds": 1,
    "successThreshold": 1,
    "failureThreshold": 30,
}
_STRATEGY: Final = {"rollingUpdate": {"maxSurge": "100%", "maxUnavailable": "25%"}}


def _gateway(mesh: Mesh, name: str, ports: _Ports, service_type: str) -> Values:
    values: Values = {
        "serviceAccount": {"name": f"{name}-service-account"},
        "service": {
            "type": service_type,
            "ports": [
                {"name": name, "port": port, "targetPort": target, "protocol": "TCP"} for name, port, target in ports
            ],
        },
        # The pod's image is `auto`, which Kubernetes takes for :latest and would pull at every start.
        "imagePullPolicy": "IfNotPresent",
        # The chart has no version in its pods: this makes them roll when istiod would inject another proxy.
        "podAnnotations": {names.SIDECAR: sidecar(mesh)},
        **_revision(mesh),
    }
    if minor(mesh.version) >= GATEWAY_ROLLOUT:
        values |= {"readinessProbe": _READINESS, "strategy": _STRATEGY}
    if mesh.profile == "demo":
        values |= {"autoscaling": {"enabled": False}, "resources": profiles.SMALL_PROXY}
    if mesh.image_pull_secrets:
        values["imagePullSecrets"] = [{"name": name} for name in mesh.image_pull_secrets]
    return values
