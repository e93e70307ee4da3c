"""Charts from other places than the official one, and images pinned by digest, with the real helm."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from components import Istio
from components.istio import IstioArgs
from config import Mesh
from harness.charts import mirror, pack, refusing
from istio import schemas
from mesh.cluster.objects import Identity, identity
from mesh.program import copies, render
from mesh.program.helm import HelmError
from mesh.program.recorder import record

DIGEST = f"sha256:{'0' * 64}"
IMAGES = {name: f"registry.example.com/istio/{name}@{DIGEST}" for name in ("pilot", "proxyv2", "install-cni")}


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pack(tmp_path_factory.mktemp("packed"))


def rendered(charts: str, **mesh: Any) -> dict[Identity, render.Object]:
    declared = Mesh(version="1.31.0", profile="demo", charts=charts, **mesh)
    return {identity(found): found for found in render.rendered(record(lambda: Istio("mesh", IstioArgs(declared))))}


def test_packed_charts_and_a_mirror_give_the_same_objects(
    charts: Path, packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HELM_CACHE_HOME", str(tmp_path))
    expected = rendered(str(charts))
    assert len(expected) > 40
    assert rendered(str(packed)) == expected
    with mirror(packed) as url:
        assert rendered(url) == expected


def test_a_chart_that_refuses_itself_gives_what_the_healthy_one_gives(
    charts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From everywhere; helm refuses it as it is, and what is remote is told by its version."""
    monkeypatch.setenv("HELM_CACHE_HOME", str(tmp_path / "cache"))
    expected, broken = rendered(str(charts)), refusing(tmp_path / "broken")
    (tmp_path / "packed").mkdir()
    packed = pack(tmp_path / "packed", broken)

    def without_schema(place: str, project: Path) -> dict[Identity, render.Object]:
        mesh = Mesh(version="1.31.0", profile="demo", charts=place)
        copies.make(mesh, project)
        recording = record(lambda: Istio("mesh", IstioArgs(mesh)))
        assert {one.inputs["chart"] for one in recording.named("Release").values()} >= {
            ".mesh/charts/gateway-1.31.0.tgz"
        }
        return {identity(found): found for found in render.rendered(recording, project)}

    assert without_schema(str(broken), tmp_path / "one") == expected
    assert without_schema(str(packed), tmp_path / "two") == expected
    with mirror(packed) as url:
        with pytest.raises(HelmError, match="additional"):
            rendered(url)
        monkeypatch.setattr(schemas, "_REFUSED", (("1.31.0", "1.31.0"),))
        assert without_schema(url, tmp_path / "three") == expected


def test_images_by_digest_reach_every_pod(charts: Path) -> None:
    objects = rendered(str(charts), images=IMAGES)

    def image(kind: str, name: str) -> str:
        (container,) = objects[Identity(kind, "istio-system", name)]["spec"]["template"]["spec"]["containers"]
        found: str = container["image"]
        return found

    assert image("Deployment", "istiod") == IMAGES["pilot"]
    assert image("DaemonSet", "istio-cni-node") == IMAGES["install-cni"]
    # Those of sidecars and gateways come from here.
    injector = objects[Identity("ConfigMap", "istio-system", "istio-sidecar-injector")]["data"]["values"]
    assert injector.count(f'"image": "{IMAGES["proxyv2"]}"') == 2  # the proxy and its init container


def test_a_hub_takes_the_place_of_the_official_one(charts: Path) -> None:
    text = render.as_yaml(rendered(str(charts), hub="registry.example.com/istio").values())
    assert "registry.example.com/istio/pilot:1.31.0" in text
    assert "docker.io/istio" not in text


def test_a_chart_that_is_not_there_is_named(packed: Path, tmp_path: Path) -> None:
    for file in packed.glob("[!c]*.tgz"):
        (tmp_path / file.name).symlink_to(file)
    with pytest.raises(HelmError, match=f"{tmp_path}/cni"):
        rendered(str(tmp_path))
