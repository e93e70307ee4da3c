"""Counts of requests, and how they become more."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from typing import Generic, TypeVar

Source = TypeVar("Source", bound=Hashable)


@dataclass(frozen=True)
class Traffic:
    """What one proxy, or several, sent to one version; counts only go up while a proxy lives."""

    succeeded: int = 0
    """Answers below 500."""
    failed: int = 0
    """What the callers saw fail: answers from 500 on, resets, timeouts, nobody to ask."""
    retried: int = 0
    """Failures that no caller saw, because the proxy tried again: two times by default.
    https://istio.io/latest/docs/concepts/traffic-management/#retries"""
    slower: Mapping[float, int] = field(default_factory=dict)
    """Milliseconds → how many answers took longer, for 0 all of them; {} where the proxy does not keep it
    (`names.SUBSET_STATISTICS`)."""

    @property
    def requests(self) -> int:
        return self.succeeded + self.failed

    @property
    def attempts(self) -> int:
        return self.requests + self.retried

    @property
    def bad(self) -> int:
        """The attempts that failed, whether a caller saw it or not."""
        return self.failed + self.retried

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
        return self._with(other, 1)

    def __sub__(self, other: Traffic) -> Traffic:
        return self._with(other, -1)

    def _with(self, other: Traffic, sign: int) -> Traffic:
        return Traffic(
            self.succeeded + sign * other.succeeded,
            self.failed + sign * other.failed,
            self.retried + sign * other.retried,
            {
                bound: self.slower.get(bound, 0) + sign * other.slower.get(bound, 0)
                for bound in sorted({*self.slower, *other.slower})
            },
        )

    @property
    def is_negative(self) -> bool:
        return min(self.succeeded, self.failed, self.retried, *self.slower.values()) < 0


Snapshot = Mapping[Source, Mapping[str, Traffic]]
"""Source, such as a proxy → version → what it has counted since it began."""


class Meter(Generic[Source]):
    """What has been counted since the first snapshot, though sources come, go and begin anew."""

    def __init__(self, first: Snapshot[Source]) -> None:
        self._last = dict(first)
        self._total: defaultdict[str, Traffic] = defaultdict(Traffic)

    def update(self, snapshot: Snapshot[Source]) -> dict[str, Traffic]:
        """Version → what was counted since the first snapshot."""
        for source, versions in snapshot.items():
            last = self._last.get(source, {})
            for version, now in versions.items():
                more = now - last.get(version, Traffic())
                self._total[version] += now if more.is_negative else more
            if versions:
                self._last[source] = versions
        return dict(self._total)
