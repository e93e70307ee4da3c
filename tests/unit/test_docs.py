"""Whoever copies a command from the documentation can see whether it is run by a test, and why not where it is not."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from mesh.drift import writers

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
MARK = re.compile(r"<!-- (run by|not run\b[^:]*:) (?P<rest>.+?) -->\n```sh\n", re.DOTALL)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_block_of_commands_says_whether_it_is_run(page: Path) -> None:
    text = page.read_text()
    assert len(re.findall(r"^```(?:sh|bash|shell)$", text, re.MULTILINE)) == len(MARK.findall(text))


def named_tests() -> Iterator[tuple[str, str]]:
    for page in PAGES:
        for mark in MARK.finditer(page.read_text()):
            for name in re.findall(r"(?:tests|soak|bench)/[\w/]+\.py", mark["rest"]):
                yield page.name, name


def test_the_tests_that_run_them_exist() -> None:
    named = list(named_tests())
    assert named
    assert [(page, name) for page, name in named if not (ROOT / name).is_file()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text())
    assert [link for link in links if not (page.parent / link).exists()] == []


def test_the_known_writers_are_the_ones_of_the_code() -> None:
    assert writers.table() in (ROOT / "docs" / "operations.md").read_text()
