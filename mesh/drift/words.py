"""Drift as people and machines read it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from mesh.drift.compare import ABSENT, Difference, Path, Writer, at
from mesh.drift.find import Drift, Pending, Report, Secret

_LONGEST = 120


def report(found: Report, stack: str) -> Iterator[str]:
    """The whole report, line by line."""
    for drift in found.drift:
        yield from ("", title(drift), *(f"  {line}" for line in lines(drift)))
    if found.drift:
        yield from ("", f"{len(found.drift)} of {found.compared} objects are not as declared.")
        yield f"To put them right: mesh repair --stack {stack}"
    else:
        yield f"No drift: all {found.compared} objects are as declared."
    if found.decided:
        yield from ("", "Decided by others, whatever the stack's own objects say:")
        for one in found.decided:
            yield from (f"  {one.service}: {one}", f"    fix: {one.fix}")
    yield from allowed(found)
    if found.pending:
        yield from ("", "Not drift, but changes that are not applied yet (pulumi preview shows them):")
        yield from (f"  {pending(change)}" for change in found.pending)


def allowed(found: Report) -> Iterator[str]:
    """What is left to known writers, on one line; none where there is nothing."""
    counts = Counter(one.known.name for one in found.allowed)
    if counts:
        told = ", ".join(f"{_fields(count)} by {name}" for name, count in counts.items())
        yield f"Left to known writers (docs/operations.md): {told}."


def title(drift: Drift) -> str:
    release = f" (in the Helm release {drift.expected.release})" if drift.expected.release else ""
    return f"{drift.expected.identity}{release}"


def lines(drift: Drift) -> Iterator[str]:
    """What is not as declared, a line for each field; the weights of one route share a line."""
    if drift.is_missing:
        yield "is being deleted" if drift.is_going else "is missing"
        return
    if drift.stranger:
        yield f"is gone, and what has its name now {drift.stranger}"
    for difference, what in _told(drift, "{declared} declared, {live} live"):
        writer = drift.writers[drift.differences.index(difference)]
        yield f"{what} ({_who(writer)})"


def changes(drift: Drift) -> Iterator[str]:
    """What putting it right does: before → after."""
    if drift.is_missing:
        yield "nothing → made again as declared"
    yield from (what for _, what in _told(drift, "{live} → {declared}"))


def pending(change: Pending) -> str:
    """What a `pulumi up` would do to one object."""
    fields = [f"{d.field}: {' → '.join(_pair({'kind': change.identity.kind}, d))}" for d in change.differences]
    return f"{change.action} {change.identity}" + (f": {'; '.join(fields)}" if fields else "")


def as_data(report: Report, stack: str) -> dict[str, Any]:
    """The report for machines: one entry a field, `field` '' for an object that is missing."""
    return {
        "stack": stack,
        "compared": report.compared,
        "drift": [entry for drift in report.drift for entry in _entries(drift)],
        "pending": [
            {"action": change.action, **change.identity._asdict(), "fields": [d.field for d in change.differences]}
            for change in report.pending
        ],
        "decided": [
            {
                "service": one.service,
                "object": one.object,
                "owner": one.owner,
                "what": one.what,
                "callers": [str(caller) for caller in one.callers],
                "fix": one.fix,
            }
            for one in report.decided
        ],
        "allowed": [
            {
                **one.identity._asdict(),
                "field": one.field,
                "by": one.known.name,
                "manager": one.manager,
                "time": one.time,
                "source": one.known.source,
            }
            for one in report.allowed
        ],
    }


def shown(value: Any) -> str:
    """A value on one line."""
    if value is ABSENT:
        return "nothing"
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    text = text.replace("\n", "\\n")
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"


def _fields(count: int) -> str:
    return f"{count} field{'' if count == 1 else 's'}"


def _entries(drift: Drift) -> Iterator[dict[str, Any]]:
    identity = drift.expected.identity._asdict()
    common = {"apiVersion": drift.expected.body["apiVersion"], **identity, "release": drift.expected.release}
    if drift.is_missing or drift.stranger:
        live = drift.stranger or None
        yield {**common, "field": "", "declared": "present", "live": live, "manager": None, "time": None}
    for difference, writer in zip(drift.differences, drift.writers, strict=True):
        hidden = _is_hidden(drift.expected.body, difference)
        yield {
            **common,
            "field": difference.field,
            "declared": _HIDDEN if hidden else None if difference.declared is ABSENT else difference.declared,
            "live": _HIDDEN if hidden else None if difference.live is ABSENT else difference.live,
            "manager": writer.manager if writer else None,
            "time": writer.time if writer else None,
        }


_HIDDEN = "[secret]"


def _is_hidden(body: Mapping[str, Any], difference: Difference) -> bool:
    return body["kind"] == "Secret" or _has_secret(difference.declared)


def _has_secret(value: Any) -> bool:
    if isinstance(value, Mapping):
        return any(_has_secret(inner) for inner in value.values())
    return any(_has_secret(inner) for inner in value) if isinstance(value, list) else isinstance(value, Secret)


def _pair(body: Mapping[str, Any], difference: Difference) -> tuple[str, str]:
    if _is_hidden(body, difference):
        return _HIDDEN, "another"
    return shown(difference.declared), shown(difference.live)


def _who(writer: Writer | None) -> str:
    if writer is None:
        return "by whom is not recorded"
    return f"by {writer.manager}, {writer.time.replace('T', ' ').replace('Z', ' UTC')}"


def _is_weight(body: Mapping[str, Any], difference: Difference) -> bool:
    path = difference.path
    return body["kind"] == "VirtualService" and path[-1] == "weight" and len(path) > 2 and path[-3] == "route"


def _told(drift: Drift, form: str) -> Iterator[tuple[Difference, str]]:
    """Each difference in the `form`; the weights of one route share a line, and the first difference stands for all."""
    told: set[Path] = set()
    for difference in drift.differences:
        if not _is_weight(drift.expected.body, difference):
            declared, live = _pair(drift.expected.body, difference)
            yield difference, f"{difference.field}: {form.format(declared=declared, live=live)}"
        elif (route := difference.path[:-2]) not in told:
            told.add(route)
            yield difference, _weights(drift, route, form)


def _weights(drift: Drift, route: Path, form: str) -> str:
    """`bill-service: v1 90 % declared, 70 % live; v2 10 % declared, 30 % live`."""
    declared, live = _by_version(at(drift.expected.body, route)), _by_version(at(drift.live, route))
    told = [
        f"{version} {form.format(declared=f'{weight} %', live=f'{live.get(version, 0)} %')}"
        for version, weight in declared.items()
        if weight != live.get(version, 0)
    ]
    host = at(drift.expected.body, ("spec", "hosts", 0))
    name = at(drift.expected.body, (*route[:-1], "name"))
    several = len(at(drift.expected.body, route[:-2])) > 1
    return f"{host}{f' ({name})' if several and name is not ABSENT else ''}: {'; '.join(told)}"


def _by_version(route: Any) -> dict[str, Any]:
    return {one["destination"].get("subset", one["destination"]["host"]): one.get("weight", 0) for one in route}
