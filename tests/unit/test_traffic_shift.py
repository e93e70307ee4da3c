"""A shift ends where it should, whatever happens on the way, and a gate never passes on too little."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from math import comb
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

import names
from config.routing import Baseline, Gate, Latency
from istio import rules
from mesh.cluster.probe import Caller
from mesh.cluster.service import LiveService
from mesh.program.stack import Stack
from mesh.shift.fit import NotFitError, require_ours, require_pulumi, require_same_rule
from mesh.shift.interrupts import Interrupts
from mesh.shift.journal import BusyError, Journal
from mesh.shift.plan import ApplyError, InterruptedShiftError, Outcome, Plan, Weights, run
from mesh.shift.watch import Step, Watch, Watcher
from mesh.shift.world import LiveWorld
from mesh.traffic.counts import Meter, Place, Traffic, total
from mesh.traffic.gate import Verdict, decide, requests_needed, verdict

from .fake_kubectl import FakeKubectl, Object, crd, made
from .given import config as config_of

START, AIM = {"v1": 90, "v2": 10}, {"v1": 50, "v2": 50}


class World:
    """`happens` says what each step meets: a verdict, or 'apply' or 'interrupt' for what goes wrong."""

    def __init__(self, happens: list[Verdict | str]) -> None:
        self.file: Weights = START
        self.cluster: Weights = START
        self.happens, self.exposed, self.step = happens, 0, -1

    def _next(self) -> Verdict | str:
        return self.happens[self.step] if self.step < len(self.happens) else Verdict.PASS

    def apply(self, weights: Weights) -> None:
        self.step += 1
        self.file = weights
        if self._next() == "apply":
            raise ApplyError
        self.cluster = weights
        self.exposed = max(self.exposed, weights["v2"])

    def watch(self, weights: Weights) -> Verdict:
        assert self.cluster == weights
        met = self._next()
        if met == "interrupt":
            raise InterruptedShiftError
        assert isinstance(met, Verdict)
        return met

    def restore(self, weights: Weights) -> None:
        self.file = self.cluster = weights


@given(
    st.lists(st.sampled_from([*Verdict, "apply", "interrupt"]), max_size=6),
    st.lists(st.integers(1, 100), max_size=5, unique=True).map(sorted),
)
def test_file_and_cluster_agree_whatever_happens(happens: list[Verdict | str], percents: list[int]) -> None:
    world, plan = World(happens), Plan.of(START, AIM, percents)
    outcome = run(plan, world)
    assert world.file == world.cluster
    first = next((met for met in happens[: len(plan.steps)] if met is not Verdict.PASS), Verdict.PASS)
    expected = {
        Verdict.PASS: (Outcome.DONE, AIM),
        Verdict.FAIL: (Outcome.ROLLED_BACK, START),
        "apply": (Outcome.ROLLED_BACK, START),
        "interrupt": (Outcome.INTERRUPTED, START),
    }
    if first is Verdict.UNDECIDED:
        assert outcome is Outcome.HELD and world.file in plan.steps
    else:
        assert (outcome, world.file) == expected[first]


def test_a_version_that_fails_is_exposed_at_the_first_step_only() -> None:
    world = World([Verdict.FAIL])
    run(Plan.of({"v1": 100, "v2": 0}, {"v1": 0, "v2": 100}, [10, 25, 50]), world)
    assert world.exposed == 10


def test_an_error_that_nobody_expected_goes_back_too() -> None:
    class Broken(World):
        def watch(self, _weights: Weights) -> Verdict:
            raise ZeroDivisionError

    world = Broken([])
    with pytest.raises(ZeroDivisionError):
        run(Plan.of(START, AIM, [50]), world)
    assert world.file == world.cluster == START


def test_a_way_back_that_fails_is_told() -> None:
    class Stuck(World):
        def restore(self, _weights: Weights) -> None:
            raise ApplyError

    assert run(Plan.of(START, AIM, []), Stuck(["apply"])) is Outcome.LOST


def test_a_plan_has_no_step_twice() -> None:
    assert Plan.of(START, START, [10, 50]).steps == []
    assert [w["v2"] for w in Plan.of({"v1": 100, "v2": 0}, {"v1": 98, "v2": 2}, [10, 25, 50, 75]).steps] == [1, 2]


def times(fast: int, slow: int) -> Mapping[float, int]:
    """`fast` answers within 5 ms and `slow` ones that took from 100 to 250 ms."""
    total = fast + slow
    return {0.0: total, 5.0: slow, 10.0: slow, 25.0: slow, 50.0: slow, 100.0: slow, 250.0: 0, 500.0: 0}


OLD = Traffic(3000, 0, 0, times(2995, 5))


def judged(new: Traffic, gate: Gate | None = None, final: bool = True) -> Verdict:
    return verdict(decide("v2", new, OLD, gate or Gate(), looks=5, final=final))


def test_a_healthy_version_passes_at_the_end_and_not_before() -> None:
    healthy = Traffic(400, 0, 0, times(399, 1))
    assert judged(healthy) is Verdict.PASS
    assert judged(healthy, final=False) is Verdict.UNDECIDED


def test_too_few_requests_never_pass() -> None:
    assert requests_needed(Gate()) == 299
    for requests in (0, 1, 100, 298):
        assert judged(Traffic(requests, 0, 0, times(requests, 0) if requests else {})) is Verdict.UNDECIDED


def test_errors_and_hidden_retries_fail_early() -> None:
    assert judged(Traffic(285, 15, 0, times(300, 0)), final=False) is Verdict.FAIL
    assert judged(Traffic(300, 15, 15, times(315, 0)), final=False) is Verdict.FAIL


def test_ten_times_slower_fails() -> None:
    assert judged(Traffic(400, 0, 0, times(380, 20)), final=False) is Verdict.FAIL
    absolute = Gate(latency=Latency(p99="100ms"), baseline=Baseline(p99=0))
    assert judged(Traffic(400, 0, 0, times(380, 20)), absolute) is Verdict.FAIL
    assert judged(Traffic(400, 0, 0, times(400, 0)), absolute) is Verdict.PASS


def test_without_times_a_limit_on_times_is_undecided() -> None:
    assert judged(Traffic(5000)) is Verdict.UNDECIDED
    assert judged(Traffic(5000), Gate(baseline=Baseline(p99=0))) is Verdict.PASS


@given(st.integers(0, 2000), st.integers(0, 50), st.booleans())
def test_a_pass_proves_the_bound(good: int, bad: int, final: bool) -> None:
    gate = Gate(success_rate=99, baseline=Baseline(p99=0))
    if judged(Traffic(good, bad), gate, final) is Verdict.PASS:
        requests = good + bad
        # The probability of so few failures among so many requests if 1 % failed: at most 5 %.
        assert sum(comb(requests, k) * 0.01**k * 0.99 ** (requests - k) for k in range(bad + 1)) <= 0.05 + 1e-9


A, B = Place("shop/web", "a"), Place("shop/web", "b")


def test_a_meter_follows_sources_that_come_go_and_begin_anew() -> None:
    meter = Meter({A: {"v1": Traffic(100, 1)}})
    assert meter.update({A: {"v1": Traffic(110, 1)}}) == {"v1": {A: Traffic(10, 0)}}
    assert total(meter.update({B: {"v1": Traffic(5)}})["v1"].values()) == Traffic(15, 0)
    assert total(meter.update({A: {"v1": Traffic(112, 1)}, B: {}})["v1"].values()) == Traffic(17, 0)
    assert total(meter.update({B: {"v1": Traffic(2)}})["v1"].values()) == Traffic(19, 0)  # restarted


def test_quantiles_lie_between_the_bounds() -> None:
    traffic = Traffic(100, 0, 0, {0.0: 100, 5.0: 50, 10.0: 0})
    assert traffic.quantile(0.5) == 5.0 and traffic.quantile(0.75) == pytest.approx(7.5)
    assert Traffic(5).quantile(0.99) is None


def test_a_journal_keeps_a_second_shift_away_and_a_killed_one_in_mind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    stack = Stack("dev", tmp_path)
    with Journal(stack) as journal:
        journal.begin("bill-service", START, AIM, "text")
        with pytest.raises(BusyError), Journal(stack):
            pass
    with Journal(stack) as journal:
        assert journal.left is not None and journal.left["start"] == START
        journal.end()
    assert Journal(stack).left is None


# Roll-outs, as the API server tells of them

READY = {"type": "Ready", "status": "True"}


def workload(kind: str, **status: Any) -> Object:
    made_ = made(kind, "bill-service-v2", "istio-demo", status={"observedGeneration": 2, **status})
    made_["metadata"]["generation"] = 2
    return made_


def live(*objects: Object, kind: str = "Deployment") -> LiveService:
    config = config_of(services={"bill-service": {"workload": kind}})
    rules = [crd(plural, "networking.istio.io") for plural in ("destinationrules", "virtualservices")]
    return LiveService(config, "bill-service", FakeKubectl(objects=[*rules, *objects]))


@pytest.mark.parametrize(
    ("found", "told"),
    [
        (workload("Deployment", replicas=2, updatedReplicas=2, readyReplicas=1), None),
        (workload("Deployment", replicas=2, updatedReplicas=1, readyReplicas=1), "1 of 2"),
        (workload("Deployment", replicas=1, readyReplicas=1), "0 of 1"),  # its new pods cannot be made
        (workload("Deployment", replicas=1, updatedReplicas=1, observedGeneration=1), "0 of 1"),
        (workload("StatefulSet", replicas=3, updatedReplicas=1), "1 of 3"),
        (workload("DaemonSet", desiredNumberScheduled=2, updatedNumberScheduled=1), "1 of 2"),
        (workload("DaemonSet", desiredNumberScheduled=2, updatedNumberScheduled=2), None),
    ],
)
def test_a_rollout_is_over_when_no_pod_is_from_an_older_template(found: Object, told: str | None) -> None:
    service = live(found, kind=found["kind"])
    rollouts = service.rollouts(service.look())
    assert {v: str(rollout) for v, rollout in rollouts.items()} == (
        {"v2": f"{told} pods are from its newest template"} if told else {}
    )


def test_of_the_pods_of_others_no_rollout_is_known() -> None:
    service = live(kind="existing")
    assert service.rollouts([workload("Deployment", replicas=2, updatedReplicas=1)]) == {}


def test_a_pod_without_labels_is_nobody_s() -> None:
    service = live(ready_pod("ours"), made("Pod", "stray", "istio-demo", status={"podIP": "10.0.0.9"}))
    assert service.pods(service.look())["v2"].ready == ["10.0.0.1"]


# Whose the rules are


def rule(name: str, owner: str, host: str = "bill-service") -> Object:
    found = made("VirtualService", name, "istio-demo", spec={"hosts": [host]})
    found["metadata"]["annotations"] = {names.OWNER: owner} if owner else {}
    return found


@pytest.mark.parametrize(
    ("found", "told"),
    [
        (rule("vs-bill-service", "istio-governance/dev"), ""),
        (rule("others", "", host="front-tomcat.elsewhere"), ""),
        (rule("vs-bill-service", ""), "VirtualService vs-bill-service was not made by a stack"),
        (rule("vs-bill-service", "istio-governance/prod"), "belongs to the stack istio-governance/prod"),
        (rule("others", "", host="bill-service.istio-demo"), "has rules for the host bill-service"),
    ],
)
def test_a_shift_touches_no_rule_of_others(found: Object, told: str, tmp_path: Path) -> None:
    service = live(found)
    with pytest.raises(NotFitError, match=f"(?s){told}.*fix: ") if told else nullcontext():
        require_ours(Stack("dev", tmp_path), service, service.look())


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda _: None, ""),
        (lambda spec: spec["http"][0].update(timeout="3s"), r"http\[0\].timeout"),
        (lambda spec: spec["http"].insert(0, {"name": "old", "route": []}), r"http\[1\]"),
        (lambda spec: spec.update(gateways=["mesh"]), "gateways"),
    ],
)
def test_a_shift_takes_no_other_change_of_its_rule_along(change: Callable[[Any], None], told: str) -> None:
    [routed] = rules.routed(live().config)
    found = made("VirtualService", routed.weights.name, "istio-demo", spec=copy.deepcopy(routed.weights.spec))
    change(found["spec"])
    service = live(found)
    with pytest.raises(NotFitError, match=f"not as declared in .*{told}.*`pulumi up` first") if told else nullcontext():
        require_same_rule(service, service.look())


def test_without_pulumi_nothing_begins(tmp_path: Path) -> None:
    with pytest.raises(NotFitError, match="pulumi is not on PATH"):
        require_pulumi(Stack("dev", tmp_path, {"PATH": str(tmp_path)}))
    program = tmp_path / "pulumi"
    program.touch(0o700)
    require_pulumi(Stack("dev", tmp_path, {"PATH": str(tmp_path)}))


def ready_pod(name: str, restarts: int = 0) -> Object:
    status = {
        "podIP": "10.0.0.1",
        "conditions": [READY],
        "containerStatuses": [{"name": "app", "restartCount": restarts}],
    }
    pod = made("Pod", name, "istio-demo", status=status)
    pod["metadata"]["labels"] = {"service": "bill-service", "version": "v2"}
    return pod


def test_the_pods_of_a_service_are_asked_by_their_own_proxies() -> None:
    pod = ready_pod("new")
    proxy = {"name": "istio-proxy", "ready": True, "state": {"running": {}}, "restartCount": 0}
    pod["status"]["containerStatuses"] += [proxy]
    pod["spec"] = {"containers": [{"name": "app"}, {"name": "istio-proxy"}]}
    other = ready_pod("without-a-proxy")
    other["status"]["podIP"] = "10.0.0.2"
    service = live(pod, other)
    [server] = service.servers(service.look())
    assert (server.proxy.pod, server.version, server.address) == ("new", "v2", "10.0.0.1")


@pytest.mark.parametrize(("progressing", "expected"), [("True", Verdict.UNDECIDED), ("False", Verdict.FAIL)])
def test_a_gate_does_not_pass_what_is_not_rolled_out(progressing: str, expected: Verdict) -> None:
    """However well the old pods answer."""
    conditions = [{"type": "Progressing", "status": progressing}]
    service = live(workload("Deployment", replicas=2, updatedReplicas=1, conditions=conditions), ready_pod("old"))
    gate = Gate(success_rate=99, baseline=Baseline(success_rate=100, p99=0))
    findings = Watcher(service, Watch(gate, 1, 0, "", None, {}), print).findings(
        ["v2"], {"v2": {A: Traffic(1000)}}, {}, 1, final=True
    )
    assert verdict(findings) is expected
    assert [finding.criterion for finding in findings if finding.verdict is not Verdict.PASS] == ["roll-out"]


@pytest.mark.parametrize(("count", "expected"), [(1, []), (2, ["restarts"])])
def test_a_gate_fails_a_version_that_went_down_and_is_up_again(count: int, expected: list[str]) -> None:
    """However well it answers: the requests may all have come before and after."""
    service = live(workload("Deployment", replicas=1, updatedReplicas=1), ready_pod("new", restarts=count))
    gate = Gate(success_rate=99, baseline=Baseline(success_rate=100, p99=0))
    watch = Watch(gate, 1, 0, "", None, {"v2": {"app of new": 1}})
    findings = Watcher(service, watch, print).findings(["v2"], {"v2": {A: Traffic(1000)}}, {}, 1, final=True)
    assert [finding.criterion for finding in findings if finding.verdict is Verdict.FAIL] == expected


def test_a_gate_waits_until_a_pod_can_tell_that_it_went_down(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last requests may be over before the kubelet has looked."""
    pod, clock = ready_pod("new"), Clock()
    service = live(workload("Deployment", replicas=1, updatedReplicas=1), pod)

    class Kills:
        def send(self, _url: str, _requests: int) -> None:
            clock.at(3, lambda: pod["status"].update(ready_pod("new", restarts=1)["status"]))

    monkeypatch.setattr("mesh.shift.watch.time", clock)
    monkeypatch.setattr("mesh.shift.watch.metrics_of", lambda _: Nothing())
    watch = Watch(Gate(), 1, 500, "", cast(Caller, Kills()), {"v2": {"app of new": 0}})
    world = LiveWorld(Stack("dev", tmp_path), service, START, "", "", watch, Interrupts(print), print)
    world.steps.append(Step(AIM))
    assert world.watch(AIM) is Verdict.FAIL
    assert [f.criterion for f in world.steps[0].findings if f.verdict is Verdict.FAIL] == ["restarts"]


class Nothing:
    """Counts no requests at all."""

    def snapshot(self) -> dict[str, dict[str, Traffic]]:
        return {}


class Clock:
    """Time that passes only while somebody sleeps."""

    def __init__(self) -> None:
        self._now = 0.0
        self._due: dict[float, Callable[[], None]] = {}

    def at(self, when: float, do: Callable[[], None]) -> None:
        self._due[when] = do

    def monotonic(self) -> float:
        return self._now

    def sleep(self, seconds: float) -> None:
        self._now += seconds
        for when in [when for when in self._due if when <= self._now]:
            self._due.pop(when)()
