"""Runs other programs; a failure becomes one line that names the program and what it said last."""

import os
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from .errors import ClusterError

SYSTEM_FOLDERS = ("/usr/sbin", "/sbin")

_watched: set["subprocess.Popen[str]"] = set()


def failure(command: Sequence[str], code: int, output: Sequence[str]) -> ClusterError:
    """The error for a command that ended badly, with its last words."""
    said = [line.strip() for line in output if line.strip()]
    return ClusterError(f"{Path(command[0]).name} failed with code {code}: {said[-1] if said else 'it said nothing'}")


def run(command: Sequence[str], *, cwd: Path | None = None, env: Mapping[str, str] | None = None) -> str:
    """Runs a command and returns what it wrote to stdout."""
    env = env or {**os.environ, "PATH": search_path()}
    try:
        done = subprocess.run(
            command, cwd=cwd, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
        )
    except FileNotFoundError as error:
        raise ClusterError(f"{command[0]} is not installed") from error
    if done.returncode:
        raise failure(command, done.returncode, (done.stderr or done.stdout).splitlines())
    return done.stdout


def watch(command: Sequence[str], on_line: Callable[[str], None], *, cwd: Path, env: Mapping[str, str]) -> None:
    """Runs a long command and hands on each line that it writes."""
    said: list[str] = []
    with subprocess.Popen(
        command, cwd=cwd, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        _watched.add(process)
        for line in process.stdout or ():
            said.append(line)
            on_line(line)
    _watched.discard(process)
    if process.returncode:
        raise failure(command, process.returncode, said)


def end_watched() -> None:
    """Ends the long commands that still run, because what they are for has failed elsewhere."""
    for process in list(_watched):
        process.terminate()


def search_path() -> str:
    """The search path with the system folders, which some paths lack."""
    return os.pathsep.join([os.environ.get("PATH", ""), *SYSTEM_FOLDERS])
