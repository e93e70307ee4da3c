"""What somebody changed in the cluster behind the stack's back.

Three things are held against each other: what the program declares, what `pulumi up` applied last (the inputs in the
state, or the manifest that Helm keeps of a release), and what is live. Live against declared is drift, whoever did it.
Where only the program has changed since, the cluster is as it was left: that is a change to apply, and no drift.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from mesh.cluster import owners
from mesh.cluster.kubectl import Kubectl
from mesh.cluster.objects import Identity, identity, live
from mesh.cluster.releases import Release, deployed, releases
from mesh.drift import compare, writers
from mesh.drift.compare import ABSENT, Difference, Object, Writer
from mesh.drift.writers import Known
from mesh.program.recorder import Recording, Resource
from mesh.program.render import plain
from mesh.program.stack import Stack
from mesh.routes.others import Finding

# How the state marks a secret. https://www.pulumi.com/docs/concepts/secrets/
_SECRET_MARK = "4dabf18193072939515e22adb298388d"  # noqa: S105


class Secret(str):
    """A text that is compared and never shown."""


@dataclass(frozen=True)
class Expected:
    """One object as it should be.

    `applied` is what was applied last by the field manager `manager`; `urn` is that of the resource, and `release` the
    Helm release that the object lies in, '' for the stack's own; of a patch the object itself is somebody else's.
    """

    body: Object
    applied: Object
    urn: str
    manager: str
    release: str = ""
    is_patch: bool = False

    @property
    def identity(self) -> Identity:
        return identity(self.body)


@dataclass(frozen=True)
class Drift:
    """One object that is not as declared, and where; `writers` go with `differences`. Without `live` it is missing.

    `pending` are the differences of the same object that are only not applied yet, and `allowed` those that a known
    writer made. `stranger` says whose it is, where somebody else's object has the name of one that is gone.
    """

    expected: Expected
    live: Object | None
    differences: list[Difference] = field(default_factory=list)
    writers: list[Writer | None] = field(default_factory=list)
    pending: list[Difference] = field(default_factory=list)
    allowed: list[tuple[Difference, Allowed]] = field(default_factory=list)
    stranger: str = ""

    @property
    def is_missing(self) -> bool:
        return self.live is None or self.is_going

    @property
    def is_going(self) -> bool:
        """Somebody deleted it, and something still holds it."""
        return self.live is not None and "deletionTimestamp" in self.live["metadata"]


@dataclass(frozen=True)
class Pending:
    """What the program declares and no `pulumi up` has applied yet; no `differences` for a whole object."""

    identity: Identity
    action: str
    differences: list[Difference] = field(default_factory=list)


@dataclass(frozen=True)
class Allowed:
    """A field that is left to a known writer; `manager` and `time` (RFC 3339) are what the API server has recorded."""

    identity: Identity
    field: str
    known: Known
    manager: str
    time: str


@dataclass(frozen=True)
class Report:
    """`compared` counts the objects."""

    drift: list[Drift]
    pending: list[Pending]
    compared: int
    allowed: list[Allowed] = field(default_factory=list)
    decided: list[Finding] = field(default_factory=list)
    """What the objects of others make of the stack's rules, whose own objects are as declared."""


@dataclass(frozen=True)
class Applied:
    """What the stack applied last: its resources in the state by URN, and its Helm releases by namespace and name."""

    state: Mapping[str, Mapping[str, Any]]
    releases: Mapping[tuple[str, str], Release]


def applied(stack: Stack, kubectl: Kubectl) -> Applied:
    """Raises `KubectlError` and `PulumiError`."""
    state = {entry["urn"]: entry for entry in stack.resources(show_secrets=True)}
    namespaces = {entry["inputs"]["namespace"] for entry in state.values() if entry["type"].endswith(":Release")}
    with ThreadPoolExecutor() as pool:
        found = pool.map(lambda namespace: releases(kubectl, namespace), sorted(namespaces))
        return Applied(state, {key: release for some in found for key, release in deployed(some).items()})


def find(recording: Recording, applied: Applied, kubectl: Kubectl) -> Report:
    """Compares everything that the stack made, and reads nothing but that. Raises `KubectlError`."""
    expected = [*_expected(recording, applied)]
    objects = live(kubectl, [wanted.body for wanted in expected if wanted.body["kind"] != RELEASE])
    bodies = [_release_body(release) for release in applied.releases.values()]
    there: dict[Identity, Object] = {**objects, **{identity(body): body for body in bodies}}
    looked = [_drift(wanted, there.get(wanted.identity)) for wanted in expected]
    drift = [one for one in looked if one.is_missing or one.differences or one.stranger]
    # Once for each field, in however many places that differs.
    allowed = dict.fromkeys(left for one in looked for _, left in one.allowed)
    return Report(drift, [*_pending(recording, applied)], len(expected), [*allowed])


RELEASE = "Release"


def _expected(recording: Recording, applied: Applied) -> Iterator[Expected]:
    for resource in recording:
        entry = applied.state.get(resource.urn)
        if entry is None or not _is_object(resource.type):
            continue
        before = _applied_body(entry)
        body = _with_secrets(declared_body(resource), before)
        yield Expected(
            body,
            before,
            resource.urn,
            entry["outputs"].get("__fieldManager", ""),
            is_patch=resource.kind.endswith("Patch"),
        )
        release = applied.releases.get((resource.inputs.get("namespace", ""), resource.name))
        if body["kind"] == RELEASE and release:
            for item in release.objects:
                yield Expected(item, item, resource.urn, owners.HELM, release.name)


def _drift(expected: Expected, live: Object | None) -> Drift:
    if live is None or "deletionTimestamp" in live["metadata"]:
        return Drift(expected, live)
    drift = Drift(expected, live, stranger=_stranger(expected, live))
    for difference in compare.differences(expected.body, live):
        path = difference.path
        writer = compare.writer(live, path)
        if _is_pending(expected, live, difference, writer):
            drift.pending.append(difference)
        elif writer and (found := writers.known(expected.body, live, path, writer, expected.manager)):
            known, left = found
            name = Difference(left, ABSENT, ABSENT).field
            allowed = Allowed(expected.identity, name, known, writer.manager, writer.time)
            drift.allowed.append((difference, allowed))
        else:
            drift.differences.append(difference)
            drift.writers.append(writer)
    return drift


def _stranger(expected: Expected, live: Object) -> str:
    """A mark that was only edited away leaves the field manager; a patched object is always somebody else's."""
    body = expected.body
    if expected.is_patch or body["kind"] == RELEASE:
        return ""
    owner = owners.stack_of(body)
    marked = owners.is_of(live, owner) if owner else owners.release_of(live) == owners.release_of(body)
    return "" if marked or expected.manager in owners.writers(live) else owners.whose(live)


def _is_pending(expected: Expected, live: Object, difference: Difference, writer: Writer | None) -> bool:
    """The field is as the stack left it, or as a known writer made it of that. A `refresh` may have taken somebody's
    edit into the state: that is not."""
    path, manager = difference.path, expected.manager
    before = compare.at(expected.applied, path)
    if compare.same(difference.declared, before):
        return False
    if writer and writers.known(expected.applied, live, path, writer, manager):
        return True
    return compare.same(before, difference.live) and (writer is None or writer.manager == manager)


def _pending(recording: Recording, applied: Applied) -> Iterator[Pending]:
    for resource in recording:
        if _is_object(resource.type):
            body, entry = declared_body(resource), applied.state.get(resource.urn)
            if entry is None:
                yield Pending(identity(body), "create")
                continue
            before = _applied_body(entry)
            if changed := compare.exactly(before, _with_secrets(body, before)):
                yield Pending(identity(body), "update", changed)
    for urn, entry in applied.state.items():
        if urn not in recording.resources and _is_object(entry["type"]):
            yield Pending(identity(_applied_body(entry)), "delete")


def _is_object(kind: str) -> bool:
    return kind.startswith("kubernetes:")


def declared_body(resource: Resource) -> Object:
    """A resource of Kubernetes as an object, as the provider gets it."""
    inputs = _without_nulls(plain(resource.inputs))
    return _release_inputs(inputs) if resource.kind == RELEASE else inputs


def _applied_body(entry: Mapping[str, Any]) -> Object:
    inputs = _plain(entry["inputs"])
    return _release_inputs(inputs) if entry["type"].endswith(f":{RELEASE}") else inputs


def _release_inputs(inputs: Mapping[str, Any]) -> Object:
    """A release in the shape of an object. The provider adds the version to a chart of a folder, so that is no part."""
    metadata = {"name": inputs["name"], "namespace": inputs["namespace"]}
    return {"apiVersion": "helm.sh/v3", "kind": RELEASE, "metadata": metadata, "values": inputs.get("values", {})}


def _release_body(release: Release) -> Object:
    return _release_inputs({"name": release.name, "namespace": release.namespace, "values": release.values})


def _without_nulls(value: Any) -> Any:
    """Inputs as the provider sends them."""
    if isinstance(value, Mapping):
        return {key: _without_nulls(inner) for key, inner in value.items() if inner is not None}
    return [_without_nulls(inner) for inner in value] if isinstance(value, list) else value


def _plain(value: Any) -> Any:
    """Inputs as they are in the state, with its secrets opened."""
    if isinstance(value, Mapping):
        if _SECRET_MARK in value:
            return _secret(json.loads(value["plaintext"]))
        return {key: _plain(inner) for key, inner in value.items()}
    return [_plain(inner) for inner in value] if isinstance(value, list) else value


def _secret(value: Any) -> Any:
    """With every text in it marked: the provider makes one secret of all the data of a Secret."""
    if isinstance(value, Mapping):
        return {key: _secret(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_secret(inner) for inner in value]
    return Secret(value) if isinstance(value, str) else value


def _with_secrets(declared: Any, applied: Any) -> Any:
    """Secrets are not decrypted for a program that runs offline: those that were applied stand for them."""
    if isinstance(applied, Secret):
        return applied
    if isinstance(declared, Mapping) and isinstance(applied, Mapping):
        return {key: _with_secrets(value, applied.get(key)) for key, value in declared.items()}
    if isinstance(declared, list) and isinstance(applied, list) and len(declared) == len(applied):
        return [_with_secrets(*pair) for pair in zip(declared, applied, strict=True)]
    return declared
