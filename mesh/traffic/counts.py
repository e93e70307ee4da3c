"""Counts of requests, and how they become more."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace


@dataclass(frozen=True)
class Traffic:
    """What one proxy, or several, sent to one version: attempts at requests, or connections of a TCP port.

    All but `active` are counts that only go up while a proxy lives; docs/shifting.md says where each is read.
    """

    succeeded: int = 0
    """Attempts with an answer that is no failure; TCP: connections that were made."""
    failed: int = 0
    """Attempts that failed before anything of an answer was passed on, or by their answer: statuses from 500 on and
    those of gRPC that mean the same, resets, timeouts, no connection, nobody to ask."""
    retried: int = 0
    """Those of `failed` that no caller saw, because the proxy tried again: two times by default.
    https://istio.io/latest/docs/concepts/traffic-management/#retries"""
    slower: Mapping[float, int] = field(default_factory=dict)
    """Milliseconds → how many answers took longer, for 0 all of them; {} where the proxy does not keep it
    (`names.SUBSET_STATISTICS`)."""
    begun: int = 0
    """All attempts, the failed and the unanswered ones included; 0 where it is not known."""
    active: int = 0
    """Those of `begun` that were under way when it was last counted: more and less, as time goes."""
    late: int = 0
    """Those of `failed` for which a timeout was over: the route's, or the deadline that a caller of gRPC sent along."""
    unconnected: int = 0
    """Those of `failed` for which no connection could be made."""
    cut: int = 0
    """Answers that broke off after they had begun; of gRPC they are among `failed`, too."""
    abandoned: int = 0
    """Attempts that were broken off on the callers' side, by timeouts too, before all of the answer was there."""
    connections: int = 0
    """TCP: connections of which is known whether anything came back."""
    received: int = 0
    """The bytes that did."""

    @property
    def attempts(self) -> int:
        """Those that are over."""
        return self.succeeded + self.failed + self.unanswered

    @property
    def requests(self) -> int:
        """As the callers see it: without what was tried again."""
        return max(0, self.attempts - self.retried)

    @property
    def tried(self) -> int:
        """Those that are over and those that are not."""
        return self.attempts + self.active

    @property
    def unanswered(self) -> int:
        """Attempts that the callers gave up without an answer. It is too few rather than too many: of the answers some
        belong to attempts from before the count, and some of the answered ones may still be under way."""
        return max(0, self.begun - self.succeeded - self.failed - self.active)

    @property
    def given_up(self) -> int:
        """By the callers, before the answer or in the middle of it."""
        return min(max(self.unanswered, self.abandoned - self.late, 0), self.succeeded + self.unanswered)

    @property
    def too_late(self) -> int:
        """Given up, or not in the time that was allowed."""
        return min(self.given_up + self.late, self.attempts)

    @property
    def wrong(self) -> int:
        """Attempts with an answer that is a failure, or only half an answer."""
        return min(max(self.failed - self.late - self.unconnected, self.cut, 0), self.attempts)

    @property
    def broken(self) -> int:
        """Attempts that failed, whoever waited and however long."""
        return min(self.wrong + self.unconnected, self.attempts)

    @property
    def bad(self) -> int:
        """The attempts that failed, whether a caller saw it or not."""
        return min(self.broken + self.too_late, self.attempts)

    @property
    def answered(self) -> int:
        """The attempts to which something came back, good or bad."""
        return max(0, self.succeeded + self.failed - self.late - self.unconnected)

    @property
    def timed(self) -> int:
        """How many answers `slower` knows of; a proxy adds them every five seconds."""
        return self.slower.get(0.0, 0)

    def quantile(self, quantile: float) -> float | None:
        """The milliseconds within which this share of the answers came, interpolated between two of Envoy's bounds;
        None when no time is known."""
        if not self.timed:
            return None
        allowed, below = self.timed * (1 - quantile), 0.0
        for bound, above in sorted(self.slower.items()):
            if above <= allowed:
                more = self.slower[below] - above
                return below + (bound - below) * (self.slower[below] - allowed) / more if more else bound
            below = bound
        return below

    def __add__(self, other: Traffic) -> Traffic:
        """What two have counted side by side."""
        return self._with(other, 1, self.active + other.active)

    def __sub__(self, earlier: Traffic) -> Traffic:
        """What came since."""
        return self._with(earlier, -1, self.active)

    def _with(self, other: Traffic, sign: int, active: int) -> Traffic:
        return Traffic(
            slower={
                bound: self.slower.get(bound, 0) + sign * other.slower.get(bound, 0)
                for bound in sorted({*self.slower, *other.slower})
            },
            active=active,
            **{name: getattr(self, name) + sign * getattr(other, name) for name in _COUNTERS},
        )

    @property
    def is_negative(self) -> bool:
        return any(value < 0 for value in (*(getattr(self, name) for name in _COUNTERS), *self.slower.values()))


_COUNTERS = tuple(one.name for one in fields(Traffic) if one.name not in ("slower", "active"))


@dataclass(frozen=True, order=True)
class Place:
    """Where something was counted. Of one attempt some things are counted by pod, and the others for all of them."""

    caller: str
    """The workload that called, such as `office/clerk`; '' for what the proxy of the pod that was asked has counted of
    all callers: the same requests a second time, so that it is never added to theirs."""
    counter: str
    """The proxy that has counted, or another source."""
    port: int = 0
    """Of the service; 0 where it is not known."""
    pod: str = ""
    """The address of the pod that was asked; '' for what is known of all of them together."""


Places = Mapping[Place, Traffic]
Snapshot = Mapping[Place, Mapping[str, Traffic]]
"""Place → version → what was counted there since the one that counts began."""


def total(counted: Iterable[Traffic]) -> Traffic:
    return sum(counted, Traffic())


def whole(places: Places) -> Traffic:
    """As all the callers have it."""
    return total(traffic for place, traffic in places.items() if place.caller)


@dataclass(frozen=True)
class Part:
    """What a version did for one caller, at one port or by one of its pods, beside what there is to compare it with."""

    name: str
    new: Traffic
    old: Traffic
    before: Traffic
    """What `new` was at the look before."""


def parts(new: Places, old: Places, before: Places, called: Mapping[str, str]) -> list[Part]:
    """The parts of a version's traffic, where there are several, and what its pods' own proxies say; `called` are the
    names of the pods by their addresses."""
    found = []
    ways = sorted({(place.caller, place.port) for place in new if place.caller})
    several_ports = len({port for _, port in ways}) > 1
    for way in ways if len(ways) > 1 else []:
        sides = [
            total(t for place, t in side.items() if (place.caller, place.port) == way) for side in (new, old, before)
        ]
        found.append(Part(f"for {way[0]}" + (f" at port {way[1]}" if several_ports else ""), *sides))
    pods = sorted({place.pod for place in new if place.caller and place.pod})
    for pod in pods if len(pods) > 1 else []:
        now, then = (
            total(t for place, t in side.items() if place.caller and place.pod == pod) for side in (new, before)
        )
        found.append(Part(f"by the pod {called.get(pod, pod)}", now, whole(old), then))
    for place in sorted(place for place in new if not place.caller):
        name = f"by the pod {called.get(place.pod, place.pod)} in the eyes of its own proxy"
        found.append(Part(name, new[place], whole(old), before.get(place, Traffic())))
    return [part for part in found if part.new.tried or part.new.connections]


class Meter:
    """What has been counted since the first snapshot, though those that count come, go and begin anew."""

    def __init__(self, first: Snapshot) -> None:
        self._last = dict(first)
        self._since: defaultdict[str, dict[Place, Traffic]] = defaultdict(dict)

    def update(self, snapshot: Snapshot) -> dict[str, Places]:
        """Version → what was counted since the first snapshot, by place."""
        for place, versions in snapshot.items():
            last = self._last.get(place, {})
            for version, now in versions.items():
                more = now - last.get(version, Traffic())
                more = now if more.is_negative else more
                known = self._since[version].get(place, Traffic())
                self._since[version][place] = replace(known + more, active=now.active)
            if versions:
                self._last[place] = versions
        return {version: dict(places) for version, places in self._since.items()}
