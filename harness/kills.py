"""Pulumi commands that are killed in the middle, as by a power cut or an impatient CI runner."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass

from harness.stack import Stack


@dataclass(frozen=True)
class Moment:
    """`command` is `up` or `destroy`; it is killed as soon as it prints `line`."""

    command: str
    line: str

    def __str__(self) -> str:
        return f"{self.command}: {self.line}"


def begun(stack: Stack, command: str) -> subprocess.Popen[str]:
    """`command` under way, with all that it prints on its stdout."""
    return subprocess.Popen(
        stack.command(command, "--yes", "--skip-preview"),
        cwd=stack.folder,
        env=stack.variables,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def kill_at(stack: Stack, moment: Moment) -> None:
    """Starts the command and kills it (SIGKILL) at `moment`; its plugins go on, as they do after a real kill."""

    def kill(running: subprocess.Popen[str]) -> None:
        running.kill()
        running.wait()

    disturbed_at(stack, moment, kill)


def disturbed_at(stack: Stack, moment: Moment, disturb: Callable[[subprocess.Popen[str]], object]) -> bool:
    """Runs the command, with `disturb` at `moment`, and says whether it ended well.

    Raises `RuntimeError` when the command ends without ever having printed the line.
    """
    running = begun(stack, moment.command)
    printed, disturbed = [], False
    try:
        for text in running.stdout or ():
            printed.append(text)
            if moment.line in text and not disturbed:
                time.sleep(0.3)
                disturb(running)
                disturbed = True
            if running.poll() is not None:
                break  # the plugins of a killed command keep its output open
        if not disturbed:
            raise RuntimeError(f"`pulumi {moment.command}` never printed '{moment.line}':\n{''.join(printed)}")
        return running.wait() == 0
    finally:
        running.kill()
        running.wait()
