"""What the stack installs against what istioctl of the same version would, object by object and field by field.

Every difference is a row of a table in docs/profiles-and-versions.md, with its reason, and every row is a difference.
"""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import yaml

from components import Istio
from components.istio import IstioArgs
from config import Mesh
from config.files import PROJECT
from istio.profiles import PROFILES as ISTIO_PROFILES
from mesh.cluster.objects import Identity, Loader, identity
from mesh.drift.compare import ABSENT, Difference, at, differences
from mesh.program import render
from mesh.program.recorder import record

PAGE = PROJECT / "docs" / "profiles-and-versions.md"
PROFILES = ("default", "minimal", "demo")
GATEWAYS = ("istio-ingressgateway", "istio-egressgateway")
ONLY_HERE, ONLY_THERE = "only in the stack", "only in istioctl"

Objects = Mapping[Identity, dict[str, Any]]


@dataclass(frozen=True)
class Row:
    """One line of the table; `objects` and `fields` are patterns with `*`."""

    objects: str
    fields: str
    reason: str

    def matches(self, name: Identity, field: str) -> bool:
        return _matches(self.objects, f"{name.kind} {name.name}") and _matches(self.fields, field)


def _matches(patterns: str, text: str) -> bool:
    return any(
        re.fullmatch(re.escape(pattern.strip("` ")).replace(r"\*", ".*"), text) for pattern in patterns.split(", ")
    )


def rows() -> list[Row]:
    lines = PAGE.read_text().partition("## What differs from istioctl")[2].partition("\n## ")[0].splitlines()
    table = [line.strip("| ").split(" | ") for line in lines if line.startswith("|")]
    return [Row(*cells) for cells in table[2:]]


@cache
def ours(profile: str, charts: Path) -> Objects:
    """What the component declares for a plain configuration; the gateways as istiod injects them at the API server."""
    mesh = Mesh(version="1.31.0", profile=profile, cni=True, charts=str(charts))  # type: ignore[arg-type]
    found = by_identity(render.rendered(record(lambda: Istio("mesh", IstioArgs(mesh)))))
    return {**found, **injected(found)}


@cache
def theirs(profile: str) -> Objects:
    generate = ["istioctl", "manifest", "generate", f"--set=profile={profile}", "--set=components.cni.enabled=true"]
    return by_identity(yaml.load_all(run(generate), Loader))


def by_identity(documents: Iterable[dict[str, Any] | None]) -> Objects:
    return {identity(document): readable(document) for document in documents if document}


def readable(document: dict[str, Any]) -> dict[str, Any]:
    """Configuration within ConfigMaps as configuration, so that its fields are compared, not its text."""
    data = document.get("data")
    if document["kind"] != "ConfigMap" or not data:
        return document
    return {**document, "data": {key: yaml.safe_load(text) for key, text in data.items()}}


def injected(objects: Objects) -> Objects:
    """The gateway chart leaves all but the labels of its pods to the injector, which runs here as it would there."""
    gateways = [found for name, found in objects.items() if name.kind == "Deployment" and name.name in GATEWAYS]
    if not gateways:
        return {}
    config = {name.name: found["data"] for name, found in objects.items() if name.kind == "ConfigMap"}
    files = {
        "meshConfigFile": yaml.safe_dump(config["istio"]["mesh"]),
        "injectConfigFile": yaml.safe_dump(config["istio-sidecar-injector"]["config"]),
        "valuesFile": json.dumps(config["istio-sidecar-injector"]["values"]),
        "filename": yaml.safe_dump_all(gateways),
    }
    with TemporaryDirectory() as folder:
        for name, text in files.items():
            (Path(folder) / name).write_text(text)
        options = [f"--{name}={Path(folder) / name}" for name in files]
        # With a revision it does not look for a cluster.
        return by_identity(yaml.load_all(run(["istioctl", "kube-inject", "--revision=default", *options]), Loader))


def run(command: list[str]) -> str:
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout


def compare(profile: str, charts: Path) -> list[tuple[Identity, str, Any, Any]]:
    """Object, field, and the values of both."""
    stack, istioctl = ours(profile, charts), theirs(profile)
    found: list[tuple[Identity, str, Any, Any]] = [
        *((name, ONLY_HERE, None, None) for name in stack.keys() - istioctl.keys()),
        *((name, ONLY_THERE, None, None) for name in istioctl.keys() - stack.keys()),
    ]
    for name in stack.keys() & istioctl.keys():
        one, other = stack[name], istioctl[name]
        fields: dict[str, Difference] = {
            **{difference.field: difference for difference in differences(one, other)},
            **{difference.field: difference for difference in differences(other, one)},
        }
        found += [
            (name, field, at(one, difference.path), at(other, difference.path)) for field, difference in fields.items()
        ]
    return sorted(found, key=lambda entry: (entry[0], entry[1]))


@pytest.mark.parametrize("profile", PROFILES)
def test_every_difference_has_its_reason(profile: str, charts: Path) -> None:
    table = rows()
    unexplained = [
        f"{name}: {field}: {one!r} here, {other!r} there"
        for name, field, one, other in compare(profile, charts)
        if not any(row.matches(name, field) for row in table)
    ]
    assert not unexplained, "\n".join(unexplained)


def test_no_reason_outlives_its_difference(charts: Path) -> None:
    found = [(name, field) for profile in PROFILES for name, field, *_ in compare(profile, charts)]
    assert rows()
    assert not [row for row in rows() if not any(row.matches(name, field) for name, field in found)]
    patterns = {pattern for row in rows() for pattern in row.fields.split(", ") if pattern.startswith("`")}
    assert not {pattern for pattern in patterns if not any(_matches(pattern, field) for _, field in found)}


@pytest.mark.parametrize("profile", PROFILES)
def test_what_traffic_depends_on_is_equal(profile: str, charts: Path) -> None:
    """Apart from the table, so that no row can ever excuse these."""
    stack, istioctl = ours(profile, charts), theirs(profile)

    def both(name: Identity, *path: str) -> tuple[Any, Any]:
        one, other = (at(objects[name], path) for objects in (stack, istioctl))
        assert one is not ABSENT
        return one, other

    def config_map(name: str) -> Identity:
        return Identity("ConfigMap", "istio-system", name)

    def equal(name: Identity, *path: str) -> None:
        one, other = both(name, *path)
        assert one == other, (name, path)

    equal(config_map("istio"), "data", "mesh")
    equal(config_map("istio-sidecar-injector"), "data")
    equal(config_map("istio-cni-config"), "data")
    istiod = Identity("Deployment", "istio-system", "istiod")
    equal(istiod, "spec", "template", "spec")
    equal(Identity("DaemonSet", "istio-system", "istio-cni-node"), "spec", "template", "spec")
    gateways = [name for name in istioctl if name.kind == "Deployment" and name.name in GATEWAYS]
    assert len(gateways) == {"minimal": 0, "default": 1, "demo": 2}[profile]
    for gateway in gateways:
        equal(gateway, "spec", "selector")
        equal(gateway, "spec", "strategy")
        equal(gateway, "spec", "template", "spec", "serviceAccountName")
        (one,), (other,) = both(gateway, "spec", "template", "spec", "containers")
        assert {key: one[key] for key in ("image", "args", "readinessProbe")} == {
            key: other[key] for key in ("image", "args", "readinessProbe")
        }
        service = gateway._replace(kind="Service")
        equal(service, "spec", "type")
        equal(service, "spec", "selector")
        labels = at(stack[gateway], ("spec", "template", "metadata", "labels"))
        assert at(stack[service], ("spec", "selector")).items() <= labels.items()
        assert ports(stack[service]) == ports(istioctl[service])
        assert gateway._replace(kind="ServiceAccount", name=f"{gateway.name}-service-account") in stack
    for name in (name for name in istioctl if name.kind == "HorizontalPodAutoscaler"):
        equal(name, "spec")


@pytest.mark.parametrize("name", [profile.name for profile in ISTIO_PROFILES if profile.is_in("1.31.0")])
def test_istioctl_has_every_profile_that_is_listed(name: str) -> None:
    assert "kind: IstioOperator" not in run(["istioctl", "manifest", "generate", f"--set=profile={name}"])


def test_every_profile_of_the_charts_is_listed(charts: Path) -> None:
    found = {path.stem.removeprefix("profile-") for path in charts.glob("*/files/profile-*.yaml")}
    found = {name for name in found if not name.startswith(("compatibility-version-", "platform-"))}
    assert found <= {profile.name for profile in ISTIO_PROFILES if profile.is_in("1.31.0")}


def ports(service: Mapping[str, Any]) -> list[tuple[str, int, int]]:
    return [(port["name"], port["port"], port["targetPort"]) for port in service["spec"]["ports"]]
