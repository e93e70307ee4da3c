"""The rules between keys, which no single field can check.

They look at the raw values and step over whatever has the wrong shape (the model reports that), so that a typing
mistake in one place does not hide a wrong weight in another.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from config.problems import Problem
from config.rules import environment, mesh, nodes, pieces, pods, routing, services
from config.rules.raw import Raw

RULES: tuple[Callable[[Raw], Iterator[Problem]], ...] = (
    *mesh.RULES,
    *nodes.RULES,
    *services.RULES,
    *pieces.RULES,
    *pods.RULES,
    *environment.RULES,
    *routing.RULES,
)


def check(raw: Raw, needs_cluster: bool) -> list[Problem]:
    """Every broken rule of the merged configuration `raw`."""
    rules = (*RULES, mesh.names_a_cluster) if needs_cluster else RULES
    return [problem for rule in rules for problem in rule(raw)]
