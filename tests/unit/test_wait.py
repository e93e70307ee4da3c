"""What the commands between subsets and weights wait for, with proxies that answer what they are told to."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from mesh import drain, wait
from mesh.cluster.kubectl import Kubectl, KubectlError
from mesh.routes import wait as engine
from mesh.routes.model import Config

from .calling import Scripted, caller, calling, config, route
from .fake_kubectl import FakeKubectl, crd, made

DOMAIN = "istio-demo.svc.cluster.local"
HOST = f"bill-service.{DOMAIN}"
SERVICE: Any = {"selector": {"service": "bill-service"}, "subsets": {v: {"version": v} for v in ("v1", "v2")}}


def named(subset: str, host: str = HOST) -> str:
    return f"outbound|9999|{'' if subset == 'whole' else subset}|{host}"


def clusters(**subsets: bool) -> Config:
    """Subset → whether it has an endpoint; `whole` is the service itself."""
    return config(list(map(named, subsets)), reached=[named(subset) for subset, up in subsets.items() if up])


def routes(*subsets: str, mirror: str = "") -> Config:
    shares = {named(subset): 1 / len(subsets) for subset in subsets}
    made = route("bill-service-route", "", shares, [named(mirror)] if mirror else [])
    return config(routes={f"{HOST}:9999": [made]})


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "PAUSE", 0)
    monkeypatch.setattr(wait, "SECONDS", 0.2)


def subsets(monkeypatch: pytest.MonkeyPatch, *asked: Scripted, rules: Mapping[str, Any] | None = None) -> wait.Subsets:
    """v1 has a pod that is ready, v2 one that is not; `rules` are the specs of live VirtualServices."""
    calling(monkeypatch, *asked)
    return wait.Subsets(kubectl(**(rules or {})), "istio-demo", {"bill-service": wait.Service(**SERVICE)})


def kubectl(**rules: Any) -> FakeKubectl:
    pods = [
        made("Pod", version, "istio-demo", status={"conditions": [{"type": "Ready", "status": ready}]})
        for version, ready in (("v1", "True"), ("v2", "False"))
    ]
    for pod in pods:
        pod["metadata"]["labels"] = {"service": "bill-service", "version": pod["metadata"]["name"]}
    live = [made("VirtualService", name.replace("_", "-"), "istio-demo", spec=spec) for name, spec in rules.items()]
    return FakeKubectl(objects=[crd("virtualservices", "networking.istio.io"), *pods, *live])


def test_a_subset_is_announced_when_every_proxy_knows_it_with_its_pods(monkeypatch: pytest.MonkeyPatch) -> None:
    late = caller(
        clusters(whole=True, v1=True),
        clusters(whole=True, v1=False, v2=False),
        clusters(whole=True, v1=True, v2=False),
    )
    early = caller(clusters(whole=True, v1=True, v2=True))
    assert "2 proxies know" in subsets(monkeypatch, late, early).announced()
    assert late.asked == 3


def test_a_proxy_that_sees_nothing_of_the_service_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    assert subsets(monkeypatch, caller(config(["xds-grpc"]))).announced()


def test_a_proxy_that_never_learns_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    deaf = caller(clusters(whole=True, v1=True))
    with pytest.raises(TimeoutError) as error:
        subsets(monkeypatch, deaf).announced()
    assert f"{deaf.caller}: does not know v2 of bill-service" in str(error.value)
    assert "requests go where they went" in str(error.value)


def test_of_many_proxies_that_never_learn_some_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(TimeoutError, match="25 of 25 proxies") as error:
        subsets(monkeypatch, *(caller(clusters(whole=True)) for _ in range(25))).announced()
    assert str(error.value).count("does not know v1, v2") == 20
    assert "and 5 more" in str(error.value)


V1 = {"destination": {"host": "bill-service", "subset": "v1"}, "weight": 0}
V2 = {"host": "bill-service", "subset": "v2"}


def test_subsets_are_forgotten_when_no_proxy_routes_or_mirrors_to_one_without_a_rule(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    slow = caller(routes("v1", "old"), routes("v1", mirror="old"), routes("v1", mirror="v2"))
    rules = {"vs_bill_service": {"http": [{"route": [V1], "mirror": V2}]}}
    waiting = subsets(monkeypatch, slow, rules=rules)
    assert waiting.routed() == {"bill-service": {"v1", "v2"}}
    assert "1 proxies send to no other" in waiting.forgotten(waiting.routed())
    assert slow.asked == 3
    with pytest.raises(TimeoutError, match="still sends to old of bill-service"):
        subsets(monkeypatch, caller(routes("v1", "old"))).forgotten({"bill-service": {"v1", "v2"}})


def test_pods_of_one_template_are_asked_once_for_all_services(monkeypatch: pytest.MonkeyPatch) -> None:
    """As many as 300 services with as many callers."""
    services = [f"service-{number}" for number in range(300)]
    listed = [f"outbound|80|{subset}|{name}.{DOMAIN}" for name in services for subset in ("", "v1", "v2")]
    pods = [caller(config(listed, reached=listed), config(), template="one") for _ in range(300)]
    calling(monkeypatch, *pods)
    waiting = wait.Subsets(FakeKubectl(), "istio-demo", {name: wait.Service(**SERVICE) for name in services})
    assert "300 proxies know" in waiting.announced()
    waiting.forgotten({})
    assert sum(pod.asked for pod in pods) == 2


def test_a_caller_for_whom_a_rule_of_others_counts_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its subsets are not the service's: they would never come."""
    theirs = caller(config({named("whole"): "DestinationRule office/theirs"}), namespace="office")
    rule = "DestinationRule istio-demo/dest-bill-service"
    late = config({named("whole"): rule, named("v1"): rule}, reached=[named("v1")])
    ours = caller(late, clusters(whole=True, v1=True, v2=False))
    assert subsets(monkeypatch, theirs, ours).announced()
    assert ours.asked == 2
    assert f"not waited for {theirs.caller}, for whom DestinationRule office/theirs" in capsys.readouterr().out


@pytest.mark.parametrize("gone", [True, False])
def test_only_a_pod_that_is_gone_need_not_answer(monkeypatch: pytest.MonkeyPatch, gone: bool) -> None:
    waiting = subsets(monkeypatch, caller(None, gone=gone))
    if gone:
        assert waiting.announced()
    else:
        with pytest.raises(TimeoutError, match="cannot be asked: no such container"):
            waiting.announced()


def test_a_version_without_weight_is_drained_where_it_is(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its subset stays in the rule, and the proxies' routes to the others are no matter."""
    asked: list[Mapping[str, Mapping[str, str]]] = []

    def going(_kubectl: Kubectl, _namespace: str, versions: Mapping[str, Mapping[str, str]]) -> list[drain.Going]:
        asked.append(versions)
        return []

    monkeypatch.setattr(drain, "going", going)
    both = {"http": [{"route": [V1, {"destination": V2, "weight": 100}]}]}
    environment(monkeypatch, caller(routes("v1", "v2"), routes("v2")), vs_bill_service=both)
    only_v1 = {"bill-service": {**SERVICE, "subsets": {"v1": {"version": "v1"}}}}
    monkeypatch.setattr(sys, "stdin", io.StringIO(json.dumps(only_v1)))
    wait.main("drained")
    assert "1 proxies send to no other subsets" in capsys.readouterr().out
    assert asked == [{"v1 of bill-service": {"service": "bill-service", "version": "v1"}}]


LEFT = {"vs_bill_service": {"http": [{"route": [V1]}]}}


@pytest.mark.parametrize(("step", "text"), [("announced", "does not know v2"), ("forgotten", "still sends to old")])
def test_a_step_that_fails_ends_with_a_message(monkeypatch: pytest.MonkeyPatch, step: str, text: str) -> None:
    both = replace(clusters(whole=True, v1=True), virtual_hosts=routes("old").virtual_hosts)
    environment(monkeypatch, caller(both), **LEFT)
    with pytest.raises(SystemExit, match=text):
        wait.main(step)


def test_nothing_stops_the_rules_from_going_altogether(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    environment(monkeypatch, caller(routes("old")))
    wait.main("forgotten")
    assert "did not wait: after" in capsys.readouterr().out
    monkeypatch.setattr(wait, "Kubectl", lambda _context, _kubeconfig: FakeKubectl(error="no route to host"))
    environment_of(monkeypatch)
    wait.main("forgotten")
    assert "did not wait: no route to host" in capsys.readouterr().out


def test_the_command_of_an_earlier_version_may_go(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    environment(monkeypatch, caller(routes("old")), **LEFT)
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    wait.main("forgotten")
    assert "1 proxies send to no other subsets" in capsys.readouterr().out


def test_what_is_in_flight_to_subsets_that_are_forgotten_is_waited_for(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of v1 there is a rule left. Whatever goes wrong there stops nothing."""
    asked: list[Mapping[str, Mapping[str, str]]] = []

    def going(_kubectl: Kubectl, _namespace: str, versions: Mapping[str, Mapping[str, str]]) -> list[drain.Going]:
        asked.append(versions)
        raise KubectlError("forbidden")

    monkeypatch.setattr(drain, "going", going)
    environment(monkeypatch, caller(routes("v1")), **LEFT)
    wait.main("forgotten")
    environment(monkeypatch, caller(routes()))
    wait.main("forgotten")
    labels = {f"{v} of bill-service": {"service": "bill-service", "version": v} for v in ("v1", "v2")}
    assert asked == [{"v2 of bill-service": labels["v2 of bill-service"]}, labels]
    assert capsys.readouterr().out.count("did not wait for what is in flight: forbidden") == 2


def environment(monkeypatch: pytest.MonkeyPatch, asked: Scripted, **rules: Any) -> None:
    subsets(monkeypatch, asked)
    monkeypatch.setattr(wait, "Kubectl", lambda _context, _kubeconfig: kubectl(**rules))
    environment_of(monkeypatch)


def environment_of(monkeypatch: pytest.MonkeyPatch) -> None:
    for key, value in {"CONTEXT": "", "KUBECONFIG": "", "NAMESPACE": "istio-demo"}.items():
        monkeypatch.setenv(f"MESH_{key}", value)
    monkeypatch.setattr(sys, "stdin", io.StringIO(json.dumps({"bill-service": SERVICE})))
