"""What production asks for: budgets, spread, network policies, protection, hardened containers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from config import ConfigError
from mesh import preflight
from mesh.declared import declared

from .given import config, program


@pytest.fixture(autouse=True)
def no_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preflight, "check", lambda _config, owner: None)  # noqa: ARG005


def bill(**service: Any) -> Mapping[str, Any]:
    return {"services": {"bill-service": service}}


@pytest.mark.parametrize(
    ("change", "key", "text"),
    [
        (bill(disruptionBudget={}), "", ""),
        (bill(disruptionBudget={"minAvailable": 1, "maxUnavailable": 1}), "disruptionBudget", "keep one of the two"),
        (bill(disruptionBudget={"maxUnavailable": 0}), "disruptionBudget", "lets at least one pod go"),
        (bill(disruptionBudget={"minAvailable": "100%"}), "disruptionBudget", "lets at least one pod go"),
        (bill(disruptionBudget={"minAvailable": "all"}), "has 1 problem;", "a percentage such as 50%"),
        (
            bill(disruptionBudget={"minAvailable": 2}, template={"replicas": 2}),
            "services.bill-service.disruptionBudget.minAvailable",
            "set it to 1, or add replicas",
        ),
        (bill(disruptionBudget={"maxUnavailable": 1}, workload="DaemonSet"), "disruptionBudget", "not evicted"),
        (bill(template={"spread": [{}]}), "template.spread.0.topologyKey", "add 'topologyKey'"),
        (bill(template={"writablePaths": ["tmp"]}), "template.writablePaths.0", "an absolute path"),
        ({"namespace": {"create": False, "defaultDeny": True}}, "namespace.defaultDeny", "would cut off their pods"),
    ],
)
def test_refused_with_key_and_fix(change: Mapping[str, Any], key: str, text: str) -> None:
    if not key:
        config(**change)  # as good as none
        return
    with pytest.raises(ConfigError) as refused:
        config(**change)
    assert key in str(refused.value) and text in str(refused.value)


def test_each_version_has_a_budget_for_its_own_pods() -> None:
    recording = program("prod")
    budgets = recording.named("PodDisruptionBudget")
    assert {"bill-service-v1", "bill-service-v2", "front-tomcat-v1"} == set(budgets)
    for name, budget in budgets.items():
        selector = recording.spec("Deployment", name)["selector"]
        assert budget.inputs["spec"] == {"maxUnavailable": 1, "selector": selector}


def test_pods_spread_by_version() -> None:
    spec = program("prod").spec("Deployment", "bill-service-v1")
    constraint = {"maxSkew": 1, "whenUnsatisfiable": "ScheduleAnyway", "labelSelector": spec["selector"]}
    assert spec["template"]["spec"]["topologySpreadConstraints"] == [
        {**constraint, "topologyKey": key} for key in ("topology.kubernetes.io/zone", "kubernetes.io/hostname")
    ]


def test_a_read_only_root_has_writable_folders() -> None:
    pod = program("prod").spec("Deployment", "bill-service-v1")["template"]["spec"]
    (container,) = pod["containers"]
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    assert [mount["mountPath"] for mount in container["volumeMounts"]] == [
        "/run",
        "/tmp",  # noqa: S108
        "/var/cache/nginx",
        "/usr/share/nginx/html",
    ]
    assert [volume["name"] for volume in pod["volumes"]] == [mount["name"] for mount in container["volumeMounts"]]


def test_nothing_passes_but_what_is_opened() -> None:
    recording = program("prod")
    deny = recording.spec("NetworkPolicy", "default-deny")
    assert (deny["podSelector"], deny["policyTypes"], deny.get("ingress")) == ({}, ["Ingress", "Egress"], None)
    assert [sorted(port["port"] for port in exit_.get("ports", [])) for exit_ in deny["egress"]] == [
        [53, 53],
        [],
        [15012],
        [],
    ]
    callers = recording.spec("NetworkPolicy", "bill-service-callers")
    assert callers["podSelector"] == {"matchLabels": {"service": "bill-service"}}
    assert callers["ingress"][0]["ports"] == [{"protocol": "TCP", "port": 80}]
    policies = recording.named("NetworkPolicy")
    assert policies["bill-service-callers"].urn in recording.before(policies["default-deny"])


def test_without_a_mesh_nothing_is_opened_for_it() -> None:
    recording = program("dev", mesh={"mode": "off"}, namespace={"defaultDeny": True})
    assert len(recording.spec("NetworkPolicy", "default-deny")["egress"]) == 2
    assert len(recording.spec("NetworkPolicy", "bill-service-callers")["ingress"][0]["from"]) == 1


def test_what_must_not_go_is_protected() -> None:
    protected = {resource.kind for resource in declared("prod") if resource.protect}
    assert protected == {"Istio", "WorkloadNamespace", "Namespace", "Release", "Service", "PurgeGuard", "Command"}
    assert not any(resource.protect for resource in declared("dev"))
