"""After a killed command: the stack's lock, unfinished operations in its state, and releases that Helm will not touch.

Helm refuses a release that it believes is under way, and one that is there and not in the state. Their records are
taken away, and only the records: the next `pulumi up` installs the release over its own objects, which Helm takes over
because they carry its name. Objects that were made and did not reach the state are taken over as well, because they
carry the stack's name. A release that Helm had removed already leaves the state, where `up` would believe that it is
there, and `destroy` would end with Helm's `release: not found`. A CRD that an API server had accepted, and not yet
begun to serve, when it died is touched: until its next change, or for minutes, it would not be served.
https://helm.sh/docs/topics/advanced/#storage-backends
"""

from __future__ import annotations

import json
import os
import socket
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import names
from mesh import purge
from mesh.kubectl import Kubectl
from mesh.objects import conditions
from mesh.pulumi import Stack
from mesh.releases import Release, releases

_OURS_TO_WAIT_FOR = ("up", "update", "destroy", "refresh", "import")


@dataclass(frozen=True)
class Lock:
    """One entry of the backend on who works on the stack; `pid` is a process of `host`."""

    host: str
    user: str
    pid: int
    since: str

    @property
    def is_seen(self) -> bool:
        """Whether its process would be one of this machine."""
        return self.host == socket.gethostname()

    @property
    def is_held(self) -> bool:
        return self.is_seen and _is_pulumi(self.pid)

    def __str__(self) -> str:
        return f"the stack's lock, which {self.user}@{self.host} took (process {self.pid}, {self.since})"


@dataclass(frozen=True)
class Interrupted:
    """What stands in the way of the next command. `locks` is None where the backend does not let them be seen."""

    locks: list[Lock] | None
    operations: list[Mapping[str, Any]] = field(default_factory=list)
    releases: list[Release] = field(default_factory=list)
    gone: list[str] = field(default_factory=list)
    """URNs of releases that are in the state and not in the cluster."""
    unserved: list[str] = field(default_factory=list)
    """CRDs of Istio that the API server has taken and does not serve."""

    def __bool__(self) -> bool:
        return bool(self.locks or self.operations or self.releases or self.gone or self.unserved)

    def __iter__(self) -> Iterator[str]:
        """In words."""
        yield from (str(lock) for lock in self.locks or ())
        for operation in self.operations:
            kind, name = operation["resource"]["urn"].split("::")[-2:]
            yield f"the unfinished operation in the state: {operation['type']} {kind.split(':')[-1]} {name}"
        for release in self.releases:
            yield f"the record of the Helm release {release.name}, revision {release.revision} ({release.status})"
        for urn in self.gone:
            yield f"the entry in the state of the Helm release {urn.split('::')[-1]}, which is not in the cluster"
        for crd in self.unserved:
            yield f"the pause of the API server, which has accepted the CRD {crd} and does not serve it"


def look(stack: Stack, kubectl: Kubectl, namespace: str) -> Interrupted:
    """Reads only. `namespace` is that of the mesh. Raises `KubectlError` and `PulumiError`."""
    state = _export(stack)["deployment"]
    known = {
        resource["inputs"]["name"]: resource
        for resource in state.get("resources") or []
        if resource["type"].endswith(":Release")
    }
    found = releases(kubectl, namespace)
    in_the_way = [
        release
        for release in found
        if names.is_release(release.name) and (release.status.startswith("pending-") or release.name not in known)
    ]
    there = {release.name for release in found}
    gone = [
        resource["urn"]
        for name, resource in known.items()
        if name not in there and resource["inputs"]["namespace"] == namespace
    ]
    unserved = [crd["metadata"]["name"] for crd in purge.istio_crds(kubectl) if _is_unserved(crd)]
    return Interrupted(locks(stack), state.get("pending_operations") or [], in_the_way, gone, unserved)


def recover(stack: Stack, kubectl: Kubectl, namespace: str) -> list[str]:
    """Clears what `look` finds and says what that was; the next `pulumi up` does the rest.

    Only for a stack on which nobody works: see `workers`. Raises `KubectlError` and `PulumiError`.
    """
    found = look(stack, kubectl, namespace)
    if found.locks is None or found.locks:
        stack.pulumi("cancel", "--yes")
    if found.operations or found.gone:
        state = _export(stack)
        state["deployment"].pop("pending_operations", None)
        _forget(state["deployment"], {*found.gone})
        with tempfile.NamedTemporaryFile("w", suffix=".json") as file:  # readable by its owner alone
            json.dump(state, file)
            file.flush()
            stack.pulumi("stack", "import", "--file", file.name)
    for release in found.releases:
        kubectl.run("delete", "secret", release.secret, f"--namespace={release.namespace}", "--ignore-not-found")
    if found.unserved:
        for mark in ("istio-governance/touched=", "istio-governance/touched-"):
            kubectl.run("annotate", "crd", *found.unserved, mark)
    return [*found]


def _is_unserved(crd: Mapping[str, Any]) -> bool:
    """The API server goes on with one that it has accepted when it sees a change, or looks at all, every five minutes.

    https://github.com/kubernetes/apiextensions-apiserver/blob/master/pkg/apiserver/customresource_handler.go
    """
    said = conditions(crd)
    return said.get("NamesAccepted") == "True" and said.get("Established") != "True"


def _forget(deployment: dict[str, Any], urns: set[str]) -> None:
    """Takes resources out of a state, and what others say of them."""
    deployment["resources"] = [one for one in deployment.get("resources") or [] if one["urn"] not in urns]
    for resource in deployment["resources"]:
        of_inputs = resource.get("propertyDependencies") or {}
        for holder, key in [(resource, "dependencies"), *((of_inputs, name) for name in of_inputs)]:
            if holder.get(key):
                holder[key] = [urn for urn in holder[key] if urn not in urns]


def workers(stack: Stack) -> dict[int, str]:
    """Who works on the stack from this machine, by process: living holders of its lock, and Pulumi's processes in its
    folder. The plugins of a killed Pulumi are among them: they may still be at what they were told."""
    held = {lock.pid: f"pulumi of {lock.user}" for lock in locks(stack) or () if lock.is_held}
    return held or dict(_processes(stack))


def locks(stack: Stack) -> list[Lock] | None:
    """https://www.pulumi.com/docs/iac/concepts/state-and-backends/#using-a-self-managed-backend"""
    url = urlparse(stack.variables.get("PULUMI_BACKEND_URL", ""))
    if url.scheme != "file":
        return None
    folder = Path(url.netloc + url.path).expanduser() / ".pulumi" / "locks"
    return [_lock(json.loads(file.read_text())) for file in sorted(folder.glob(f"**/{stack.name}/*.json"))]


def _lock(entry: Mapping[str, Any]) -> Lock:
    since = str(entry["timestamp"])[:19].replace("T", " ")
    return Lock(entry["hostname"], entry["username"], int(entry["pid"]), since)


def _is_pulumi(pid: int) -> bool:
    comm = Path(f"/proc/{pid}/comm")
    if Path("/proc/self").exists():
        return comm.exists() and comm.read_text().startswith("pulumi")
    try:
        os.kill(pid, 0)
    except OSError:
        return False
    return True


def _processes(stack: Stack) -> Iterator[tuple[int, str]]:
    """Where there is no /proc, none."""
    folder = stack.folder.resolve()
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if (process / "cwd").readlink() != folder:
                continue
            words = (process / "cmdline").read_text().split("\0")
        except OSError:
            continue
        program = Path(words[0]).name
        is_plugin = program.startswith(("pulumi-resource-", "pulumi-language-"))
        works = program == "pulumi" and not {*_OURS_TO_WAIT_FOR}.isdisjoint(words)
        if is_plugin or works:
            yield int(process.name), program


def _export(stack: Stack) -> dict[str, Any]:
    state: dict[str, Any] = json.loads(stack.pulumi("stack", "export"))
    return state
