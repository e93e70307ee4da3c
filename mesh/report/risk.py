"""What a change puts at risk: traffic that moves, pods that restart, what goes; and what of it is refused."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import names
from config import versions
from mesh.report import words
from mesh.report.changes import Change

Level = Literal["none", "low", "medium", "high"]

MANDATORY = "mandatory"
"""How a finding begins that would stop a deployment; all others are advice."""

_MUCH = 50
"""From this percentage of a service's requests on, a move in one step is worth a second look."""


@dataclass(frozen=True)
class Risk:
    """Each as lines for people; `level` sums them up: high when something goes, medium when pods restart or much
    traffic moves, low for all else that changes."""

    level: Level
    traffic: tuple[str, ...] = ()
    restarts: tuple[str, ...] = ()
    deleted: tuple[str, ...] = ()
    replaced: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    policy: tuple[str, ...] = ()


def risk(changes: Sequence[Change], mesh_restarts: Sequence[str] = (), policy: Sequence[str] = ()) -> Risk:
    """`mesh_restarts` are the workloads of the mesh whose pods change, `policy` the findings of the policies on what
    would be there."""
    moves = list(_moves(changes))
    restarts = (*_restarts(changes), *mesh_restarts)
    deleted = tuple(f"{change.kind} {change.name}" for change in changes if change.operation == "delete")
    replaced = tuple(f"{change.kind} {change.name}" for change in changes if change.operation == "replace")
    warnings = tuple(_warnings(changes))
    level: Level = "low" if changes else "none"
    if restarts or any(share >= _MUCH for share, _ in moves):
        level = "medium"
    if deleted or replaced or warnings or any(line.startswith(MANDATORY) for line in policy):
        level = "high"
    return Risk(level, tuple(text for _, text in moves), restarts, deleted, replaced, warnings, tuple(policy))


def refusals(changes: Sequence[Change]) -> list[str]:
    """What must not be done, each with the way that works; only who knows what was there before can tell."""
    return [line for change in changes for line in _refused(change)]


def _moves(changes: Sequence[Change]) -> Iterator[tuple[int, str]]:
    """How much of a service's requests go somewhere else, in percent, and the same in words."""
    for change in changes:
        if change.kind != "VirtualService":
            continue
        if change.operation in ("create", "delete"):
            yield 0, f"the split of {words.subject(change)} {'begins' if change.new else 'ends'}"
        old, new = words.weights(change.old), words.weights(change.new)
        for route in old.keys() & new.keys():
            gains = {
                version: new[route].get(version, 0) - old[route].get(version, 0)
                for version in {**old[route], **new[route]}
            }
            share = sum(gain for gain in gains.values() if gain > 0)
            if share:
                source = words.listed([version for version, gain in gains.items() if gain < 0])
                target = words.listed([version for version, gain in gains.items() if gain > 0])
                service = words.subject(change)
                whose = f"the requests to {service}"
                if route != names.route(service):
                    whose += f" that match {route}"
                yield share, f"{share} % of {whose} move from {source} to {target}"


def _restarts(changes: Sequence[Change]) -> Iterator[str]:
    for change in changes:
        if change.kind not in words.WORKLOADS or change.operation not in ("update", "replace"):
            continue
        if change.operation == "replace" or pods(change.old) != pods(change.new):
            replicas = change.new["spec"].get("replicas")
            yield f"{change.kind} {change.name}" + (f" ({words.count(replicas, 'pod')})" if replicas else "")


def pods(inputs: Mapping[str, Any]) -> Any:
    """What all pods of a workload are made from: when it changes, they restart."""
    return inputs.get("spec", {}).get("template")


def _warnings(changes: Sequence[Change]) -> Iterator[str]:
    for change in changes:
        if change.kind == "VirtualService" and change.operation in ("update", "replace"):
            yield from _weighted_versions_that_go(change, changes)
        if change.kind == "Namespace" and change.operation in ("delete", "replace"):
            yield f"with the Namespace {change.name} everything in it goes"
        if (
            change.kind == "kubernetes"
            and change.operation != "create"
            and _cluster(change.old) != _cluster(change.new)
        ):
            yield "the stack would leave the cluster that it is on"
        if change.protected and not change.resource.protect:
            yield f"{change.kind} {change.name} loses its protection"


def _cluster(provider: Mapping[str, Any]) -> Any:
    return provider.get("context"), provider.get("kubeconfig")


def _weighted_versions_that_go(change: Change, changes: Sequence[Change]) -> Iterator[str]:
    service = words.subject(change)
    gone = {
        words.version(other.old)
        for other in changes
        if other.kind in words.WORKLOADS and other.operation == "delete" and words.subject(other) == service
    }
    for split in words.weights(change.old).values():
        for version, weight in split.items():
            if weight and version in gone:
                yield (
                    f"{service} {version} still gets {weight} % and is removed: requests in flight may fail; "
                    "take its weight to 0 first, `pulumi up`, then remove it"
                )


def _refused(change: Change) -> Iterator[str]:
    label = f"{change.kind} {change.name}"
    if change.operation == "delete":
        if change.protected:
            yield f"{label} is protected and would be deleted: take its protection away in a change of its own first"
        return
    if change.operation == "create":
        return
    if change.kind in words.WORKLOADS and _selector(change.old) != _selector(change.new):
        yield f"the selector of {label} cannot change, its pods would be lost: add a version instead"
    if change.operation == "replace" and change.protected:
        yield f"{label} is protected and would be replaced: take its protection away in a change of its own first"
    if change.kind == "Release" and change.name == names.RELEASES["istiod"]:
        yield from _too_far(change)


def _selector(inputs: Mapping[str, Any]) -> Any:
    return inputs.get("spec", {}).get("selector")


def _too_far(change: Change) -> Iterator[str]:
    """https://istio.io/latest/docs/setup/upgrade/helm/: one minor version a step."""
    old, new = words.mesh_version(change.old), words.mesh_version(change.new)
    if not (old and new):
        return
    (major, before), (new_major, after) = versions.minor(old), versions.minor(new)
    if major != new_major or abs(after - before) > 1:
        step = f"{major}.{before + 1 if after > before else before - 1}"
        yield f"Istio {old} → {new} skips minor versions: go to {step} first"
