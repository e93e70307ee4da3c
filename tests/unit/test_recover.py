"""What a killed command leaves in the state, in the cluster and between them, and how it is cleared."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

import names
from config import Mesh
from istio.charts import charts
from mesh.cluster.kubectl import KubectlError
from mesh.program import stack as pulumi
from mesh.recover import look, recover

from .fake_kubectl import FakeKubectl, Object, crd, helm_record, made
from .given import config

MESH = config().mesh
EXISTING = config(mesh={"mode": "existing", "version": None}).mesh


def urn(name: str) -> str:
    return f"urn:pulumi:dev::istio-governance::kubernetes:helm.sh/v3:Release::{name}"


def release(name: str, *after: str) -> Object:
    """An entry in the state."""
    inputs = {"name": name, "namespace": MESH.namespace}
    needs = [urn(other) for other in after]
    return {
        "urn": urn(name),
        "type": "kubernetes:helm.sh/v3:Release",
        "inputs": inputs,
        "dependencies": needs,
        "propertyDependencies": {"values": needs},
    }


@dataclass
class FakeStack(pulumi.Stack):
    """A stack that is nothing but its state."""

    deployment: dict[str, Any] = field(default_factory=dict)

    def pulumi(self, *args: str, timeout: float = 900) -> str:
        assert timeout > 0
        match args:
            case ("stack", "export"):
                return json.dumps({"version": 3, "deployment": self.deployment})
            case ("stack", "import", "--file", file):
                self.deployment = json.loads(Path(file).read_text())["deployment"]
        return ""


def stack(tmp_path: Path, *resources: Object, **deployment: Any) -> FakeStack:
    backend = {"PULUMI_BACKEND_URL": f"file://{tmp_path}"}
    return FakeStack("dev", tmp_path, backend, deployment={"resources": [*resources], **deployment})


def test_a_release_that_helm_has_removed_already_leaves_the_state(tmp_path: Path) -> None:
    interrupted = stack(tmp_path, release("istio-base"), release("istio-cni"), release("istiod", "istio-cni"))
    kubectl = FakeKubectl(objects=[helm_record("istio-base"), helm_record("istiod")])
    assert recover(interrupted, kubectl, MESH) == [
        "the entry in the state of the Helm release istio-cni, which is not in the cluster"
    ]
    assert interrupted.deployment["resources"] == [release("istio-base"), release("istiod")]
    assert not look(interrupted, kubectl, MESH)
    assert kubectl.left == {("Secret", helm_record(name)["metadata"]["name"]) for name in ("istio-base", "istiod")}


def test_a_release_is_looked_for_where_the_state_has_it(tmp_path: Path) -> None:
    """Whatever the configuration says by now: the mesh may be on its way out."""
    elsewhere = {**release("istiod"), "inputs": {"name": "istiod", "namespace": "other"}}
    for mesh in (MESH, EXISTING):
        (line,) = look(stack(tmp_path, elsewhere), FakeKubectl(objects=[helm_record("istiod")]), mesh)
        assert line == "the entry in the state of the Helm release istiod, which is not in the cluster"


def namespace(owner: str) -> Object:
    return made("Namespace", MESH.namespace, annotations={names.OWNER: owner} if owner else {})


@pytest.mark.parametrize("status", ["deployed", "pending-install", "pending-upgrade", "failed", "uninstalling"])
@pytest.mark.parametrize("mesh", [MESH, EXISTING], ids=["managed", "existing"])
@pytest.mark.parametrize("owner", ["istio-governance/prod", ""])
def test_the_records_of_others_are_left_alone(status: str, mesh: Mesh, owner: str, tmp_path: Path) -> None:
    """Of the stack that owns Istio, or of somebody who installed it by hand, with the very same values."""
    records = [helm_record(chart.release, status, config=chart.values) for chart in charts(MESH)]
    kubectl = FakeKubectl(objects=[namespace(owner), *records, half_made("sidecars", NamesAccepted="True")])
    named = {str(one) for one in look(stack(tmp_path), kubectl, mesh).others}
    assert named == (
        {f"the Helm release istio-system/{chart.release} ({status})" for chart in charts(MESH)}
        if mesh is MESH
        else set()
    )
    assert recover(stack(tmp_path), kubectl, mesh) == []
    assert len(kubectl.left) == len(records) + 2 and kubectl.changes == []


@pytest.mark.parametrize(("status", "left"), [("deployed", 0), ("pending-install", 1), ("failed", 1)])
def test_a_record_in_the_own_namespace_is_the_stack_s_when_it_has_its_values(
    status: str, left: int, tmp_path: Path
) -> None:
    """As its API server died, `up` ended in good order, and the state has no word of it."""
    [values] = [chart.values for chart in charts(MESH) if chart.release == "istiod"]
    mine = namespace("istio-governance/dev")
    ours = helm_record("istiod", status, config=values)
    by_hand = helm_record("istiod", status, config={**values, "profile": "other"})
    assert len(look(stack(tmp_path), FakeKubectl(objects=[mine, ours]), MESH).releases) == left
    assert not look(stack(tmp_path), FakeKubectl(objects=[mine, by_hand]), MESH)


def test_records_go_before_the_state_forgets_whose_they_are(tmp_path: Path) -> None:
    """A second try finds what a killed one left."""
    operation = {"type": "creating", "resource": release("istiod")}
    interrupted = stack(tmp_path, pending_operations=[operation])
    kubectl = FakeKubectl(objects=[helm_record("istiod", "deployed")], patience=0)
    with pytest.raises(KubectlError, match="killed"):
        recover(interrupted, kubectl, MESH)
    assert interrupted.deployment["pending_operations"] == [operation]


def test_operations_and_records_that_stand_in_the_way_are_cleared(tmp_path: Path) -> None:
    operation = {"type": "creating", "resource": release("istiod")}
    interrupted = stack(tmp_path, release("istio-base"), pending_operations=[operation])
    kubectl = FakeKubectl(
        objects=[helm_record("istio-base"), helm_record("istiod", "pending-install"), helm_record("shop")]
    )
    assert recover(interrupted, kubectl, MESH) == [
        "the unfinished operation in the state: creating Release istiod",
        "the record of the Helm release istiod, revision 1 (pending-install)",
    ]
    assert interrupted.deployment == {"resources": [release("istio-base")]}
    assert ("Secret", "sh.helm.release.v1.shop.v1") in kubectl.left
    assert not look(interrupted, kubectl, MESH)


def half_made(plural: str, **conditions: str) -> Object:
    found = [{"type": kind, "status": status} for kind, status in conditions.items()]
    return {**crd(plural, "networking.istio.io"), "status": {"conditions": found}}


def test_a_crd_that_is_accepted_and_not_served_is_touched_and_stays(tmp_path: Path) -> None:
    served = half_made("gateways", NamesAccepted="True", Established="True")
    refused = half_made("sidecars", NamesAccepted="False", Established="False")
    asleep = half_made("virtualservices", NamesAccepted="True", Established="False")
    foreign = {**half_made("things", NamesAccepted="True"), "spec": {"group": "example.com"}}
    kubectl = FakeKubectl(objects=[helm_record("istio-base"), served, refused, asleep, foreign])
    (line,) = recover(stack(tmp_path, release("istio-base")), kubectl, MESH)
    assert "CRD virtualservices.networking.istio.io" in line
    assert [(change[0], change[2]) for change in kubectl.changes] == [
        ("annotate", "virtualservices.networking.istio.io")
    ] * 2
    assert len(kubectl.left) == 5
