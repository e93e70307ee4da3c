"""Exact statistics of counts: how surprising one is, and what it proves.

All of it is the binomial distribution, by the incomplete beta function, so that a million requests take no longer than
ten. https://dlmf.nist.gov/8.17.E5

SciPy has that function; it takes longer to import than most commands take in all, so it is when somebody asks.
"""

from __future__ import annotations

from collections.abc import Callable

THREE_SIGMA = 0.0027
"""How often chance alone brings a count further from what is expected than three standard deviations."""


def at_most(count: int, requests: int, share: float) -> float:
    """The probability of `count` or fewer of `requests` when each is one of them with the probability `share`."""
    return 1.0 - at_least(count + 1, requests, share) if count < requests else 1.0


def at_least(count: int, requests: int, share: float) -> float:
    """The probability of `count` or more."""
    if count <= 0:
        return 1.0
    if count > requests:
        return 0.0
    from scipy.special import betainc

    return float(betainc(count, requests - count + 1, share))


def surprise(count: int, requests: int, share: float) -> float:
    """The p-value of an exact two-sided binomial test: twice the smaller tail."""
    return min(1.0, 2 * min(at_most(count, requests, share), at_least(count, requests, share)))


def plausible(requests: int, share: float, alpha: float) -> tuple[int, int]:
    """The lowest and the highest count whose `surprise` is at least `alpha`."""
    low = _first(lambda count: 2 * at_most(count, requests, share) >= alpha, 0, requests)
    high = requests - _first(lambda count: 2 * at_least(requests - count, requests, share) >= alpha, 0, requests)
    return low, high


def power(requests: int, share: float, other: float, alpha: float) -> float:
    """How probably the test finds that the share is `other` when `share` was expected."""
    low, high = plausible(requests, share, alpha)
    return at_most(low - 1, requests, other) + at_least(high + 1, requests, other)


def upper_bound(count: int, requests: int, confidence: float) -> float:
    """The highest share that `count` of `requests` is compatible with (Clopper and Pearson, one-sided)."""
    if count >= requests:
        return 1.0
    from scipy.special import betaincinv

    return float(betaincinv(count + 1, requests - count, confidence))


def lower_bound(count: int, requests: int, confidence: float) -> float:
    """The lowest share that `count` of `requests` is compatible with."""
    if count <= 0:
        return 0.0
    from scipy.special import betaincinv

    return float(betaincinv(count, requests - count + 1, 1 - confidence))


def needed(share: float, confidence: float, count: int = 0) -> int:
    """The fewest requests with `count` of them that prove a share of at most `share`.

    With none: 299 for 1 % and a confidence of 95 %.
    """
    if not 0 < share < 1:
        return 1 if share >= 1 else 10**9
    low, high = count + 1, count + 2
    while at_most(count, high, share) > 1 - confidence:
        low, high = high, high * 2
    return _first(lambda requests: at_most(count, requests, share) <= 1 - confidence, low, high)


def _first(is_so: Callable[[int], bool], low: int, high: int) -> int:
    """The first number in low … high that `is_so`, and from which on all are; `high` when none is."""
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if is_so(middle) else (middle + 1, high)
    return low
