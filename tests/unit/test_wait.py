"""What the commands between subsets and weights wait for, with proxies that answer what they are told to."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import pytest

from mesh import drain, wait
from mesh.cluster.envoy import Proxy
from mesh.cluster.kubectl import Kubectl, KubectlError

from .fake_kubectl import FakeKubectl, crd, made

NUMBERS = count()
DOMAIN = "istio-demo.svc.cluster.local"
HOST = f"bill-service.{DOMAIN}"
SERVICE: Any = {"selector": {"service": "bill-service"}, "subsets": {v: {"version": v} for v in ("v1", "v2")}}


def clusters(**subsets: bool) -> dict[str, Any]:
    """As `/clusters` has them: subset → whether it has an endpoint; `whole` is the service itself."""
    return {
        "cluster_statuses": [
            {
                "name": f"outbound|9999|{'' if subset == 'whole' else subset}|{HOST}",
                **({"host_statuses": [{}]} if up else {}),
            }
            for subset, up in subsets.items()
        ]
    }


def routes(*subsets: str, mirror: str = "") -> dict[str, Any]:
    named = [{"name": f"outbound|9999|{subset}|{HOST}"} for subset in subsets]
    route: dict[str, Any] = {"weighted_clusters": {"clusters": named}}
    if mirror:
        route["request_mirror_policies"] = [{"cluster": f"outbound|9999|{mirror}|{HOST}"}]
    return {"configs": [{"route_config": {"virtual_hosts": [{"routes": [{"route": route}]}]}}]}


@dataclass(frozen=True)
class Telling(Proxy):
    """Gives one answer after the other, the last one for ever; None is a proxy that cannot be asked."""

    answers: list[dict[str, Any] | None] = field(default_factory=list, hash=False, compare=False)
    gone: bool = False

    def json(self, path: str, **query: str) -> Any:
        del path, query
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if answer is None:
            raise KubectlError("no such container")
        return answer

    def is_gone(self) -> bool:
        return self.gone


def proxy(*answers: dict[str, Any] | None, gone: bool = False) -> Telling:
    return Telling(Kubectl(), "istio-demo", f"pod-{next(NUMBERS)}", answers=list(answers), gone=gone)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wait, "PAUSE", 0)
    monkeypatch.setattr(wait, "SECONDS", 0.2)


def subsets(monkeypatch: pytest.MonkeyPatch, *asked: Telling, rules: Mapping[str, Any] | None = None) -> wait.Subsets:
    """v1 has a pod that is ready, v2 one that is not; `rules` are the specs of live VirtualServices."""
    monkeypatch.setattr(wait, "proxies", lambda _kubectl: asked)
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
    late = proxy(clusters(whole=True, v1=True), clusters(whole=True, v1=False, v2=False), clusters(v1=True, v2=False))
    early = proxy(clusters(whole=True, v1=True, v2=True))
    assert "2 proxies know" in subsets(monkeypatch, late, early).announced()
    assert len(late.answers) == 1


def test_a_proxy_that_sees_nothing_of_the_service_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    assert subsets(monkeypatch, proxy({"cluster_statuses": [{"name": "xds-grpc"}]})).announced()


def test_a_proxy_that_never_learns_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    deaf = proxy(clusters(whole=True, v1=True))
    with pytest.raises(TimeoutError) as error:
        subsets(monkeypatch, deaf).announced()
    assert f"istio-demo/{deaf.pod} does not know v2 of bill-service" in str(error.value)
    assert "requests go where they went" in str(error.value)


def test_of_many_proxies_that_never_learn_some_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(TimeoutError, match="25 of 25 proxies") as error:
        subsets(monkeypatch, *(proxy(clusters(whole=True)) for _ in range(25))).announced()
    assert str(error.value).count("does not know v1, v2") == 20
    assert "and 5 more" in str(error.value)


V1 = {"destination": {"host": "bill-service", "subset": "v1"}, "weight": 0}
V2 = {"host": "bill-service", "subset": "v2"}


def test_subsets_are_forgotten_when_no_proxy_routes_or_mirrors_to_one_without_a_rule(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    slow = proxy(routes("v1", "old"), routes("v1", mirror="old"), routes("v1", mirror="v2"))
    rules = {"vs_bill_service": {"http": [{"route": [V1], "mirror": V2}]}}
    waiting = subsets(monkeypatch, slow, rules=rules)
    assert waiting.routed() == {"bill-service": {"v1", "v2"}}
    assert "1 proxies send to no other" in waiting.forgotten(waiting.routed())
    assert len(slow.answers) == 1
    with pytest.raises(TimeoutError, match="still sends to old of bill-service"):
        subsets(monkeypatch, proxy(routes("v1", "old"))).forgotten({"bill-service": {"v1", "v2"}})


def test_a_proxy_is_asked_once_for_all_services(monkeypatch: pytest.MonkeyPatch) -> None:
    """As many as 300 services with as many callers."""
    services = [f"service-{number}" for number in range(300)]
    clusters = [f"outbound|80|{subset}|{name}.{DOMAIN}" for name in services for subset in ("", "v1", "v2")]
    listed = {"cluster_statuses": [{"name": name, "host_statuses": [{}]} for name in clusters]}
    pods = [proxy(listed, {}, {}) for _ in range(300)]
    monkeypatch.setattr(wait, "proxies", lambda _kubectl: pods)
    waiting = wait.Subsets(FakeKubectl(), "istio-demo", {name: wait.Service(**SERVICE) for name in services})
    assert "300 proxies know" in waiting.announced()
    assert {len(pod.answers) for pod in pods} == {2}
    waiting.forgotten({})
    assert {len(pod.answers) for pod in pods} == {1}


@pytest.mark.parametrize("gone", [True, False])
def test_only_a_pod_that_is_gone_need_not_answer(monkeypatch: pytest.MonkeyPatch, gone: bool) -> None:
    waiting = subsets(monkeypatch, proxy(None, gone=gone))
    if gone:
        assert waiting.announced()
    else:
        with pytest.raises(TimeoutError, match="cannot be asked: no such container"):
            waiting.announced()


LEFT = {"vs_bill_service": {"http": [{"route": [V1]}]}}


@pytest.mark.parametrize(("step", "text"), [("announced", "does not know v2"), ("forgotten", "still sends to old")])
def test_a_step_that_fails_ends_with_a_message(monkeypatch: pytest.MonkeyPatch, step: str, text: str) -> None:
    environment(monkeypatch, proxy({**clusters(whole=True, v1=True), **routes("old")}), **LEFT)
    with pytest.raises(SystemExit, match=text):
        wait.main(step)


def test_nothing_stops_the_rules_from_going_altogether(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    environment(monkeypatch, proxy(routes("old")))
    wait.main("forgotten")
    assert "did not wait: after" in capsys.readouterr().out
    monkeypatch.setattr(wait, "Kubectl", lambda _context, _kubeconfig: FakeKubectl(error="no route to host"))
    environment_of(monkeypatch)
    wait.main("forgotten")
    assert "did not wait: no route to host" in capsys.readouterr().out


def test_the_command_of_an_earlier_version_may_go(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    environment(monkeypatch, proxy(routes("old")), **LEFT)
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
    environment(monkeypatch, proxy(routes("v1")), **LEFT)
    wait.main("forgotten")
    environment(monkeypatch, proxy(routes()))
    wait.main("forgotten")
    labels = {f"{v} of bill-service": {"service": "bill-service", "version": v} for v in ("v1", "v2")}
    assert asked == [{"v2 of bill-service": labels["v2 of bill-service"]}, labels]
    assert capsys.readouterr().out.count("did not wait for what is in flight: forbidden") == 2


def environment(monkeypatch: pytest.MonkeyPatch, asked: Telling, **rules: Any) -> None:
    subsets(monkeypatch, asked)
    monkeypatch.setattr(wait, "Kubectl", lambda _context, _kubeconfig: kubectl(**rules))
    environment_of(monkeypatch)


def environment_of(monkeypatch: pytest.MonkeyPatch) -> None:
    for key, value in {"CONTEXT": "", "KUBECONFIG": "", "NAMESPACE": "istio-demo"}.items():
        monkeypatch.setenv(f"MESH_{key}", value)
    monkeypatch.setattr(sys, "stdin", io.StringIO(json.dumps({"bill-service": SERVICE})))
