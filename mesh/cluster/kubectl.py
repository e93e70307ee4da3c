"""kubectl, as the one way to a live cluster: it knows every kind of authentication that a kubeconfig can name."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from config.files import PROJECT


class KubectlError(Exception):
    """kubectl failed; the message is what it said."""


@dataclass(frozen=True)
class Kubectl:
    """kubectl for one cluster; '' is what kubectl itself would take, and a path begins in the project's folder."""

    context: str = ""
    kubeconfig: str = ""

    def command(self, *args: str) -> list[str]:
        cluster = [f"--context={self.context}"] if self.context else []
        if self.kubeconfig:
            cluster.append(f"--kubeconfig={PROJECT / Path(self.kubeconfig).expanduser()}")
        return [_binary(), *cluster, *args]

    def run(self, *args: str, timeout: float = 60, stdin: str | None = None) -> str:
        """What kubectl prints. Raises `KubectlError` when it fails or takes longer than `timeout` seconds."""
        try:
            done = subprocess.run(
                self.command(*args), input=stdin, capture_output=True, text=True, timeout=timeout, check=False
            )
        except subprocess.TimeoutExpired:
            raise KubectlError(f"no answer within {timeout:.0f} seconds") from None
        if done.returncode:
            raise KubectlError(done.stderr.strip() or f"kubectl ended with exit code {done.returncode}")
        return done.stdout

    def json(self, *args: str, timeout: float = 60) -> Any:
        return json.loads(self.run(*args, "--output=json", timeout=timeout) or "{}")

    def items(self, *args: str, timeout: float = 60) -> Sequence[dict[str, Any]]:
        """The objects of a `get`; nothing where there is none."""
        answer = self.json("get", *args, "--ignore-not-found", timeout=timeout)
        if not answer:
            return []
        items: list[dict[str, Any]] = answer["items"] if answer["kind"] == "List" else [answer]
        return items


def here(kubeconfig: str) -> str:
    """Of what Pulumi runs, and a path that the stack has: it begins in the folder of the program, as for Pulumi itself,
    and that may be another than this project's."""
    return str(Path(kubeconfig).expanduser().absolute()) if kubeconfig else ""


def _binary() -> str:
    """The pinned kubectl beside this Python, or the user's own."""
    pinned = Path(sys.executable).with_name("kubectl")
    return str(pinned) if pinned.exists() else shutil.which("kubectl") or "kubectl"
