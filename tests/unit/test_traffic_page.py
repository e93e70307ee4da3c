"""Every block of docs/traffic.md is a configuration, and every diff what becomes of it."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Mapping
from typing import Any

import pytest
import yaml

from config import load, merged
from config.files import PROJECT, values
from istio.rules import routed

PAGE = PROJECT / "docs" / "traffic.md"
BLOCK = re.compile(r"```yaml\n(?P<config>.*?)```(?:\n\n```diff\n(?P<diff>.*?)```)?", re.DOTALL)
BLOCKS = list(BLOCK.finditer(PAGE.read_text()))


def rules(changes: Mapping[str, Any]) -> list[str]:
    """The objects of the story's rules with `changes`, as lines of YAML."""
    config = load(merged(values("dev"), changes))
    objects = [made for service in routed(config) for made in (service.weights, *service.before)]
    documents = [{"kind": made.kind, "name": made.name, "spec": made.spec} for made in objects]
    return yaml.safe_dump_all(documents, sort_keys=False).splitlines()


def diff(config: str) -> str:
    """The lines of objects that change, with one line around them."""
    lines = list(difflib.unified_diff(rules({}), rules(yaml.safe_load(config)), n=1, lineterm=""))[2:]
    return "".join("  …\n" if line.startswith("@@") else f"{line}\n" for line in lines)


@pytest.fixture(scope="module", autouse=True)
def renewed() -> None:
    """With UPDATE_DOCS=1 the diffs of the page are written again."""
    if os.environ.get("UPDATE_DOCS"):
        text = PAGE.read_text()
        for block in BLOCKS:
            if block["diff"] is not None:
                old = block[0]
                new = f"```yaml\n{block['config']}```\n\n```diff\n{diff(block['config'])}```"
                text = text.replace(old, new)
        PAGE.write_text(text)


@pytest.mark.parametrize("number", range(len(BLOCKS)))
def test_a_block_of_the_page_is_true(number: int) -> None:
    block = list(BLOCK.finditer(PAGE.read_text()))[number]
    load(merged(values("dev"), yaml.safe_load(block["config"])))
    if block["diff"] is not None:
        assert block["diff"] == diff(block["config"]), "UPDATE_DOCS=1 writes it"


def test_there_are_ten_shifts() -> None:
    assert sum(block["diff"] is not None for block in BLOCKS) == 10
