"""Whether a measured split is the declared one, or whether chance alone hardly brings it about."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from functools import cache

from mesh.traffic.statistics import THREE_SIGMA, plausible, power, surprise

MARGIN = 0.10
"""A share that is wrong by this much is to be found …"""
POWER = 0.95
"""… with at least this probability, or the requests are too few."""


class Verdict(Enum):
    PLAUSIBLE = "plausible"
    DIFFERENT = "different"
    TOO_FEW = "too few requests to tell"


@dataclass(frozen=True)
class Share:
    """One version's part of the requests; `low` and `high` are the counts between which chance leaves it."""

    expected: float
    count: int
    requests: int
    low: int
    high: int
    surprise: float
    """The p-value: how often chance alone brings a count at least as far off."""

    @property
    def measured(self) -> float:
        return self.count / self.requests if self.requests else 0.0

    @property
    def fits(self) -> bool:
        return self.low <= self.count <= self.high


@dataclass(frozen=True)
class Split:
    """The test of all versions at once.

    Each version has an exact two-sided binomial test, and the false-alarm rate of them all together is at most
    `alpha`, which is divided between them (Bonferroni); the counts of two versions are one number, and so one test.
    """

    shares: Mapping[str, Share]
    verdict: Verdict
    alpha: float
    needed: int
    """With how many requests a share that is wrong by MARGIN is found with the probability POWER."""


def judge(expected: Mapping[str, float], counts: Mapping[str, int], alpha: float = THREE_SIGMA) -> Split:
    """`expected` has the share of each version, all together 1; requests to a version that is not in it are wrong."""
    expected = {**expected, **{version: 0.0 for version in counts if version not in expected}}
    requests = sum(counts.values())
    each = alpha / (1 if len(expected) <= 2 else len(expected))
    shares = {
        version: Share(
            share,
            counts.get(version, 0),
            requests,
            *plausible(requests, share, each),
            surprise(counts.get(version, 0), requests, share),
        )
        for version, share in expected.items()
    }
    least = max((_needed(share, each) for share in expected.values()), default=1)
    if any(share.surprise < each for share in shares.values()):
        verdict = Verdict.DIFFERENT
    else:
        verdict = Verdict.PLAUSIBLE if requests >= least else Verdict.TOO_FEW
    return Split(shares, verdict, alpha, least)


@cache
def _needed(share: float, alpha: float) -> int:
    """Power goes up and down a little from one number to the next: the answer is one from which on it suffices."""
    others = [other for other in (share - MARGIN, share + MARGIN) if 0 <= other <= 1]
    requests = 8
    while not all(power(requests, share, other, alpha) >= POWER for other in others):
        requests += max(1, requests // 8)
    return requests
