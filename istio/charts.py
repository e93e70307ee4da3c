"""Istio's Helm charts: which ones make a mesh, and where they lie.

https://istio.io/latest/docs/setup/install/helm/
"""

from __future__ import annotations

import re
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NamedTuple

import yaml

import names
from config import Mesh, Problem
from config.files import PROJECT
from config.mesh import ChartKey
from istio import schemas, values
from istio.paths import ChartName

# The charts of all versions are here, and those from 1.31 on nowhere else; the older place ends in December 2026:
# https://istio.io/latest/blog/2026/retirement-of-gcp/
OFFICIAL_CHARTS = "https://blob.istio.io/istio-release/charts"

BASE: Final = "base"
CNI: Final = "cni"
ISTIOD: Final = "istiod"
INGRESS: Final = "ingress"
EGRESS: Final = "egress"


class Place(NamedTuple):
    """Chart, repository and version as a Helm release takes them."""

    chart: str
    repository: str | None
    version: str | None


@dataclass(frozen=True)
class Chart:
    """One Helm release of the mesh. `key` is its name under `mesh.values`.

    `made_from` is the chart that `chart` is a copy of without its schema, which `mesh.copies` makes; None as a rule.
    """

    key: ChartKey
    release: str
    chart: str
    repository: str | None
    version: str | None
    values: Mapping[str, Any] = field(default_factory=dict)
    made_from: Place | None = None


COPIES: Final = Path(".mesh/charts")
"""Of charts without their schema; a path in the project's folder, as the state must not name one of a machine."""


class _Chosen(NamedTuple):
    key: ChartKey
    chart: ChartName
    plane: Mesh
    """The mesh as if it had the control plane alone whose version this chart has."""
    values: values.Values


def charts(mesh: Mesh) -> list[Chart]:
    """The releases of this mesh, each with its complete values; the user's own are laid over ours."""
    return [_made(mesh, chosen) for chosen in _chosen(mesh)]


def _made(mesh: Mesh, chosen: _Chosen) -> Chart:
    release = names.istiod(chosen.plane.revision) if chosen.key == ISTIOD else names.RELEASES[chosen.key]
    own, place = values.with_own(mesh, chosen.key, chosen.values), _place(chosen.plane, chosen.chart)
    if not _refuses_itself(chosen, PROJECT):
        return Chart(chosen.key, release, *place, own)
    copy = Place(str(COPIES / f"{chosen.chart}-{chosen.plane.version}.tgz"), None, None)
    return Chart(chosen.key, release, *copy, own, place)


def problems(mesh: Mesh, project: Path) -> Iterator[Problem]:
    """The charts that the folder `mesh.charts` should have and has not, or has of another version.

    Relative paths begin in the folder `project`. What is remote is asked for by its version, and not looked at here.
    Where a chart goes without its schema, the user's values for it are checked as that would have done.
    """
    for chosen in (one for one in _chosen(mesh) if one.chart == "gateway"):
        key, own = f"mesh.values.{chosen.key}", mesh.values.get(chosen.key, {})
        if not _is_local(mesh):
            yield from schemas.problems(key, own, chosen.plane.version)
        elif _refuses_itself(chosen, project):
            yield from schemas.refused(key, own)
    if not _is_local(mesh):
        return
    for chart, plane in {(chosen.chart, chosen.plane.version): chosen.plane for chosen in _chosen(mesh)}.items():
        name, version = chart
        packed = _packed(plane, name)
        pull = f"helm pull {name} --repo {OFFICIAL_CHARTS} --version {version} --destination {mesh.charts}"
        found = _version_in(project, plane, name)
        if found is None:
            allowed = f"a folder with the chart {name}, as {name}/ or as {packed.name}"
            yield Problem("mesh.charts", mesh.charts, allowed, pull)
        elif _release(found) not in (_release(version), _UNRELEASED):
            where = packed if (project / packed).is_file() else Path(mesh.charts) / name
            allowed = f"charts of Istio {version}, as mesh.version says; {where} is of {found}"
            yield Problem("mesh.charts", mesh.charts, allowed, f"{pull}; or set mesh.version to {found}")


_UNRELEASED: Final = "1.0.0"
"""What Istio's sources have in the place of a chart's version."""


def _version_in(project: Path, mesh: Mesh, name: ChartName) -> str | None:
    """The version in a chart's Chart.yaml, '' where it has none; None where there is no chart."""
    try:
        chart = yaml.safe_load(_file_in(project, mesh, name, "Chart.yaml") or "")
    except yaml.YAMLError:
        return None
    return str(chart.get("version", "")) if isinstance(chart, dict) else None


def _file_in(project: Path, mesh: Mesh, name: ChartName, file: str) -> bytes | None:
    """A file of a chart in a folder, packed or not; None where it is not there."""
    packed = project / _packed(mesh, name)
    try:
        if not packed.is_file():
            return (project / mesh.charts / name / file).read_bytes()
        with tarfile.open(packed) as archive:
            found = archive.extractfile(f"{name}/{file}")
            return found.read() if found else None
    except (OSError, KeyError, tarfile.TarError):
        return None


def _refuses_itself(chosen: _Chosen, project: Path) -> bool:
    if chosen.chart != "gateway":
        return False
    if not _is_local(chosen.plane):
        return schemas.is_refused(chosen.plane.version)
    return schemas.refuses(_file_in(project, chosen.plane, chosen.chart, schemas.FILE) or b"")


def _release(version: str) -> str:
    """`1.31.0` of what vendors make of it: `v1.31.0`, `1.31.0-vendor.1`, `1.31.0+build`."""
    return re.split(r"[-+]", version.removeprefix("v"))[0]


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


def _place(mesh: Mesh, chart: ChartName) -> Place:
    place = mesh.charts or OFFICIAL_CHARTS
    if place.startswith("oci://"):
        return Place(f"{place.rstrip('/')}/{chart}", None, mesh.version)
    if _is_remote(place):
        return Place(chart, place, mesh.version)
    packed = _packed(mesh, chart)
    return Place(str(packed if (PROJECT / packed).exists() else Path(place) / chart), None, None)


def _is_local(mesh: Mesh) -> bool:
    """Whether the charts lie in a folder."""
    return bool(mesh.charts) and not _is_remote(mesh.charts)


def _is_remote(place: str) -> bool:
    return place.startswith(("https://", "http://", "oci://"))


def _packed(mesh: Mesh, chart: ChartName) -> Path:
    """As `helm pull` and `helm package` name it."""
    return Path(mesh.charts) / f"{chart}-{mesh.version}.tgz"
