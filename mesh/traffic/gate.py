"""Whether a version may get more requests, by what its callers have seen of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum

from config.routing import Gate
from config.types import seconds
from mesh.traffic.counts import Traffic
from mesh.traffic.statistics import lower_bound, needed, upper_bound

QUANTILES = {"p50": 0.5, "p90": 0.9, "p99": 0.99}
NOISE = 10.0
"""Milliseconds within which one version is not called slower than another."""
PROVED_BY = 0.01
"""A bound of 0 % cannot be proved by any number of requests: it is held to what proves this share."""


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


def decide(version: str, new: Traffic, old: Traffic, gate: Gate, looks: int, final: bool) -> list[Finding]:
    """The verdicts on all criteria of the gate.

    A failure is found at any of `looks` looks, which share the error probability that the confidence leaves
    (Bonferroni); a pass only at the final one. All bounds are Clopper and Pearson's, one-sided.
    """
    confidence = gate.confidence / 100
    surely = 1 - (1 - confidence) / max(looks, 1)
    findings = [_judged(version, limit, gate, confidence, surely, final) for limit in _limits(new, old, gate)]
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


def _limits(new: Traffic, old: Traffic, gate: Gate) -> Iterator[_Limit]:
    attempts, bad = new.attempts, new.bad
    if gate.success_rate:
        allowed = f"at most {_percent(1 - gate.success_rate / 100)} may"
        yield _Limit("success rate", 1 - gate.success_rate / 100, attempts, bad, bad, f"failed, {allowed}", proof=True)
    if gate.baseline.success_rate < 100 and old.attempts:
        share = old.bad / old.attempts
        limit = min(1.0, share + gate.baseline.success_rate / 100)
        allowed = f"at most {_percent(limit)} may, as {_percent(share)} of the old version's did"
        yield _Limit("success rate against the old version", limit, attempts, bad, bad, f"failed, {allowed}", False)
    for name, quantile in QUANTILES.items():
        if not new.timed:
            continue
        if (text := getattr(gate.latency, name)) is not None:
            most = 1000 * seconds(text)
            # Envoy counts by bounds: at the one below it is too strict, at the one above too lenient.
            over = new.slower[max(bound for bound in new.slower if bound <= most)]
            surely = max((new.slower[bound] for bound in new.slower if bound >= most), default=0)
            what = f"took more than {most:.0f} ms, at most {_percent(1 - quantile)} may"
            yield _Limit(name, 1 - quantile, new.timed, over, surely, what, proof=True)
        times, reference = getattr(gate.baseline, name), old.quantile(quantile)
        if times and reference is not None:
            most = max(times * reference, NOISE)
            most = min((bound for bound in new.slower if bound >= most), default=most)
            over = new.slower.get(most, 0)
            what = f"took more than {most:.0f} ms, at most {_percent(1 - quantile)} may"
            what += f", as the old version's {name} is {reference:.1f} ms"
            yield _Limit(f"{name} against the old version", 1 - quantile, new.timed, over, over, what, proof=False)


def _judged(version: str, limit: _Limit, gate: Gate, confidence: float, surely: float, final: bool) -> Finding:
    least = max(gate.requests, needed(limit.limit if limit.limit > 0 else PROVED_BY, confidence))
    seen = limit.over / limit.requests if limit.requests else 0.0
    text = f"{limit.over} of {limit.requests} ({_percent(seen)}) {limit.what}"
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


def _percent(share: float) -> str:
    return f"{100 * share:.3g} %"
