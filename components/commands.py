"""How the commands of a stack find this code.

Pulumi runs them in the folder of the user's program. That is this folder for the program itself, and a folder somewhere
else for a program that has the components from a package. Either way the state names no folder of one machine.
"""

from __future__ import annotations

import os
import shlex
from pathlib import Path

_PLUGINS = '"${PULUMI_HOME:-$HOME/.pulumi}/plugins"'
_python = ".venv/bin/python"


def live_in(home: Path, environment: Path, program: Path) -> None:
    """For a package with its code in `home` and its virtual environment, and a program in `program`."""
    global _python
    _python = f"env PYTHONPATH={_seen(home, program)} {_seen(environment, program)}/bin/python"


def _seen(folder: Path, program: Path) -> str:
    plugins = Path(os.environ.get("PULUMI_HOME", "~/.pulumi")).expanduser() / "plugins"
    if folder.is_relative_to(plugins):
        return f"{_PLUGINS}/{shlex.quote(str(folder.relative_to(plugins)))}"
    return shlex.quote(os.path.relpath(folder, program))


def python(arguments: str) -> str:
    """A command line of this code's own Python."""
    return f"{_python} {arguments}"
