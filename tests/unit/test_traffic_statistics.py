"""The statistics against sums of exact fractions, and the promises of the tests that are built on them."""

from __future__ import annotations

import random
from fractions import Fraction
from math import comb

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.traffic.split import Verdict, judge
from mesh.traffic.statistics import (
    THREE_SIGMA,
    at_least,
    at_most,
    lower_bound,
    needed,
    plausible,
    power,
    surprise,
    upper_bound,
)

REQUESTS = st.integers(1, 400)
SHARES = st.integers(0, 100).map(lambda percent: percent / 100)


def summed(low: int, high: int, requests: int, share: float) -> float:
    """The probability of a count from `low` to `high`, without any approximation."""
    exact = Fraction(round(share * 100), 100)
    return float(sum(comb(requests, k) * exact**k * (1 - exact) ** (requests - k) for k in range(low, high + 1)))


@given(REQUESTS, SHARES, st.data())
def test_tails_are_sums_of_probabilities(requests: int, share: float, data: st.DataObject) -> None:
    count = data.draw(st.integers(0, requests))
    assert at_most(count, requests, share) == pytest.approx(summed(0, count, requests, share), rel=1e-9, abs=1e-12)
    assert at_least(count, requests, share) == pytest.approx(
        summed(count, requests, requests, share), rel=1e-9, abs=1e-12
    )


@given(REQUESTS, SHARES)
def test_a_plausible_range_leaves_out_less_than_alpha(requests: int, share: float) -> None:
    low, high = plausible(requests, share, THREE_SIGMA)
    assert 0 <= low <= high <= requests
    assert 1 - summed(low, high, requests, share) <= THREE_SIGMA
    for count in (low, high):
        assert surprise(count, requests, share) >= THREE_SIGMA
    for count in (low - 1, high + 1):
        assert not 0 <= count <= requests or surprise(count, requests, share) < THREE_SIGMA


def test_shares_of_nothing_and_of_all_are_exact() -> None:
    assert plausible(1000, 0.0, THREE_SIGMA) == (0, 0) and plausible(1000, 1.0, THREE_SIGMA) == (1000, 1000)
    assert surprise(1, 1000, 0.0) == 0 and surprise(999, 1000, 1.0) == 0


def test_a_million_requests_are_no_harder_than_ten() -> None:
    assert surprise(500_000, 1_000_000, 0.5) == 1.0
    assert surprise(501_500, 1_000_000, 0.5) == pytest.approx(0.0027, rel=0.02)  # three standard deviations


@given(REQUESTS, st.sampled_from([0.9, 0.95, 0.99]), st.data())
def test_bounds_are_the_shares_at_which_the_tails_are_what_confidence_leaves(
    requests: int, confidence: float, data: st.DataObject
) -> None:
    count = data.draw(st.integers(0, requests))
    upper, lower = upper_bound(count, requests, confidence), lower_bound(count, requests, confidence)
    assert lower <= count / requests <= upper
    assert count == requests or at_most(count, requests, upper) == pytest.approx(1 - confidence, abs=1e-6)
    assert count == 0 or at_least(count, requests, lower) == pytest.approx(1 - confidence, abs=1e-6)


def test_no_failure_in_299_requests_proves_99_percent() -> None:
    """0.99^299 is the first power below 0.05."""
    assert needed(0.01, 0.95) == 299
    assert upper_bound(0, 299, 0.95) <= 0.01 < upper_bound(0, 298, 0.95)
    assert needed(0.01, 0.95, count=1) == 473


@given(st.sampled_from([0.001, 0.01, 0.05, 0.5]), st.sampled_from([0.9, 0.95, 0.99]), st.integers(0, 5))
def test_needed_is_the_first_number_that_proves(share: float, confidence: float, count: int) -> None:
    requests = needed(share, confidence, count)
    assert upper_bound(count, requests, confidence) <= share + 1e-9
    assert requests == count + 1 or upper_bound(count, requests - 1, confidence) > share


def test_bounds_err_as_rarely_as_promised() -> None:
    """A share of 2 % drawn 500 times: the upper bound lies below it in at most 5 % of them."""
    chance = random.Random(7)  # noqa: S311
    below = sum(upper_bound(sum(chance.random() < 0.02 for _ in range(300)), 300, 0.95) < 0.02 for _ in range(500))
    assert below <= 500 * 0.05 + 4 * (500 * 0.05 * 0.95) ** 0.5


def test_a_split_by_chance_is_plausible_and_another_is_not() -> None:
    expected = {"v1": 0.9, "v2": 0.1}
    assert judge(expected, {"v1": 903, "v2": 97}).verdict is Verdict.PLAUSIBLE
    assert judge(expected, {"v1": 850, "v2": 150}).verdict is Verdict.DIFFERENT
    assert judge(expected, {"v1": 18, "v2": 2}).verdict is Verdict.TOO_FEW
    assert judge(expected, {"v1": 5, "v2": 15}).verdict is Verdict.DIFFERENT  # few, but enough for this


def test_one_stray_request_disproves_all_or_nothing() -> None:
    assert judge({"v1": 1.0, "v2": 0.0}, {"v1": 400}).verdict is Verdict.PLAUSIBLE
    assert judge({"v1": 1.0, "v2": 0.0}, {"v1": 399, "v2": 1}).verdict is Verdict.DIFFERENT
    assert judge({"v1": 1.0}, {"v1": 399, "v3": 1}).verdict is Verdict.DIFFERENT


def test_without_requests_nothing_is_known() -> None:
    assert judge({"v1": 0.9, "v2": 0.1}, {}).verdict is Verdict.TOO_FEW


@pytest.mark.parametrize("expected", [{"v1": 0.9, "v2": 0.1}, {"v1": 0.5, "v2": 0.5}, {"v1": 1.0, "v2": 0.0}])
def test_what_is_asked_for_finds_an_error_of_ten_points(expected: dict[str, float]) -> None:
    requests = judge(expected, {}).needed
    assert 30 <= requests <= 600
    assert power(requests, expected["v1"], expected["v1"] - 0.1, THREE_SIGMA) >= 0.95


def test_false_alarms_are_as_rare_as_promised() -> None:
    """Three versions, so three tests share alpha: the whole test errs in at most 0.27 % of cases."""
    chance = random.Random(11)  # noqa: S311
    alarms = 0
    for _ in range(500):
        drawn = chance.choices(["v1", "v2", "v3"], [70, 20, 10], k=500)
        counts = {version: drawn.count(version) for version in ("v1", "v2", "v3")}
        alarms += judge({"v1": 0.7, "v2": 0.2, "v3": 0.1}, counts).verdict is Verdict.DIFFERENT
    assert alarms <= 500 * THREE_SIGMA + 4 * (500 * THREE_SIGMA) ** 0.5


# count, requests, share, at most, at least, by the continued fraction with 40 digits (mpmath 1.4.1).
TAILS = [
    (1, 1, 0.001, 1.0, 0.001),
    (1, 1, 0.01, 1.0, 0.01),
    (1, 1, 0.1, 1.0, 0.1),
    (0, 1, 0.9, 0.09999999999999998, 1.0),
    (0, 10, 0.5, 0.0009765625, 1.0),
    (5, 10, 0.5, 0.623046875, 0.623046875),
    (10, 10, 0.9, 1.0, 0.3486784401000001),
    (0, 49, 0.01, 0.6111172395328653, 1.0),
    (9, 49, 0.1, 0.978498731118861, 0.05186793711566378),
    (0, 49, 0.5, 1.7763568394002505e-15, 1.0),
    (44, 49, 0.9, 0.5503091330814166, 0.6346154678137986),
    (40, 299, 0.1, 0.9758078760636512, 0.03614848526025163),
    (0, 299, 0.5, 0.0, 1.0),
    (1, 1000, 0.001, 0.7357589130301873, 0.6323045752290359),
    (100, 1000, 0.1, 0.5265990812951649, 0.5154177095659206),
    (500, 1000, 0.5, 0.5126125090891804, 0.5126125090891804),
    (532, 1000, 0.5, 0.9801103598925293, 0.023145598680249076),
    (0, 1000, 0.99, 0.0, 1.0),
    (990, 1000, 0.99, 0.5426994078251103, 0.5830408033010971),
    (0, 4000, 0.001, 0.018279019827489477, 1.0),
    (0, 4000, 0.01, 3.473588675197271e-18, 1.0),
    (40, 4000, 0.01, 0.541918708216434, 0.5213454334497262),
    (438, 4000, 0.1, 0.9776906508216423, 0.025177950264735648),
    (3638, 4000, 0.9, 0.9799228252640241, 0.022865107228407365),
    (3973, 4000, 0.99, 0.9880198231887085, 0.018883708651923483),
    (13513, 26700, 0.5, 0.9773159943900614, 0.023351371358804152),
    (0, 26700, 0.9, 0.0, 1.0),
    (26433, 26700, 0.99, 0.5082612112819367, 0.5162689993087893),
    (0, 1000000, 0.001, 0.0, 1.0),
    (0, 1000000, 0.01, 0.0, 1.0),
    (10000, 1000000, 0.01, 0.502659614799515, 0.5013498725636679),
    (0, 1000000, 0.1, 0.0, 1.0),
    (100000, 1000000, 0.1, 0.5008422104052018, 0.5004875960756507),
    (100600, 1000000, 0.1, 0.9772679178040993, 0.02291221167138073),
    (0, 1000000, 0.5, 0.0, 1.0),
    (501000, 1000000, 0.5, 0.9773038320453279, 0.02280414993269104),
    (900600, 1000000, 0.9, 0.9774117338100057, 0.022768075716948867),
    (0, 1000000, 0.99, 0.0, 1.0),
    (990000, 1000000, 0.99, 0.5013498725637027, 0.5026596147994802),
    (990199, 1000000, 0.99, 0.9777874896352681, 0.022753312016751296),
]
# count, requests, confidence, lower and upper bound, by bisection with the same.
BOUNDS = [
    (0, 299, 0.95, 0.0, 0.009969146792899269),
    (0, 50, 0.95, 0.0, 0.05815507911697225),
    (3, 1095, 0.95, 0.0007471537593060127, 0.007065607964049581),
    (6, 374, 0.99, 0.004794145949161498, 0.03851423154579778),
    (50, 100, 0.95, 0.4136217146309118, 0.5863782853690882),
    (99, 100, 0.9, 0.961660502504613, 0.9989469496904544),
    (100, 100, 0.95, 0.9704869503929601, 1.0),
    (1, 1, 0.99, 0.010000000000000009, 1.0),
    (20, 26700, 0.99, 0.00041512263317326683, 0.001239512932263399),
    (5000, 1000000, 0.95, 0.00488454313555296, 0.0051175840516408605),
]


@pytest.mark.parametrize(("count", "requests", "share", "most", "least"), TAILS)
def test_tails_are_exact(count: int, requests: int, share: float, most: float, least: float) -> None:
    assert at_most(count, requests, share) == pytest.approx(most, rel=0, abs=1e-12)
    assert at_least(count, requests, share) == pytest.approx(least, rel=0, abs=1e-12)


@pytest.mark.parametrize(("count", "requests", "confidence", "lower", "upper"), BOUNDS)
def test_bounds_are_exact(count: int, requests: int, confidence: float, lower: float, upper: float) -> None:
    assert lower_bound(count, requests, confidence) == pytest.approx(lower, rel=0, abs=1e-12)
    assert upper_bound(count, requests, confidence) == pytest.approx(upper, rel=0, abs=1e-12)
