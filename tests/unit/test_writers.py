"""Known writers: what they write is no drift, as long as it is they who wrote it, there, and that."""

from __future__ import annotations

import copy
import json
from typing import Any, ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.cluster.owners import HELM
from mesh.drift import Report, words, writers
from mesh.drift.compare import Key
from mesh.drift.repair import Repair

from .fake_kubectl import Object
from .test_drift import MANAGER, Installed, release
from .test_repair import Recorded, patch_of

INJECTOR: Object = {
    "apiVersion": "admissionregistration.k8s.io/v1",
    "kind": "MutatingWebhookConfiguration",
    "metadata": {"name": "istio-sidecar-injector"},
    "webhooks": [
        {
            "name": name,
            "failurePolicy": "Fail",
            "namespaceSelector": {
                "matchExpressions": [
                    {"key": "istio.io/rev", "operator": "DoesNotExist"},
                    {"key": "istio-injection", "operator": operator, **values},
                ]
            },
        }
        for name, operator, values in (
            ("namespace.sidecar-injector.istio.io", "In", {"values": ["enabled"]}),
            ("object.sidecar-injector.istio.io", "DoesNotExist", {}),
        )
    ],
}
FIRST, SECOND = (webhook["name"] for webhook in INJECTOR["webhooks"])
AKS = "admissionsenforcer"
ADDED_BY_AKS = (
    {"key": "control-plane", "operator": "NotIn", "values": ["true"]},
    {"key": "kubernetes.azure.com/managedby", "operator": "NotIn", "values": ["aks"]},
)
ADDED_BY_GKE = (
    {"key": "kubernetes.io/metadata.name", "operator": "NotIn", "values": ["kube-system", "gke-gmp-system"]},
)


def entry(manager: str, time: str, fields: Object) -> Object:
    return {"manager": manager, "operation": "Update", "time": f"2026-01-0{time}T00:00:00Z", "fieldsV1": fields}


def selector_of(*names: str) -> Object:
    return {
        "f:webhooks": {
            f"k:{json.dumps({'name': n}, separators=(',', ':'))}": {"f:namespaceSelector": {}} for n in names
        }
    }


class OnAks(Installed):
    """The stack dev with an injector, to which `manager` has added `expressions` at `index` of the selectors."""

    def __init__(self, manager: str = AKS, expressions: tuple[Any, ...] = ADDED_BY_AKS, index: int = 2) -> None:
        super().__init__()
        key = ("istio-system", "istiod")
        manifest = [*self.releases[key].objects, INJECTOR]
        self.releases[key] = release("istiod", manifest, self.releases[key].values)
        self.injector = copy.deepcopy(self.releases[key].objects[-1])
        self.objects.append(self.injector)
        for webhook in self.injector["webhooks"]:
            webhook["namespaceSelector"]["matchExpressions"][index:index] = copy.deepcopy(expressions)
        self.injector["metadata"]["managedFields"] = [entry(manager, "2", selector_of(FIRST, SECOND))]

    def expressions(self, webhook: int = 0) -> list[Any]:
        found: list[Any] = self.injector["webhooks"][webhook]["namespaceSelector"]["matchExpressions"]
        return found


def sent(report: Report) -> Recorded:
    kubectl = Recorded()
    assert Repair(kubectl, lambda _: None).run(report.drift) == []
    return kubectl


def fields(report: Report) -> list[str]:
    return [difference.field for drift in report.drift for difference in drift.differences]


@pytest.mark.parametrize("index", [0, 1, 2])
def test_what_aks_adds_to_selectors_is_counted_and_no_drift(index: int) -> None:
    report = OnAks(index=index).look()
    assert (report.drift, report.pending) == ([], [])
    told = "Left to known writers (docs/operations.md): 2 fields by AKS' admissions enforcer."
    assert [*words.report(report, "dev")][-1] == told
    first, second = words.as_data(report, "dev")["allowed"]
    assert first == {
        "kind": "MutatingWebhookConfiguration",
        "namespace": "",
        "name": "istio-sidecar-injector",
        "field": f"webhooks[{FIRST}].namespaceSelector.matchExpressions",
        "by": "AKS' admissions enforcer",
        "manager": AKS,
        "time": "2026-01-02T00:00:00Z",
        "source": "https://github.com/Azure/AKS/issues/4002",
    }
    assert SECOND in second["field"]
    assert sent(report).calls == []


def test_without_known_writers_nothing_is_said_of_them() -> None:
    report = Installed().look()
    assert not [line for line in words.report(report, "dev") if "known writers" in line]
    assert words.as_data(report, "dev")["allowed"] == []


@pytest.mark.parametrize("manager", ["kubectl-edit", "admissionsenforcer2", "Admissionsenforcer", HELM])
def test_the_same_by_anybody_else_is_drift(manager: str) -> None:
    report = OnAks(manager).look()
    assert (len(fields(report)), report.allowed) == (4, [])
    (_, named), *_ = sent(report).calls
    assert named["metadata"]["name"] == "istio-sidecar-injector"


def test_whose_writer_is_not_recorded_is_drift() -> None:
    stack = OnAks()
    del stack.injector["metadata"]["managedFields"]
    assert len(fields(stack.look())) == 4


def test_who_wrote_last_counts() -> None:
    stack = OnAks()
    stack.injector["metadata"]["managedFields"].append(entry("kubectl-edit", "3", selector_of(SECOND)))
    report = stack.look()
    assert {field.split(".namespaceSelector")[0] for field in fields(report)} == {f"webhooks[{SECOND}]"}
    assert [one.field for one in report.allowed] == [f"webhooks[{FIRST}].namespaceSelector.matchExpressions"]


@pytest.mark.parametrize(
    "expression",
    [
        {"key": "control-plane", "operator": "In", "values": ["true"]},
        {"key": "control-plane", "operator": "NotIn", "values": ["false"]},
        {"key": "team", "operator": "NotIn", "values": ["true"]},
    ],
)
def test_a_known_writer_with_another_value_is_drift(expression: Object) -> None:
    report = OnAks(expressions=(*ADDED_BY_AKS, expression)).look()
    assert (len(fields(report)), report.allowed) == (6, [])


def test_what_a_known_writer_takes_away_is_drift() -> None:
    stack = OnAks()
    del stack.expressions()[0]
    assert {field.split(".namespaceSelector")[0] for field in fields(stack.look())} == {f"webhooks[{FIRST}]"}


def test_another_field_by_a_known_writer_is_drift() -> None:
    stack = OnAks()
    stack.injector["webhooks"][0]["failurePolicy"] = "Ignore"
    owned = stack.injector["metadata"]["managedFields"][0]["fieldsV1"]["f:webhooks"]
    owned[next(iter(owned))]["f:failurePolicy"] = {}
    report = stack.look()
    assert fields(report) == [f"webhooks[{FIRST}].failurePolicy"]
    assert len(report.allowed) == 2
    ((args, _),) = sent(report).calls
    assert patch_of(args) == [{"op": "replace", "path": "/webhooks/0/failurePolicy", "value": "Fail"}]


def test_gke_is_known_by_what_it_adds_to_what_the_stack_sends() -> None:
    assert OnAks(HELM, ADDED_BY_GKE).look().drift == []
    assert len(fields(OnAks("kubectl-edit", ADDED_BY_GKE).look())) == 2
    mine = ({**ADDED_BY_GKE[0], "values": ["kube-system", "shop"]},)
    assert len(fields(OnAks(HELM, mine).look())) == 2


class OnAutopilot(Installed):
    """The stack dev with a service that asks for less than Autopilot gives."""

    ASKED: ClassVar[Object] = {"requests": {"cpu": "10m", "memory": "64Mi"}}
    GIVEN: ClassVar[Object] = {
        "requests": {"cpu": "50m", "memory": "64Mi", "ephemeral-storage": "1Gi"},
        "limits": {"cpu": "50m"},
    }

    def __init__(self, manager: str = MANAGER) -> None:
        super().__init__()
        for inputs in (self.applied("Deployment", "bill-service-v1")["inputs"], self.declared()):
            inputs["spec"]["template"]["spec"]["containers"][0]["resources"] = copy.deepcopy(self.ASKED)
        self.deployment = self.live("Deployment", "bill-service-v1")
        self.container["resources"] = copy.deepcopy(self.GIVEN)
        self.say(self.ASKED, {**self.GIVEN, "requests": {**self.GIVEN["requests"], "memory": "65536Ki"}})
        name = json.dumps({"name": self.container["name"]}, separators=(",", ":"))
        owned: Object = {f"k:{name}": {"f:resources": {"f:requests": {"f:cpu": {}, "f:memory": {}}}, "f:image": {}}}
        fields = {"f:spec": {"f:template": {"f:spec": {"f:containers": owned}}}}
        self.deployment["metadata"]["managedFields"] = [entry(manager, "2", fields)]

    @property
    def container(self) -> Any:
        return self.deployment["spec"]["template"]["spec"]["containers"][0]

    def declared(self) -> Any:
        return self.recording.resources[self.applied("Deployment", "bill-service-v1")["urn"]].inputs

    def say(self, given: Object, made: Object) -> None:
        name = self.container["name"]
        said = {"input": {"containers": [{"name": name, **given}]}, "output": {"containers": [{"name": name, **made}]}}
        annotations = self.deployment["metadata"].setdefault("annotations", {})
        annotations["autopilot.gke.io/resource-adjustment"] = json.dumps({**said, "modified": True})


def test_what_autopilot_makes_of_resources_is_no_drift() -> None:
    stack = OnAutopilot()
    report = stack.look()
    assert (report.drift, report.pending) == ([], [])
    assert [one.field for one in report.allowed] == ["spec.template.spec.containers[bill-service].resources"]
    stack.say(stack.GIVEN, stack.GIVEN)  # as after an apply of what it had made
    assert stack.look().drift == []


def test_resources_that_autopilot_does_not_account_for_are_drift() -> None:
    assert len(fields(OnAutopilot("kubectl-edit").look())) == 1
    other = OnAutopilot()
    other.container["resources"]["requests"]["cpu"] = "2"
    assert len(fields(other.look())) == 1
    gone = OnAutopilot()
    del gone.container["resources"]
    assert len(fields(gone.look())) == 1
    of_another = OnAutopilot()
    of_another.say({"requests": {"cpu": "1"}}, of_another.GIVEN)
    assert len(fields(of_another.look())) == 1


@pytest.mark.parametrize("said", ["", "{", "[]", "{}", '{"input": 1, "output": {}}', '{"input": {"containers": [{}]}}'])
def test_an_annotation_that_says_nothing_allows_nothing(said: str) -> None:
    stack = OnAutopilot()
    stack.deployment["metadata"]["annotations"]["autopilot.gke.io/resource-adjustment"] = said
    assert len(fields(stack.look())) == 1


def test_a_repair_of_another_field_leaves_autopilots_alone() -> None:
    stack = OnAutopilot()
    stack.container["image"] = "edited"
    report = stack.look()
    assert fields(report) == ["spec.template.spec.containers[bill-service].image"]
    ((args, wanted),) = sent(report).calls
    assert args[0] == "apply"
    (applied,) = wanted["spec"]["template"]["spec"]["containers"]
    assert applied["image"] != "edited"
    # What nobody declared is not the stack's to apply.
    assert applied["resources"] == {"requests": {"cpu": "50m", "memory": "64Mi"}}


def test_resources_that_are_not_applied_yet_are_pending_on_autopilot_as_well() -> None:
    stack = OnAutopilot()
    container = stack.declared()["spec"]["template"]["spec"]["containers"][0]
    container["resources"] = {"requests": {"cpu": "1", "memory": "64Mi"}}
    for asked in (stack.ASKED, stack.GIVEN):
        stack.say(asked, stack.GIVEN)
        report = stack.look()
        assert (report.drift, report.allowed) == ([], [])
        assert [change.identity.name for change in report.pending] == ["bill-service-v1"]


STEPS = (
    st.text("ab", min_size=1, max_size=2)
    | st.integers(0, 3)
    | st.builds(lambda n: Key((("name", n),)), st.text(max_size=2))
)


@given(st.lists(STEPS, max_size=6))
def test_a_path_is_of_a_field_only_below_it(rest: list[Any]) -> None:
    aks = writers.KNOWN[0]
    field = ("webhooks", Key((("name", "x"),)), "namespaceSelector", "matchExpressions")
    assert aks.field_of((*field, *rest)) == field
    assert aks.field_of(tuple(rest)) is None
    assert aks.field_of(field[:3]) is None
    assert aks.field_of(("webhooks", "x", *field[2:], *rest)) is None
