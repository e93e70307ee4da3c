"""What `mesh repair` sends to the cluster, and in which order."""

from __future__ import annotations

import copy
import json
from dataclasses import dataclass, field
from typing import Any

import pytest

from mesh.cluster.kubectl import Kubectl, KubectlError
from mesh.drift import Drift, Expected
from mesh.drift.compare import differences
from mesh.drift.repair import Repair, hindrance

from .fake_kubectl import Object

RULE: Object = {
    "apiVersion": "networking.istio.io/v1beta1",
    "kind": "DestinationRule",
    "metadata": {"name": "dest-bill-service", "namespace": "istio-demo", "labels": {"a/b": "c"}},
    "spec": {"host": "bill-service"},
}
ISTIOD: Object = {
    "apiVersion": "apps/v1",
    "kind": "Deployment",
    "metadata": {"name": "istiod", "namespace": "istio-system"},
    "spec": {
        "replicas": 1,
        "template": {
            "spec": {"containers": [{"name": "discovery", "image": "pilot:1", "env": [{"name": "A", "value": "1"}]}]}
        },
    },
}


@dataclass(frozen=True)
class Recorded(Kubectl):
    """A kubectl that notes what it is told; the first `refusals` answers are those of a webhook that is not there."""

    calls: list[tuple[tuple[str, ...], Any]] = field(default_factory=list)
    refusals: list[str] = field(default_factory=list)

    def run(self, *args: str, timeout: float = 60, stdin: str | None = None) -> str:
        assert timeout > 0
        if self.refusals:
            raise KubectlError(self.refusals.pop())
        self.calls.append((args, json.loads(stdin) if stdin else None))
        return ""

    @property
    def verbs(self) -> list[str]:
        return [args[0] for args, _ in self.calls]


def drift(body: Object, live: Object | None, *, release: str = "", applied: Object | None = None) -> Drift:
    expected = Expected(body, applied or body, "urn", "helm" if release else "pulumi-1", release)
    return Drift(expected, live, differences(body, live) if live else [])


def repaired(*drifts: Drift, refusals: list[str] | None = None) -> Recorded:
    kubectl, done = Recorded(refusals=refusals or []), list[Drift]()
    assert Repair(kubectl, done.append).run(drifts) == []
    assert done == list(drifts)
    return kubectl


def patch_of(args: tuple[str, ...]) -> Any:
    return json.loads(next(arg.removeprefix("--patch=") for arg in args if arg.startswith("--patch=")))


def test_an_own_object_is_applied_as_pulumi_does_it() -> None:
    live = copy.deepcopy(RULE)
    live["spec"]["host"] = "other"
    ((args, sent),) = repaired(drift(RULE, live)).calls
    assert args[0] == "apply" and {"--server-side", "--force-conflicts", "--field-manager=pulumi-1"} <= set(args)
    assert sent == RULE


def test_what_nobody_declared_is_taken_away_first() -> None:
    live = copy.deepcopy(RULE)
    live["spec"]["trafficPolicy"] = {"tls": {"mode": "DISABLE"}}
    kubectl = repaired(drift(RULE, live))
    assert kubectl.verbs == ["patch", "apply"]
    assert patch_of(kubectl.calls[0][0]) == [{"op": "remove", "path": "/spec/trafficPolicy"}]


def test_an_object_of_a_release_is_patched_field_by_field() -> None:
    live = copy.deepcopy(ISTIOD)
    live["metadata"]["labels"] = {"mine": "too"}
    live["spec"]["replicas"] = 0
    (container,) = live["spec"]["template"]["spec"]["containers"]
    container |= {"image": "pilot:2", "env": [{"name": "MINE", "value": "2"}]}
    live["spec"]["template"]["spec"]["containers"].insert(0, {"name": "injected"})
    ((args, sent),) = repaired(drift(ISTIOD, live, release="istiod")).calls
    assert "--field-manager=helm" in args
    assert sent["metadata"] == {"name": "istiod", "namespace": "istio-system"}
    containers = "/spec/template/spec/containers"
    assert {json.dumps(operation, sort_keys=True) for operation in patch_of(args)} == {
        json.dumps(operation, sort_keys=True)
        for operation in (
            {"op": "replace", "path": "/spec/replicas", "value": 1},
            {"op": "replace", "path": f"{containers}/1/image", "value": "pilot:1"},
            {"op": "add", "path": f"{containers}/1/env/-", "value": {"name": "A", "value": "1"}},
        )
    }


def test_a_missing_object_is_made_again_by_whoever_made_it() -> None:
    kubectl = repaired(drift(ISTIOD, None, release="istiod"), drift(RULE, None))
    assert kubectl.verbs == ["create", "rollout", "apply"]
    assert kubectl.calls[0][1] == ISTIOD


def test_the_name_of_a_label_is_escaped() -> None:
    live = copy.deepcopy(RULE)
    live["metadata"]["labels"] = {"a/b": "d"}
    ((args, _),) = repaired(drift(RULE, live, release="x")).calls
    assert patch_of(args)[0]["path"] == "/metadata/labels/a~1b"


def test_rules_wait_for_istiod_and_its_webhook(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.sleep", lambda _seconds: None)
    live = copy.deepcopy(ISTIOD)
    live["spec"]["replicas"] = 0
    kubectl = repaired(
        drift(ISTIOD, live, release="istiod"), drift(RULE, None), refusals=["failed calling webhook: no endpoints"]
    )
    assert kubectl.verbs == ["patch", "rollout", "apply"]


def test_what_is_only_not_applied_yet_stays() -> None:
    live = copy.deepcopy(RULE)
    live["metadata"]["labels"] = {"a/b": "edited"}
    new = copy.deepcopy(RULE)
    new["spec"]["host"] = "new"
    found = differences(new, live)
    expected = Expected(new, RULE, "urn", "pulumi-1")
    pending = [difference for difference in found if difference.path == ("spec", "host")]
    kubectl = repaired(Drift(expected, live, [d for d in found if d not in pending], [], pending))
    assert kubectl.calls[-1][1] == RULE


def test_a_refusal_of_the_api_server_is_told_and_does_not_stop_the_rest() -> None:
    kubectl = Recorded(refusals=["field is immutable"])
    first, second = drift(ISTIOD, None, release="istiod"), drift(RULE, None)
    assert Repair(kubectl, lambda _: None).run([first, second]) == [(first, "field is immutable")]
    assert kubectl.verbs == ["apply"]


def test_what_cannot_be_put_right_is_said() -> None:
    going = {**RULE, "metadata": {**RULE["metadata"], "deletionTimestamp": "2026-01-01T00:00:00Z"}}
    assert "being deleted" in hindrance(drift(RULE, going))
    release: Object = {"apiVersion": "helm.sh/v3", "kind": "Release", "metadata": {"name": "istiod"}, "values": {}}
    assert "pulumi up --refresh --target 'urn'" in hindrance(drift(release, None))
    patch = Expected({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}}, {}, "urn", "m", "", True)
    assert "namespace.create" in hindrance(Drift(patch, None))
    assert hindrance(drift(RULE, None)) == ""
    assert Repair(Recorded(), lambda _: None).run([drift(RULE, going)]) == []
