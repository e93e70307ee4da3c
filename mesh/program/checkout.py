"""The git checkout that a stack's file is in."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path


def problems(folder: Path) -> Iterator[str]:
    """Why this checkout is not what everybody else has."""
    if _git(folder, "rev-parse", "--git-dir") is None:
        yield "it is no git checkout"
        return
    if _git(folder, "status", "--porcelain"):
        yield "it has changes that are not committed"
    upstream = _git(folder, "rev-parse", "--abbrev-ref", "@{upstream}")
    if not upstream:
        yield "its branch follows no other, so that nobody knows whether it is current (git branch --set-upstream-to)"
    elif _git(folder, "fetch", "--quiet") is None:
        yield f"{upstream} cannot be fetched"
    elif behind := int(_git(folder, "rev-list", "--count", "HEAD..@{upstream}") or 0):
        yield f"it is {behind} commits behind {upstream} (git pull)"


def _git(folder: Path, *args: str) -> str | None:
    """What git prints; None when it fails."""
    try:
        done = subprocess.run(
            ["git", *args],
            cwd=folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
    except (FileNotFoundError, subprocess.TimeoutExpired):
        return None
    return None if done.returncode else done.stdout.strip()
