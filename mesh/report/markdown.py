"""The report as one comment on a pull request."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from mesh.report.report import ObjectDiff, Report
from mesh.report.risk import Risk
from mesh.report.values import count
from mesh.report.words import affected

LIMIT = 64_000
"""Characters. GitHub takes 65,536: https://github.com/orgs/community/discussions/27190"""

_CUT = "\n_Cut here: `mesh diff` prints the rest._\n"
# A list with more items than these is counted.
_LIST = 12
# A folded part that holds less than this says nothing.
_LEAST = 400


def marker(stack: str) -> str:
    """The comment's first line, which nobody sees, and by which it is found again on the next push."""
    return f"<!-- mesh diff: {stack} -->"


def write(report: Report) -> str:
    """At most `LIMIT` characters; what is cut says so."""
    head = "\n".join([marker(report.stack), *_head(report)]) + "\n"
    if len(head) > LIMIT:
        return head[: LIMIT - len(_CUT)] + _CUT
    text = head
    for title, diffs in _folded(report):
        text += _fold(title, diffs, LIMIT - len(text))
    return text


def _head(report: Report) -> Iterator[str]:
    yield f"## `{report.stack}`: {summary(report)}"
    yield ""
    if report.problems:
        yield from ("```text", report.problems.replace("```", "'''"), "```")
        return
    yield from (f"- **{one.subject}**{_inert(str(one)[len(one.subject) :])}" for one in report.words)
    if report.refusals:
        yield from ("", "**Refused**", "", *(f"- ⛔ {_escaped(line)}" for line in report.refusals))
    if report.verdict != "none":
        lines = (f"- {_escaped(line)}" for line in risk_lines(report.risk))
        yield from ("", f"**Risk: {report.risk.level}**", "", *lines)
    yield from ("", f"<sub>{report.before} → {report.after}</sub>")


def _inert(text: str) -> str:
    """Without HTML or code of its own."""
    return _escaped(text).replace("`", "'")


def _escaped(text: str) -> str:
    return text.replace("<", "&lt;")


def summary(report: Report) -> str:
    """The whole report in a few words."""
    match report.verdict:
        case "wrong":
            return "cannot be compared"
        case "refused":
            return "refused"
        case "none":
            return "no changes"
        case "changes":
            return f"{count(len(report.resources), 'resource')} {'changes' if len(report.resources) == 1 else 'change'}"


def risk_lines(risk: Risk) -> Iterator[str]:
    yield from (f"traffic: {line}" for line in risk.traffic or ("none moves",))
    yield from (f"meanwhile: {line}" for line in risk.meanwhile)
    yield "restarts: " + (_folded_list(risk.restarts) or "no pod")
    yield "deleted: " + (_folded_list(risk.deleted) or "nothing")
    yield "replaced: " + (_folded_list(risk.replaced) or "nothing")
    yield from (f"⚠ {line}" for line in risk.warnings)
    yield from (f"policy: {line}" for line in risk.policy)


def _folded_list(items: Sequence[str]) -> str:
    """More than a reader wants to go through are counted; each is named among the resources below."""
    if len(items) <= _LIST:
        return ", ".join(items)
    objects = [item for item in items if item[:1].isupper()]
    return ", ".join([affected(objects), "each below", *(item for item in items if item not in objects)])


def resources_title(report: Report) -> str:
    return f"Resources: {len(report.resources)} changed, {report.unchanged} unchanged"


def rendered_title(report: Report) -> str:
    return f"Rendered objects of the mesh: {len(report.rendered)} changed"


def _folded(report: Report) -> Iterator[tuple[str, Sequence[ObjectDiff]]]:
    if report.resources:
        yield resources_title(report), report.resources
    if report.rendered:
        yield rendered_title(report), report.rendered
    if report.not_rendered:
        yield "Rendered objects of the mesh: not known", [ObjectDiff("!", "helm", report.not_rendered)]


def _fold(title: str, diffs: Sequence[ObjectDiff], room: int) -> str:
    """A folded part of at most `room` characters."""
    opening, closing = f"\n<details><summary>{title}</summary>\n", "\n</details>\n"
    room -= len(opening) + len(closing) + len(_CUT)
    if room < _LEAST:
        return _CUT if room > 0 else ""
    parts = []
    for one in diffs:
        part = _block(one, room)
        room -= len(part)
        parts.append(part)
        if not part:
            parts.append(_CUT)
            break
    return opening + "".join(parts) + closing


def _block(one: ObjectDiff, room: int) -> str:
    """'' when there is too little room for it; a diff that is cut says so."""
    heading, end = f"\n**{one.sign} {one.name}**\n\n", "\n```\n"
    # A fence that no line of the diff can close.
    diff = one.diff.replace("```", "'''") or "(only what is not shown changes)"
    opening = f"{heading}```diff\n"
    room -= len(opening) + len(end)
    if len(diff) <= room:
        return f"{opening}{diff}{end}"
    kept = diff[: room - 40].rpartition("\n")[0] if room > _LEAST else ""
    return f"{opening}{kept}\n… cut{end}" if kept else ""
