"""In which order a whole run goes, and what it says at its end: how each part of the suite went."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from typing import NoReturn

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
    "the package, in programs in YAML and TypeScript": ("tests/e2e/test_package.py",),
    "first world: the story, end to end": ("tests/e2e",),
}
"""Name → where its tests are; of several that fit the first counts."""
LONGEST = ("gate", "shop", "traffic")
"""The end-to-end modules that come first, so that the suite's workers end together."""
NOT_RUN = "NOT RUN: "


def not_run(what: str, error: Exception) -> NoReturn:
    """Skips what cannot be had on this machine, and the summary of the run says so; in CI that is a failure."""
    if "CI" in os.environ:
        raise error
    pytest.skip(f"{NOT_RUN}{what}, because {error}")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Those that need the machine alone are last: by then they wait for no more than one other module."""

    def place(item: pytest.Item) -> tuple[bool, int]:
        module = item.path.stem.removeprefix("test_")
        early = LONGEST.index(module) if module in LONGEST else len(LONGEST)
        return item.get_closest_marker("alone") is not None, early if item.nodeid.startswith("tests/e2e") else -1

    items.sort(key=place)


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
    write_not_run(terminalreporter)


def write_not_run(terminalreporter: pytest.TerminalReporter) -> None:
    skipped = {report.longrepr[2] for report in terminalreporter.stats.get("skipped", ()) if report.longrepr}
    for reason in sorted(reason for reason in skipped if NOT_RUN in reason):
        terminalreporter.write_line(reason.removeprefix("Skipped: "), red=True)
