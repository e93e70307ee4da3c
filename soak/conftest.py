"""The fixtures of the end-to-end tests, and the table of what the series have done."""

from __future__ import annotations

from collections import Counter

import pytest

from tests.conftest import write_not_run
from tests.e2e.conftest import cluster, config, kubectl, others, owner, shop, stack

__all__ = ["cluster", "config", "kubectl", "others", "owner", "shop", "stack"]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    write_not_run(terminalreporter)
    series: dict[str, Counter[str]] = {}
    for outcome in ("passed", "failed", "error"):
        for report in terminalreporter.stats.get(outcome, ()):
            counts = series.setdefault(report.nodeid.split("[")[0].removeprefix("soak/"), Counter())
            counts["trials"] += report.when == "call"
            counts["passed" if outcome == "passed" else "failed"] += 1
            for name, value in report.user_properties:
                counts[name] += value if isinstance(value, int) else 0
    if series:
        terminalreporter.section("series")
    for name, counts in sorted(series.items()):
        others = {key: count for key, count in counts.items() if key not in ("trials", "passed", "failed")}
        line = ", ".join(f"{count} {key}" for key, count in sorted(others.items()))
        terminalreporter.write_line(
            f"{name}: {counts['trials']} trials, {counts['passed']} passed, {counts['failed']} failed"
            + (f"; {line}" if line else "")
        )
