"""After a killed command: the stack's lock, unfinished operations in its state, and releases that Helm will not touch.

Helm refuses a release that it believes is under way, and one that is there and not in the state. Where a command of
this stack made it, its record is taken away, and only the record: the next `pulumi up` installs the release over its
own objects, which Helm takes over because they carry its name. Objects that were made and did not reach the state are
taken over as well, because they carry the stack's name. A release that Helm had removed already leaves the state, where
`up` would believe that it is there, and `destroy` would end with Helm's `release: not found`. A CRD that an API server
had accepted, and not yet begun to serve, when it died is touched: until its next change, or for minutes, it would not
be served.
https://helm.sh/docs/topics/advanced/#storage-backends
"""

from __future__ import annotations

import json
import os
import socket
import tempfile
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import names
from config import Mesh
from istio.charts import charts
from mesh import purge
from mesh.cluster import owners
from mesh.cluster.kubectl import Kubectl
from mesh.cluster.objects import conditions
from mesh.cluster.releases import Release, releases
from mesh.drift import compare
from mesh.program.recorder import PROJECT
from mesh.program.stack import Stack

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
    others: list[Release] = field(default_factory=list)
    """Releases of the names that the stack's own would have, which it did not make: they stay."""

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


def look(stack: Stack, kubectl: Kubectl, mesh: Mesh, state: Mapping[str, Any] | None = None) -> Interrupted:
    """Reads only; `state` is what `export` says, if the caller knows. Raises `KubectlError` and `PulumiError`."""
    state = export(stack) if state is None else state
    operations, known = state.get("pending_operations") or [], installed(state)
    unfinished = {_place(operation["resource"]) for operation in operations if _is_release(operation["resource"])}
    own = {namespace for namespace, _ in (*known, *unfinished)} | _own_namespace(stack, kubectl, mesh)
    looked_at = own | ({mesh.namespace} if mesh.mode == "managed" else set())
    found = {
        (one.namespace, one.name, one.revision): one for where in sorted(looked_at) for one in releases(kubectl, where)
    }
    in_the_way = [
        one for one in found.values() if one.namespace in own and _is_left_behind(one, known.keys(), unfinished, mesh)
    ]
    newest = {(one.namespace, one.name): one for one in found.values() if names.is_release(one.name)}
    there = {(one.namespace, one.name) for one in found.values()}
    gone = [urn for place, urn in known.items() if place not in there]
    unserved = [
        crd["metadata"]["name"]
        for crd in (purge.istio_crds(kubectl) if own else ())
        if _is_unserved(crd) and owners.release_of(crd)[0] in ("", *own)
    ]
    others = [one for place, one in newest.items() if place not in known and one not in in_the_way]
    return Interrupted(locks(stack), operations, in_the_way, gone, unserved, others)


def installed(state: Mapping[str, Any]) -> dict[tuple[str, str], str]:
    """Namespace and name of the Helm releases in a stack's state → URN."""
    return {_place(entry): str(entry["urn"]) for entry in state.get("resources") or [] if _is_release(entry)}


def _is_release(entry: Mapping[str, Any]) -> bool:
    return str(entry["type"]).endswith(":Release")


def _place(entry: Mapping[str, Any]) -> tuple[str, str]:
    return entry["inputs"]["namespace"], entry["inputs"]["name"]


def _own_namespace(stack: Stack, kubectl: Kubectl, mesh: Mesh) -> set[str]:
    """The mesh's, if the stack made it: an operation that failed, as its API server died, leaves a record there and no
    word in the state."""
    if mesh.mode != "managed":
        return set()
    found = kubectl.items("namespaces")
    own = {one["metadata"]["name"] for one in found if owners.is_of(one, f"{PROJECT}/{stack.name}")}
    return own & {mesh.namespace}


def _is_left_behind(
    release: Release, known: Collection[tuple[str, str]], unfinished: Collection[tuple[str, str]], mesh: Mesh
) -> bool:
    """Whether a command of this stack made the record and did not end.

    A record that neither the state nor one of its operations knows is the stack's where it was not finished either, and
    has the very values that the stack declares.
    """
    place, is_pending = (release.namespace, release.name), release.status.startswith("pending-")
    if place in known:
        return is_pending
    if place in unfinished:
        return True
    declared = charts(mesh) if mesh.mode == "managed" and (is_pending or release.status == "failed") else ()
    return any(chart.release == release.name and compare.same(chart.values, release.values) for chart in declared)


def recover(stack: Stack, kubectl: Kubectl, mesh: Mesh) -> list[str]:
    """Clears what `look` finds and says what that was; the next `pulumi up` does the rest.

    Only for a stack on which nobody works: see `workers`. Raises `KubectlError` and `PulumiError`.
    """
    found = look(stack, kubectl, mesh)
    if found.locks is None or found.locks:
        stack.pulumi("cancel", "--yes")
    for release in found.releases:  # before the state forgets whose they are
        kubectl.run("delete", "secret", release.secret, f"--namespace={release.namespace}", "--ignore-not-found")
    if found.operations or found.gone:
        state = _export(stack)
        state["deployment"].pop("pending_operations", None)
        _forget(state["deployment"], {*found.gone})
        with tempfile.NamedTemporaryFile("w", suffix=".json") as file:  # readable by its owner alone
            json.dump(state, file)
            file.flush()
            stack.pulumi("stack", "import", "--file", file.name)
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


def export(stack: Stack) -> Mapping[str, Any]:
    """What the stack's state says of its resources and of operations that did not end. Raises `PulumiError`."""
    deployment: Mapping[str, Any] = _export(stack)["deployment"]
    return deployment


def _export(stack: Stack) -> dict[str, Any]:
    state: dict[str, Any] = json.loads(stack.read("stack", "export"))
    return state
