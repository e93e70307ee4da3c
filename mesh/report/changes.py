"""From two states to what changes: resource by resource, and within a resource path by path."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from mesh.program.recorder import Resource
from mesh.report.states import Comparison
from mesh.report.values import MISSING, inside

Operation = Literal["create", "update", "replace", "delete"]


@dataclass(frozen=True)
class Difference:
    """One path with two values, one of which may be `MISSING`."""

    path: tuple[str, ...]
    old: Any
    new: Any


@dataclass(frozen=True)
class Change:
    """What happens to one resource."""

    operation: Operation
    resource: Resource
    """The newer one of the two."""
    old: Mapping[str, Any]
    new: Mapping[str, Any]
    """The inputs; {} where there is no such resource."""
    protected: bool = False
    """Whether what is there now is."""

    @property
    def kind(self) -> str:
        return self.resource.kind

    @property
    def name(self) -> str:
        return self.resource.name

    @property
    def differences(self) -> list[Difference]:
        return list(_differences(self.old, self.new, ()))

    @property
    def subject(self) -> str:
        return subject(self.resource)

    @property
    def component(self) -> str:
        return component(self.resource)


_SUBJECTS: Mapping[str, str] = {
    "Istio": "mesh",
    "Purge": "mesh",
    "PurgeGuard": "mesh",
    "WorkloadNamespace": "namespace",
    "NetworkPolicies": "network",
    "Stack": "",
}


def subject(resource: Resource) -> str:
    """Whom a resource is about: the component that declares it, by the name that people know it by."""
    _, _, _, name = resource.parent.split("::") if resource.parent else ("", "", "", "")
    provider = resource.type.startswith("pulumi:providers:")
    return _SUBJECTS.get(component(resource), name) or ("cluster" if provider else resource.name)


def component(resource: Resource) -> str:
    """The class of the component that declares a resource, '' for none."""
    return resource.parent.split("::")[2].rpartition(":")[2] if resource.parent else ""


# What Kubernetes or Helm cannot change in place; a path is a prefix.
_IMMUTABLE: Mapping[str, tuple[tuple[str, ...], ...]] = {
    "Deployment": (("spec", "selector"),),
    "DaemonSet": (("spec", "selector"),),
    "StatefulSet": (("spec", "selector"), ("spec", "serviceName"), ("spec", "volumeClaimTemplates")),
    "Release": (("name",), ("namespace",)),
}
_IDENTITY = (("metadata", "name"), ("metadata", "namespace"), ("apiVersion",), ("kind",))


def changes(comparison: Comparison) -> list[Change]:
    """In the order in which the program declares the resources, then what goes, in the reverse order."""
    before, after = comparison.before.resources, comparison.after.resources
    found = [_declared(before.get(line), new, line, comparison.operations) for line, new in after.items()]
    gone = [Change("delete", old, old.inputs, {}, old.protect) for line, old in before.items() if line not in after]
    return [*(change for change in found if change), *reversed(gone)]


def _declared(old: Resource | None, new: Resource, line: str, operations: Mapping[str, str] | None) -> Change | None:
    if old is None:
        return Change("create", new, {}, new.inputs)
    update = Change("update", new, old.inputs, new.inputs, old.protect)
    if operations is None:
        if old.inputs == new.inputs and old.protect == new.protect:
            return None
        return replace(update, operation="replace") if _is_replaced(update) else update
    match operations.get(line):
        case "replace":
            return replace(update, operation="replace")
        case "update":
            return update
        case _:
            return update if old.protect != new.protect else None


def _is_replaced(change: Change) -> bool:
    immutable = (*_IMMUTABLE.get(change.kind, ()), *_IDENTITY, *((key,) for key in change.resource.replace_on_changes))
    return any(difference.path[: len(path)] == path for difference in change.differences for path in immutable)


def _differences(old: Any, new: Any, path: tuple[str, ...]) -> Iterator[Difference]:
    """What comes or goes as a whole is one difference."""
    both = MISSING not in (old, new)
    if both and (found := inside(old, new)):
        for key, was, now in found:
            yield from _differences(was, now, (*path, key))
    elif old != new:
        yield Difference(path, old, new)
