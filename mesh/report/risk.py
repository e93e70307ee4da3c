"""What a change puts at risk: traffic that moves, pods that restart, what goes; and what of it is refused."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import names
from config import versions
from mesh.report.changes import Change
from mesh.report.effects import LEVELS, Area, Effect, Level
from mesh.report.model import WORKLOADS, mesh_version, routes, version
from mesh.report.values import count
from mesh.report.words import affected

MANDATORY = "mandatory"
"""How a finding begins that would stop a deployment; all others are advice."""

# What is deleted or made anew without anything that runs being gone: commands of this program, whose effects are told.
_INTERNAL = ("Command", "NamespacePatch")
# What changes nothing while no node is drained, and what only says what the effects tell.
_MINOR = ("PodDisruptionBudget", "PeerAuthentication", "DestinationRule")


@dataclass(frozen=True)
class Risk:
    """Each as lines for people, `meanwhile` about the time of the change; `level` is that of the gravest, for the
    reasons in the table of docs/pull-requests.md."""

    level: Level
    traffic: tuple[str, ...] = ()
    meanwhile: tuple[str, ...] = ()
    restarts: tuple[str, ...] = ()
    deleted: tuple[str, ...] = ()
    replaced: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    policy: tuple[str, ...] = ()


def risk(
    changes: Sequence[Change],
    effects: Sequence[Effect],
    mesh_restarts: Sequence[str] = (),
    policy: Sequence[str] = (),
) -> Risk:
    """`mesh_restarts` are the workloads of the mesh whose pods change, `policy` the findings of the policies on what
    would be there."""
    restarts = (*_restarts(changes), *mesh_restarts)
    shown = [change for change in changes if change.kind not in _INTERNAL]
    deleted, replaced = ([one for one in shown if one.operation == what] for what in ("delete", "replace"))
    found = list(dict.fromkeys([*effects, *_warnings(changes)]))
    levels: list[Level] = ["low" if changes else "none", *(effect.level for effect in found)]
    if restarts or any(one.kind in _MINOR for one in deleted) or any(one.kind == "Release" for one in changes):
        levels.append("medium")
    if replaced or any(one.kind not in _MINOR for one in deleted) or any(one.startswith(MANDATORY) for one in policy):
        levels.append("high")
    told: dict[Area, list[str]] = {"traffic": [], "meanwhile": [], "warning": []}
    for effect in found:
        told[effect.area].append(effect.text)
    return Risk(
        max(levels, key=LEVELS.index),
        tuple(told["traffic"]),
        tuple(told["meanwhile"]),
        restarts,
        tuple(f"{change.kind} {change.name}" for change in deleted),
        tuple(f"{change.kind} {change.name}" for change in replaced),
        tuple(told["warning"]),
        tuple(policy),
    )


def refusals(changes: Sequence[Change]) -> list[str]:
    """What must not be done, each with the way that works; only who knows what was there before can tell."""
    return [line for change in changes for line in _refused(change)]


def _restarts(changes: Sequence[Change]) -> Iterator[str]:
    for change in changes:
        if change.kind not in WORKLOADS or change.operation not in ("update", "replace"):
            continue
        if change.operation == "replace" or pods(change.old) != pods(change.new):
            replicas = change.new["spec"].get("replicas")
            yield f"{change.kind} {change.name}" + (f" ({count(replicas, 'pod')})" if replicas else "")


def pods(inputs: Mapping[str, Any]) -> Any:
    """What all pods of a workload are made from: when it changes, they restart."""
    return inputs.get("spec", {}).get("template")


def _warnings(changes: Sequence[Change]) -> Iterator[Effect]:
    for change in changes:
        if change.kind == "VirtualService" and change.operation in ("update", "replace"):
            yield from _weighted_versions_that_go(change, changes)
        if change.kind == "Namespace" and change.operation in ("delete", "replace"):
            yield Effect("high", f"with the Namespace {change.name} everything in it goes", "warning")
        if (
            change.kind == "kubernetes"
            and change.operation != "create"
            and _cluster(change.old) != _cluster(change.new)
        ):
            yield Effect("high", "the stack would leave the cluster that it is on", "warning")
    bare = [f"{one.kind} {one.name}" for one in changes if one.protected and not one.resource.protect]
    if bare:
        it = "its" if len(bare) == 1 else "their"
        loses = f"{affected(bare)} {'loses' if len(bare) == 1 else 'lose'} {it} protection"
        yield Effect("high", f"{loses}: from then on a change of the configuration can delete {_them(bare)}", "warning")


def _them(items: Sequence[str]) -> str:
    return "it" if len(items) == 1 else "them"


def _cluster(provider: Mapping[str, Any]) -> Any:
    return provider.get("context"), provider.get("kubeconfig")


def _weighted_versions_that_go(change: Change, changes: Sequence[Change]) -> Iterator[Effect]:
    service = change.subject
    gone = {
        version(other.old)
        for other in changes
        if other.kind in WORKLOADS and other.operation == "delete" and other.subject == service
    }
    for route in routes(service, change.old.get("spec", {})):
        for name, weight in route.shares.items():
            if weight and name in gone:
                yield Effect(
                    "high",
                    f"{service} {name} still gets {weight} % and is removed: requests in flight may fail; "
                    "take its weight to 0 first, `pulumi up`, then remove it",
                    "warning",
                )


def _refused(change: Change) -> Iterator[str]:
    label = f"{change.kind} {change.name}"
    if change.operation == "delete":
        if change.protected:
            yield f"{label} is protected and would be deleted: take its protection away in a change of its own first"
        return
    if change.operation == "create":
        return
    if change.kind in WORKLOADS and _selector(change.old) != _selector(change.new):
        yield f"the selector of {label} cannot change, its pods would be lost: add a version instead"
    if change.operation == "replace" and change.protected:
        yield f"{label} is protected and would be replaced: take its protection away in a change of its own first"
    if change.kind == "Release" and change.name.startswith(names.RELEASES["istiod"]):
        yield from _too_far(change)


def _selector(inputs: Mapping[str, Any]) -> Any:
    return inputs.get("spec", {}).get("selector")


def _too_far(change: Change) -> Iterator[str]:
    """https://istio.io/latest/docs/setup/upgrade/helm/: one minor version a step."""
    old, new = mesh_version(change.old), mesh_version(change.new)
    if not (old and new):
        return
    (major, before), (new_major, after) = versions.minor(old), versions.minor(new)
    if major != new_major or abs(after - before) > 1:
        step = f"{major}.{before + 1 if after > before else before - 1}"
        yield f"Istio {old} → {new} skips minor versions: go to {step} first"
