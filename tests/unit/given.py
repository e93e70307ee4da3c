"""What the tests start from: a small valid configuration, and the project's own program."""

from __future__ import annotations

import os
import runpy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from config import StackConfig, load, merged
from config.files import as_pulumi_passes
from mesh.program.recorder import PROJECT, Recording, record

ROOT = Path(__file__).parents[2]
NO_DEFAULTS = Path(os.devnull)
STACKS = sorted(
    path.name.split(".")[1]
    for path in ROOT.glob("Pulumi.*.yaml")
    if "config" in (yaml.safe_load(path.read_text()) or {})
)

VALID: Mapping[str, Any] = {
    "cluster": {"context": "test"},
    "mesh": {"version": "1.31.0"},
    "services": {
        "front-tomcat": {"versions": {"v1": {"image": "tomcat"}}},
        "bill-service": {
            "ports": {"http": {"port": 9999, "targetPort": 80}},
            "selector": {"service": "bill-service"},
            "template": {"image": "nginx"},
            "versions": {"v1": {}, "v2": {}},
        },
    },
    "routing": {"bill-service": {"weights": {"v1": 90, "v2": 10}}},
}


def config(**changes: Any) -> StackConfig:
    """The valid configuration with `changes` laid over it."""
    return load(merged(VALID, changes), defaults=NO_DEFAULTS)


def program(stack: str, secrets: Mapping[str, str] | None = None, **changes: Any) -> Recording:
    """What the whole program registers for a stack file of the checkout with `changes` laid over it, when Pulumi has
    decrypted `secrets` for it."""
    file = yaml.safe_load((ROOT / f"Pulumi.{stack}.yaml").read_text())["config"]
    opened = {f"{PROJECT}:{key}": value for key, value in (secrets or {}).items()}
    raw = {**merged(file, {f"{PROJECT}:{key}": value for key, value in changes.items()}), **opened}
    return record(lambda: runpy.run_path(str(ROOT / "__main__.py")), stack, as_pulumi_passes(raw), list(opened))
