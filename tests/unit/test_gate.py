"""What the gate makes of what went wrong: by kind, by part, and beside what callers do with the old version."""

from __future__ import annotations

from collections import Counter
from dataclasses import fields, replace
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from config.routing import Baseline, Gate, Latency
from mesh.traffic.counts import Part, Place, Traffic, parts, total, whole
from mesh.traffic.gate import Finding, Verdict, decide, verdict

GATE = Gate(baseline=Baseline(success_rate=100, p99=0), latency=Latency())
OLD = Traffic(900, begun=900)
LOOKS = 30
WORST = (Verdict.PASS, Verdict.UNDECIDED, Verdict.FAIL)

counts = st.integers(0, 400)
KINDS = ("late", "unconnected", "cut", "abandoned")


def findings(new: Traffic, old: Traffic = OLD, final: bool = False, before: Traffic | None = None,
             of: tuple[Part, ...] = ()) -> list[Finding]:  # fmt: skip
    return decide("v2", new, old, GATE, LOOKS, final, of, before)


def judged(new: Traffic, old: Traffic = OLD, final: bool = False, before: Traffic | None = None) -> Verdict:
    return verdict(findings(new, old, final, before))


def words(found: list[Finding]) -> str:
    return "; ".join(f"{one.criterion}: {one.text}" for one in found if one.verdict is Verdict.FAIL)


@st.composite
def traffic(draw: st.DrawFn) -> Traffic:
    """What proxies can have counted: of the failed ones some are of a kind that has its own count."""
    succeeded, failed, unanswered, active = (draw(counts) for _ in range(4))
    late = draw(st.integers(0, failed))
    return Traffic(
        succeeded,
        failed,
        begun=succeeded + failed + unanswered + active,
        active=active,
        late=late,
        unconnected=draw(st.integers(0, failed - late)),
        cut=draw(st.integers(0, succeeded)),
        abandoned=draw(st.integers(0, succeeded + unanswered + late)),
    )


@given(traffic())
def test_of_the_attempts_that_are_over_each_is_good_or_bad_in_some_way(one: Traffic) -> None:
    assert 0 <= one.broken <= one.bad <= one.attempts <= max(one.begun, one.attempts)
    assert 0 <= one.too_late <= one.bad and min(one.given_up, one.wrong) >= 0
    assert one.tried == one.attempts + one.active


@given(traffic(), traffic(), traffic())
def test_sums_do_not_depend_on_their_order(a: Traffic, b: Traffic, c: Traffic) -> None:
    assert (a + b) + c == c + (b + a) == total([b, c, a])
    assert a + b - b == replace(a, active=a.active + b.active)


@given(
    traffic(),
    st.sampled_from(["failed", "cut", "unconnected", "abandoned", "late"]),
    st.integers(1, 200),
    st.booleans(),
)
def test_failures_never_lower_suspicion(one: Traffic, kind: str, more: int, final: bool) -> None:
    """In place of as many good answers."""
    if one.succeeded - one.cut - one.given_up < more:
        return
    changes = {kind: getattr(one, kind) + more}
    if kind in ("failed", "unconnected", "late"):
        changes |= {"succeeded": one.succeeded - more, "failed": one.failed + more}
    worse = replace(one, **changes)
    assert worse.bad >= one.bad
    if one.answered and worse.answered:
        assert WORST.index(judged(worse, final=final)) >= WORST.index(judged(one, final=final))


@given(traffic(), st.integers(1, 400))
def test_good_answers_never_make_it_fail(one: Traffic, more: int) -> None:
    better = replace(one, succeeded=one.succeeded + more, begun=one.begun + more)
    assert not (judged(one) is not Verdict.FAIL and judged(better) is Verdict.FAIL)


@given(st.integers(5, 400))
def test_callers_that_got_no_answer_make_it_fail_at_once(requests: int) -> None:
    found = findings(Traffic(begun=requests))
    assert verdict(found) is Verdict.FAIL
    assert f"nobody answered, not one of {requests} requests ({requests} given up by callers" in words(found)


def test_no_callers_and_callers_without_an_answer_are_different_verdicts() -> None:
    for final in (False, True):
        assert judged(Traffic(), final=final) is Verdict.UNDECIDED
    assert "no request went there" in findings(Traffic())[0].text
    assert judged(Traffic(begun=1)) is Verdict.UNDECIDED  # one alone may be chance
    assert judged(Traffic(begun=1), final=True) is Verdict.FAIL
    assert judged(Traffic(begun=1), Traffic(), final=True) is Verdict.FAIL


def test_requests_that_nobody_answered_since_the_look_before_count_as_tried() -> None:
    """Also where callers have all the patience of the world."""
    waiting = Traffic(begun=20, active=20)
    assert judged(waiting) is Verdict.UNDECIDED  # they may have been begun a moment ago
    found = findings(waiting, before=waiting)
    assert "not one of 20 requests (20 are still waiting)" in words(found)


def test_where_answers_take_long_with_the_old_version_too_it_may_take_its_time() -> None:
    waiting = Traffic(begun=20, active=20)
    old = Traffic(4, begun=104, active=100)
    assert judged(waiting, old, before=waiting) is Verdict.UNDECIDED


@pytest.mark.parametrize(
    ("new", "told"),
    [
        (Traffic(30, 20, begun=50), "20 of 50 (40 %) failed (20 answered with an error)"),
        (Traffic(50, begun=50, cut=20), "20 cut short in the middle of the answer"),
        (Traffic(30, 20, begun=50, cut=20), "failed (20 cut short in the middle of the answer)"),  # gRPC
        (Traffic(30, 20, begun=50, unconnected=20), "20 found no connection"),
        (Traffic(30, 20, begun=50, late=20), "20 too late for a timeout"),
        (Traffic(30, begun=50), "20 given up by callers that got no answer in their time"),
        (Traffic(50, begun=50, abandoned=20), "20 given up by callers in the middle of the answer"),
    ],
)
def test_a_failure_says_in_words_what_was_wrong(new: Traffic, told: str) -> None:
    found = findings(new)
    assert verdict(found) is Verdict.FAIL and told in words(found), found


def test_callers_that_give_up_with_the_old_version_as_often_are_no_reason() -> None:
    """As where each stream ends by its caller."""
    old = Traffic(2000, begun=2000, abandoned=600)
    assert judged(Traffic(400, begun=400, abandoned=121), old, final=True) is Verdict.PASS
    gate = Gate(baseline=Baseline(success_rate=1, p99=0))
    found = decide("v2", Traffic(400, begun=400, abandoned=130), old, gate, LOOKS, True)
    assert verdict(found) is Verdict.PASS and "30 % of the old version's are too late, 0 of them count" in found[1].text
    assert judged(Traffic(400, begun=400, abandoned=390), old) is Verdict.FAIL
    assert judged(Traffic(300, 100, begun=400, abandoned=90), old) is Verdict.FAIL  # errors are no habit of callers


def test_deadlines_of_callers_are_their_own() -> None:
    old = Traffic(1400, 600, begun=2000, late=600)
    assert judged(Traffic(280, 121, begun=401, late=121), old, final=True) is Verdict.PASS
    assert judged(Traffic(280, 121, begun=401, late=121), final=False) is Verdict.FAIL


def test_connections_on_which_no_byte_comes_back_fail_where_the_old_version_answers() -> None:
    old = Traffic(400, connections=400, received=9000)
    silent = Traffic(20, connections=20)
    assert judged(silent, old) is Verdict.UNDECIDED
    assert "20 connections on which no byte came back" in words(findings(silent, old, before=silent))
    assert judged(silent, replace(old, received=0), before=silent) is Verdict.UNDECIDED  # nothing to expect
    assert judged(replace(silent, received=1), old, before=silent) is Verdict.UNDECIDED
    # What comes back is not known by proxies that keep no statistics.
    assert judged(Traffic(20), Traffic(400), before=Traffic(20)) is Verdict.UNDECIDED


WEB, CLERK = ("shop/web", "web-1"), ("office/clerk", "clerk-1")


def test_a_caller_a_port_and_a_pod_are_not_averaged_away() -> None:
    good, bad = Traffic(970, begun=970), Traffic(22, 8, begun=30)
    for new, name in (
        ({Place(*WEB, 80, "a"): good, Place(*CLERK, 80, "a"): bad}, "success rate for office/clerk"),
        ({Place(*WEB, 80, "a"): good, Place(*WEB, 8081, "a"): bad}, "success rate for shop/web at port 8081"),
        ({Place(*WEB, 80, "a"): good, Place(*WEB, 80, "b"): bad}, "success rate by the pod b"),
    ):
        assert judged(total(new.values())) is Verdict.UNDECIDED
        found = findings(total(new.values()), of=tuple(parts(new, {Place(*WEB, 80): OLD}, {}, {})))
        assert words(found).startswith(f"{name}: 8 of 30 (26.7 %) failed (8 answered with an error)"), found


def test_a_caller_that_fares_as_badly_with_the_old_version_is_no_reason() -> None:
    new = {Place(*WEB, 80): Traffic(970, begun=970), Place(*CLERK, 80): Traffic(22, 8, begun=30)}
    old = {Place(*WEB, 80): OLD, Place(*CLERK, 80): Traffic(70, 30, begun=100)}
    assert verdict(findings(total(new.values()), of=tuple(parts(new, old, {}, {})))) is not Verdict.FAIL


def test_one_request_of_a_caller_that_gave_up_is_no_verdict_on_all() -> None:
    new = {Place(*WEB, 80): Traffic(970, begun=970), Place(*CLERK, 80): Traffic(begun=1)}
    found = findings(whole(new), final=True, of=tuple(parts(new, {Place(*WEB, 80): OLD}, {}, {})))
    assert verdict(found) is Verdict.PASS
    many = {**new, Place(*CLERK, 80): Traffic(begun=12)}
    found = findings(whole(many), of=tuple(parts(many, {Place(*WEB, 80): OLD}, {}, {})))
    assert words(found).startswith("answers for office/clerk: callers tried and nobody answered")


def test_of_one_caller_and_one_pod_there_are_no_parts() -> None:
    new = {Place(*WEB, 80, "a"): Traffic(5), Place(*WEB, 80): Traffic(retried=1)}
    assert parts(new, {}, {}, {}) == []


def test_what_the_pods_themselves_count_is_judged_and_never_added() -> None:
    """It tells of answers cut short, and of connections by pod, where the callers' proxies keep no statistics."""
    new = {Place(*CLERK, 80, "a"): Traffic(50, begun=50), Place("", "shop/v2-0", pod="a"): Traffic(50, cut=30)}
    assert whole(new) == Traffic(50, begun=50)
    assert judged(whole(new)) is Verdict.UNDECIDED
    found = findings(whole(new), of=tuple(parts(new, {Place(*CLERK, 80): OLD}, {}, {"a": "v2-0"})))
    told = "success rate by the pod v2-0 in the eyes of its own proxy: 30 of 50 (60 %) failed (30 cut short"
    assert words(found).startswith(told), found
    silent = {
        Place(*CLERK, 80, "a"): Traffic(40),
        Place("", "shop/v2-0", pod="a"): Traffic(connections=20, received=9),
        Place("", "shop/v2-1", pod="b"): Traffic(connections=20),
    }
    old = {Place(*WEB, 80): Traffic(400, connections=400, received=900)}
    found = findings(whole(silent), whole(old), of=tuple(parts(silent, old, silent, {})))
    assert words(found).startswith(
        "answers by the pod b in the eyes of its own proxy: callers tried and nobody answered"
    )


@pytest.mark.parametrize(("share", "most"), [(0.002, 0), (0.01, 0.05)])
def test_good_versions_are_hardly_ever_taken_back(share: float, most: float) -> None:
    """At any of 30 looks, for any of five callers or by any of two pods: at the limit itself in one shift of twenty."""
    random, shifts, alarms = Random(17), 100, 0  # noqa: S311
    for _ in range(shifts):
        new: Counter[Place] = Counter()
        bad: Counter[Place] = Counter()
        for _look in range(LOOKS):
            for _request in range(20):
                number = random.randrange(5)
                place = Place(f"shop/c{number}", str(number), 80, f"pod-{random.randrange(2)}")
                new[place] += 1
                bad[place] += random.random() < share
            places = {place: Traffic(new[place] - bad[place], bad[place], begun=new[place]) for place in new}
            found = findings(total(places.values()), of=tuple(parts(places, {Place(*WEB, 80): OLD}, {}, {})))
            if verdict(found) is Verdict.FAIL:
                alarms += 1
                break
    assert alarms <= most * shifts


def test_every_count_goes_into_sums_and_differences() -> None:
    numbers = [one.name for one in fields(Traffic) if one.name != "slower"]
    one = Traffic(slower={5.0: 3}, **dict.fromkeys(numbers, 3))
    assert (one + one) - one == replace(one, active=6)
