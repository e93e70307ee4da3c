"""The report for a terminal: the words of the comment, in the same order."""

from __future__ import annotations

from collections.abc import Iterator

from mesh.report.markdown import rendered_title, resources_title, risk_lines, summary
from mesh.report.report import ObjectDiff, Report


def write(report: Report) -> str:
    return "\n".join(_lines(report)) + "\n"


def _lines(report: Report) -> Iterator[str]:
    yield f"{report.stack}: {summary(report)}"
    yield f"{report.before} → {report.after}"
    if report.problems:
        yield from ("", report.problems)
        return
    if report.words:
        yield from ("", *map(str, report.words))
    if report.refusals:
        yield from ("", "refused", *(f"  {line}" for line in report.refusals))
    if report.verdict != "none":
        yield from ("", f"risk: {report.risk.level}", *(f"  {line}" for line in risk_lines(report.risk)))
    if report.resources:
        yield from ("", resources_title(report), *_diffs(report.resources))
    if report.rendered:
        yield from ("", rendered_title(report), *_diffs(report.rendered))
    if report.not_rendered:
        yield from ("", f"the rendered objects of the mesh are not known: {report.not_rendered}")


def _diffs(diffs: tuple[ObjectDiff, ...]) -> Iterator[str]:
    for one in diffs:
        yield f"\n{one.sign} {one.name}"
        yield from (f"  {line}" for line in one.diff.splitlines())
