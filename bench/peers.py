"""Who is timed: Pulumi programs, ours and a bare one, and the tools that one would use without Pulumi."""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

import names
from bench.measure import seconds
from harness.stack import PROJECT, Stack
from harness.traffic import wait_until_enforced
from localcluster import build
from mesh.cluster.kubectl import Kubectl
from mesh.purge import sweep

BENCH = Path(__file__).parent
NAMESPACE = "istio-demo"
SHIFTS = ({"v1": 30, "v2": 70}, {"v1": 90, "v2": 10})
"""The weights in even turns and in odd ones; every stack begins with those of the odd ones."""

# What istioctl, Helm or istiod leave outside of namespaces, or in those of others.
_TRACES = (
    "namespaces,customresourcedefinitions,clusterroles,clusterrolebindings,"
    "mutatingwebhookconfigurations,validatingwebhookconfigurations,configmaps"
)


class PeerError(Exception):
    """A peer failed, or a run did something else than what was to be timed."""


class BareStack(Stack):
    """A stack of the program in the folder `program`, with the checkout's Python packages."""

    program = "bare"

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        program = BENCH / self.program
        for file in (program / "Pulumi.yaml", program / "__main__.py", PROJECT / ".venv"):
            (self.folder / file.name).symlink_to(file)


@dataclass(frozen=True)
class Program:
    """A Pulumi program, used by `pulumi` as a person would use it who has seen the preview already."""

    stack: Stack
    kubectl: Kubectl
    config: Mapping[str, Any]

    def begin(self) -> None:
        self.stack.configure(self.config)
        self.stack.select()

    def install(self, _turn: int = 0) -> float:
        took = self.up()
        wait_until_enforced(self.kubectl, NAMESPACE, SHIFTS[1], seconds=60)
        return took

    def remove(self, _turn: int = 0) -> float:
        took = seconds(self.stack.destroy)
        require_empty(self.kubectl)
        return took

    def weigh(self, turn: int) -> None:
        config = copy.deepcopy(dict(self.config))
        config["routing"]["bill-service"]["weights"] = SHIFTS[turn % 2]
        self.stack.configure(config)

    def shift(self, turn: int) -> float:
        self.weigh(turn)
        took = self.up()
        changes = self.stack.changes()
        if set(changes) != {"same", "update"} or changes["update"] != 1:
            raise PeerError(f"a weight change should update one resource, but the changes were {changes}")
        return took

    def preview(self, _turn: int = 0) -> float:
        return seconds(lambda: self.stack.pulumi("preview", "--expect-no-changes"))

    def up(self) -> float:
        return seconds(lambda: self.stack.pulumi("up", "--yes", "--skip-preview"))

    def manifests(self) -> list[dict[str, Any]]:
        """The Kubernetes objects that the program declares beside the mesh, in an order that works."""
        steps = json.loads(self.stack.pulumi("preview", "--json"))["steps"]
        declared = [step["newState"].get("inputs", {}) for step in steps]
        return [inputs for inputs in declared if "apiVersion" in inputs and NAMESPACE in _place(inputs["metadata"])]


def _place(metadata: Mapping[str, Any]) -> tuple[str, str]:
    return metadata["name"], metadata.get("namespace", "")


@dataclass(frozen=True)
class Istioctl:
    """istioctl for the mesh and kubectl for all else, with the `manifests` of our own program."""

    environment: Mapping[str, str]
    kubectl: Kubectl
    manifests: Sequence[Mapping[str, Any]]

    def install(self, _turn: int = 0) -> float:
        took = seconds(self._install)
        wait_until_enforced(self.kubectl, NAMESPACE, SHIFTS[1], seconds=60)
        return took

    def remove(self, _turn: int = 0) -> float:
        took = seconds(self._remove)
        require_empty(self.kubectl)
        return took

    def install_version(self, version: str) -> None:
        """With images of another version."""
        self._install(f"--set=tag={version}")

    def upgrade(self) -> None:
        """The mesh itself; gateways and pods keep the proxies that they have."""
        self._istioctl("upgrade", "--skip-confirmation", f"--filename={BENCH / 'istio.yaml'}")

    def _install(self, *options: str) -> None:
        self._istioctl("install", "--skip-confirmation", f"--filename={BENCH / 'istio.yaml'}", *options)
        self.kubectl.run("apply", "--filename=-", stdin=yaml.safe_dump_all(self.manifests))
        self.kubectl.run("rollout", "status", "deployments", f"--namespace={NAMESPACE}", timeout=300)

    def _remove(self) -> None:
        self.kubectl.run("delete", "namespace", NAMESPACE, timeout=300)
        self._istioctl("uninstall", "--purge", "--skip-confirmation")
        self.kubectl.run("delete", "namespace", "istio-system", timeout=300)
        sweep(self.kubectl, "", "istio-system", purge=True)

    def _istioctl(self, *args: str) -> None:
        done = subprocess.run(
            ["istioctl", *args],
            env={**os.environ, **self.environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=600,
            check=False,
        )
        if done.returncode:
            raise PeerError(f"`istioctl {' '.join(args)}` failed:\n{done.stdout}")


@dataclass(frozen=True)
class Applied:
    """The least of all: `kubectl apply` of one VirtualService."""

    kubectl: Kubectl

    def shift(self, turn: int) -> float:
        route = [
            {"destination": {"host": "bill-service", "subset": version}, "weight": weight}
            for version, weight in SHIFTS[turn % 2].items()
        ]
        rule = {
            "apiVersion": names.ROUTING_API,
            "kind": "VirtualService",
            "metadata": {"name": "applied", "namespace": NAMESPACE},
            "spec": {"hosts": ["applied"], "http": [{"name": "applied", "route": route}]},
        }
        return seconds(lambda: self.kubectl.run("apply", "--filename=-", stdin=json.dumps(rule)))


def rendered_by_us(stack: Stack) -> float:
    """`mesh render`: the charts, the workloads and the rules."""
    command = [sys.executable, "-P", "-m", "mesh", "render", f"--stack={stack.name}"]
    return _timed(command, cwd=stack.folder, PYTHONPATH=str(stack.folder))


def rendered_by_istioctl() -> float:
    """The charts alone, which are in the program."""
    command = ["istioctl", "manifest", "generate", "--set=profile=demo", "--set=components.cni.enabled=true"]
    return _timed(command, cwd=PROJECT)


def _timed(command: list[str], cwd: Path, **variables: str) -> float:
    tools = f"{build.user_binaries()}{os.pathsep}{os.environ['PATH']}"

    def run() -> None:
        environment = {**os.environ, "PATH": tools, **variables}
        done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            raise PeerError(f"`{' '.join(command)}` failed:\n{done.stderr}")

    return seconds(run)


def require_empty(kubectl: Kubectl) -> None:
    """The next turn has to begin where this one did. Raises `PeerError`."""
    found = kubectl.run("get", _TRACES, "--all-namespaces", "--output=name").split()
    if left := [name for name in found if "istio" in name]:
        raise PeerError(f"these were left behind: {', '.join(left)}")
