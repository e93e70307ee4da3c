"""Drift: every edit of a declared field is found, and nothing else is."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from config import files, merged
from mesh.cluster.releases import Release
from mesh.declared import declared_by
from mesh.drift import Applied, Report, find, words
from mesh.drift.compare import ABSENT, Key, Path, Writer, at, differences, replaced, same, writer
from mesh.drift.find import Secret
from mesh.drift.repair import hindrance
from mesh.program.recorder import Recording
from mesh.program.render import plain

from .fake_kubectl import FakeKubectl, Object


def program(**changes: Any) -> Recording:
    """What the stack dev declares, with `changes` laid over its file."""
    return declared_by(merged(files.values("dev"), changes), "dev")


MANAGER = "pulumi-kubernetes-1"

# As the charts of Istio make them.
ISTIOD: Object = {
    "apiVersion": "apps/v1",
    "kind": "Deployment",
    "metadata": {"name": "istiod", "namespace": "istio-system", "labels": {"app": "istiod", "istio.io/rev": "default"}},
    "spec": {
        "replicas": 1,
        "strategy": {"rollingUpdate": {"maxSurge": "100%", "maxUnavailable": "25%"}},
        "selector": {"matchLabels": {"app": "istiod"}},
        "template": {
            "metadata": {"labels": {"app": "istiod"}},
            "spec": {
                "containers": [
                    {
                        "name": "discovery",
                        "image": "istio/pilot:1.31.0",
                        "args": ["discovery", "--domain", "cluster.local"],
                        "ports": [{"containerPort": 8080, "protocol": "TCP"}, {"containerPort": 15010}],
                        "env": [{"name": "REVISION", "value": "default"}, {"name": "PLATFORM", "value": ""}],
                        "resources": {"requests": {"cpu": "10m", "memory": "100Mi"}},
                    }
                ],
                "volumes": [{"name": "local-certs", "emptyDir": {"medium": "Memory"}}],
            },
        },
    },
}
ROLE: Object = {
    "apiVersion": "rbac.authorization.k8s.io/v1",
    "kind": "ClusterRole",
    "metadata": {"name": "istio-cni-repair-role", "labels": {"app": "istio-cni"}},
    "rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list"]}],
}
WEBHOOK: Object = {
    "apiVersion": "admissionregistration.k8s.io/v1",
    "kind": "ValidatingWebhookConfiguration",
    "metadata": {"name": "istio-validator", "labels": {"app": "istiod"}},
    "webhooks": [
        {
            "name": "rev.validation.istio.io",
            "failurePolicy": "Ignore",
            "sideEffects": "None",
            "clientConfig": {"service": {"name": "istiod", "path": "/validate"}},
        }
    ],
}


def declared_objects() -> list[Object]:
    own = [
        dict(resource.inputs)
        for resource in program()
        if resource.type.startswith("kubernetes:") and resource.kind != "Release"
    ]
    without_nulls = json.loads(json.dumps(own), object_hook=lambda o: {k: v for k, v in o.items() if v is not None})
    return [*without_nulls, ISTIOD, ROLE, WEBHOOK]


OBJECTS = declared_objects()


def leaves(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """The paths to everything that is no map and no list, by numbers."""
    if isinstance(value, (dict, list)):
        for step, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from leaves(inner, (*path, step))
    else:
        yield path


def comparable(item: Object) -> list[tuple[str | int, ...]]:
    """The leaves of an object that somebody can edit and that are not istiod's to write."""
    return [
        path
        for path in leaves(item)
        if path[0] not in ("apiVersion", "kind")
        and path[:2] not in (("metadata", "name"), ("metadata", "namespace"))
        and path[-1] != "failurePolicy"
    ]


def other(value: Any) -> Any:
    """Another value of the same type."""
    if isinstance(value, bool):
        return not value
    return value + 1 if isinstance(value, int | float) else f"{value}-edited"


def edited(item: Object, path: tuple[str | int, ...], change: Callable[[Any, str | int], None]) -> Object:
    item = copy.deepcopy(item)
    parent: Any = item
    for step in path[:-1]:
        parent = parent[step]
    change(parent, path[-1])
    return item


def change(parent: Any, step: str | int) -> None:
    parent[step] = other(parent[step])


def remove(parent: Any, step: str | int) -> None:
    del parent[step]


EDITS = st.sampled_from([(item, path) for item in OBJECTS for path in comparable(item)])
JSON = st.recursive(
    st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=20,
)


@pytest.mark.parametrize("item", OBJECTS, ids=lambda item: f"{item['kind']} {item['metadata']['name']}")
def test_an_object_does_not_differ_from_itself(item: Object) -> None:
    assert differences(item, item) == []


@given(JSON, JSON)
def test_values_are_the_same_only_when_they_are_equal(one: Any, another: Any) -> None:
    assert same(one, one)
    if same(one, another):
        assert without_empty(one) == without_empty(another)


def without_empty(value: Any) -> Any:
    """The server drops empty maps, lists and texts, so that they say the same as nothing."""
    if isinstance(value, dict):
        return {k: without_empty(v) for k, v in value.items() if v not in ({}, [], "") or isinstance(v, bool)}
    return [without_empty(inner) for inner in value] if isinstance(value, list) else value


@given(EDITS)
def test_every_changed_field_is_found(edit: tuple[Object, tuple[str | int, ...]]) -> None:
    item, path = edit
    found = differences(item, edited(item, path, change))
    assert len(found) >= 1
    # One edit is one difference; a changed name of a list item is the item missing.
    assert len(found) == 1 or is_istio(item)
    assert at(item, found[0].path) == found[0].declared


@given(EDITS)
def test_every_removed_field_is_found(edit: tuple[Object, tuple[str | int, ...]]) -> None:
    item, path = edit
    value = at(item, path)
    found = differences(item, edited(item, path, remove))
    # An empty text says the same as none, but for one in a list.
    assert bool(found) == (value != "" or isinstance(path[-1], int))


def is_istio(item: Object) -> bool:
    return "istio.io" in str(item["apiVersion"])


@pytest.mark.parametrize("item", OBJECTS, ids=lambda item: f"{item['kind']} {item['metadata']['name']}")
def test_what_the_server_adds_is_no_drift(item: Object) -> None:
    live = {**copy.deepcopy(item), "status": {"observedGeneration": 3}}
    live["metadata"] |= {
        "uid": "1",
        "resourceVersion": "2",
        "generation": 3,
        "creationTimestamp": "2026-01-01T00:00:00Z",
    }
    live["metadata"].setdefault("annotations", {})["deployment.kubernetes.io/revision"] = "1"
    if not is_istio(item) and isinstance(live.get("spec"), dict):
        live["spec"]["revisionHistoryLimit"] = 10
    assert differences(item, live) == []


def test_a_fault_that_nobody_declared_is_drift() -> None:
    rule = next(item for item in OBJECTS if item["kind"] == "VirtualService")
    live = copy.deepcopy(rule)
    live["spec"]["http"][0]["fault"] = {"abort": {"httpStatus": 503}}
    (found,) = differences(rule, live)
    assert (found.field, found.declared) == ("spec.http[0].fault", ABSENT)
    base = next(item for item in OBJECTS if item["metadata"]["name"] == "dest-bill-service")
    live = copy.deepcopy(base)
    live["spec"]["trafficPolicy"] = {"tls": {"mode": "DISABLE"}}
    assert [found.field for found in differences(base, live)] == ["spec.trafficPolicy"]


def test_items_of_a_list_with_keys_may_stand_in_any_order_and_have_company() -> None:
    live = copy.deepcopy(ISTIOD)
    (container,) = live["spec"]["template"]["spec"]["containers"]
    container["env"] = [{"name": "ADDED", "value": "x"}, *reversed(container["env"])]
    container["ports"].reverse()
    assert differences(ISTIOD, live) == []
    container["env"] = [entry for entry in container["env"] if entry["name"] != "REVISION"]
    (found,) = differences(ISTIOD, live)
    assert found.field == "spec.template.spec.containers[discovery].env[REVISION]"
    assert found.live is ABSENT


def quantity(value: Any) -> Object:
    return {"apiVersion": "v1", "kind": "X", "metadata": {}, "spec": {"resources": {"limits": {"cpu": value}}}}


@pytest.mark.parametrize(
    ("declared", "live"),
    [
        ("1000m", "1"),
        (1, "1"),
        ("1Gi", "1024Mi"),
        ("0.5", "500m"),
        ("1e3", "1k"),
        ("128974848", "123Mi"),
        (2.5, "2500m"),
    ],
)
def test_quantities_have_many_spellings(declared: Any, live: Any) -> None:
    assert differences(quantity(declared), quantity(live)) == []


@pytest.mark.parametrize(("declared", "live"), [("1000m", "2"), ("1Gi", "1G"), ("1", "1m"), ("1", True)])
def test_other_quantities_are_told(declared: Any, live: Any) -> None:
    assert len(differences(quantity(declared), quantity(live))) == 1


@pytest.mark.parametrize(("live", "drifted"), [("1000ms", False), ("0.5s", True), ("0h0m1s", False), ("2s", True)])
def test_durations_of_istio_have_many_spellings(live: str, drifted: bool) -> None:
    def rule(timeout: str) -> Object:
        http = [{"timeout": timeout}]
        return {
            "apiVersion": "networking.istio.io/v1",
            "kind": "VirtualService",
            "metadata": {},
            "spec": {"http": http},
        }

    assert bool(differences(rule("1s"), rule(live))) == drifted


def test_a_port_may_be_a_number_or_a_text() -> None:
    def service(port: Any) -> Object:
        ports = [{"port": 80, "targetPort": port}]
        return {"apiVersion": "v1", "kind": "Service", "metadata": {}, "spec": {"ports": ports}}

    assert differences(service("8080"), service(8080)) == []
    assert differences(service("http"), service(8080))


def test_what_istiod_writes_itself_is_never_drift() -> None:
    live = copy.deepcopy(WEBHOOK)
    live["webhooks"][0]["failurePolicy"] = "Fail"
    live["webhooks"][0]["clientConfig"]["caBundle"] = "Zm9v"
    assert differences(WEBHOOK, live) == []
    declared = copy.deepcopy(WEBHOOK)
    declared["webhooks"][0]["clientConfig"]["caBundle"] = "YmFy"
    assert differences(declared, live) == []
    live["webhooks"][0]["sideEffects"] = "Some"
    assert [found.field for found in differences(WEBHOOK, live)] == ["webhooks[rev.validation.istio.io].sideEffects"]


def test_replicas_are_the_autoscalers_unless_declared() -> None:
    declared = copy.deepcopy(ISTIOD)
    del declared["spec"]["replicas"]
    assert differences(declared, ISTIOD) == []


def test_the_text_of_a_secret_is_compared_as_the_server_keeps_it() -> None:
    declared = {"apiVersion": "v1", "kind": "Secret", "metadata": {}, "stringData": {"key": "foo"}}
    assert differences(declared, {**declared, "data": {"key": "Zm9v"}}) == []
    assert [f.field for f in differences(declared, {**declared, "data": {"key": "YmFy"}})] == ["data.key"]


@given(EDITS)
def test_a_difference_can_be_put_back(edit: tuple[Object, tuple[str | int, ...]]) -> None:
    item, path = edit
    live = edited(item, path, remove)
    for found in differences(item, live):
        live = replaced(live, found.path, found.declared)
    assert differences(item, live) == []


FIELDS = [
    {
        "manager": MANAGER,
        "time": "2026-01-01T00:00:00Z",
        "fieldsV1": {"f:metadata": {"f:labels": {"f:app": {}}}, "f:spec": {"f:hosts": {}, "f:http": {}}},
    },
    {"manager": "kubectl-edit", "time": "2026-01-02T00:00:00Z", "fieldsV1": {"f:spec": {"f:http": {}}}},
    {
        "manager": "kubectl",
        "subresource": "scale",
        "time": "2026-01-03T00:00:00Z",
        "fieldsV1": {
            "f:spec": {
                "f:replicas": {},
                "f:containers": {'k:{"name":"discovery"}': {".": {}, "f:image": {}}},
            }
        },
    },
]


@pytest.mark.parametrize(
    ("path", "manager"),
    [
        (("metadata", "labels", "app"), MANAGER),
        (("metadata", "labels", "version"), None),
        (("spec", "http", 0, "route", 1, "weight"), "kubectl-edit"),
        (("spec", "hosts"), MANAGER),
        (("spec", "replicas"), "kubectl (scale)"),
        (("spec", "containers", Key((("name", "discovery"),)), "image"), "kubectl (scale)"),
        (("spec", "containers", Key((("name", "discovery"),)), "args"), None),
        (("spec", "containers", Key((("name", "other"),)), "image"), None),
    ],
)
def test_who_wrote_a_field(path: Path, manager: str | None) -> None:
    found = writer({"metadata": {"managedFields": FIELDS}}, path)
    assert (found.manager if found else None) == manager


# Everything together, on a cluster that is a list of objects.


def release(name: str, manifest: list[Object], values: Mapping[str, Any]) -> Release:
    record = {"config": values, "manifest": "\n---\n".join(json.dumps(item) for item in manifest)}
    return Release(name, "istio-system", 1, "deployed", f"sh.helm.release.v1.{name}.v1", record)


class Installed:
    """The stack dev after `pulumi up`: the state, the releases and the objects in the cluster."""

    def __init__(self) -> None:
        self.recording = program()
        self.state: dict[str, dict[str, Any]] = {}
        self.releases: dict[tuple[str, str], Release] = {}
        self.objects: list[Object] = []
        for resource in self.recording:
            if not resource.type.startswith("kubernetes:"):
                continue
            inputs = json.loads(json.dumps(plain(resource.inputs)), object_hook=self._set_only)
            entry = {"urn": resource.urn, "type": resource.type, "inputs": inputs}
            self.state[resource.urn] = {**entry, "outputs": {"__fieldManager": MANAGER}}
            if resource.kind == "Release":
                manifest = [ISTIOD] if resource.name == "istiod" else []
                self.releases["istio-system", resource.name] = release(resource.name, manifest, inputs["values"])
                self.objects += copy.deepcopy(self.releases["istio-system", resource.name].objects)
            else:
                self.objects.append(copy.deepcopy(inputs))

    @staticmethod
    def _set_only(found: Object) -> Object:
        return {key: value for key, value in found.items() if value is not None}

    def live(self, kind: str, name: str) -> Any:
        return next(item for item in self.objects if (item["kind"], item["metadata"]["name"]) == (kind, name))

    def applied(self, kind: str, name: str) -> Any:
        (entry,) = [e for urn, e in self.state.items() if urn.endswith(f":{kind}::{name}")]
        return entry

    def look(self, recording: Recording | None = None) -> Report:
        kubectl = FakeKubectl(objects=self.objects)
        report = find(recording or self.recording, Applied(self.state, self.releases), kubectl)
        assert all(call[0] == "get" for call in kubectl.calls)
        return report


def told(report: Report) -> dict[str, list[str]]:
    return {str(drift.expected.identity): [*words.lines(drift)] for drift in report.drift}


def test_a_fresh_stack_has_no_drift() -> None:
    report = Installed().look()
    assert (report.drift, report.pending) == ([], [])
    assert report.compared == len(Installed().objects) + len(Installed().releases)


def edit_weights(rule: Object, v1: int) -> None:
    for route, weight in zip(rule["spec"]["http"][0]["route"], (v1, 100 - v1), strict=True):
        route["weight"] = weight


def by_kubectl(item: Object, fields: Mapping[str, Any]) -> None:
    entry = {"manager": "kubectl-edit", "operation": "Update", "time": "2026-01-02T03:04:05Z", "fieldsV1": fields}
    item["metadata"]["managedFields"] = [entry]


def test_each_edit_is_told_with_its_author() -> None:
    installed = Installed()
    rule = installed.live("VirtualService", "vs-bill-service")
    edit_weights(rule, 70)
    by_kubectl(rule, {"f:spec": {"f:http": {}}})
    installed.live("Deployment", "istiod")["spec"]["replicas"] = 0
    installed.objects.remove(installed.live("DestinationRule", "dest-bill-service-v1"))
    report = installed.look()
    assert told(report) == {
        "VirtualService istio-demo/vs-bill-service": [
            "bill-service: v1 90 % declared, 70 % live; v2 10 % declared, 30 % live "
            "(by kubectl-edit, 2026-01-02 03:04:05 UTC)"
        ],
        "DestinationRule istio-demo/dest-bill-service-v1": ["is missing"],
        "Deployment istio-system/istiod": ["spec.replicas: 1 declared, 0 live (by whom is not recorded)"],
    }
    assert report.pending == []
    text = "\n".join(words.report(report, "dev"))
    assert "Deployment istio-system/istiod (in the Helm release istiod)" in text
    assert "mesh repair --stack dev" in text
    data = words.as_data(report, "dev")
    assert len(data["drift"]) == 4
    assert data["drift"][0]["manager"] in ("kubectl-edit", None)
    json.dumps(data)


# Whose the objects are


def test_an_object_of_somebody_else_with_the_name_of_ours_is_told_so() -> None:
    installed = Installed()
    service = installed.live("Service", "bill-service")
    service["metadata"] |= {"annotations": {}, "labels": {}}
    by_kubectl(service, {"f:spec": {}})
    istiod = installed.live("Deployment", "istiod")
    istiod["metadata"]["annotations"] = {"meta.helm.sh/release-name": "istiod", "meta.helm.sh/release-namespace": "own"}
    found = {drift.expected.identity.name: drift for drift in installed.look().drift}
    for name, of in (("bill-service", "was not made by a stack"), ("istiod", "belongs to the Helm release own/istiod")):
        assert found[name].stranger == of
        assert f"is gone, and what has its name now {of}" in told(installed.look())[str(found[name].expected.identity)]
        assert f"it {of}" in hindrance(found[name])
    assert "was not made by a stack" in str(words.as_data(installed.look(), "dev"))


def test_an_own_object_without_its_mark_is_put_right() -> None:
    """Who made it stands in its managed fields."""
    installed = Installed()
    service = installed.live("Service", "bill-service")
    service["metadata"]["annotations"] = {}
    by_kubectl(service, {"f:metadata": {"f:annotations": {}}})
    service["metadata"]["managedFields"].append({"manager": MANAGER, "operation": "Apply", "fieldsV1": {"f:spec": {}}})
    [drift] = installed.look().drift
    assert drift.stranger == "" and hindrance(drift) == ""


def test_rules_without_their_crds_are_missing() -> None:
    installed = Installed()
    installed.objects = [item for item in installed.objects if not is_istio(item)]
    assert set(told(installed.look())) == {
        "VirtualService istio-demo/vs-bill-service",
        *(f"DestinationRule istio-demo/dest-bill-service{suffix}" for suffix in ("", "-v1", "-v2")),
    }


def test_what_is_being_deleted_is_drift() -> None:
    installed = Installed()
    installed.live("Service", "bill-service")["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    assert told(installed.look()) == {"Service istio-demo/bill-service": ["is being deleted"]}


def test_a_change_of_the_program_is_pending_and_no_drift() -> None:
    changed = program(
        routing={"bill-service": {"weights": {"v1": 50, "v2": 50}}},
        services={"third": {"versions": {"v1": {"image": "x"}}}},
        mesh={"values": {"istiod": {"replicaCount": 2}}},
    )
    report = Installed().look(changed)
    assert report.drift == []
    pending = sorted(words.pending(change) for change in report.pending)
    assert pending == [
        "create Deployment istio-demo/third-v1",
        "create ServiceAccount istio-demo/third",
        "update Release istio-system/istiod: values.replicaCount: nothing → 2",
        "update VirtualService istio-demo/vs-bill-service: spec.http[0].route[0].weight: 90 → 50; "
        "spec.http[0].route[1].weight: 10 → 50",
    ]
    assert "pulumi preview" in "\n".join(words.report(report, "dev"))


def test_what_left_the_program_is_pending() -> None:
    changed = program(routing=None)
    pending = {words.pending(change) for change in Installed().look(changed).pending}
    assert "delete VirtualService istio-demo/vs-bill-service" in pending


def test_an_empty_map_that_the_state_leaves_out_is_not_pending() -> None:
    """As the annotations of the pods without a sidecar are."""
    installed = Installed()
    urn = installed.applied("Deployment", "bill-service-v1")["urn"]
    del installed.state[urn]["inputs"]["spec"]["template"]["metadata"]["annotations"]
    installed.recording.resources[urn].inputs["spec"]["template"]["metadata"]["annotations"] = {}
    report = installed.look()
    assert (report.drift, report.pending) == ([], [])


def test_an_edit_over_a_pending_change_is_drift_and_told_apart() -> None:
    installed = Installed()
    installed.live("VirtualService", "vs-bill-service")["metadata"]["labels"]["app.kubernetes.io/managed-by"] = "me"
    changed = program(routing={"bill-service": {"weights": {"v1": 50, "v2": 50}}})
    (drift,) = installed.look(changed).drift
    assert [difference.field for difference in drift.differences] == ["metadata.labels[app.kubernetes.io/managed-by]"]


def test_an_edit_that_a_refresh_took_into_the_state_is_still_drift() -> None:
    installed = Installed()
    rule = installed.live("VirtualService", "vs-bill-service")
    edit_weights(rule, 70)
    by_kubectl(rule, {"f:spec": {"f:http": {}}})
    edit_weights(installed.applied("VirtualService", "vs-bill-service")["inputs"], 70)
    report = installed.look()
    assert set(told(report)) == {"VirtualService istio-demo/vs-bill-service"}
    assert len(report.pending) == 1


def test_values_that_somebody_gave_to_helm_are_drift() -> None:
    installed = Installed()
    key = ("istio-system", "istio-cni")
    installed.releases[key] = release("istio-cni", [], {**installed.releases[key].values, "logLevel": "debug"})
    assert told(installed.look()) == {
        "Release istio-system/istio-cni": ["values.logLevel: nothing declared, debug live (by whom is not recorded)"]
    }


def test_a_release_that_is_gone_is_missing() -> None:
    installed = Installed()
    del installed.releases["istio-system", "istio-cni"]
    assert told(installed.look()) == {"Release istio-system/istio-cni": ["is missing"]}


def test_secrets_are_compared_and_never_shown() -> None:
    installed = Installed()
    entry = installed.applied("Deployment", "bill-service-v1")
    containers = entry["inputs"]["spec"]["template"]["spec"]["containers"]
    live = installed.live("Deployment", "bill-service-v1")["spec"]["template"]["spec"]["containers"]
    mark = {"4dabf18193072939515e22adb298388d": "1b47061264138c4ac30d75fd1eb44270", "plaintext": '"hunter2"'}
    containers[0]["env"], live[0]["env"] = [{"name": "KEY", "value": mark}], [{"name": "KEY", "value": "hunter2"}]
    urn = entry["urn"]
    declared = installed.recording.resources[urn].inputs["spec"]["template"]["spec"]["containers"]
    declared[0]["env"] = [{"name": "KEY", "value": "[secret]"}]
    assert installed.look().drift == []
    assert installed.look().pending == []
    live[0]["env"][0]["value"] = "changed-me"
    report = installed.look()
    (drift,) = report.drift
    assert isinstance(drift.differences[0].declared, Secret)
    for text in ("\n".join(words.report(report, "dev")), json.dumps(words.as_data(report, "dev"))):
        assert "hunter2" not in text and "changed-me" not in text
        assert "[secret]" in text


def test_writers_name_the_latest() -> None:
    assert writer({"metadata": {}}, ("spec",)) is None
    assert writer({"metadata": {"managedFields": FIELDS}}, ("spec", "http")) == Writer(
        "kubectl-edit", "2026-01-02T00:00:00Z"
    )
