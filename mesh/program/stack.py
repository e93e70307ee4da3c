"""One stack of this project, driven by the Pulumi CLI."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from config.files import PROJECT

# What Pulumi says of a state that is being written while it reads, from a folder or a mounted disk: gocloud.dev's file
# store replaces the state itself in one step, but not the file with its attributes, which is empty for a moment.
TORN = "failed to load checkpoint: EOF"
TRIES = 5


class PulumiError(Exception):
    """A Pulumi command failed; the message is what it printed."""

    def __init__(self, command: list[str], output: str) -> None:
        super().__init__(f"`{' '.join(command)}` failed:\n{output}")
        self.output = output


@dataclass
class Stack:
    """A stack by its name, with the project's folder and what is added to the environment of each command."""

    name: str
    folder: Path = PROJECT
    environment: Mapping[str, str] = field(default_factory=dict)
    shielded: bool = False
    """Whether a Ctrl-C on the terminal stays with this process, and does not reach Pulumi."""

    @property
    def variables(self) -> dict[str, str]:
        """The whole environment of a command."""
        return {**os.environ, **self.environment}

    @property
    def file(self) -> Path:
        return self.folder / f"Pulumi.{self.name}.yaml"

    def command(self, *args: str) -> list[str]:
        return ["pulumi", *args, f"--stack={self.name}", "--non-interactive", "--color=never"]

    def pulumi(self, *args: str, timeout: float = 900) -> str:
        """What the command printed. Raises `PulumiError` when it fails."""
        command = self.command(*args)
        try:
            done = subprocess.run(
                command,
                cwd=self.folder,
                env=self.variables,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                timeout=timeout,
                start_new_session=self.shielded,
                check=False,
            )
        except FileNotFoundError:
            raise PulumiError(command, "pulumi is not on PATH; see https://www.pulumi.com/docs/install/") from None
        if done.returncode:
            raise PulumiError(command, done.stdout)
        return done.stdout

    def read(self, *args: str) -> str:
        """What a command that only reads the state printed, which another one may be writing meanwhile."""
        for _ in range(TRIES - 1):
            try:
                return self.pulumi(*args)
            except PulumiError as error:
                if TORN not in error.output:
                    raise
                time.sleep(0.2)
        return self.pulumi(*args)

    def up(self, *args: str) -> dict[str, int]:
        """`pulumi up`; how many resources were created, updated, deleted, replaced or left the same."""
        self.pulumi("up", "--yes", "--skip-preview", *args)
        return self.changes()

    def destroy(self) -> None:
        self.pulumi("destroy", "--yes", "--skip-preview")

    def changes(self) -> dict[str, int]:
        """What the last command changed, by kind of change."""
        history = json.loads(self.pulumi("stack", "history", "--json", "--page-size=1"))
        changes: dict[str, int] = history[0].get("resourceChanges") or {}
        return changes

    def outputs(self) -> dict[str, Any]:
        outputs: dict[str, Any] = json.loads(self.read("stack", "output", "--json"))
        return outputs

    def resources(self, show_secrets: bool = False) -> list[dict[str, Any]]:
        """The resources in the state, its secrets encrypted unless they are to be shown."""
        state = json.loads(self.read("stack", "export", *(["--show-secrets"] if show_secrets else [])))
        resources: list[dict[str, Any]] = state["deployment"].get("resources") or []
        return resources
