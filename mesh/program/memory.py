"""Where this machine remembers something of a stack, beside the user's other state."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from mesh.program.stack import Stack


def file_of(stack: Stack, what: str) -> Path:
    """A JSON file, which need not be there; another one for each checkout.

    https://specifications.freedesktop.org/basedir-spec/latest/#variables
    """
    state = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "istio-governance"
    key = hashlib.sha256(str(stack.file.resolve()).encode()).hexdigest()[:16]
    return state / what / f"{stack.name}-{key}.json"
