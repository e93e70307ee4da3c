"""Who else is known to write into what the stack makes: managed clusters and add-ons whose writes are no drift.

Only what would be drift otherwise is listed: keys that somebody adds to a map, such as a label, are none in any case.
A field is left to a writer when all agree: the kind of object, the field, by whom the API server says it was written,
and that the value is one which this writer is documented to make. Anything else stays drift.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from mesh.drift import compare
from mesh.drift.compare import Key, Object, Path, Writer

AT_ADMISSION: Final = ""
"""A webhook that changes what somebody sends has no name of its own: the API server records who sends it before it asks
the webhooks, and that must have been the stack.
https://github.com/kubernetes/kubernetes/blob/v1.36.3/staging/src/k8s.io/apiserver/pkg/endpoints/handlers/create.go"""


@dataclass(frozen=True)
class Known:
    """`field` is written as in a report, with `[]` for any item of a list; all below it is meant as well.

    `made(declared, live, path)` says whether what is live at `path`, a field of this kind, is what `name` makes of
    what is declared. `off` is what keeps it from writing.
    """

    name: str
    manager: str
    kinds: tuple[str, ...]
    field: str
    what: str
    source: str
    made: Callable[[Object, Object, Path], bool]
    off: str = "nothing"

    def field_of(self, path: Path) -> Path | None:
        """The part of `path` that is this field; None for another field."""
        steps = self.field.replace("[]", ".[]").split(".")
        same = len(path) >= len(steps) and all(
            isinstance(step, int | Key) if wanted == "[]" else step == wanted
            for wanted, step in zip(steps, path, strict=False)
        )
        return path[: len(steps)] if same else None


def known(declared: Object, live: Object, path: Path, writer: Writer, own: str) -> tuple[Known, Path] | None:
    """Who is known to have written what differs at `path`, and the field that is left to it; `own` is the name by which
    the stack writes the object."""
    for one in KNOWN:
        field = one.field_of(path)
        if (
            field is not None
            and declared["kind"] in one.kinds
            and writer.manager == (own if one.manager == AT_ADMISSION else one.manager)
            and one.made(declared, live, field)
        ):
            return one, field
    return None


def table() -> str:
    """As docs/operations.md has it; a test compares them."""
    rows = ["| who | recorded as | kinds | field | what | kept from it by |", "|---|---|---|---|---|---|"]
    for one in KNOWN:
        manager = "the stack's own manager (at admission)" if one.manager == AT_ADMISSION else f"`{one.manager}`"
        cells = (f"[{one.name}]({one.source})", manager, ", ".join(one.kinds), f"`{one.field}`", one.what, one.off)
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows) + "\n"


def _adds(is_its: Callable[[Mapping[str, Any]], bool]) -> Callable[[Object, Object, Path], bool]:
    """That the items of a list are those that are declared, in their order, and some of its own."""

    def made(declared: Object, live: Object, path: Path) -> bool:
        wanted, found = compare.at(declared, path), compare.at(live, path)
        if not isinstance(wanted, list) or not isinstance(found, list):
            return False
        own = [item for item in found if item not in wanted and is_its(item)]
        return bool(own) and compare.same(wanted, [item for item in found if item not in own])

    return made


def _is_of_aks(expression: Mapping[str, Any]) -> bool:
    return expression in (
        {"key": "control-plane", "operator": "DoesNotExist"},
        {"key": "control-plane", "operator": "NotIn", "values": ["true"]},
        {"key": "kubernetes.azure.com/managedby", "operator": "NotIn", "values": ["aks"]},
    )


def _is_of_gke(expression: Mapping[str, Any]) -> bool:
    return (
        expression["key"] == "kubernetes.io/metadata.name"
        and expression["operator"] == "NotIn"
        and all(name in ("kube-system", "kube-node-lease") or name.startswith("gke-") for name in expression["values"])
    )


def _as_autopilot_says(declared: Object, live: Object, path: Path) -> bool:
    """Autopilot keeps in an annotation what it was given and what it made of that."""
    try:
        said = json.loads(live["metadata"]["annotations"]["autopilot.gke.io/resource-adjustment"])
        given, made = (dict(_resources(said[side])) for side in ("input", "output"))
    except (AttributeError, KeyError, TypeError, ValueError):
        return False
    step = path[-2]
    name = dict(step.fields).get("name") if isinstance(step, Key) else None
    if name not in given or name not in made:
        return False
    wanted, found = (_amounts(compare.at(item, path)) for item in (declared, live))
    # It is given what is declared, or what it made of that before.
    return compare.same(found, made[name]) and any(compare.same(given[name], one) for one in (wanted, made[name]))


def _resources(side: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for container in (*side.get("containers", ()), *side.get("initContainers", ())):
        yield container["name"], _amounts(container)


def _amounts(resources: Any) -> Mapping[str, Any]:
    parts = ("requests", "limits") if isinstance(resources, Mapping) else ()
    return {part: resources[part] for part in parts if part in resources}


_AUTOPILOT: Final = Known(
    name="GKE Autopilot",
    manager=AT_ADMISSION,
    kinds=("Deployment", "StatefulSet", "DaemonSet"),
    field="spec.template.spec.containers[].resources",
    what="requests and limits, as its annotation `autopilot.gke.io/resource-adjustment` says",
    source="https://cloud.google.com/kubernetes-engine/docs/concepts/autopilot-resource-requests",
    made=_as_autopilot_says,
    off="declaring what it makes of it",
)

KNOWN: Final = (
    Known(
        name="AKS' admissions enforcer",
        manager="admissionsenforcer",
        kinds=compare.WEBHOOKS,
        field="webhooks[].namespaceSelector.matchExpressions",
        what="adds `control-plane` and `kubernetes.azure.com/managedby`: not AKS' own namespaces",
        source="https://github.com/Azure/AKS/issues/4002",
        made=_adds(_is_of_aks),
        off="`mesh.platform: aks`, from Istio 1.24 on",
    ),
    Known(
        name="GKE Autopilot's webhooks",
        manager=AT_ADMISSION,
        kinds=compare.WEBHOOKS,
        field="webhooks[].namespaceSelector.matchExpressions",
        what="adds `kubernetes.io/metadata.name` `NotIn` `kube-system`, `gke-…`: not GKE's own namespaces",
        source="https://github.com/Dynatrace/dynatrace-operator/issues/2194",
        made=_adds(_is_of_gke),
    ),
    _AUTOPILOT,
    replace(_AUTOPILOT, field="spec.template.spec.initContainers[].resources"),
)
