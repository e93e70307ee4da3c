"""What a whole run says at its end: how each part of the suite went."""

from __future__ import annotations

from collections import Counter, defaultdict

import pytest

PARTS = {
    "unit": ("tests/unit",),
    "parity with istioctl, kubectl and Helm": ("tests/parity",),
    "second world: the shop, beside an Istio of others": (
        "tests/e2e/test_shop.py",
        "tests/e2e/test_owners.py",
        "tests/e2e/test_foreign_rules.py",
        "tests/e2e/test_gate.py",
    ),
    "first world: the story, end to end": ("tests/e2e",),
}
"""Name → where its tests are; of several that fit the first counts."""


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    counts: defaultdict[str, Counter[str]] = defaultdict(Counter)
    seconds: defaultdict[str, float] = defaultdict(float)
    for outcome in ("passed", "failed", "error", "skipped"):
        for report in terminalreporter.stats.get(outcome, ()):
            part = next((name for name, place in PARTS.items() if report.nodeid.startswith(place)), "")
            counts[part][outcome] += 1
            seconds[part] += getattr(report, "duration", 0.0)  # a module that cannot be imported has none
    if len(counts) > 1:
        terminalreporter.section("parts")
    for part in (part for part in PARTS if part in counts and len(counts) > 1):
        told = ", ".join(f"{count} {outcome}" for outcome, count in counts[part].items())
        terminalreporter.write_line(f"{part}: {told} in {seconds[part]:.0f} s")
