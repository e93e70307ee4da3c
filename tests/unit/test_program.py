"""The whole program, for each stack file of the checkout."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import pulumi
import pytest

import names
from mesh import preflight
from mesh.program.recorder import Recording

from .given import STACKS, program

URNS = Path(__file__).parent / "urns"

RELEASES = {"istio-base", "istiod", "istio-cni", "istio-ingressgateway", "istio-egressgateway"}
DEPLOYMENTS = {"front-tomcat-v1", "bill-service-v1", "bill-service-v2"}


@pytest.fixture(autouse=True)
def no_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preflight, "check", lambda _config, owner: None)  # noqa: ARG005


def urns(recording: Recording, kind: str) -> set[str]:
    return {resource.urn for resource in recording.named(kind).values()}


@pytest.mark.parametrize("stack", STACKS)
def test_urns_are_the_committed_ones(stack: str) -> None:
    """A changed URN replaces a live object. If it must be, give the resource an alias; then set UPDATE_URNS=1."""
    golden = URNS / f"{stack}.txt"
    lines = "".join(f"{line}\n" for line in sorted(resource.line for resource in program(stack)))
    if os.environ.get("UPDATE_URNS"):
        golden.write_text(lines)
    assert golden.exists(), f"no {golden.name} yet: run the tests once with UPDATE_URNS=1 and commit it"
    assert lines == golden.read_text()


def test_no_list_of_urns_outlives_its_stack() -> None:
    assert {path.stem for path in URNS.iterdir()} == set(STACKS)


def test_outputs() -> None:
    assert program("dev").stack_outputs == {
        "meshVersion": "1.31.0",
        "namespace": "istio-demo",
        "weights": {"bill-service": {"v1": 90, "v2": 10}},
        "urls": {"bill-service": "http://bill-service.istio-demo:9999"},
    }


@pytest.mark.parametrize("stack", STACKS)
def test_everything_goes_to_the_configured_cluster(stack: str) -> None:
    recording = program(stack, cluster={"context": "prod", "kubeconfig": "some/file"})
    provider = recording.named("kubernetes")["cluster"]
    assert provider.inputs["context"] == "prod"
    assert provider.inputs["kubeconfig"] == "some/file"
    objects = [resource for resource in recording if resource.type.startswith("kubernetes:")]
    assert objects
    assert {resource.provider.rpartition("::")[0] for resource in objects} == {provider.urn}


@pytest.mark.parametrize("off", [False, "off"])
def test_mesh_off_keeps_the_workloads_and_nothing_else(off: object) -> None:
    recording = program("dev", mesh={"mode": off})
    assert set(recording.named("Deployment")) == DEPLOYMENTS
    assert set(recording.named("Service")) == {"bill-service"}
    for kind in ("Release", "DestinationRule", "VirtualService", "Istio", "Routing"):
        assert not recording.named(kind)
    assert set(recording.named("Command")) == {"mesh-guard"}
    assert recording.stack_outputs["meshVersion"] == "off"
    assert recording.stack_outputs["weights"] == {}


REVISIONS = {
    "version": "",
    "revisions": {"stable": {"version": "1.30.2"}, "canary": {"version": "1.31.0"}},
    "revision": "stable",
}


def test_services_move_to_another_revision_one_by_one() -> None:
    recording = program("dev", mesh=REVISIONS, services={"front-tomcat": {"revision": "canary"}})
    pods = {name: d.inputs["spec"]["template"]["metadata"] for name, d in recording.named("Deployment").items()}
    assert {name: metadata["labels"]["istio.io/rev"] for name, metadata in pods.items()} == {
        "front-tomcat-v1": "canary",
        "bill-service-v1": "stable",
        "bill-service-v2": "stable",
    }
    assert pods["front-tomcat-v1"]["annotations"][names.SIDECAR].startswith("1.31.0 ")
    labels = recording.named("Namespace")["istio-demo"].inputs["metadata"]["labels"]
    assert not {"istio.io/rev", "istio-injection"} & set(labels), "a namespace's label counts more than its pods'"


def test_service_that_names_the_default_revision_is_no_exception() -> None:
    plain = program("dev", mesh=REVISIONS)
    named = program("dev", mesh=REVISIONS, services={"front-tomcat": {"revision": "stable"}})
    assert {r.urn: r.inputs for r in named} == {r.urn: r.inputs for r in plain}


def test_move_to_another_default_revision_leaves_both_control_planes_as_they_are() -> None:
    before, after = program("dev", mesh=REVISIONS), program("dev", mesh={**REVISIONS, "revision": "canary"})
    changed = {r.name for r in after if r.inputs != before.resources[r.urn].inputs}
    gateways = {"istio-ingressgateway", "istio-egressgateway"}
    assert changed == DEPLOYMENTS | gateways | {"istio-base", "istio-demo"}
    assert after.stack_outputs["meshVersion"] == "1.31.0"


def test_existing_mesh_is_used_and_never_touched() -> None:
    recording = program("dev", mesh={"mode": "existing", "revision": "canary"})
    for kind in ("Release", "Istio", "Purge"):
        assert not recording.named(kind)
    assert recording.one("Namespace").inputs["metadata"]["labels"]["istio.io/rev"] == "canary"
    assert recording.one("VirtualService").name == "vs-bill-service"
    assert recording.stack_outputs["meshVersion"] == "existing"


def test_a_kept_namespace_says_so_in_the_cluster() -> None:
    for keep in (True, False):
        namespace = program("dev", mesh={"mode": "existing"}, namespace={"keep": keep}).one("Namespace")
        assert (names.KEPT in namespace.inputs["metadata"]["annotations"]) == keep


def test_existing_namespace_is_labelled_and_never_deleted() -> None:
    recording = program("dev", namespace={"name": "shop", "create": False})
    assert set(recording.named("Namespace")) == {"istio-system"}
    assert set(recording.named("NamespacePatch")) == {"shop"}
    assert recording.stack_outputs["namespace"] == "shop"
    workloads = [*recording.named("Deployment").values(), *recording.named("VirtualService").values()]
    assert {resource.inputs["metadata"]["namespace"] for resource in workloads} == {"shop"}


def test_service_without_a_rule_gets_none() -> None:
    recording = program("dev", routing=None)
    assert set(recording.named("Deployment")) == DEPLOYMENTS
    assert not recording.named("DestinationRule")
    assert not recording.named("VirtualService")
    assert recording.stack_outputs["weights"] == {}


def test_each_step_waits_for_the_one_before() -> None:
    recording = program("dev")
    steps = [
        {recording.named("Command")["mesh-leftovers"].urn},
        {recording.named("Release")["istiod"].urn, recording.named("Release")["istio-cni"].urn},
        {recording.named("Namespace")["istio-demo"].urn},
        {urn for urn in urns(recording, "Deployment") if "bill-service" in urn} | urns(recording, "Service"),
        urns(recording, "DestinationRule"),
        urns(recording, "VirtualService"),
    ]
    for earlier, later in pairwise(steps):
        assert earlier
        for urn in later:
            assert earlier <= recording.before(recording.resources[urn])


def test_rules_for_pods_of_others_wait_for_the_mesh_and_the_namespace() -> None:
    others = {"workload": "existing", "template": None, "versions": {"v1": {"command": None}, "v2": {"command": None}}}
    recording = program("dev", services={"bill-service": others})
    assert not [name for name in recording.named("Deployment") if "bill-service" in name]
    needed = {recording.named("Release")["istiod"].urn, recording.named("Namespace")["istio-demo"].urn}
    for rule in recording.named("DestinationRule").values():
        assert needed <= recording.before(rule)


def test_rules_of_one_service_do_not_wait_for_another_service() -> None:
    recording = program("dev")
    before = recording.before(recording.one("VirtualService"))
    assert recording.named("Deployment")["front-tomcat-v1"].urn not in before


@pytest.mark.parametrize("stack", ["dev", "prod"])
def test_destroy_starts_with_the_guard_and_ends_with_the_leftovers(stack: str) -> None:
    recording = program(stack)
    guard, leftovers = (recording.named("Command")[name] for name in ("mesh-guard", "mesh-leftovers"))
    ends = {guard.urn, guard.parent}
    assert recording.before(guard) == recording.resources.keys() - {guard.urn}
    for resource in recording:
        if resource.urn not in {leftovers.urn, leftovers.parent, recording.named("kubernetes")["cluster"].urn} | ends:
            assert leftovers.urn in recording.before(resource), resource.line


@pytest.mark.parametrize(
    "changes", [{"mesh": {"purge": False}}, {"mesh": {"mode": "off"}}, {"mesh": {"mode": "existing"}}]
)
def test_every_stack_is_guarded(changes: Mapping[str, Any]) -> None:
    """The namespace goes with whatever is in it."""
    recording = program("dev", **changes)
    guard = recording.named("Command")["mesh-guard"]
    assert guard.inputs["environment"]["MESH_PURGE"] == "false"
    assert recording.before(guard) >= {
        one.urn for kind in ("Namespace", "Deployment") for one in recording.named(kind).values()
    }


def test_a_protected_stack_without_a_mesh_is_guarded_too() -> None:
    recording = program("dev", mesh={"mode": "off", "purge": True}, protect=True)
    guard = recording.named("Command")["mesh-guard"]
    assert recording.before(guard) == recording.resources.keys() - {guard.urn}
    assert guard.inputs["environment"]["MESH_PURGE"] == "false"


def test_a_version_loses_its_requests_before_its_pods() -> None:
    """And gets its pods before its requests. A stack without such a version has nothing of this."""
    changes: Mapping[str, Any] = {
        "services": {"bill-service": {"versions": {"v2": {"replicas": 0}}, "disruptionBudget": {"maxUnavailable": 1}}},
        "routing": {"bill-service": {"weights": {"v1": 100, "v2": 0}}},
    }
    recording = program("dev", **changes)
    deployments, drained = recording.named("Deployment"), recording.named("Command")["versions-drained"]
    rule = recording.one("VirtualService")
    assert json.loads(drained.inputs["stdin"]) == {
        "bill-service": {"selector": {"service": "bill-service"}, "subsets": {"v2": {"version": "v2"}}}
    }
    assert rule.urn in recording.before(drained)
    assert drained.urn in recording.before(deployments["bill-service-v2"])
    assert deployments["bill-service-v1"].urn in recording.before(rule)
    guard = recording.named("Command")["mesh-guard"]
    assert deployments["bill-service-v2"].urn in recording.before(guard)
    assert "versions-drained" not in program("dev").named("Command")


NEW_VERSION = {"bill-service": {"versions": {"v3": {"image": "nginx"}}}}


@pytest.mark.parametrize(
    ("change", "changed"),
    [
        ({"routing": {"bill-service": {"weights": {"v1": 50, "v2": 50}}}}, {"VirtualService": {"vs-bill-service"}}),
        (
            {"services": {"bill-service": {"versions": {"v2": {"replicas": 2}}}}},
            {"Deployment": {"bill-service-v2"}},
        ),
        (
            {"services": NEW_VERSION},
            {
                "Deployment": {"bill-service-v3"},
                "DestinationRule": {"dest-bill-service-v3"},
                "Command": {"subsets-announced"},
                "VirtualService": {"vs-bill-service"},
            },
        ),
        ({"mesh": {"version": "1.30.0"}}, {"Release": RELEASES, "Deployment": DEPLOYMENTS}),
        ({"mesh": {"values": {"istiod": {"x": 1}}}}, {"Release": {"istiod"}}),
    ],
    ids=["weights", "replicas", "new version", "mesh version", "Helm values"],
)
def test_a_change_touches_only(change: Mapping[str, Any], changed: Mapping[str, set[str]]) -> None:
    before, after = program("dev"), program("dev", **change)
    touched: dict[str, set[str]] = {}
    for urn in before.resources.keys() | after.resources.keys():
        old, new = before.resources.get(urn), after.resources.get(urn)
        if old is None or new is None or old.inputs != new.inputs:
            resource = new or old
            assert resource
            touched.setdefault(resource.kind, set()).add(resource.name)
    assert touched == changed


def test_wrong_configuration_ends_the_program_before_the_cluster_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[object] = []
    monkeypatch.setattr(preflight, "check", lambda *args, **_: read.append(args))
    with pytest.raises(pulumi.RunError, match="1 problem; nothing was changed"):
        program("dev", routing={"bill-service": {"weights": {"v2": 20}}})
    assert not read


def test_program_checks_the_cluster_as_its_stack_before_it_registers_anything(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_config: object, owner: str) -> None:
        raise pulumi.RunError(f"refused for {owner}")

    monkeypatch.setattr(preflight, "check", refuse)
    with pytest.raises(pulumi.RunError, match="refused for istio-governance/dev"):
        program("dev")
