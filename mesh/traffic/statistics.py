"""Exact statistics of counts: how surprising one is, and what it proves.

All of it is the binomial distribution, by the incomplete beta function, so that a million requests take no longer than
ten. https://en.wikipedia.org/wiki/Binomial_distribution
"""

from __future__ import annotations

import math
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
    return _incomplete_beta(share, count, requests - count + 1)


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
    return _root(lambda share: at_most(count, requests, share) - (1 - confidence))


def lower_bound(count: int, requests: int, confidence: float) -> float:
    """The lowest share that `count` of `requests` is compatible with."""
    if count <= 0:
        return 0.0
    return _root(lambda share: (1 - confidence) - at_least(count, requests, share))


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


def _root(falling: Callable[[float], float]) -> float:
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if falling(middle) > 0 else (low, middle)
    return (low + high) / 2


def _incomplete_beta(x: float, a: float, b: float) -> float:
    """The regularized incomplete beta function by its continued fraction. https://dlmf.nist.gov/8.17#v"""
    if x <= 0.0 or x >= 1.0:
        return 0.0 if x <= 0.0 else 1.0
    if x > (a + 1) / (a + b + 2):  # where the fraction converges slowly
        return 1.0 - _incomplete_beta(1 - x, b, a)
    logarithm = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)
    return math.exp(logarithm) * _fraction(x, a, b) / a


def _fraction(x: float, a: float, b: float) -> float:
    """The continued fraction by the modified method of Lentz. https://dlmf.nist.gov/3.10#iii"""
    tiny = 1e-300
    numerator, denominator = 1.0, 1.0 - (a + b) * x / (a + 1)
    denominator = 1 / (denominator if abs(denominator) > tiny else tiny)
    result = denominator
    for m in range(1, 100_000):
        for term in (
            m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)),
            -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1)),
        ):
            denominator = 1 + term * denominator
            denominator = 1 / (denominator if abs(denominator) > tiny else tiny)
            numerator = 1 + term / numerator
            numerator = numerator if abs(numerator) > tiny else tiny
            result *= denominator * numerator
        if abs(denominator * numerator - 1) < 1e-14:
            return result
    return result
