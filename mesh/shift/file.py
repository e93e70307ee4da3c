"""The weights of a service in the stack's file, which nothing but `config.edit` writes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from config import edit, files
from mesh.program.stack import Stack
from mesh.shift.plan import Weights


def set_weights(file: Path, service: str, weights: Weights, start: Weights) -> None:
    """Writes into the stack's file what is another weight than at the `start` of the shift. Raises `EditError`."""
    edit.edit(file, edited_leaves(edit.read(file), service, weights, start))


def edited_leaves(text: str, service: str, weights: Weights, start: Weights) -> edit.Leaves:
    """A weight that the file inherits, or that no file lists, stands in it only when it changes."""
    own = _written(text, service)
    return _leaves(service, {v: weight for v, weight in weights.items() if v in own or weight != start[v]})


def take_back(file: Path, text: str, service: str, start: Weights) -> None:
    """Puts the weights back into the stack's file, whose text was `text` before the shift.

    Byte for byte, unless somebody has changed something else in the file since: then the weights alone. Raises
    `EditError`.
    """
    now = edit.read(file)
    try:
        is_ours_alone = edit.edited(text, _leaves(service, _written(now, service))) == now
    except edit.EditError:
        is_ours_alone = False
    if is_ours_alone:
        edit.write(file, text)
    else:
        edit.edit(file, edited_leaves(now, service, start, start))


def _leaves(service: str, weights: Weights) -> edit.Leaves:
    return {(*_path(service), version): weight for version, weight in weights.items()}


def _path(service: str) -> tuple[str, ...]:
    return ("config", f"{files.NAMESPACE}routing", service, "weights")


def _written(text: str, service: str) -> dict[str, Any]:
    """The weights that a stack file itself has for a service."""
    found = edit.value(text, _path(service))
    return dict(found) if isinstance(found, Mapping) else {}


def declared_weights(stack: Stack, service: str) -> dict[str, int]:
    return files.effective(stack.name, stack.folder).weights.get(service, {})
