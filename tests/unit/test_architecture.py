"""The house: which folder and which room of `mesh/` may use which, as docs/architecture.md says."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from .given import ROOT

ROOMS = (
    ("traffic",),
    ("cluster",),
    ("routes", "program"),
    ("upgrade", "tables"),
    ("drain", "nodes", "purge"),
    ("declared", "drift", "preflight", "recover", "report", "wait"),
    ("adopt", "check", "explain", "shift", "status", "verify"),
    ("cli",),
    ("calls",),
    ("commands",),
    ("__main__",),
)
"""The rooms of `mesh/` from the ground up: each may use those below it, and of its own floor none."""

# What such commands are given.
GIVEN = [f"MESH_{name}" for name in ("CONTEXT", "KUBECONFIG", "NAMESPACE", "OWNER", "PURGE")]
# A room that needs another one of its own floor.
LIVE = ("wait", "purge", "nodes")
"""The modules of `mesh` that live states have as commands."""
BESIDE = {("recover", "drift"), ("report", "declared")}
# By their name alone: the program of a stack, which runs them.
TYPE_CHECKING = "TYPE_CHECKING"


def imported(file: Path) -> Iterator[str]:
    """The modules of this project that a file uses, wherever in it, but for those that only its types name."""
    tree = ast.parse(file.read_text())
    typing = {
        inner
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == TYPE_CHECKING
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if node in typing:
            continue
        if isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def test_the_arrows_between_the_rooms_of_mesh_go_down() -> None:
    floor = {room: number for number, rooms in enumerate(ROOMS) for room in rooms}
    rooms = {path.stem for path in (ROOT / "mesh").iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
    assert rooms - {"__init__"} == set(floor)
    wrong = []
    for file in sorted((ROOT / "mesh").rglob("*.py")):
        own = file.relative_to(ROOT / "mesh").parts[0].removesuffix(".py")
        for name in imported(file):
            project, _, rest = name.partition(".")
            room = rest.partition(".")[0]
            if project == "mesh" and room in floor and room != own and own in floor:
                allowed = floor[room] < floor[own] or (own, room) in BESIDE
                if not allowed:
                    wrong.append(f"{file.relative_to(ROOT)} uses mesh.{room}")
    assert wrong == []


def test_folders_use_only_what_the_architecture_allows() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text()
    rows = dict(re.findall(r"^\| `(\w+)/`[^|]*\|[^|]*\| ([^|]*) \|$", text, re.MULTILINE))
    folders = {path.name for path in ROOT.iterdir() if (path / "__init__.py").exists()} - {"tests"}
    assert {"config", "istio", "components", "mesh", "policy"} <= set(rows)
    for folder in ("config", "istio", "components", "mesh", "policy", "localcluster"):
        allowed = {folder, *re.findall(r"`(\w+)`", rows[folder])}
        for file in (ROOT / folder).rglob("*.py"):
            used = {name.partition(".")[0] for name in imported(file)} & folders
            assert used <= allowed, f"{file.relative_to(ROOT)} uses {used - allowed}"


@pytest.mark.parametrize("module", LIVE)
def test_what_live_states_have_as_commands_stays_where_it_is(module: str) -> None:
    """`python -m mesh.wait` and its like run again when a stack of an earlier version is changed or destroyed."""
    done = subprocess.run(
        [sys.executable, "-m", f"mesh.{module}", "nothing-of-the-kind"],
        cwd=ROOT,
        env={**os.environ, **dict.fromkeys(GIVEN, "")},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode and ("nothing-of-the-kind" in done.stderr or "usage: " in done.stderr), done.stderr


def test_what_older_checkouts_are_asked_by_stays_where_it_is() -> None:
    """`mesh diff --against` imports this of the other checkout, whichever of the two is older."""
    assert "from mesh.declared import declared" in (ROOT / "mesh" / "report" / "snapshot.py").read_text()
    assert (ROOT / "mesh" / "declared.py").is_file()
