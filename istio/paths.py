"""Which paths the values of each chart have, from which minor version to which, and where that was read.

Whatever `istio/values.py` generates for a version lies on or below one of its paths here; a test holds it to that.
Sources: `values.yaml` (for gateway `values.schema.json`, too, which refuses all it does not list) of the charts at the
versions named, in istio/istio and in the copies of the released charts that the Sail operator keeps
(https://github.com/istio-ecosystem/sail-operator/tree/main/resources); and the change notes of a minor version,
https://istio.io/latest/news/releases/1.31.x/announcing-1.31/change-notes/ for instance.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from config.versions import NEWEST_MINOR, OLDEST_MINOR, minor

ChartName = Literal["base", "istiod", "cni", "gateway"]

# What moved, and the minor version that has it in its new place.
KNOWS_PROFILES: Final = (1, 21)
PILOT_CNI: Final = (1, 22)
FLAT: Final = (1, 24)
PLATFORMS: Final = (1, 24)
GATEWAY_ROLLOUT: Final = (1, 31)


@dataclass(frozen=True)
class Path:
    """`path` with all below it, from the minor version `since` to `until`, both included."""

    path: str
    source: str
    since: str = OLDEST_MINOR
    until: str = NEWEST_MINOR

    def is_in(self, version: str) -> bool:
        return minor(f"{self.since}.0") <= minor(version) <= minor(f"{self.until}.0")


_ALL = "1.17.1, 1.19.3, 1.21.6, 1.22.5, 1.23.0, 1.24.0, 1.31.0"
_NESTED = "1.17.1, 1.19.3, 1.21.6, 1.22.5, 1.23.0"
_FLAT = "1.24.0, 1.31.0"
_PROFILES = "change notes of 1.21 (issue 47838); templates/zzz_profile.yaml of 1.21.6 and 1.31.0"
_PLATFORMS = "change notes of 1.24 (issue 52981); templates/zzz_profile.yaml of 1.31.0"

PATHS: dict[ChartName, tuple[Path, ...]] = {
    "base": (
        Path("global.istioNamespace", _ALL),
        Path("global.imagePullSecrets", _ALL),
        Path("defaultRevision", _ALL),
    ),
    "istiod": (
        Path("global.hub", _ALL),
        Path("global.tag", _ALL),
        Path("global.istioNamespace", _ALL),
        Path("global.imagePullSecrets", _ALL),
        Path("global.proxy", _ALL),
        Path("global.proxy_init", _ALL),
        Path("global.platform", _PLATFORMS, since="1.24"),
        Path("sidecarInjectorWebhookAnnotations", "1.24.0, 1.25.1, 1.26.0, 1.31.0; 1.21.6 has none", since="1.24"),
        Path("meshConfig", _ALL),
        Path("revision", _ALL),
        Path("revisionTags", _ALL),
        Path("profile", _PROFILES, since="1.21"),
        Path(
            "istio_cni.enabled", "1.17.1, 1.19.3; deprecated in 1.22, gone in 1.24 (issues 49290, 52645)", until="1.23"
        ),
        Path("pilot.cni.enabled", "change notes of 1.22 (issue 49290); 1.22.5, 1.23.0", since="1.22", until="1.23"),
        Path("cni.enabled", _FLAT, since="1.24"),
        Path("pilot.autoscaleEnabled", _NESTED, until="1.23"),
        Path("pilot.traceSampling", _NESTED, until="1.23"),
        Path("pilot.resources", _NESTED, until="1.23"),
        Path("pilot.image", _NESTED, until="1.23"),
        Path("autoscaleEnabled", _FLAT, since="1.24"),
        Path("traceSampling", _FLAT, since="1.24"),
        Path("resources", _FLAT, since="1.24"),
        Path("image", _FLAT, since="1.24"),
    ),
    "cni": (
        Path("global.hub", _ALL),
        Path("global.tag", _ALL),
        Path("global.imagePullSecrets", _ALL),
        Path("global.platform", _PLATFORMS, since="1.24"),
        Path("profile", _PROFILES, since="1.21"),
        Path("revision", _ALL),
        Path("cni.image", _NESTED, until="1.23"),
        Path("image", _FLAT, since="1.24"),
    ),
    "gateway": (
        Path("serviceAccount.name", _ALL),
        Path("service.type", _ALL),
        Path("service.ports", _ALL),
        Path("autoscaling.enabled", _ALL),
        Path("podAnnotations", _ALL),
        Path("resources", _ALL),
        Path("revision", _ALL),
        Path("imagePullSecrets", _ALL),
        Path("imagePullPolicy", "change notes of 1.17 (issue 42852); 1.31.0"),
        # A copy of the schema from between 1.23 and 1.31 has these, too; which release was the first was not found.
        Path("readinessProbe", "1.31.0", since="1.31"),
        Path("strategy", "1.31.0", since="1.31"),
    ),
}


def has(chart: ChartName, path: str, version: str) -> bool:
    """Whether the values of a chart have `path` or something above it."""
    return any(known.is_in(version) and f"{path}.".startswith(f"{known.path}.") for known in PATHS[chart])
