"""Weights as whole numbers that add up to 100."""

from __future__ import annotations

import math
from collections.abc import Mapping

from config.problems import nearest


def rounded(shares: Mapping[str, float]) -> dict[str, int]:
    """Shares of 100 as whole numbers that add up to 100, by largest remainder; equal remainders in their order.

    https://en.wikipedia.org/wiki/Largest_remainder_method
    """
    weights = {version: math.floor(share + 1e-9) for version, share in shares.items()}
    missing = 100 - sum(weights.values())
    by_remainder = sorted(shares, key=lambda version: weights[version] - shares[version])
    for version in by_remainder[:missing]:
        weights[version] += 1
    return weights


def aimed(current: Mapping[str, int], wanted: Mapping[str, int]) -> dict[str, int]:
    """The weights of all versions when those in `wanted` are as they say and the others share the rest as they do now.

    Others that have nothing now share it evenly. Raises `ValueError` for weights that cannot be.
    """
    for version, weight in wanted.items():
        if version not in current:
            raise ValueError(f"there is no version {version}: {nearest(version, current)}")
        if not 0 <= weight <= 100:
            raise ValueError(f"{version}={weight}: a weight is a whole number from 0 to 100")
    rest = 100 - sum(wanted.values())
    others = {version: weight for version, weight in current.items() if version not in wanted}
    if rest < 0:
        raise ValueError(f"the weights add up to {100 - rest}, and 100 is all there is")
    if not others:
        if rest:
            raise ValueError(f"the weights of all versions add up to {100 - rest}, not to 100")
        return {version: wanted[version] for version in current}
    now = sum(others.values())
    shares = {v: rest * (weight / now if now else 1 / len(others)) for v, weight in others.items()}
    whole = rounded({**shares, **wanted})
    return {version: whole[version] for version in current}


def on_the_way(start: Mapping[str, int], aim: Mapping[str, int], percent: int) -> dict[str, int]:
    """The weights when `percent` of the way from `start` to `aim` is done."""
    return rounded({version: start[version] + (aim[version] - start[version]) * percent / 100 for version in start})


def rising(start: Mapping[str, int], aim: Mapping[str, int]) -> list[str]:
    """The versions that get more than they had: those that a shift puts to the test."""
    return [version for version in start if aim[version] > start[version]]


def without_zeros(weights: Mapping[str, int]) -> dict[str, int]:
    """As Istio's proxies have them."""
    return {version: weight for version, weight in weights.items() if weight}


def described(weights: Mapping[str, int]) -> str:
    return ", ".join(f"{version} {weight} %" for version, weight in weights.items())


def undeclared(found: Mapping[str, int], declared: Mapping[str, int]) -> str:
    """In words, how the weights that were found differ from those that are declared; '' when they do not."""
    if without_zeros(found) == without_zeros(declared):
        return ""
    return f"declared is {described(declared)}, but the cluster has {described(found) if found else 'no rule'}"
