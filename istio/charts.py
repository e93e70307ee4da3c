"""Istio's Helm charts: which ones make a mesh, where they lie, and the values that the configuration means.

https://istio.io/latest/docs/setup/install/helm/ and https://istio.io/latest/docs/setup/additional-setup/config-profiles/
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import names
from config import Mesh, merged
from config.mesh import DEFAULT_REVISION, ChartKey
from config.versions import minor
from istio.sidecar import fingerprint

# From 1.31 on Istio publishes only here, and the older places (gcr.io, storage.googleapis.com) go away in December
# 2026; the charts of older versions lie here too:
# https://istio.io/latest/news/releases/1.31.x/announcing-1.31/upgrade-notes/
OFFICIAL_CHARTS = "https://blob.istio.io/istio-release/charts"
OFFICIAL_HUB = "docker.io/istio"

BASE: Final = "base"
CNI: Final = "cni"
ISTIOD: Final = "istiod"
INGRESS: Final = "ingress"
EGRESS: Final = "egress"


@dataclass(frozen=True)
class Chart:
    """One Helm release of the mesh. `key` is its name under `mesh.values`."""

    key: ChartKey
    release: str
    chart: str
    repository: str | None
    version: str | None
    values: Mapping[str, Any] = field(default_factory=dict)


def charts(mesh: Mesh) -> list[Chart]:
    """The releases of this mesh, each with its complete values; the user's own are laid over ours.

    Of several control planes each has its own istiod. The CRDs are those of the newest, as newer ones serve an older
    istiod, too; the CNI node agent is that of the oldest, as it is compatible with a control plane of its own minor
    version or of the next; the gateways are those of the default one.
    https://istio.io/latest/docs/setup/upgrade/canary/
    """
    chosen: list[tuple[ChartKey, str, Mesh, Callable[[Mesh], dict[str, Any]]]] = [
        (BASE, "base", mesh.newest, lambda newest: _base(newest, mesh.default_revision)),
        *((ISTIOD, "istiod", plane, _istiod) for plane in mesh.control_planes.values()),
    ]
    if mesh.cni:
        chosen.append((CNI, "cni", mesh.oldest, _cni))
    if mesh.has_ingress:
        chosen.append((INGRESS, "gateway", mesh.current, _ingress))
    if mesh.has_egress:
        chosen.append((EGRESS, "gateway", mesh.current, _egress))
    return [
        Chart(key, _release(key, plane), *_place(plane, chart), _with_own(plane, key, values(plane)))
        for key, chart, plane, values in chosen
    ]


def sidecar(mesh: Mesh) -> str:
    """What the sidecars of a mesh with one control plane are like: a text that changes when, and only when, they do.

    Of somebody else's control plane no more is known than its revision.
    """
    if mesh.mode == "existing":
        return mesh.default_revision
    return fingerprint(mesh.version, _with_own(mesh, ISTIOD, _istiod(mesh)))


def _with_own(mesh: Mesh, key: ChartKey, values: dict[str, Any]) -> dict[str, Any]:
    return merged(values, mesh.values.get(key, {}))


def _release(key: ChartKey, mesh: Mesh) -> str:
    return names.istiod(mesh.revision) if key == ISTIOD else names.RELEASES[key]


def _place(mesh: Mesh, chart: str) -> tuple[str, str | None, str | None]:
    """Chart, repository and version as a Helm release takes them."""
    place = mesh.charts or OFFICIAL_CHARTS
    if place.startswith(("https://", "http://")):
        return chart, place, mesh.version
    if place.startswith("oci://"):
        return f"{place.rstrip('/')}/{chart}", None, mesh.version
    packed = Path(place) / f"{chart}-{mesh.version}.tgz"
    return str(packed if packed.exists() else Path(place) / chart), None, None


def _global(mesh: Mesh) -> dict[str, Any]:
    images: dict[str, Any] = {"hub": mesh.hub or OFFICIAL_HUB, "tag": mesh.version}
    if mesh.image_pull_secrets:
        images["imagePullSecrets"] = list(mesh.image_pull_secrets)
    return {**images, "istioNamespace": mesh.namespace}


def _common(mesh: Mesh) -> dict[str, Any]:
    """What every chart takes. `default` and `minimal` are the charts' own defaults and no profile of theirs."""
    values: dict[str, Any] = {"global": _global(mesh)}
    if mesh.profile == "demo":
        values["profile"] = "demo"
    if mesh.platform:
        values["global"]["platform"] = mesh.platform
    return values


def _base(mesh: Mesh, default_revision: str) -> dict[str, Any]:
    values: dict[str, Any] = {"global": {"istioNamespace": mesh.namespace}}
    if default_revision != DEFAULT_REVISION:  # it checks the rules that name no revision
        values["defaultRevision"] = default_revision
    return values


def _cni(mesh: Mesh) -> dict[str, Any]:
    return _common(mesh)


def _istiod(mesh: Mesh) -> dict[str, Any]:
    values = {**_common(mesh), "pilot": {"cni": {"enabled": mesh.cni}}}
    return {**values, "revision": mesh.revision} if mesh.revision else values


# The ports, resources and replicas of the gateways in the profiles of istioctl, which do not reach the gateway chart.
_INGRESS_PORTS = {
    "default": (("status-port", 15021, 15021), ("http2", 80, 8080), ("https", 443, 8443)),
    "demo": (
        ("status-port", 15021, 15021),
        ("http2", 80, 8080),
        ("https", 443, 8443),
        ("tcp", 31400, 31400),
        ("tls", 15443, 15443),
    ),
}
_EGRESS_PORTS = (("http2", 80, 8080), ("https", 443, 8443))

# That of istioctl's gateways. The injected one looks every 15 seconds, which is how long a gateway waits that just
# missed a look; the charts of older versions may not take another.
_READINESS = {
    "httpGet": {"path": "/healthz/ready", "port": 15021, "scheme": "HTTP"},
    "initialDelaySeconds": 1,
    "periodSeconds": 2,
    "timeoutSeconds": 1,
    "successThreshold": 1,
    "failureThreshold": 30,
}


def _gateway(mesh: Mesh, ports: tuple[tuple[str, int, int], ...], service_type: str) -> dict[str, Any]:
    values: dict[str, Any] = {
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
    }
    if mesh.revision:
        values["revision"] = mesh.revision
    if minor(mesh.version) >= (1, 31):
        values["readinessProbe"] = _READINESS
    if mesh.profile == "demo":
        values["autoscaling"] = {"enabled": False}
        values["resources"] = {"requests": {"cpu": "10m", "memory": "40Mi"}}
    if mesh.image_pull_secrets:
        values["imagePullSecrets"] = [{"name": name} for name in mesh.image_pull_secrets]
    return values


def _ingress(mesh: Mesh) -> dict[str, Any]:
    return _gateway(mesh, _INGRESS_PORTS["demo" if mesh.profile == "demo" else "default"], "LoadBalancer")


def _egress(mesh: Mesh) -> dict[str, Any]:
    return _gateway(mesh, _EGRESS_PORTS, "ClusterIP")
