"""What the gate looks at while a step has its time: what the callers count, and how the pods of the versions fare."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from config.routing import Gate
from mesh.cluster.metrics import metrics_of
from mesh.cluster.probe import Caller
from mesh.cluster.service import LiveService, Server
from mesh.shift.plan import Weights
from mesh.traffic.counts import Meter, Place, Places, Snapshot, Traffic, parts, whole
from mesh.traffic.gate import Finding, Verdict, decide, verdict

_LOOK_SECONDS = 2.0
_PROBES_AT_ONCE = 500
# Envoy adds up its times every five seconds.
_LAG_SECONDS = 8.0
# The kubelet looks every second, and the pod's status tells of a container that went down once it is started again.
_STATUS_SECONDS = 5.0


@dataclass(frozen=True)
class Watch:
    """How a step is judged: by the gate, for so long, with so many requests of our own.

    `restarts` are those of each version's containers before the shift.
    """

    gate: Gate
    seconds: float
    probes: int
    url: str
    caller: Caller | None
    restarts: Mapping[str, Mapping[str, int]]


@dataclass
class Step:
    """What became of one step; `seconds` are those of each part of its way to the proxies."""

    weights: Weights
    seconds: dict[str, float] = field(default_factory=dict)
    requests: dict[str, int] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)


class Watcher:
    """Judges step after step. The old version's requests of all of them count."""

    def __init__(self, live: LiveService, watch: Watch, say: Callable[[str], None]) -> None:
        self._live, self._watch, self._say = live, watch, say
        self._past: dict[str, list[Places]] = {}

    def judge(self, step: Step, new: Sequence[str]) -> Verdict:
        """The verdict on the versions `new`, which have more requests at this step than before. Raises `KubectlError`
        and `MetricsError`."""
        watching = self._watch
        servers = self._live.servers(self._live.look())
        meter = Meter(self._snapshot(servers))
        sent, end, last = 0, time.monotonic() + watching.seconds, math.inf
        longest = watching.seconds + (_STATUS_SECONDS if watching.probes else 0)
        looks = max(1, math.ceil(longest / _LOOK_SECONDS) + watching.probes // _PROBES_AT_ONCE)
        counted: Mapping[str, Places] = {}
        while True:
            if asked := self._ask(min(watching.probes - sent, _PROBES_AT_ONCE), end):
                sent += asked
                end = max(end, time.monotonic() + _STATUS_SECONDS)
            before, counted = counted, meter.update(self._snapshot(servers))
            over = time.monotonic() >= end and sent >= watching.probes
            of_all = {version: whole(places) for version, places in counted.items()}
            step.requests = {version: traffic.requests for version, traffic in of_all.items()}
            step.findings = self.findings(new, counted, before, looks, over)
            late = any(traffic.timed < traffic.requests for traffic in of_all.values())
            last = min(last, time.monotonic() + _LAG_SECONDS) if over else last
            waits = over and late and time.monotonic() < last
            result = verdict(step.findings)
            if result is Verdict.FAIL or (over and not (waits and result is Verdict.UNDECIDED)):
                break
        for version, places in counted.items():
            self._past.setdefault(version, []).append(places)
        for finding in step.findings:
            self._say(f"  {finding.version} {finding.criterion}: {finding.verdict.value}, {finding.text}")
        return result

    def _snapshot(self, servers: Sequence[Server]) -> Snapshot:
        """What the callers have counted, and beside it the pods: of callers whose proxies do not keep it nobody else
        knows that their answers were cut short."""
        return {**metrics_of(self._live).snapshot(), **self._live.served(servers)}

    def _ask(self, requests: int, end: float) -> int:
        """Sends a part of the requests, or lets some time pass."""
        if self._watch.caller and requests > 0:
            self._watch.caller.send(self._watch.url, requests)
            return requests
        time.sleep(max(0.1, min(_LOOK_SECONDS, end - time.monotonic())))
        return 0

    def findings(
        self, new: Sequence[str], counted: Mapping[str, Places], before: Mapping[str, Places], looks: int, final: bool
    ) -> list[Finding]:
        """`before` is what was counted at the look before."""
        # The old version's requests of all steps count: at the last one it may get none.
        seen_of_old = [places for version, past in self._past.items() if version not in new for places in past]
        seen_of_old += [places for version, places in counted.items() if version not in new]
        old: dict[Place, Traffic] = {}
        for places in seen_of_old:
            for place, traffic in places.items():
                old[place] = old.get(place, Traffic()) + traffic
        seen = self._live.look()
        pods, rollouts = self._live.pods(seen), self._live.rollouts(seen)
        found: list[Finding] = []
        for version in new:
            if not pods[version].ready:
                found.append(Finding(version, "ready pods", Verdict.FAIL, "none is left"))
            restarts = self._watch.restarts.get(version, {})
            # One that goes down between two requests is up again before anybody notices.
            if down := [name for name, count in pods[version].restarts.items() if count > restarts.get(name, 0)]:
                text = f"went down and was started again: {', '.join(down)}"
                found.append(Finding(version, "restarts", Verdict.FAIL, text))
            if rollout := rollouts.get(version):
                # What was counted may be of the old pods alone.
                result = Verdict.FAIL if rollout.failed else Verdict.UNDECIDED
                found.append(Finding(version, "roll-out", result, f"not over: {rollout}"))
            now, then = counted.get(version, {}), before.get(version, {})
            found += decide(
                version,
                whole(now),
                whole(old),
                self._watch.gate,
                looks,
                final,
                parts(now, old, then, pods[version].names),
                whole(then),
            )
        return found
