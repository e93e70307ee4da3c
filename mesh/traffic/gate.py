"""Whether a version may get more requests, by what its callers have seen of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum

from config.routing import Gate
from config.types import seconds
from mesh.traffic.counts import Part, Traffic
from mesh.traffic.statistics import THREE_SIGMA, lower_bound, needed, plausible, upper_bound

QUANTILES = {"p50": 0.5, "p90": 0.9, "p99": 0.99}
NOISE = 10.0
"""Milliseconds within which one version is not called slower than another."""
PROVED_BY = 0.01
"""A bound of 0 % cannot be proved by any number of requests: it is held to what proves this share."""
ANSWERS = 0.5
"""At least this share of the requests a good version answers within a look, where the old one shows nothing better."""


class Verdict(Enum):
    PASS = "passed"  # noqa: S105
    FAIL = "failed"
    UNDECIDED = "undecided"


@dataclass(frozen=True)
class Finding:
    """The verdict on one criterion; `text` says what was seen, what is allowed and, if undecided, what is missing."""

    version: str
    criterion: str
    verdict: Verdict
    text: str


@dataclass(frozen=True)
class _Limit:
    """`over` of `requests` did what at most the share `limit` may do."""

    criterion: str
    limit: float
    requests: int
    over: int
    surely_over: int
    what: str
    proof: bool
    """Whether a pass has to be proved; otherwise it is enough that the share seen is not above the limit."""


def decide(
    version: str,
    new: Traffic,
    old: Traffic,
    gate: Gate,
    looks: int,
    final: bool,
    parts: Sequence[Part] = (),
    before: Traffic | None = None,
) -> list[Finding]:
    """The verdicts on all criteria of the gate, and on each of the `parts` of the traffic for which there is one.

    A failure is found at any of `looks` looks and in any of the parts, which share the error probability that the
    confidence leaves (Bonferroni); a pass only at the final look, and for the whole. All bounds are Clopper and
    Pearson's, one-sided. `before` is what `new` was at the look before: what was begun by then had time for an answer.
    """
    confidence = gate.confidence / 100
    surely = 1 - (1 - confidence) / (max(looks, 1) * (1 + len(parts)))
    if unheard := _unheard(version, "", new, old, before or Traffic(), surely, final):
        return [unheard]
    findings = [_judged(version, limit, gate, confidence, surely, final) for limit in _limits(new, old, gate, surely)]
    findings += [finding for part in parts for finding in _partial(version, part, gate, surely)]
    findings += [
        Finding(version, criterion, Verdict.UNDECIDED, text) for criterion, text in _unknown(new, old, gate, confidence)
    ]
    return findings or [_counted(version, new, gate)]


def verdict(findings: Sequence[Finding]) -> Verdict:
    """The worst of them."""
    seen = {finding.verdict for finding in findings}
    return next((worst for worst in (Verdict.FAIL, Verdict.UNDECIDED) if worst in seen), Verdict.PASS)


def requests_needed(gate: Gate) -> int:
    """The fewest requests of the new version with which every criterion can pass."""
    limits = [share for share in (1 - gate.success_rate / 100,) if gate.success_rate]
    limits += [gate.baseline.success_rate / 100] if gate.baseline.success_rate < 100 else []
    limits += [
        1 - QUANTILES[name]
        for name in QUANTILES
        if getattr(gate.latency, name) is not None or getattr(gate.baseline, name)
    ]
    least = [needed(share if share > 0 else PROVED_BY, gate.confidence / 100) for share in limits if share < 1]
    return max([gate.requests, *least, 1])


def _unheard(
    version: str, part: str, new: Traffic, old: Traffic, before: Traffic, surely: float, final: bool
) -> Finding | None:
    """A failure when callers tried and nobody answered, though the old version's answers make that no chance."""
    silent = bool(new.connections and not new.received and old.received)
    if not (new.tried or silent) or (new.answered and not silent):
        return None
    if silent:
        tried, share = before.connections, ANSWERS
    else:
        # Those that are over, or that nobody has answered since the look before.
        tried = max(new.attempts, before.tried)
        share = lower_bound(min(old.answered, old.tried), old.tried, surely) if old.tried else ANSWERS
    surprising = (1 - share) ** tried < 1 - surely
    if not (surprising or (final and new.too_late + new.unconnected and not old.too_late and not silent)):
        return None
    of = "connections" if new.connections else "requests"
    count = new.connections if silent else new.tried
    text = f"callers tried and nobody answered, not one of {count} {of} ({_kinds(new)})"
    return Finding(version, _of("answers", part), Verdict.FAIL, text)


def _partial(version: str, part: Part, gate: Gate, surely: float) -> Iterator[Finding]:
    """Failures of a part of the traffic, if they are more than the limit allows, and than the old version has there."""
    if unheard := _unheard(version, part.name, part.new, part.old, part.before, surely, final=False):
        yield unheard
    elif gate.success_rate and part.new.attempts:
        limit, (_, over) = 1 - gate.success_rate / 100, _over(part.new, part.old, surely)
        if part.old.attempts:
            limit = max(limit, upper_bound(part.old.broken, part.old.attempts, surely))
        if lower_bound(over, part.new.attempts, surely) > limit:
            text = f"{_failed(part.new)}, at most {_percent(limit)} may"
            yield Finding(version, _of("success rate", part.name), Verdict.FAIL, text)


def _over(new: Traffic, old: Traffic, surely: float) -> tuple[int, int]:
    """The attempts of the new version that count as its failures, and those that surely do.

    That callers give up may be their own way: as many as do so with the old version are left out, and as chance alone
    may bring along.
    """
    if not old.too_late:
        return new.bad, new.bad
    _, seen = plausible(new.attempts, old.too_late / old.attempts, THREE_SIGMA)
    _, most = plausible(new.attempts, upper_bound(old.too_late, old.attempts, surely), 2 * (1 - surely))
    over, surely_over = (min(new.attempts, new.broken + max(0, new.too_late - usual)) for usual in (seen, most))
    return over, min(over, surely_over)


def _limits(new: Traffic, old: Traffic, gate: Gate, sure: float) -> Iterator[_Limit]:
    attempts, (over, surely_over) = new.attempts, _over(new, old, sure)
    usual = f"; as {_percent(old.too_late / old.attempts)} of the old version's are too late" if old.too_late else ""
    counting = f"{usual}, {over} of them count" if usual else ""
    if gate.success_rate:
        allowed = 1 - gate.success_rate / 100
        what = f"{_failed(new)}, at most {_percent(allowed)} may{counting}"
        yield _Limit("success rate", allowed, attempts, over, surely_over, what, proof=True)
    if gate.baseline.success_rate < 100 and old.attempts:
        share = old.broken / old.attempts
        limit = min(1.0, share + gate.baseline.success_rate / 100)
        what = f"{_failed(new)}, at most {_percent(limit)} may, as {_percent(share)} of the old version's did{counting}"
        yield _Limit("success rate against the old version", limit, attempts, over, surely_over, what, False)
    for name, quantile in QUANTILES.items():
        if not new.timed:
            continue
        if (text := getattr(gate.latency, name)) is not None:
            most = 1000 * seconds(text)
            # Envoy counts by bounds: at the one below it is too strict, at the one above too lenient.
            slow = new.slower[max(bound for bound in new.slower if bound <= most)]
            surely = max((new.slower[bound] for bound in new.slower if bound >= most), default=0)
            what = f"{_took(slow, new, most)}, at most {_percent(1 - quantile)} may"
            yield _Limit(name, 1 - quantile, new.timed, slow, surely, what, proof=True)
        times, reference = getattr(gate.baseline, name), old.quantile(quantile)
        if times and reference is not None:
            most = max(times * reference, NOISE)
            most = min((bound for bound in new.slower if bound >= most), default=most)
            slow = new.slower.get(most, 0)
            what = f"{_took(slow, new, most)}, at most {_percent(1 - quantile)} may"
            what += f", as the old version's {name} is {reference:.1f} ms"
            yield _Limit(f"{name} against the old version", 1 - quantile, new.timed, slow, slow, what, proof=False)


def _judged(version: str, limit: _Limit, gate: Gate, confidence: float, surely: float, final: bool) -> Finding:
    least = max(gate.requests, needed(limit.limit if limit.limit > 0 else PROVED_BY, confidence))
    seen = limit.over / limit.requests if limit.requests else 0.0
    text = limit.what
    if lower_bound(limit.surely_over, limit.requests, surely) > limit.limit:
        return Finding(version, limit.criterion, Verdict.FAIL, text)
    enough = limit.requests >= least
    if limit.proof and limit.limit > 0:
        passed = enough and upper_bound(limit.over, limit.requests, confidence) <= limit.limit
    else:
        passed = enough and seen <= limit.limit
    if final and passed:
        return Finding(version, limit.criterion, Verdict.PASS, text)
    if not passed:
        more = needed(limit.limit, confidence, limit.over) if limit.proof and limit.limit > 0 else least
        text += f"; {max(more, least)} requests could show it with {gate.confidence:g} % confidence"
    return Finding(version, limit.criterion, Verdict.UNDECIDED, text)


def _unknown(new: Traffic, old: Traffic, gate: Gate, confidence: float) -> Iterator[tuple[str, str]]:
    """The criteria for which nothing has been counted."""
    if gate.baseline.success_rate < 100 and not old.attempts:
        yield "success rate against the old version", "the old version had no request to compare with"
    for name in QUANTILES:
        asked, times = getattr(gate.latency, name) is not None, getattr(gate.baseline, name)
        least = max(gate.requests, needed(1 - QUANTILES[name], confidence))
        if (asked or times) and not new.timed:
            why = f"no time is known of {new.requests} requests; {least} could show it"
            if new.requests >= least:
                why += "; do the callers' proxies keep them? (docs/shifting.md)"
            yield name, why
        elif times and not old.timed:
            yield f"{name} against the old version", "no time is known of the old version"


def _counted(version: str, new: Traffic, gate: Gate) -> Finding:
    """For a gate without any limit: only that there were enough requests."""
    enough = new.requests >= max(gate.requests, 1)
    text = f"{new.requests} requests, at least {max(gate.requests, 1)} wanted"
    return Finding(version, "requests", Verdict.PASS if enough else Verdict.UNDECIDED, text)


def _of(criterion: str, part: str) -> str:
    return f"{criterion} {part}" if part else criterion


def _failed(traffic: Traffic) -> str:
    if not traffic.attempts:
        return "no request went there, and none failed" if not traffic.active else f"{traffic.active} are under way"
    text = f"{_share(traffic.bad, traffic.attempts)} failed"
    return f"{text} ({_kinds(traffic)})" if traffic.bad else text


def _took(over: int, traffic: Traffic, most: float) -> str:
    return f"{_share(over, traffic.timed)} took more than {most:.0f} ms"


def _kinds(traffic: Traffic) -> str:
    """What went wrong, in words; the numbers are of attempts."""
    answered = max(0, traffic.failed - traffic.late - traffic.unconnected)
    cut = min(traffic.cut, traffic.attempts)
    said = {
        "answered with an error": max(0, answered - cut),
        "cut short in the middle of the answer": cut,
        "found no connection": traffic.unconnected,
        "too late for a timeout": traffic.late,
        "given up by callers that got no answer in their time": min(traffic.unanswered, traffic.given_up),
        "given up by callers in the middle of the answer": max(0, traffic.given_up - traffic.unanswered),
        "are still waiting": traffic.active if not traffic.answered else 0,
        "connections on which no byte came back": 0 if traffic.received else traffic.connections,
    }
    return ", ".join(f"{count} {what}" for what, count in said.items() if count)


def _share(count: int, whole: int) -> str:
    return f"{count} of {whole} ({_percent(count / whole if whole else 0.0)})"


def _percent(share: float) -> str:
    return f"{100 * share:.3g} %"
