"""What the sidecars of a control plane are like, as one short text that changes when they do."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Any

# What the injection templates of the istiod chart read, files/*injection-template.yaml, from 1.17 to 1.31: its values
# for the injector, and of the mesh configuration what reaches a pod in the environment of its proxy. All else in the
# values is istiod's own affair, and reaches the proxies by xDS.
_TOP = ("profile", "revision", "sidecarInjectorWebhook", "cni", "istio_cni", "gateways")
_INSIDE = {
    "global": (
        *("caAddress", "caName", "hub", "imagePullPolicy", "imagePullSecrets", "istioNamespace", "jwtPolicy"),
        *("logAsJson", "logging", "meshID", "mountMtlsCerts", "multiCluster", "nativeNftables", "network"),
        *("pilotCertProvider", "platform", "proxy", "proxy_init", "sds", "sts", "tag", "trustBundleName"),
        *("trustDomain", "variant"),
    ),
    "meshConfig": ("defaultConfig", "proxyInboundListenPort", "proxyListenPort", "trustDomain"),
    "pilot": ("cni", "crlConfigMapName"),
}
_ENVIRONMENT = ("ENABLE_CLUSTER_TRUST_BUNDLE_API", "ENABLE_NATIVE_SIDECARS")


def fingerprint(version: str, values: Mapping[str, Any]) -> str:
    """The version, and a digest of what else makes the sidecars of an istiod that is installed with these values."""
    injected = json.dumps(dict(_injected(values)), sort_keys=True)
    return f"{version} {hashlib.sha256(injected.encode()).hexdigest()[:10]}"


def _injected(values: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for key in _TOP:
        if key in values:
            yield key, values[key]
    for outer, keys in _INSIDE.items():
        for key in keys:
            if key in values.get(outer, {}):
                yield f"{outer}.{key}", values[outer][key]
    environment = {**values.get("pilot", {}).get("env", {}), **values.get("env", {})}
    for name in _ENVIRONMENT:
        if name in environment:
            yield name, environment[name]
