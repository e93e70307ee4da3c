"""What a count may be when chance is to be blamed for a failure no more than once in a million times."""

from __future__ import annotations

from math import comb

FALSE_ALARM = 1e-6


def interval(requests: int, share: float) -> tuple[int, int]:
    """The shortest range, cut equally on both sides, outside which a count falls with at most FALSE_ALARM."""
    probabilities = [
        comb(requests, count) * share**count * (1 - share) ** (requests - count) for count in range(requests + 1)
    ]
    low, below = 0, probabilities[0]
    while below <= FALSE_ALARM / 2:
        low += 1
        below += probabilities[low]
    high, above = requests, probabilities[requests]
    while above <= FALSE_ALARM / 2:
        high -= 1
        above += probabilities[high]
    return low, high


def is_plausible(count: int, requests: int, share: float) -> bool:
    low, high = interval(requests, share)
    return low <= count <= high
