"""Changes in words: one sentence a subject (a service, the mesh, the namespace, …) that says what a reader would say.

Made from the declared objects alone, so that the same words come out offline and against a live stack. What has no
words of its own is told by its path, so that nothing is left out.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import names
from mesh.report.changes import MISSING, Change, Difference

WORKLOADS = ("Deployment", "StatefulSet", "DaemonSet")
_RULES = ("VirtualService", "DestinationRule")
_LONGEST = 8
"""A sentence with more parts than these ends with how many more there are."""


@dataclass(frozen=True)
class Sentence:
    """What happens to `subject`, and the `affected` objects: all that change for it."""

    subject: str
    parts: tuple[str, ...]
    affected: tuple[str, ...]

    def __str__(self) -> str:
        more = len(self.parts) - _LONGEST
        parts = [*self.parts[:_LONGEST], *([f"and {more} more, below"] if more > 0 else [])]
        return f"{self.subject}: {', '.join(parts)}; affects only {_affected(self.affected)}"


@dataclass(frozen=True)
class _Part:
    """A piece of a sentence; those with the same text are told once, `of` all that it is true of."""

    text: str
    of: str = ""


def sentences(changes: Sequence[Change]) -> list[Sentence]:
    """In the order of the changes."""
    by_subject: dict[str, list[Change]] = {}
    for change in changes:
        by_subject.setdefault(subject(change), []).append(change)
    renamed = _renamed(by_subject)
    return [
        Sentence(
            name,
            tuple(_joined(_parts(found, renamed.get(name, "")))) or ("changes",),
            tuple(f"{change.kind} {change.name}" for change in found),
        )
        for name, found in by_subject.items()
    ]


def subject(change: Change) -> str:
    """Whom a change is about: the component that declares the resource, by the name that people know it by."""
    resource = change.resource
    _, _, parents, name = resource.parent.split("::") if resource.parent else ("", "", "", "")
    component = parents.rpartition(":")[2]
    known = {
        "Istio": "mesh",
        "Purge": "mesh",
        "PurgeGuard": "mesh",
        "WorkloadNamespace": "namespace",
        "NetworkPolicies": "network",
        "Stack": "",
    }
    return known.get(component, name) or ("cluster" if resource.type.startswith("pulumi:providers:") else resource.name)


def weights(inputs: Mapping[str, Any]) -> dict[str, dict[str, int]]:
    """Route → version → weight in percent, for the HTTP routes of a VirtualService that split anything."""
    return {
        str(route.get("name", number)): {
            _version(one): one.get("weight", 100 if len(route["route"]) == 1 else 0) for one in route["route"]
        }
        for number, route in enumerate(inputs.get("spec", {}).get("http", []))
        if route.get("route")
    }


def version(inputs: Mapping[str, Any]) -> str:
    """The version that a workload runs, by its pods' label."""
    labels = inputs.get("spec", {}).get("template", {}).get("metadata", {}).get("labels", {})
    return str(labels.get("version", inputs.get("metadata", {}).get("name", "")))


def shown(value: Any) -> str:
    """A value in a sentence: short, and `unset` where there is none."""
    if value is MISSING:
        return "unset"
    if isinstance(value, Mapping) and set(value) == {"name", "value"}:  # an environment variable
        value = value["value"]
    if isinstance(value, Mapping) and isinstance(value.get("valueFrom", value).get("secretKeyRef"), Mapping):
        reference = value.get("valueFrom", value)["secretKeyRef"]
        value = f"Secret {reference['name']}, key {reference['key']}"
    text = " ".join((value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)).split())
    return text if len(text) <= 60 else text[:59] + "…"


def _version(destination: Mapping[str, Any]) -> str:
    return str(destination["destination"].get("subset") or destination["destination"]["host"])


def _parts(changes: Sequence[Change], old_name: str) -> Iterator[_Part]:
    """What one subject's sentence is made of."""
    made = [change for change in changes if change.kind in WORKLOADS and change.operation == "create"]
    gone = [change for change in changes if change.kind in WORKLOADS and change.operation == "delete"]
    # Its ServiceAccount comes and goes with the service itself.
    accounts = {change.operation for change in changes if change.kind == "ServiceAccount"}
    if "create" in accounts:
        yield _Part(_rename(old_name) if old_name else "a new service")
    elif "delete" in accounts:
        yield _Part("the service is removed, with " + listed([version(change.old) for change in gone]))
    yield from (_Part(_new_version(change)) for change in made)
    if "delete" not in accounts:
        yield from (_Part(f"version {version(change.old)} is removed") for change in gone)
    yield from _mesh(changes)
    for change in changes:
        if change.kind == "VirtualService":
            yield from _virtual_service(change)
        elif change.name == names.ANNOUNCED:
            yield _Part(_waits(change))
        elif change.kind == "Secret" and change.operation == "update":
            yield from _secret(change, changes)
        elif change.operation in ("update", "replace"):
            yield from _told(change)
        elif change.kind not in {*WORKLOADS, *_RULES, "ServiceAccount", "Service", "Release", "Command"}:
            done = "is new" if change.operation == "create" else "is removed"
            yield _Part(f"{change.kind} {change.name} {done}")


def _waits(change: Change) -> str:
    gone = change.operation == "delete"
    return "go when no proxy uses them any more" if gone else "the weights wait until every proxy knows them"


def _rename(old: str) -> str:
    return f"the new name of {old}: Kubernetes cannot rename, so {old} is deleted, and whoever calls it fails"


def _new_version(change: Change) -> str:
    spec = change.new["spec"]
    replicas = f", {count(spec['replicas'], 'replica')}" if "replicas" in spec else ""
    return f"new version {version(change.new)} ({_image(change.new)}{replicas})"


def _image(inputs: Mapping[str, Any]) -> str:
    return str(inputs["spec"]["template"]["spec"]["containers"][0].get("image", ""))


def _mesh(changes: Sequence[Change]) -> Iterator[_Part]:
    """Helm releases that come or go."""
    by_operation: dict[str, list[Change]] = {}
    for change in changes:
        if change.kind == "Release":
            by_operation.setdefault(change.operation, []).append(change)
    for operation, what in (("create", "installed"), ("delete", "removed")):
        releases = by_operation.get(operation, [])
        which = listed([change.name for change in releases])
        istiod = [change for change in releases if change.name == names.RELEASES["istiod"]]
        if istiod:
            number = mesh_version(istiod[0].new or istiod[0].old)
            yield _Part(f"Istio {number} is {what} ({which})")
        elif releases:
            yield _Part(f"{which} {'are' if len(releases) > 1 else 'is'} {what}")


def mesh_version(inputs: Mapping[str, Any]) -> str:
    """A chart in a folder has no version; the images have one in any case, where the chart has images."""
    return str(inputs.get("version") or inputs.get("values", {}).get("global", {}).get("tag", ""))


def _virtual_service(change: Change) -> Iterator[_Part]:
    if change.operation == "delete":
        yield _Part("no rules any more, so all its pods are balanced evenly")
        return
    old, new = weights(change.old), weights(change.new)
    for route in [*old, *(route for route in new if route not in old)]:
        for_whom = "" if route == names.route(subject(change)) else f" for requests that match {route}"
        if route not in new:
            yield _Part(f"rule {route} is removed")
        elif route not in old:
            rule = "" if change.operation == "create" or not for_whom else "a new rule, "
            yield _Part(rule + ", ".join(f"{name} {share} %" for name, share in new[route].items()) + for_whom)
        elif moved := _moved(old[route], new[route]):
            yield _Part(moved + for_whom)
    if change.operation == "create":
        return
    for difference in change.differences:
        # The weights are told already, and so are whole routes.
        if difference.path[:2] != ("spec", "http") or (len(difference.path) > 3 and difference.path[3] != "route"):
            yield from _told_difference(change, difference)


def _moved(old: Mapping[str, int], new: Mapping[str, int]) -> str:
    """'' when nothing moves, as when a version goes that had no weight any more."""
    moved = {name: (old.get(name, 0), new.get(name, 0)) for name in {**old, **new}}
    return ", ".join(
        f"{name} {before} % → {after} %" if before != after else f"{name} {after} %"
        for name, (before, after) in moved.items()
        if before != after or name not in old
    )


def _secret(change: Change, changes: Sequence[Change]) -> Iterator[_Part]:
    """A value by the variables that take it; a value that comes or goes does so with its variable."""
    if not change.differences:
        yield _Part(f"the values of Secret {change.name} change")
    for difference in change.differences:
        part, _, key = ".".join(difference.path).partition(".")
        if part != "data":
            yield from _told_difference(change, difference)
        elif MISSING not in (difference.old, difference.new):
            users = [*_users(change.name, key, changes)]
            for variable, version_name in users:
                yield _Part(f"secret {variable}{{of}} changes: the pods restart", version_name)
            if not users:
                yield _Part(f"the value {key} of Secret {change.name} changes")


def _users(secret: str, key: str, changes: Sequence[Change]) -> Iterator[tuple[str, str]]:
    """Which variable of which version takes its value from there."""
    reference = {"name": secret, "key": key}
    for change in changes:
        for container in _containers(change.new) if change.kind in WORKLOADS else ():
            for variable in container.get("env", ()):
                if variable.get("valueFrom", {}).get("secretKeyRef") == reference:
                    yield variable["name"], version(change.new)


def _containers(inputs: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    found: Sequence[Mapping[str, Any]] = (
        inputs.get("spec", {}).get("template", {}).get("spec", {}).get("containers", ())
    )
    return found


def _told(change: Change) -> Iterator[_Part]:
    if change.protected != change.resource.protect:
        yield _Part(f"{change.kind} {change.name} is {'no longer' if change.protected else 'now'} protected")
    for difference in change.differences:
        for one in _by_variable(difference):
            yield from _told_difference(change, one)


def _by_variable(difference: Difference) -> Iterator[Difference]:
    """The first variables of a container, or its last, one by one."""
    if difference.path[-1] != "env" or MISSING not in (difference.old, difference.new):
        yield difference
        return
    old, new = ({} if side is MISSING else side for side in (difference.old, difference.new))
    for name in {**old, **new}:
        yield Difference((*difference.path, name), old.get(name, MISSING), new.get(name, MISSING))


Words = str | Callable[[Difference], str]

_CONTAINER = r"spec template spec (?:initC|c)ontainers \S+ "
_FOR_ALL: Sequence[tuple[str, Words]] = (
    (r"metadata namespace", "namespace {old} → {new}"),
    (r"(?:spec template )?metadata labels (\S+)", "label {0} {old} → {new}"),
    (r"metadata annotations istio-governance/stack", ""),
)
# By kind: a pattern for the path, its parts with a blank between them, and the words, in which {0}, {1} … are the
# pattern's groups and {of} whom it is true of; '' is told elsewhere.
_WORDS: Mapping[str, Sequence[tuple[str, Words]]] = {
    **dict.fromkeys(
        WORKLOADS,
        (
            (r"spec replicas", "replicas{of} {old} → {new}"),
            (r"spec selector.*", "selector{of} changed, which Kubernetes cannot do in place"),
            (_CONTAINER + r"image", "image{of} {old} → {new}"),
            (_CONTAINER + r"env (\S+).*", "env {0}{of} {old} → {new}"),
            (_CONTAINER + r"ports.*", ""),
            (_CONTAINER + r"(readiness|liveness|startup)Probe.*", "{0} probe{of} changed"),
            (_CONTAINER + r"resources (\S+) (\S+)", "{0} {1}{of} {old} → {new}"),
            (_CONTAINER + r"resources.*", "resources{of} {old} → {new}"),
            (_CONTAINER + r"(command|args)", "{0}{of} changed"),
            (_CONTAINER + r"securityContext.*", "securityContext{of} changed"),
            (_CONTAINER + r"lifecycle.*|spec template spec terminationGracePeriodSeconds", "drain{of} changed"),
            (
                rf"spec template metadata annotations {names.SIDECAR}",
                lambda found: (
                    "pods{of} restart without a sidecar"
                    if found.new is MISSING
                    else "pods{of} restart with the sidecar of {new}"
                ),
            ),
            (rf"spec template metadata annotations {names.SECRETS}", ""),
            (r"spec template metadata annotations sidecar.istio.io/(\S+)", "{0} of the sidecars{of} changed"),
            (r"spec template metadata annotations (\S+)", "annotation {0} of the pods{of} changed"),
            (r"spec template metadata annotations", "annotations of the pods{of} changed"),
            (_CONTAINER + r"volumeMounts.*|spec template spec volumes.*", "volumes{of} changed"),
            (r"spec template spec topologySpreadConstraints.*", "spread over nodes{of} changed"),
            (r"spec template spec (\S+).*", "{0} of the pods{of} changed"),
        ),
    ),
    "Service": (
        (r"spec ports (\S+) port", "port {0} {old} → {new}"),
        (r"spec ports (\S+) (\S+)", "{1} of port {0} {old} → {new}"),
        (r"spec ports (\S+)", lambda found: "port {0} is " + ("removed" if found.new is MISSING else "new")),
        (r"spec ports", "ports {old} → {new}"),
        (r"spec selector.*", ""),
    ),
    "Namespace": (
        (r"metadata labels (?:istio-injection|istio.io/rev)", "sidecar injection {old} → {new}"),
    ),
    "PodDisruptionBudget": (
        (r"spec (minAvailable|maxUnavailable)", "{0}{of} {old} → {new}"),
        (r"spec selector.*", ""),
    ),
    "NetworkPolicy": (
        (r"spec egress.*", "what the pods may call changed"),
        (r"spec ingress.*", "who may call the pods changed"),
    ),
    "Release": (
        (r"version|values global tag", "Istio {old} → {new}"),
        (r"chart|repositoryOpts.*", "charts {old} → {new}"),
        (r"values global hub", "image hub {old} → {new}"),
        (r"values profile", "profile {old} → {new}"),
        (r"values (.+)", "value {0}{of} {old} → {new}"),
    ),
    "Command": (
        (r"environment MESH_PURGE", "purge on destroy {old} → {new}"),
        (r"environment \S+", ""),
    ),
    "kubernetes": (
        (r"(context|kubeconfig)", "{0} {old} → {new}, so everything goes to another cluster"),
        (
            r"enableSecretMutable",
            lambda found: "Secrets are no longer changed in place"
            if found.new is MISSING
            else "Secrets are changed in place",
        ),
    ),
    "VirtualService": (
        (r"spec http (\S+) match", "the requests that {0} matches: {old} → {new}"),
        (r"spec http (\S+) (.+)", "{1} {old} → {new}"),
    ),
    "DestinationRule": (
        (r"spec trafficPolicy (.+)", "{0} {old} → {new}"),
        (r"spec subsets.*", "the labels of a subset changed"),
    ),
}  # fmt: skip


def _told_difference(change: Change, difference: Difference) -> Iterator[_Part]:
    path = " ".join(difference.path)
    for pattern, words in (*_WORDS.get(change.kind, ()), *_FOR_ALL):
        if match := re.fullmatch(pattern, path):
            template = words(difference) if callable(words) else words
            if template:
                groups = [(group or "").replace(" ", ".") for group in match.groups()]
                yield _filled(template, difference, groups, _whose(change))
            return
    dotted = ".".join(difference.path).removeprefix("spec.")
    yield _filled("{0} of " + f"{change.kind} {change.name}" + " {old} → {new}", difference, [dotted], "")


def _whose(change: Change) -> str:
    if change.kind in WORKLOADS:
        return version(change.new or change.old)
    return change.name if change.kind in ("Release", "PodDisruptionBudget") else ""


def _filled(template: str, difference: Difference, groups: Sequence[str], of: str) -> _Part:
    return _Part(template.format(*groups, old=shown(difference.old), new=shown(difference.new), of="{of}"), of)


def _joined(parts: Iterator[_Part]) -> Iterator[str]:
    of: dict[str, list[str]] = {}
    for part in parts:
        of.setdefault(part.text, []).append(part.of)
    for text, whose in of.items():
        known = list(dict.fromkeys(name for name in whose if name))
        yield text.replace("{of}", f" of {listed(known)}" if known else "")


def _renamed(by_subject: Mapping[str, Sequence[Change]]) -> dict[str, str]:
    """New service → the removed one that had the same versions with the same images."""
    made, gone = (
        {name: look for name, changes in by_subject.items() if (look := _look(changes, operation))}
        for operation in ("create", "delete")
    )
    return {
        name: old for name, look in made.items() for old, old_look in gone.items() if look == old_look and name != old
    }


def _look(changes: Sequence[Change], operation: str) -> list[tuple[str, str]]:
    """The versions and images of a service that is new or removed as a whole."""
    if not any(change.kind == "ServiceAccount" and change.operation == operation for change in changes):
        return []
    workloads = [change.new or change.old for change in changes if change.kind in WORKLOADS]
    return sorted((version(one), _image(one)) for one in workloads)


def _affected(affected: Sequence[str]) -> str:
    """Up to four by name, more by count."""
    if len(affected) <= 4:
        return listed(affected)
    kinds: dict[str, int] = {}
    for one in affected:
        kind = one.partition(" ")[0]
        kinds[kind] = kinds.get(kind, 0) + 1
    return listed([count(number, kind) for kind, number in kinds.items()])


def count(number: int, what: str) -> str:
    """`1 pod`, `2 pods`, `2 NetworkPolicies`."""
    plural = what.removesuffix("y") + "ies" if what.endswith("cy") else f"{what}s"
    return f"{number} {what if number == 1 else plural}"


def listed(items: Sequence[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}" if items else "nothing"
