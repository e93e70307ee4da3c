"""What the commands between subsets and weights wait for, with proxies that answer what they are told to."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import count
from typing import Any

import pytest

from mesh import wait
from mesh.envoy import Proxy
from mesh.kubectl import Kubectl, KubectlError

from .fake_kubectl import FakeKubectl, made

NUMBERS = count()
HOST = "bill-service.istio-demo.svc.cluster.local"


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
    return Telling(Kubectl(), "istio-demo", f"pod-{next(NUMBERS)}", {}, list(answers), gone)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wait, "PAUSE", 0)
    monkeypatch.setattr(wait, "SECONDS", 0.2)


def subsets(monkeypatch: pytest.MonkeyPatch, *asked: Telling, ready: str = "v1") -> wait.Subsets:
    monkeypatch.setattr(wait, "proxies", lambda _kubectl: asked)
    pod = made("Pod", "pod", "istio-demo", status={"conditions": [{"type": "Ready", "status": "True"}]})
    monkeypatch.setattr(
        FakeKubectl, "items", lambda _self, *args, **_: [pod] if args[-1].endswith(f"version={ready}") else []
    )
    labels = {version: {"version": version} for version in ("v1", "v2")}
    return wait.Subsets(FakeKubectl(), "istio-demo", "bill-service", {"service": "bill-service"}, labels)


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
    assert f"istio-demo/{deaf.pod} does not know v2" in str(error.value)
    assert "requests go where they went" in str(error.value)


def test_subsets_are_drained_when_no_proxy_routes_or_mirrors_to_another(monkeypatch: pytest.MonkeyPatch) -> None:
    slow = proxy(routes("v1", "old"), routes("v1", mirror="old"), routes("v1"))
    assert "1 proxies send to no other" in subsets(monkeypatch, slow).drained({"v1", "v2"})
    assert len(slow.answers) == 1
    with pytest.raises(TimeoutError, match="still sends to old"):
        subsets(monkeypatch, proxy(routes("v1", "old"))).drained({"v1", "v2"})


@pytest.mark.parametrize("gone", [True, False])
def test_only_a_pod_that_is_gone_need_not_answer(monkeypatch: pytest.MonkeyPatch, gone: bool) -> None:
    waiting = subsets(monkeypatch, proxy(None, gone=gone))
    if gone:
        assert waiting.drained({"v1"})
    else:
        with pytest.raises(TimeoutError, match="cannot be asked: no such container"):
            waiting.drained({"v1"})


@pytest.mark.parametrize(("step", "text"), [("announced", "does not know v2"), ("drained", "still sends to old")])
def test_a_step_that_fails_ends_with_a_message(monkeypatch: pytest.MonkeyPatch, step: str, text: str) -> None:
    environment(monkeypatch, proxy({**clusters(whole=True, v1=True), **routes("old")}))
    with pytest.raises(SystemExit, match=text):
        wait.main(step)


def test_nothing_stops_the_rules_from_going_altogether(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    environment(monkeypatch, proxy(routes("old")))
    wait.main("forgotten")
    assert "did not wait" in capsys.readouterr().out


def environment(monkeypatch: pytest.MonkeyPatch, asked: Telling) -> None:
    subsets(monkeypatch, asked)
    monkeypatch.setattr(wait, "Kubectl", lambda _context, _kubeconfig: FakeKubectl())
    values = {"CONTEXT": "", "KUBECONFIG": "", "NAMESPACE": "istio-demo", "SERVICE": "bill-service"}
    for key, value in values.items():
        monkeypatch.setenv(f"MESH_{key}", value)
    monkeypatch.setenv("MESH_SELECTOR", '{"service": "bill-service"}')
    monkeypatch.setenv("MESH_SUBSETS", '{"v1": {"version": "v1"}, "v2": {"version": "v2"}}')
