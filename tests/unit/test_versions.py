"""Which versions run, read from what the cluster has."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from config import files
from mesh import __main__, cli
from mesh.cluster import versions
from mesh.cluster.versions import version_of

from .fake_kubectl import FakeKubectl, Object
from .given import config


def workload(kind: str, name: str, labels: dict[str, str], image: str, **template: Any) -> Object:
    containers = [{"name": template.pop("container", "discovery"), "image": image}]
    return {
        "kind": kind,
        "metadata": {"name": name, "namespace": "istio-system", "labels": labels},
        "spec": {
            "replicas": 1,
            "selector": {"matchLabels": {"app": name}},
            "template": {"metadata": template, "spec": {"containers": containers}},
        },
        "status": {"readyReplicas": 1, "numberReady": 2, "desiredNumberScheduled": 2},
    }


def pod(
    name: str, namespace: str, proxy: str, *, alone: bool = False, going: bool = False, revision: str = ""
) -> Object:
    sidecar = {"name": "istio-proxy", "image": f"istio/proxyv2:{proxy}"}
    metadata: Object = {"name": name, "namespace": namespace, "labels": {"app": name}}
    if revision:
        metadata["annotations"] = {"istio.io/rev": revision}
    if going:
        metadata["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    spec = (
        {"containers": [sidecar]}
        if alone
        else {"containers": [{"name": "app", "image": "x"}], "initContainers": [sidecar]}
    )
    return {"kind": "Pod", "metadata": metadata, "spec": spec}


GATEWAY = {"annotations": {"inject.istio.io/templates": "gateway"}, "container": "istio-proxy"}


def cluster(proxies: str = "1.31.0") -> FakeKubectl:
    return FakeKubectl(
        objects=[
            workload(
                "Deployment", "istiod", {"app": "istiod", "istio.io/rev": "default"}, "istio/pilot:1.31.0-distroless"
            ),
            workload("Deployment", "istiod-canary", {"app": "istiod", "istio.io/rev": "canary"}, "istio/pilot:1.31.0"),
            workload("DaemonSet", "istio-cni-node", {"k8s-app": "istio-cni-node"}, "istio/install-cni:1.31.0"),
            workload("Deployment", "istio-ingressgateway", {}, "auto", **GATEWAY),
            workload("Deployment", "shop", {}, "shop:7"),
            pod("istio-ingressgateway", "istio-system", "1.31.0", alone=True),
            pod("a", "shop", proxies, revision="default"),
            pod("b", "shop", "1.31.0", revision="default"),
            pod("c", "istio-demo", "1.31.0", revision="canary"),
            pod("d", "istio-demo", "1.29.0", going=True),
        ]
    )


@pytest.mark.parametrize(
    ("image", "version"),
    [
        ("docker.io/istio/pilot:1.31.0", "1.31.0"),
        ("registry:5000/istio/proxyv2:1.17.1-distroless", "1.17.1"),
        ("istio/pilot:1.31.0@sha256:abc", "1.31.0"),
        ("registry:5000/istio/pilot@sha256:abc", "sha256:abc"),
        ("registry:5000/istio/pilot", "unknown"),
    ],
)
def test_version_of_an_image(image: str, version: str) -> None:
    assert version_of(image) == version


def test_everything_is_found_and_counted() -> None:
    found = versions.read(cluster("1.30.0"))
    assert [(plane.revision, plane.version, plane.ready) for plane in found.control_planes] == [
        ("default", "1.31.0", 1),
        ("canary", "1.31.0", 1),
    ]
    assert found.cni and (found.cni.version, found.cni.ready, found.cni.wanted) == ("1.31.0", 2, 2)
    assert [(gateway.name, gateway.version) for gateway in found.gateways] == [("istio-ingressgateway", "1.31.0")]
    assert [(p.version, p.revision, p.count) for p in found.proxies] == [
        ("1.30.0", "default", 1),
        ("1.31.0", "canary", 1),
        ("1.31.0", "default", 1),
    ]


Show = Callable[..., tuple[int, list[str]]]


@pytest.fixture
def show(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Show:
    """Runs `mesh version` for a cluster and a configuration of the mesh: exit code, and what it printed."""

    def run(cluster: FakeKubectl, *options: str, **mesh: Any) -> tuple[int, list[str]]:
        monkeypatch.setattr(cli, "cluster", lambda _stack: cluster)
        monkeypatch.setattr(files, "effective", lambda _stack: config(mesh=mesh))
        monkeypatch.setattr("sys.argv", ["mesh", "version", "--stack", "dev", *options])
        code = __main__.main()
        return code, capsys.readouterr().out.splitlines()

    return run


BOTH = {"version": "", "revision": "default", "revisions": {"default": {"version": "1.31.0"}}}


def with_canary(version: str) -> dict[str, Any]:
    return {**BOTH, "revisions": {"default": {"version": "1.31.0"}, "canary": {"version": version}}}


@pytest.mark.parametrize(("proxies", "code"), [("1.31.0", cli.Exit.GOOD), ("1.30.0", cli.Exit.FAILED)])
def test_a_difference_stands_out(show: Show, proxies: str, code: cli.Exit) -> None:
    ended, lines = show(cluster(proxies), **with_canary("1.31.0"))
    assert ended == code
    assert [line for line in lines if "≠" in line] == [line for line in lines if "1.30.0" in line]
    assert bool([part for part, text in entries(lines) if "≠" in text]) == bool(code)
    ended, lines = show(cluster(proxies), "--json", **with_canary("1.31.0"))
    shown = json.loads("\n".join(lines))
    assert (ended, shown["differ"]) == (code, bool(code))
    assert shown["declared"] == {"default": "1.31.0", "canary": "1.31.0"}


def entries(lines: list[str]) -> list[tuple[str, str]]:
    """Each part with all that is said of it, on its line or on those below it."""
    found: list[tuple[str, str]] = []
    for line in lines[1:] if lines[0].startswith("part ") else lines:
        if line.startswith(" "):
            part, text = found.pop()
            found.append((part, text + line))
        else:
            found.append((line.split("  ")[0], line))
    return found


def test_every_revision_is_held_against_its_own_version(show: Show) -> None:
    ended, lines = show(cluster(), **with_canary("1.30.4"))
    assert ended == cli.Exit.FAILED
    differ = {part for part, text in entries(lines) if "≠" in text}
    # The CNI agent is that of the oldest control plane.
    assert differ == {"control plane canary", "CNI", "sidecars of canary"}


def test_a_control_plane_that_is_not_there_or_not_declared_differs(show: Show) -> None:
    _, lines = show(FakeKubectl(), version="1.31.0")
    assert [line.split() for line in lines[1:]] == [["control", "plane", "default", "1.31.0", "none", "≠"]]
    _, lines = show(cluster(), version="1.31.0")
    assert {part for part, text in entries(lines) if "≠" in text} == {
        "control plane canary",
        "sidecars of canary",
    }


def test_sidecars_of_somebody_elses_mesh_are_held_against_their_control_plane(show: Show) -> None:
    assert show(cluster(), mode="existing")[0] == cli.Exit.GOOD
    ended, lines = show(cluster("1.30.0"), mode="existing")
    assert ended == cli.Exit.FAILED
    assert [part for part, text in entries(lines) if "≠" in text] == ["sidecars of default"]
    assert show(FakeKubectl(), mode="off")[1][1].split() == ["control", "plane", "–", "none"]


def test_a_cluster_without_istio_has_no_versions() -> None:
    found = versions.read(FakeKubectl())
    assert (found.control_planes, found.cni, found.gateways, found.proxies) == ([], None, [], [])


def test_stack_names_are_completed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("_MESH_COMPLETE", "bash_complete")
    monkeypatch.setenv("COMP_WORDS", "mesh drift --stack l")
    monkeypatch.setenv("COMP_CWORD", "3")
    with pytest.raises(SystemExit):
        __main__.main()
    assert capsys.readouterr().out.split() == ["plain,local"]
