"""From which version to which one Istio may go, judged by the pods that run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

import names
from mesh.upgrade import refusals

from .fake_kubectl import Object, made
from .given import config


def istiod(version: str, revision: str = "default", **metadata: Any) -> Object:
    return pod("istiod", f"docker.io/istio/pilot:{version}", {"app": "istiod", "istio.io/rev": revision}, **metadata)


def proxy(version: str, revision: str = "default", **metadata: Any) -> Object:
    annotations = {names.SIDECAR: f"{version} 0123456789"}
    return pod("proxy", "nginx", {"istio.io/rev": revision}, annotations=annotations, **metadata)


def pod(name: str, image: str, labels: dict[str, str], **metadata: Any) -> Object:
    found = made("Pod", name, "istio-system", spec={"containers": [{"image": image}]})
    found["metadata"].update(labels=labels, **metadata)
    return found


def refused(mesh: dict[str, Any], mesh_pods: Sequence[Object], workloads: Sequence[Object] = ()) -> list[str]:
    return list(refusals(config(mesh=mesh).mesh, mesh_pods, lambda: workloads))


BOTH = {
    "version": None,
    "revision": "stable",
    "revisions": {"stable": {"version": "1.30.0"}, "canary": {"version": "1.31.0"}},
}


@pytest.mark.parametrize(
    ("wanted", "mesh_pods", "workloads"),
    [
        ("1.31.0", [], []),
        ("1.31.0", [istiod("1.31.0")], []),
        ("1.31.0", [istiod("1.30.2")], []),
        ("1.30.9", [istiod("1.30.2")], []),
        ("1.30.1", [istiod("1.30.2")], []),
        ("1.31.0", [istiod("1.31.0-distroless")], []),
        ("1.31.0", [istiod("1.30.2"), istiod("1.31.0")], []),
        ("1.30.2", [istiod("1.30.2"), istiod("1.31.0")], []),
        ("1.30.2", [istiod("1.31.0"), proxy("1.30.2")], []),
        ("1.30.2", [istiod("1.31.0"), proxy("1.31.0")], [proxy("1.31.0"), proxy("1.30.2")]),
        ("1.30.2", [pod("istiod", "mirror/pilot@sha256:0", {"app": "istiod"})], []),
    ],
    ids=[
        "nothing runs",
        "no change",
        "one minor version",
        "a patch",
        "a patch back",
        "an image variant",
        "go on after a failure",
        "back after istiod failed",
        "back after a gateway failed",
        "back after a workload failed",
        "an image that does not say",
    ],
)
def test_step_is_allowed(wanted: str, mesh_pods: Sequence[Object], workloads: Sequence[Object]) -> None:
    assert not refused({"version": wanted}, mesh_pods, workloads)


@pytest.mark.parametrize(
    ("wanted", "mesh_pods", "workloads", "fix"),
    [
        ("1.31.0", [istiod("1.29.4")], [], "take 1.30 first"),
        ("1.31.0", [istiod("1.29.4"), istiod("1.30.0")], [], "take 1.30 first"),
        ("1.30.0", [istiod("1.31.0")], [], "by mesh.revisions"),
        ("1.30.0", [istiod("1.31.0"), proxy("1.31.0")], [proxy("1.31.0")], "by mesh.revisions"),
        ("1.30.0", [istiod("1.31.0")], [proxy("1.30.0", "other")], "by mesh.revisions"),
        ("1.30.0", [istiod("1.31.0")], [proxy("1.30.0", deletionTimestamp="now")], "by mesh.revisions"),
        ("1.30.0", [istiod("1.31.0")], [pod("job", "nginx", {})], "by mesh.revisions"),
    ],
    ids=[
        "two minor versions",
        "two, from the oldest that runs",
        "back",
        "back after all is done",
        "another revision's proxies",
        "a proxy that goes",
        "pods without a proxy",
    ],
)
def test_step_is_refused(wanted: str, mesh_pods: Sequence[Object], workloads: Sequence[Object], fix: str) -> None:
    (text,) = refused({"version": wanted}, mesh_pods, workloads)
    assert f"mesh.version is {wanted}" in text
    assert fix in text


def test_each_revision_is_judged_by_its_own_istiod() -> None:
    assert not refused(BOTH, [istiod("1.30.0", "stable"), istiod("1.31.0", "canary")])
    assert not refused(BOTH, [istiod("1.30.0", "stable")])
    (text,) = refused(BOTH, [istiod("1.31.0", "stable")])
    assert "mesh.revisions.stable.version is 1.30.0" in text


def test_new_revision_is_no_way_around_the_steps() -> None:
    (text,) = refused({**BOTH, "revision": "canary"}, [istiod("1.29.0")], [])[-1:]
    assert "mesh.revisions.canary.version is 1.31.0" in text
