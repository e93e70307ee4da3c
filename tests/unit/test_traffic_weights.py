"""Weights stay whole and add up to 100, wherever a shift leads."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.traffic.weights import aimed, on_the_way, rising, rounded

VERSIONS = ("v1", "v2", "v3", "v4")


@st.composite
def weights(draw: st.DrawFn, versions: int | None = None) -> dict[str, int]:
    names = VERSIONS[: versions or draw(st.integers(2, 4))]
    cuts = sorted(draw(st.lists(st.integers(0, 100), min_size=len(names) - 1, max_size=len(names) - 1)))
    return {name: high - low for name, low, high in zip(names, [0, *cuts], [*cuts, 100], strict=True)}


def test_the_rest_goes_to_the_others_in_proportion() -> None:
    assert aimed({"v1": 90, "v2": 10}, {"v2": 50}) == {"v1": 50, "v2": 50}
    assert aimed({"v1": 60, "v2": 30, "v3": 10}, {"v3": 40}) == {"v1": 40, "v2": 20, "v3": 40}
    assert aimed({"v1": 50, "v2": 25, "v3": 25}, {"v1": 1}) == {"v1": 1, "v2": 50, "v3": 49}
    assert aimed({"v1": 100, "v2": 0, "v3": 0}, {"v1": 0}) == {"v1": 0, "v2": 50, "v3": 50}
    assert aimed({"v1": 90, "v2": 10}, {"v1": 30, "v2": 70}) == {"v1": 30, "v2": 70}


@pytest.mark.parametrize(
    ("wanted", "says"),
    [
        ({"v9": 10}, "no version v9"),
        ({"v2": 101}, "from 0 to 100"),
        ({"v2": -1}, "from 0 to 100"),
        ({"v1": 60, "v2": 60}, "add up to 120"),
        ({"v1": 10, "v2": 10}, "add up to 20"),
    ],
)
def test_impossible_weights_are_refused(wanted: dict[str, int], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        aimed({"v1": 90, "v2": 10}, wanted)


@given(weights(), st.data())
def test_an_aim_has_what_is_wanted_and_adds_up(current: dict[str, int], data: st.DataObject) -> None:
    version = data.draw(st.sampled_from(sorted(current)))
    weight = data.draw(st.integers(0, 100))
    aim = aimed(current, {version: weight})
    assert aim[version] == weight and sum(aim.values()) == 100 and list(aim) == list(current)
    assert all(value >= 0 for value in aim.values())


@given(weights(3), weights(3), st.lists(st.integers(1, 99), max_size=5))
def test_a_way_begins_and_ends_where_it_should_and_never_turns(
    start: dict[str, int], aim: dict[str, int], steps: list[int]
) -> None:
    assert on_the_way(start, aim, 0) == start and on_the_way(start, aim, 100) == aim
    for percent in steps:
        between = on_the_way(start, aim, percent)
        assert sum(between.values()) == 100
        for version, weight in between.items():
            low, high = sorted((start[version], aim[version]))
            assert low <= weight <= high


@given(st.lists(st.floats(0, 1), min_size=1, max_size=6).filter(lambda shares: sum(shares) > 0.01))
def test_rounding_moves_no_share_by_more_than_one(parts: list[float]) -> None:
    shares = {f"v{number}": 100 * part / sum(parts) for number, part in enumerate(parts)}
    whole = rounded(shares)
    assert sum(whole.values()) == 100
    assert all(abs(whole[version] - share) < 1 + 1e-6 for version, share in shares.items())


def test_those_that_rise_are_put_to_the_test() -> None:
    assert rising({"v1": 90, "v2": 10, "v3": 0}, {"v1": 40, "v2": 30, "v3": 30}) == ["v2", "v3"]
    assert rising({"v1": 90, "v2": 10}, {"v1": 90, "v2": 10}) == []
