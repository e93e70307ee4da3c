"""The wait for what is in flight to pods that go, with proxies that count what they are told to, and a clock."""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from io import StringIO
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import names
from mesh import drain
from mesh.cluster.envoy import Proxy, running
from mesh.cluster.kubectl import Kubectl, KubectlError

from .fake_kubectl import FakeKubectl, Object, made

NAMESPACE = "shop"


@dataclass
class Clock:
    now: float = 0
    pauses: int = 0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        self.pauses += 1


@dataclass(frozen=True)
class Telling(Proxy):
    """Gives one answer after the other, the last one for ever; None is a proxy that cannot be asked."""

    answers: list[Sequence[tuple[str, str, int]] | None] = field(default_factory=list, hash=False, compare=False)
    gone: bool = False

    def json(self, path: str, **query: str) -> Any:
        assert (path, query) == ("clusters", {"format": "json"})
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if answer is None:
            raise KubectlError("no such container")
        return {
            "cluster_statuses": [
                {"name": name, "host_statuses": [host(address, active)]} for name, address, active in answer
            ]
        }

    def is_gone(self) -> bool:
        return self.gone


def host(address: str, active: int) -> dict[str, Any]:
    """As `/clusters` has it; a count of 0 is left out there."""
    counts = {"cx_active": 7, "rq_active": active, "rq_total": 9}
    stats = [{"name": name, **({"value": str(count)} if count else {})} for name, count in counts.items()]
    return {"address": {"socket_address": {"address": address, "port_value": 80}}, "stats": stats}


def pod(name: str, *, ours: bool = True, proxy: bool = True, lifecycle: Any = None, **labels: str) -> Object:
    """With `drainSeconds` of 5, unless its `lifecycle` says otherwise."""
    containers: list[Any] = [{"name": "cart", "image": "cart:1"}]
    containers[0]["lifecycle"] = lifecycle or {"preStop": {"exec": {"command": ["sleep", "5"]}}}
    statuses = [{"name": "cart", "ready": True, "state": {"running": {}}}]
    if proxy:
        containers.append({"name": "istio-proxy", "image": "istio/proxyv2:1.31.0"})
        statuses.append({"name": "istio-proxy", "ready": True, "state": {"running": {}}})
    made_pod = made("Pod", name, NAMESPACE, {names.SIDECAR: "1.31.0"} if ours else {}, spec={"containers": containers})
    made_pod["metadata"]["labels"] = {"app": "cart", "version": "v1", **labels}
    made_pod["status"] = {"podIPs": [{"ip": f"10.0.0.{name[-1]}"}], "containerStatuses": statuses}
    return made_pod


def inbound(count: int) -> list[tuple[str, str, int]]:
    return [("inbound|80||", "10.0.0.1", count), ("prometheus_stats", "127.0.0.1", 3)]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(drain, "time", clock)
    return clock


def telling(monkeypatch: pytest.MonkeyPatch, *proxies: Telling) -> None:
    """These are the proxies of the mesh; each is the one of the pod with its name."""
    monkeypatch.setattr(drain, "proxies", lambda _kubectl: proxies)
    known = {proxy.pod: proxy for proxy in proxies}
    monkeypatch.setattr(
        drain, "running", lambda kubectl, pods: [known[one.pod] for one in running(kubectl, pods) if one.pod in known]
    )


def proxy(name: str, *answers: Sequence[tuple[str, str, int]] | None, gone: bool = False) -> Telling:
    return Telling(Kubectl(), NAMESPACE, name, answers=list(answers), gone=gone)


def version(*pods: Object, seconds: int = 60, name: str = "v1 of cart") -> drain.Going:
    return drain.Going(name, seconds, pods)


def test_nothing_waits_when_nothing_is_in_flight(
    clock: Clock, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    telling(monkeypatch, proxy("v1-1", inbound(0)))
    drain.drained(Kubectl(), [version(pod("v1-1"))])
    assert (clock.pauses, capsys.readouterr().out) == (0, "")


@given(st.lists(st.integers(0, 3), max_size=30), st.integers(1, 12))
def test_it_waits_until_the_last_has_ended_or_the_seconds_are_over(counts: list[int], seconds: int) -> None:
    clock = Clock()
    with pytest.MonkeyPatch.context() as monkeypatch, redirect_stdout(StringIO()) as out:
        monkeypatch.setattr(drain, "time", clock)
        telling(monkeypatch, proxy("v1-1", *map(inbound, [*counts, 0])))
        drain.drained(Kubectl(), [version(pod("v1-1"), seconds=seconds)])
    idle_after = [*counts, 0].index(0)
    looks = int(seconds / drain.PAUSE)
    assert clock.pauses == min(idle_after, looks)
    if idle_after > looks:
        assert f"v1 of cart: {counts[looks]} in flight still, after {seconds} seconds" in out.getvalue()
    else:
        assert ("has ended" in out.getvalue()) == bool(idle_after)


def test_each_version_has_its_own_time(
    clock: Clock, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    long = proxy("v2-2", *[inbound(2)] * 50, inbound(1), inbound(0))
    telling(monkeypatch, proxy("v1-1", inbound(4)), long)
    going = [version(pod("v1-1"), seconds=5), version(pod("v2-2"), seconds=60, name="v2 of cart")]
    drain.drained(Kubectl(), going)
    said = capsys.readouterr().out.splitlines()
    assert said == [
        "v1 of cart: 4 in flight, with 5 seconds left to end",
        "v2 of cart: 2 in flight, with 60 seconds left to end",
        "v1 of cart: 4 in flight still, after 5 seconds. Pods that go now cut what does not end in time",
        "v2 of cart: 2 in flight, with 50 seconds left to end",
        "v2 of cart: 2 in flight, with 40 seconds left to end",
        "v2 of cart: the last in flight has ended, after 26 seconds",
    ]
    assert clock.now == 25.5


def test_everything_that_comes_in_counts_and_nothing_that_goes_out(
    clock: Clock, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """An idle connection is none of it; a port that no service names is."""
    coming = [
        ("inbound|80||", "10.0.0.1", 1),
        ("inbound|7000||", "10.0.0.1", 2),
        ("InboundPassthroughCluster", "10.0.0.1", 4),
    ]
    going = [("outbound|80|v1|cart.shop.svc.cluster.local", "10.0.0.1", 8), ("xds-grpc", "", 16)]
    telling(monkeypatch, proxy("v1-1", [*coming, *going], going), proxy("v1-2", inbound(32), inbound(0)))
    drain.drained(Kubectl(), [version(pod("v1-1"), pod("v1-2"))])
    assert "39 in flight" in capsys.readouterr().out
    assert clock.pauses == 1


def test_of_a_pod_without_a_proxy_all_callers_are_asked(
    clock: Clock, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """By its subset, by the service as a whole, and by its own address, from any namespace and by a gateway."""
    web = [
        ("outbound|80|v1|cart.shop.svc.cluster.local", "10.0.0.1", 1),
        ("outbound|80||cart.shop.svc.cluster.local", "10.0.0.1", 2),
        ("PassthroughCluster", "10.0.0.1", 4),
        ("outbound|80|v2|cart.shop.svc.cluster.local", "10.0.0.2", 8),
    ]
    gateway = [("outbound|80||cart.shop.svc.cluster.local", "10.0.0.1", 16)]
    telling(monkeypatch, proxy("web-8", web, []), proxy("gateway-9", gateway, []))
    drain.drained(Kubectl(), [version(pod("v1-1", proxy=False))])
    assert "23 in flight" in capsys.readouterr().out
    assert clock.pauses == 1


@pytest.mark.parametrize("gone", [True, False])
def test_only_a_pod_that_is_gone_need_not_answer(
    gone: bool, clock: Clock, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    telling(monkeypatch, proxy("v1-1", None, gone=gone))
    drain.drained(Kubectl(), [version(pod("v1-1"), seconds=3)])
    assert clock.now == (0 if gone else 3)
    assert ("shop/v1-1 cannot be asked still, after 3 seconds" in capsys.readouterr().out) != gone


def test_what_goes_has_pods_of_this_program_that_were_not_told_to() -> None:
    told = pod("v1-2")
    told["metadata"]["deletionTimestamp"] = "2026-11-28T00:00:00Z"
    pods = [
        pod("v1-1"),
        told,
        pod("v1-3", lifecycle={"preStop": {"exec": {"command": ["sleep", "60"]}}}),
        pod("v2-4", version="v2", lifecycle={"preStop": {"httpGet": {"port": 80}}}),  # drainSeconds: 0
        pod("v3-5", version="v3", ours=False),
        pod("v4-6", version="v4"),
    ]
    versions = {f"{name} of cart": {"app": "cart", "version": name} for name in ("v1", "v2", "v3", "none")}
    found = drain.going(FakeKubectl(objects=pods), NAMESPACE, versions)
    assert [(of.name, of.seconds, [one["metadata"]["name"] for one in of.pods]) for of in found] == [
        ("v1 of cart", 60, ["v1-1", "v1-3"])
    ]


@given(st.from_regex(re.compile(r"[0-9a-z]{1,4}", re.ASCII), fullmatch=True))
def test_only_a_number_of_seconds_is_a_drain(argument: str) -> None:
    drained = drain.drain_seconds(pod("v1-1", lifecycle={"preStop": {"exec": {"command": ["sleep", argument]}}}))
    assert drained == (int(argument) if argument.isdecimal() else 0)
