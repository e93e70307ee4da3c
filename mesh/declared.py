"""What the program declares for a stack, found by running it without an engine and without a cluster."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

from config import files
from config.files import NAMESPACE, PROJECT
from config.types import is_hidden
from mesh.program.offline import offline
from mesh.program.recorder import Recording, record


def declared(stack: str, project: Path = PROJECT) -> Recording:
    """Every resource of `stack`, in the order of registration. Raises `ConfigError` or `pulumi.RunError`."""
    return declared_by({**files.values(stack, project), **files.stand_ins(stack, project)}, stack, project)


def declared_by(raw: dict[str, Any], stack: str, project: Path = PROJECT) -> Recording:
    """The same for a configuration by key of the project's namespace."""
    config = files.as_pulumi_passes({NAMESPACE + key: value for key, value in raw.items()})
    secrets = [NAMESPACE + key for key, value in raw.items() if is_hidden(value)]
    with offline():
        return record(lambda: runpy.run_path(str(project / "__main__.py")), stack, config, secrets)
