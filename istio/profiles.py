"""Istio's configuration profiles: which there are, what each turns on, and what `demo` means for older charts.

https://istio.io/latest/docs/setup/additional-setup/config-profiles/
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from config.versions import NEWEST_MINOR, OLDEST_MINOR, minor
from istio.paths import KNOWS_PROFILES


@dataclass(frozen=True)
class Profile:
    """A profile of istioctl in the minor versions `since` to `until`; `refused` says why `mesh.profile` lacks it."""

    name: str
    about: str
    refused: str = ""
    since: str = OLDEST_MINOR
    until: str = NEWEST_MINOR

    def is_in(self, version: str) -> bool:
        return minor(f"{self.since}.0") <= minor(version) <= minor(f"{self.until}.0")


_AMBIENT = "ambient mode has no sidecars: the weights here are those of sidecars' rules"
_REMOTE = "a remote cluster has no istiod of its own: set mesh.mode to existing"
_PLATFORM = "a platform is no profile of its own: set mesh.platform to openshift"

PROFILES: Final = (
    Profile("default", "istiod and an ingress gateway, sized for production"),
    Profile("minimal", "istiod alone"),
    Profile("demo", "istiod and both gateways, small, with access logs and every request traced"),
    Profile("ambient", "istiod, CNI and ztunnel, without sidecars", _AMBIENT, since="1.18"),
    Profile("empty", "nothing, as a base for one's own", "there would be nothing to manage: set mesh.mode to off"),
    Profile("external", "a cluster whose istiod runs elsewhere; now called remote", _REMOTE, until="1.21"),
    Profile("openshift", "default, with what OpenShift needs", _PLATFORM),
    Profile("openshift-ambient", "ambient, with what OpenShift needs", _AMBIENT, since="1.22"),
    Profile("preview", "experimental features", "it changes from release to release: set what you want in mesh.values"),
    Profile("remote", "a cluster whose istiod runs elsewhere", _REMOTE),
    Profile(
        "stable",
        "only stable features may be configured",
        "it is default with an admission policy: set experimental.stableValidationPolicy in mesh.values",
        since="1.22",
    ),
)


def small(cpu: str, memory: str) -> dict[str, Any]:
    return {"requests": {"cpu": cpu, "memory": memory}}


# Of demo, in every version.
SMALL_PROXY: Final = small("10m", "40Mi")
SMALL_PILOT: Final = small("10m", "100Mi")

_COLLECTOR: Final = "opentelemetry-collector.{}.svc.cluster.local"
_ACCESS_LOGS: Final = {"name": "otel", "envoyOtelAls": {"service": _COLLECTOR.format("istio-system"), "port": 4317}}
_SKYWALKING: Final = {
    "name": "skywalking",
    "skywalking": {"service": "tracing.istio-system.svc.cluster.local", "port": 11800},
}
_TRACES: Final = {
    "name": "otel-tracing",
    "opentelemetry": {"port": 4317, "service": _COLLECTOR.format("otel-collector")},
}


def mesh_config(profile: str, version: str) -> Mapping[str, Any]:
    """The mesh config that a profile of istioctl adds to what the istiod chart has itself.

    1.17: manifests/profiles/demo.yaml of that release. 1.19: the `installed-state` of 1.19.0. 1.18 is taken to have the
    tracing provider, too, which https://github.com/istio/istio/pull/43041 added after the branch of 1.17; 1.20 to be
    like 1.19, as the documentation of January 2024 (https://github.com/istio/istio.io/pull/14566) still has the
    collector in that namespace. From 1.21 on the charts have the profiles themselves.
    """
    if minor(version) >= KNOWS_PROFILES:
        return {}
    config: dict[str, Any] = {"defaultConfig": {"proxyMetadata": {}}}
    if profile == "demo":
        tracing = [_TRACES] if minor(version) >= (1, 18) else []
        config |= {"accessLogFile": "/dev/stdout", "extensionProviders": [_ACCESS_LOGS, _SKYWALKING, *tracing]}
    return config
