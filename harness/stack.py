"""A stack of the checkout's program in a folder of its own, as the demo, the tests and the benchmarks need it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import yaml

from config import files
from config.files import NAMESPACE, PROJECT
from mesh.cluster.kubectl import Kubectl
from mesh.program import stack as pulumi
from mesh.program.stack import PulumiError
from mesh.recover import recover

__all__ = ["PROJECT", "PulumiError", "Stack", "stack_file"]


@dataclass
class Stack(pulumi.Stack):
    """Its folder holds links to all of the checkout but the stack files, which stay as they are."""

    config: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        for entry in self.folder.iterdir():
            if entry.is_symlink():
                entry.unlink()
        for entry in PROJECT.iterdir():
            if not fnmatch(entry.name, "Pulumi.*.yaml"):
                (self.folder / entry.name).symlink_to(entry)

    def configure(self, config: Mapping[str, Any]) -> None:
        """`config` maps the keys of the project's namespace to their values."""
        self.config = dict(config)
        values = {NAMESPACE + key: value for key, value in config.items()}
        # Beside the configuration Pulumi keeps the salt of its secrets in there.
        kept = yaml.safe_load(self.file.read_text()) if self.file.exists() else {}
        self.file.write_text(yaml.safe_dump({**kept, "config": values}, sort_keys=False))

    def encrypted(self, key: str, value: str) -> Any:
        """Sets a secret as the docs say; the result is how the stack file has it, for `configure`."""
        command = ["pulumi", "config", "set", "--secret", key, "--stack", self.name, "--non-interactive"]
        subprocess.run(command, cwd=self.folder, env=self.variables, input=value, text=True, check=True)
        return yaml.safe_load(self.file.read_text())["config"][NAMESPACE + key]

    def mesh(self, *args: str, timeout: float = 300) -> subprocess.CompletedProcess[str]:
        """`mesh` for this stack, as a user would run it in its folder."""
        return subprocess.run(
            [str(self.folder / ".venv/bin/mesh"), *args, f"--stack={self.name}"],
            cwd=self.folder,
            env=self.variables,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    def begin(self, *args: str) -> subprocess.Popen[str]:
        """The same, for a command that goes on while the test does."""
        return subprocess.Popen(
            [str(self.folder / ".venv/bin/mesh"), *args, f"--stack={self.name}"],
            cwd=self.folder,
            env=self.variables,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def recover(self, kubectl: Kubectl) -> list[str]:
        """Clears what a killed command leaves behind, its plugins included, and says what that was."""
        self.end_orphans()
        return recover(self, kubectl, files.effective(self.name, self.folder).mesh)

    def end_orphans(self) -> None:
        """A killed Pulumi leaves its plugins behind, which go on for a while; they all run in this folder."""
        for process in Path("/proc").iterdir():
            with suppress(OSError):
                if process.name.isdecimal() and (process / "cwd").readlink() == self.folder.resolve():
                    os.kill(int(process.name), signal.SIGKILL)

    def select(self) -> None:
        """Makes the stack if it is not there yet."""
        if self.name not in self._names():
            self.pulumi("stack", "init")

    def _names(self) -> list[str]:
        listed = subprocess.run(
            ["pulumi", "stack", "ls", "--json", "--non-interactive"],
            cwd=self.folder,
            env=self.variables,
            capture_output=True,
            text=True,
            check=True,
        )
        return [entry["name"] for entry in json.loads(listed.stdout)]


def stack_file(name: str) -> dict[str, Any]:
    """The configuration in a stack file of the checkout, by key of the project's namespace."""
    return files.values(name)
