"""Istio's Helm charts: which ones make a mesh, and where they lie.

https://istio.io/latest/docs/setup/install/helm/
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NamedTuple

import names
from config import Mesh, Problem
from config.mesh import ChartKey
from istio import values
from istio.paths import ChartName

# The charts of all versions are here, and those from 1.31 on nowhere else; the older place ends in December 2026:
# https://istio.io/latest/blog/2026/retirement-of-gcp/
OFFICIAL_CHARTS = "https://blob.istio.io/istio-release/charts"

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


class _Chosen(NamedTuple):
    key: ChartKey
    chart: ChartName
    plane: Mesh
    """The mesh as if it had the control plane alone whose version this chart has."""
    values: values.Values


def charts(mesh: Mesh) -> list[Chart]:
    """The releases of this mesh, each with its complete values; the user's own are laid over ours."""
    return [
        Chart(
            chosen.key,
            names.istiod(chosen.plane.revision) if chosen.key == ISTIOD else names.RELEASES[chosen.key],
            *_place(chosen.plane, chosen.chart),
            values.with_own(mesh, chosen.key, chosen.values),
        )
        for chosen in _chosen(mesh)
    ]


def missing(mesh: Mesh, project: Path) -> Iterator[Problem]:
    """The charts that `mesh.charts` should have and has not; relative paths begin in the folder `project`."""
    if not mesh.charts or _is_remote(mesh.charts):
        return
    for chart, plane in {(chosen.chart, chosen.plane.version): chosen.plane for chosen in _chosen(mesh)}.items():
        name, version = chart
        packed = _packed(plane, name)
        if not (project / packed).is_file() and not (project / mesh.charts / name / "Chart.yaml").is_file():
            yield Problem(
                "mesh.charts",
                mesh.charts,
                f"a folder with the chart {name}, as {name}/ or as {packed.name}",
                f"helm pull {name} --repo {OFFICIAL_CHARTS} --version {version} --destination {mesh.charts}",
            )


def _chosen(mesh: Mesh) -> Iterator[_Chosen]:
    """Of several control planes each has its own istiod.

    The CRDs are those of the newest, as newer ones serve an older istiod, too; the CNI node agent is that of the
    oldest, as it is compatible with a control plane of its own minor version or of the next; the gateways are those
    of the default one. https://istio.io/latest/docs/setup/upgrade/canary/
    """
    newest, oldest, current = mesh.newest, mesh.oldest, mesh.current
    yield _Chosen(BASE, "base", newest, values.base(newest, mesh.default_revision))
    for plane in mesh.control_planes.values():
        yield _Chosen(ISTIOD, "istiod", plane, values.istiod(plane))
    if mesh.cni:
        yield _Chosen(CNI, "cni", oldest, values.cni(oldest))
    if mesh.has_ingress:
        yield _Chosen(INGRESS, "gateway", current, values.ingress(current))
    if mesh.has_egress:
        yield _Chosen(EGRESS, "gateway", current, values.egress(current))


def _place(mesh: Mesh, chart: ChartName) -> tuple[str, str | None, str | None]:
    """Chart, repository and version as a Helm release takes them."""
    place = mesh.charts or OFFICIAL_CHARTS
    if place.startswith("oci://"):
        return f"{place.rstrip('/')}/{chart}", None, mesh.version
    if _is_remote(place):
        return chart, place, mesh.version
    packed = _packed(mesh, chart)
    return str(packed if packed.exists() else Path(place) / chart), None, None


def _is_remote(place: str) -> bool:
    return place.startswith(("https://", "http://", "oci://"))


def _packed(mesh: Mesh, chart: ChartName) -> Path:
    """As `helm pull` and `helm package` name it."""
    return Path(mesh.charts) / f"{chart}-{mesh.version}.tgz"
