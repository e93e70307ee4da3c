"""What is wrong with a configuration, in words that say how to mend it."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Problem:
    """One mistake: the key as `pulumi config set --path` takes it, its value, what is allowed and the fix."""

    key: str
    value: object
    allowed: str
    fix: str

    def __str__(self) -> str:
        value = "" if self.value is MISSING else f" = {_shown(self.value)}"
        return f"{self.key}{value}\n     allowed: {self.allowed}\n     fix:     {self.fix}"


MISSING = object()
"""The value of a key that is not there."""


def _shown(value: object) -> str:
    text = json.dumps(value, default=str, ensure_ascii=False)
    return text if len(text) <= 100 else text[:97] + "…"


def nearest(name: str, known: Iterable[str]) -> str:
    """A fix for an unknown name: the one that was probably meant, or the list."""
    known = list(known)
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    if close:
        return f"did you mean '{close[0]}'?"
    return f"take it out, or use one of: {', '.join(known) or 'nothing is known here'}"


def report(problems: list[Problem]) -> str:
    """All problems as one numbered text."""
    count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
    listed = "\n".join(f"  {number}. {problem}" for number, problem in enumerate(problems, 1))
    return f"the configuration has {count}; nothing was changed\n\n{listed}\n"
