"""The report for a terminal: the words of the comment, in the same order."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator

from mesh.report.markdown import rendered_title, resources_title, risk_lines, summary
from mesh.report.report import ObjectDiff, Report

WIDTH = 80
"""Columns."""


def write(report: Report) -> str:
    return "\n".join(_lines(report)) + "\n"


def _lines(report: Report) -> Iterator[str]:
    yield f"{report.stack}: {summary(report)}"
    yield f"{report.before} → {report.after}"
    if report.problems:
        yield from ("", report.problems)
        return
    if report.words:
        yield from ("", *(_wrapped(str(sentence)) for sentence in report.words))
    if report.refusals:
        yield from ("", "refused", *(_wrapped(line, "  ") for line in report.refusals))
    if report.verdict != "none":
        yield from ("", f"risk: {report.risk.level}", *(_wrapped(line, "  ") for line in risk_lines(report.risk)))
    if report.resources:
        yield from ("", resources_title(report), *_diffs(report.resources))
    if report.rendered:
        yield from ("", rendered_title(report), *_diffs(report.rendered))
    if report.not_rendered:
        yield from ("", f"the rendered objects of the mesh are not known: {report.not_rendered}")


def _wrapped(line: str, indent: str = "") -> str:
    """For a terminal of 80 columns; the second line and those after it are set in."""
    return textwrap.fill(
        line,
        WIDTH,
        initial_indent=indent,
        subsequent_indent=f"{indent}  ",
        break_long_words=False,
        break_on_hyphens=False,
    )


def _diffs(diffs: tuple[ObjectDiff, ...]) -> Iterator[str]:
    for one in diffs:
        yield f"\n{one.sign} {one.name}"
        yield from (f"  {line}" for line in one.diff.splitlines())
