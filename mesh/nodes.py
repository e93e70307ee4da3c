"""What is done to live nodes beyond the preparation itself: a reboot, and a look at the modules that are there."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import names
from config.files import PROJECT
from mesh.cluster.kubectl import Kubectl, KubectlError, here

SCRIPT = (PROJECT / "components" / "prepare-node.sh").read_text()
# A slow machine is back within five minutes.
REBOOT_SECONDS, DRAIN_SECONDS, READY_SECONDS, POLL_SECONDS = 600, 300, 300, 1.0

# No name of a host has an underscore.
_BASTION = "_bastion"
_NEEDED = re.compile(r"^reboot needed since boot (\S+) for (.*)$", re.MULTILINE)


class NodeError(Exception):
    """A node did not do what it was asked; the message says which and what it said."""


@dataclass(frozen=True)
class Ssh:
    """OpenSSH to one host, with the keys that the agent holds and the host keys that the configuration gives."""

    host: str
    folder: Path

    def run(self, command: str, *, script: str = "", timeout: float = 60) -> str:
        """What the command prints; `script` is its standard input. Raises `NodeError`."""
        ssh = ["ssh", "-F", str(self.folder / "config"), self.host, command]
        try:
            done = subprocess.run(ssh, input=script, capture_output=True, text=True, timeout=timeout, check=False)
        except subprocess.TimeoutExpired:
            raise NodeError(f"{self.host}: no answer within {timeout:.0f} seconds") from None
        if done.returncode:
            raise NodeError(f"{self.host}: {done.stderr.strip() or f'exit code {done.returncode}'}")
        return done.stdout


@contextmanager
def connected(
    name: str, host: Mapping[str, Any], bastion: Mapping[str, Any] | None, keys: Sequence[str]
) -> Iterator[Ssh]:
    """An `Ssh`, whose keys are in the running ssh-agent: they never lie in a file."""
    for key in keys:
        added = subprocess.run(
            ["ssh-add", "-q", "-"], input=f"{key.rstrip()}\n", capture_output=True, text=True, check=False
        )
        if added.returncode:
            raise NodeError("the agent does not take the SSH key; it has to be one without a passphrase")
    with TemporaryDirectory() as scratch:
        folder = Path(scratch)
        machines = {name: host, **({_BASTION: bastion} if bastion else {})}
        known = "".join(f"{alias} {machine['host_key']}\n" for alias, machine in machines.items())
        (folder / "known_hosts").write_text(known)
        lines = [
            "Host *",
            f"UserKnownHostsFile {folder / 'known_hosts'}",
            "GlobalKnownHostsFile none",
            "StrictHostKeyChecking yes",
            "BatchMode yes",
            "ConnectTimeout 10",
            "ServerAliveInterval 5",
            "LogLevel ERROR",
        ]
        for alias, machine in machines.items():
            algorithm = machine["host_key"].split()[0]
            lines += [
                f"Host {alias}",
                f"HostName {machine['address']}",
                f"Port {machine['port']}",
                f"User {machine['user']}",
                f"HostKeyAlias {alias}",
                f"HostKeyAlgorithms {'rsa-sha2-512,rsa-sha2-256' if algorithm == 'ssh-rsa' else algorithm}",
            ]
            if bastion and alias == name:
                lines.append(f"ProxyJump {_BASTION}")
        (folder / "config").write_text("\n".join(lines) + "\n")
        yield Ssh(name, folder)


def restart(request: Mapping[str, Any], ssh: Ssh, kubectl: Kubectl) -> None:
    """Reboots one host if its preparation asked for it, and sees that it came back with its modules.

    Every step looks first at what is there, so that a run that was killed is taken up where it was.
    """
    needed = _NEEDED.search(request["prepared"])
    if not needed:
        _say("no reboot is needed")
        return
    old, modules = needed[1], needed[2]
    node = _node(kubectl, request["node"])
    if _boot(ssh) == old:
        _say(f"rebooting for {modules}")
        if node:
            _drain(kubectl, node, request["owner"])
        # Detached, so that the command ends before its connection does.
        ssh.run(
            "$([ \"$(id -u)\" = 0 ] || echo sudo -n) sh -c '(sleep 1; systemctl reboot || reboot) >/dev/null 2>&1 &'"
        )
        _say(f"up again with boot {_boot(ssh, after=old)}")
    _say(ssh.run(request["verify"], script=SCRIPT, timeout=120).strip())
    if node:
        _uncordon(kubectl, request["node"], request["owner"])


def _boot(ssh: Ssh, after: str = "") -> str:
    """The ID of its boot, another one than `after`; a host that is away is waited for: it may just be rebooting."""
    end, said = time.monotonic() + REBOOT_SECONDS, ""
    while time.monotonic() < end:
        try:
            boot = ssh.run("cat /proc/sys/kernel/random/boot_id", timeout=30).strip()
        except NodeError as error:
            said = f": {error}"
        else:
            if boot != after:
                return boot
        time.sleep(POLL_SECONDS)
    missed = "rebooted" if after else "answered"
    raise NodeError(f"{ssh.host} has not {missed} within {REBOOT_SECONDS} seconds{said}")


def _node(kubectl: Kubectl, name: str) -> dict[str, Any] | None:
    """The node of that name; a host may be none, or none yet."""
    found = kubectl.items("node", name)
    if not found:
        _say(f"there is no node {name} in the cluster: nothing to cordon or drain")
    return found[0] if found else None


def _drain(kubectl: Kubectl, node: Mapping[str, Any], owner: str) -> None:
    name = node["metadata"]["name"]
    if not node["spec"].get("unschedulable"):
        kubectl.run("annotate", "node", name, f"{names.CORDONED}={owner}", "--overwrite")
        kubectl.run("cordon", name)
    _say(f"draining {name}")
    options = ["--ignore-daemonsets", "--delete-emptydir-data", f"--timeout={DRAIN_SECONDS}s"]
    kubectl.run("drain", name, *options, timeout=DRAIN_SECONDS + 30)


def _uncordon(kubectl: Kubectl, name: str, owner: str) -> None:
    """Only what this stack has cordoned; a node that somebody else keeps aside stays so."""
    kubectl.run(
        "wait", f"node/{name}", "--for=condition=Ready", f"--timeout={READY_SECONDS}s", timeout=READY_SECONDS + 30
    )
    (node,) = kubectl.items("node", name)
    if node["metadata"].get("annotations", {}).get(names.CORDONED) == owner:
        kubectl.run("uncordon", name)
        kubectl.run("annotate", "node", name, f"{names.CORDONED}-")


@dataclass(frozen=True)
class Missing:
    """The modules that `node` lacks; `certain` is false where only loaded modules could be seen, not built-in ones."""

    node: str
    modules: tuple[str, ...]
    certain: bool


def missing_modules(kubectl: Kubectl, modules: Sequence[str], timeout: float = 20) -> tuple[list[Missing], list[str]]:
    """The nodes that lack some of `modules`, and the names of those that no running pod could tell about.

    Looks through pods that run on the nodes anyway (Istio's CNI agent, kube-proxy, node-prep): /proc/modules is the
    same in every container. Raises `KubectlError`.
    """
    candidates: dict[str, list[dict[str, Any]]] = {node["metadata"]["name"]: [] for node in kubectl.items("nodes")}
    for pod in kubectl.items("pods", "--all-namespaces", "--field-selector=status.phase=Running"):
        owners = {owner["kind"] for owner in pod["metadata"].get("ownerReferences", [])}
        if "DaemonSet" in owners and pod["spec"].get("nodeName") in candidates:
            candidates[pod["spec"]["nodeName"]].append(pod)
    missing, unknown = [], []
    for node, pods in candidates.items():
        answers = [answer for pod in pods if (answer := _ask(kubectl, pod, modules, timeout)) is not None]
        if not answers:
            unknown.append(node)
        elif all(absent for absent, _ in answers):
            absent, certain = min(answers, key=lambda answer: (not answer[1], len(answer[0])))
            missing.append(Missing(node, absent, certain))
    return missing, unknown


def _ask(
    kubectl: Kubectl, pod: Mapping[str, Any], modules: Sequence[str], timeout: float
) -> tuple[tuple[str, ...], bool] | None:
    """(missing modules, whether that is certain), or None where the pod has no shell."""
    target = ["--namespace", pod["metadata"]["namespace"], pod["metadata"]["name"]]
    inner = f"sh -s -- check {shlex.join(modules)}; echo code=$?"
    try:
        said = kubectl.run("exec", "--stdin", *target, "--", "sh", "-c", inner, stdin=SCRIPT, timeout=timeout)
    except KubectlError:
        return None
    answer = re.fullmatch(r"(?:missing: (.*)\n)?code=([013])\n", said)
    return (tuple((answer[1] or "").split()), answer[2] != "3") if answer else None


def _say(text: str) -> None:
    print(text, flush=True)


def main() -> int:
    """Reads what to do as JSON from standard input, where no list of processes shows it."""
    if sys.argv[1:] != ["restart"]:
        print("usage: python -m mesh.nodes restart < request", file=sys.stderr)
        return 2
    request = json.load(sys.stdin)
    kubectl = Kubectl(request["cluster"]["context"], here(request["cluster"]["kubeconfig"]))
    try:
        with connected(request["node"], request["host"], request["bastion"], request["keys"]) as ssh:
            restart(request, ssh, kubectl)
    except (NodeError, KubectlError) as error:
        print(f"mesh.nodes: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
