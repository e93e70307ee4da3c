"""Changes in words: one sentence a subject (a service, the mesh, the namespace, …) that says what a reader would say.

Made from the declared objects alone, so that the same words come out offline and against a live stack. What has no
words of its own is told by its path, so that nothing is left out.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import names
from mesh.report.changes import Change, Difference
from mesh.report.effects import conditions, faults, mirror, retries, shares, sticky_by
from mesh.report.model import WORKLOADS, Route, match_name, mesh_version, routes, version
from mesh.report.values import MISSING, clean, count, inside, listed, pair, shown, size

_RULES = ("VirtualService", "DestinationRule", "PeerAuthentication")
_WHOLE = 4
"""What comes or goes with more leaves than these is told by their number."""

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
        return f"{self.subject}: {', '.join(parts)}; affects only {affected(self.affected)}"


@dataclass(frozen=True)
class _Part:
    """A piece of a sentence; those with the same text are told once, `of` all that it is true of."""

    text: str
    of: str = ""


def sentences(changes: Sequence[Change]) -> list[Sentence]:
    """In the order of the changes."""
    by_subject: dict[str, list[Change]] = {}
    for change in changes:
        by_subject.setdefault(change.subject, []).append(change)
    renamed = _renamed(by_subject)
    return [
        Sentence(
            name,
            tuple(_joined(_parts(found, renamed.get(name, "")))) or ("only what is shown below",),
            tuple(f"{change.kind} {change.name}" for change in found),
        )
        for name, found in by_subject.items()
    ]


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
    for change in list(made):
        # The workload of a version that becomes one of another kind.
        if other := next((one for one in gone if version(one.old) == version(change.new)), None):
            yield _Part(f"{version(change.new)} becomes a {change.kind} in place of a {other.kind}")
            made.remove(change)
            gone.remove(other)
    yield from (_Part(_new_version(change)) for change in made)
    if "delete" not in accounts:
        yield from (_Part(f"version {version(change.old)} is removed") for change in gone)
    yield from _mesh(changes)
    stays = all(change.operation != "update" for change in changes if change.name.startswith(names.RELEASES["istiod"]))
    for change in changes:
        if change.component == "Egress":
            yield from _way_out(change)
        elif change.kind == "VirtualService":
            yield from _virtual_service(change)
        elif change.kind == "PeerAuthentication":
            yield _Part(f"mTLS {_mode(change.old)} → {_mode(change.new)}")
        elif change.name == names.announced(names.SUBSETS):
            yield _Part(_waits(change))
        elif change.name == names.drained(names.VERSIONS) and change.operation in ("create", "update"):
            yield _Part("pods go when nothing is in flight to them any more")
        elif change.kind == "Command" and (change.operation != "update" or change.component == "NodePrep"):
            yield from _command(change)
        elif change.kind == "Secret" and change.operation == "update":
            yield from _secret(change, changes)
        elif change.name == names.RELEASES["base"] and change.operation == "update" and stays:
            # It is as new as the newest control plane, which may be one that comes beside the others.
            yield from (_Part(part.text.replace("Istio ", "the CRDs of Istio ", 1), part.of) for part in _told(change))
        elif change.operation in ("update", "replace"):
            yield from _told(change)
        elif change.kind not in {*WORKLOADS, *_RULES, "ServiceAccount", "Service", "Release"}:
            done = "is new" if change.operation == "create" else "is removed"
            yield _Part(f"{change.kind} {change.name} {done}")


def _mode(inputs: Mapping[str, Any]) -> str:
    return str(inputs.get("spec", {}).get("mtls", {}).get("mode", "as the mesh"))


def _command(change: Change) -> Iterator[_Part]:
    """Those that say something beside the objects: the guard comes and goes with purge, and a key of checksums with its
    Secret."""
    if change.name.startswith("prepare-"):
        where = change.name.removeprefix("prepare-").replace("this-machine", "this machine")
        done = {"create": "is prepared", "delete": "gets no modules at boot any more"}
        yield _Part(f"{where} {done.get(change.operation, 'is prepared again')}")
    elif change.name.startswith("restart-") and change.operation != "delete":
        yield _Part(f"{change.name.removeprefix('restart-')} is rebooted where its modules need that")
    elif change.name == "mesh-guard" and change.operation != "replace":
        asks = "asks first" if change.operation == "create" else "no longer asks"
        yield _Part(f"destroy {asks} whether others lose something")


def _way_out(change: Change) -> Iterator[_Part]:
    """A host outside the mesh: what matters of its four objects is in two of them."""
    if change.kind == "ServiceEntry" and change.operation in ("create", "delete"):
        (port,) = (change.new or change.old)["spec"]["ports"]
        leaves = "leave" if change.new else "no longer leave"
        yield _Part(f"requests to port {port['number']} ({port['protocol']}) {leaves} by the egress gateway")
    elif change.kind == "ServiceEntry":
        ((was,), (now,)) = (inputs["spec"]["ports"] for inputs in (change.old, change.new))
        for key, words in (("protocol", "protocol"), ("number", "port")):
            if was[key] != now[key]:
                yield _Part(f"{words} {was[key]} → {now[key]}")
        addresses = [
            listed([one["address"] for one in inputs["spec"].get("endpoints", ())] or ["those of DNS"])
            for inputs in (change.old, change.new)
        ]
        if addresses[0] != addresses[1]:
            yield _Part(f"addresses {' → '.join(addresses)}")
        yield from _namespace_of(change)
    elif change.kind == "DestinationRule" and change.operation in ("update", "replace"):
        yield from _told(change)


def _namespace_of(change: Change) -> Iterator[_Part]:
    for difference in change.differences:
        if difference.path == ("metadata", "namespace"):
            yield from _told_difference(change, difference)


def _waits(change: Change) -> str:
    gone = change.operation == "delete"
    return "go when no proxy uses them any more" if gone else "the weights wait until every proxy knows them"


def _rename(old: str) -> str:
    return f"the new name of {old}: Kubernetes cannot rename, so {old} is deleted, and whoever calls it fails"


def _new_version(change: Change) -> str:
    spec = change.new["spec"]
    replicas = f", {count(spec['replicas'], 'replica')}" if "replicas" in spec else ""
    return f"new version {version(change.new)} ({image(_image(change.new))}{replicas})"


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
        whole = any(change.name == names.RELEASES["base"] for change in releases)
        planes = [change for change in releases if change.name.startswith(names.RELEASES["istiod"])]
        if whole and planes:
            numbers = listed(list(dict.fromkeys(mesh_version(one.new or one.old) for one in planes)))
            yield _Part(f"Istio {numbers} is {what} ({listed([change.name for change in releases])})")
            continue
        for plane in planes:
            revision = (plane.new or plane.old).get("values", {}).get("revision", "default")
            yield _Part(f"the control plane {revision} (Istio {mesh_version(plane.new or plane.old)}) is {what}")
        if others := [change.name for change in releases if change not in planes]:
            yield _Part(f"{listed(others)} {'are' if len(others) > 1 else 'is'} {what}")


def _virtual_service(change: Change) -> Iterator[_Part]:
    if change.operation == "delete":
        yield _Part("no rules any more, so all its pods are balanced evenly")
        return
    service = change.subject
    old, new = ({one.name: one for one in routes(service, side.get("spec", {}))} for side in (change.old, change.new))
    for name in [*old, *(name for name in new if name not in old)]:
        was, now = old.get(name), new.get(name)
        for_whom = _for_whom(now or was)
        if was and now:
            if moved := _moved(was.shares, now.shares):
                yield _Part(moved + for_whom)
            for action in _actions(was.spec, now.spec):
                yield _Part(action + for_whom)
            if conditions(was) != conditions(now):
                match = match_name(service, name)
                yield _Part(f"match {match} asks for {conditions(now)} in place of {conditions(was)}")
        elif now:
            asks = f" ({conditions(now)})" if _is_match(service, now) else ""
            rule = "" if change.operation == "create" or not for_whom else "a new rule: "
            yield _Part(f"{rule}{shares(now.shares)}{for_whom}{asks}")
            for action in _actions({}, now.spec) if change.operation != "create" else ():
                yield _Part(action + for_whom)
        elif was:
            yield _Part(f"the rule{for_whom or ' for requests'} is removed")
    kept = [name for name in old if name in new]
    if kept != [name for name in new if name in old]:
        order = ", ".join(match_name(service, name) or "all others" for name in new)
        yield _Part(f"the rules are tried in another order: {order}")
    if change.operation == "create":
        return
    for difference in change.differences:
        if difference.path[:2] == ("spec", "hosts"):
            hosts = [set(side["spec"]["hosts"]) for side in (change.old, change.new)]
            for host in sorted(hosts[0] ^ hosts[1]):
                yield _Part(f"{'also' if host in hosts[1] else 'no longer'} called {host}")
        elif difference.path[:2] not in (("spec", "http"), ("spec", "tcp")):
            yield from _told_difference(change, difference)


def _is_match(service: str, route: Route) -> bool:
    return route.what == "requests" and bool(match_name(service, route.name))


def _for_whom(route: Route | None) -> str:
    if route is None or not route.whose:
        return ""
    return f" for {route.what}{route.whose}"


def _actions(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[str]:
    """What changes of what a route does beside the split."""
    if old.get("timeout") != new.get("timeout"):
        yield f"timeout {old.get('timeout', 'none')} → {new.get('timeout', 'none')}"
    if old.get("retries") != new.get("retries"):
        sides = (retries(side["retries"]) if "retries" in side else "Istio's own retries" for side in (old, new))
        yield " → ".join(sides)
    played = [list(faults(side.get("fault", {}))) for side in (old, new)]
    if played[0] != played[1]:
        yield listed(played[1]) if played[1] else f"no more faults ({listed(played[0])})"
    copied = [mirror(side) if "mirror" in side else "" for side in (old, new)]
    if copied[0] != copied[1]:
        yield copied[1] or f"no more {copied[0]}"


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
        yield _Part(f"{{these}} {'no longer' if change.protected else 'now'} protected", f"{change.kind} {change.name}")
    stuck = [sticky_by(side.get("spec", {}).get("trafficPolicy", {})) or "nothing" for side in (change.old, change.new)]
    if stuck[0] != stuck[1]:
        yield _Part(f"sticky by {' → '.join(stuck)}")
    if change.component == "WorkloadNamespace" and _injection(change.old) != _injection(change.new):
        yield _Part(f"sidecars {_injection(change.old)} → {_injection(change.new)}")
    for difference in change.differences:
        yield from _told_difference(change, difference)


def _injection(namespace: Mapping[str, Any]) -> str:
    labels = namespace.get("metadata", {}).get("labels", {})
    if labels.get("istio-injection") == "enabled":
        return "by the default control plane"
    return f"by the control plane {labels[names.REVISION]}" if labels.get(names.REVISION) else "as each pod says"


Words = str | Callable[[Difference], str]
"""With {values} for `old → new`: then what comes or goes as a whole is told leaf by leaf."""


def image(reference: str) -> str:
    """An image by its name and tag, whatever that looks like, and the first digits of its digest."""
    name, at, digest = reference.partition("@")
    return name + at + digest[:19]


def _images(found: Difference) -> str:
    sides = ("unset" if side is MISSING else image(str(side)) for side in (found.old, found.new))
    return "image{of} " + " → ".join(sides).replace("{", "(").replace("}", ")")


def _sidecar(found: Difference) -> str:
    if found.new is MISSING:
        return "pods{of} restart without a sidecar"
    (was, *_), (now, *_) = (str(side).split(" ") if side is not MISSING else [""] for side in (found.old, found.new))
    if was == now:
        return "pods{of} restart, as their sidecars become others"
    return "pods{of} restart with the sidecar of " + (now if now[0].isdigit() else f"the revision {now}")


def _comes_or_goes(what: str) -> Callable[[Difference], str]:
    return lambda found: f"{what} is {'removed' if found.new is MISSING else 'new'}"


def _unless_whole(words: str) -> Callable[[Difference], str]:
    """'' for what comes or goes with the sidecar, which is told already."""
    return lambda found: "" if MISSING in (found.old, found.new) else words


def _environment(found: Difference) -> str:
    if not _is_much(found):
        return "env{of} {values}"
    done = "are removed" if found.new is MISSING else "are new"
    return f"{count(size(found.old) + size(found.new), 'variable')} of the environment{{of}} {done}"


_CONTAINER = r"spec template spec (?:initC|c)ontainers \S+ "
_FOR_ALL: Sequence[tuple[str, Words]] = (
    (r"metadata namespace", "namespace {values}"),
    (rf"(?:spec template )?metadata labels {names.REVISION}", _unless_whole("control plane of the sidecars {values}")),
    (r"(?:spec template )?metadata labels (\S+)", "label {0} {values}"),
    (r"metadata annotations istio-governance/stack", ""),
    (r"metadata annotations (\S+)", "annotation {0} {values}"),
)
# By kind: a pattern for the path, its parts with a blank between them, and the words, in which {0}, {1} … are the
# pattern's groups and {of} whom it is true of; '' is told elsewhere.
_WORDS: Mapping[str, Sequence[tuple[str, Words]]] = {
    **dict.fromkeys(
        WORKLOADS,
        (
            (r"spec replicas", "replicas{of} {values}"),
            (r"spec selector.*", "selector{of} becomes another, which Kubernetes cannot do in place"),
            (_CONTAINER + r"image", _images),
            (_CONTAINER + r"imagePullPolicy", "image pull policy{of} {values}"),
            (_CONTAINER + r"env (.+)", "env {0}{of} {values}"),
            (_CONTAINER + r"env", _environment),
            (_CONTAINER + r"ports.*", ""),
            (_CONTAINER + r"(readiness|liveness|startup)Probe exec.*", "{0} probe{of} runs another command"),
            (_CONTAINER + r"(readiness|liveness|startup)Probe (.+)", "{0} probe{of}: {1} {values}"),
            (_CONTAINER + r"(readiness|liveness|startup)Probe", "{0} probe{of} {values}"),
            (_CONTAINER + r"resources (.+)", "{0}{of} {values}"),
            (_CONTAINER + r"(command|args).*", "{0}{of} is another"),
            (_CONTAINER + r"lifecycle.*", "drain{of} is another"),
            (r"spec template spec terminationGracePeriodSeconds", "time to stop{of} {values} seconds"),
            (_CONTAINER + r"volumeMounts.*|spec template spec volumes.*", "volumes{of} are others"),
            (_CONTAINER + r"(.+)", "{0}{of} {values}"),
            (r"spec template spec initContainers (\S+)", _comes_or_goes("init container {0}{of}")),
            (r"spec template spec containers (\S+)", _comes_or_goes("container {0}{of}")),
            (rf"spec template metadata annotations {names.SIDECAR}", _sidecar),
            (rf"spec template metadata annotations {names.SECRETS}", ""),
            (
                r"spec template metadata annotations proxy.istio.io/config.*",
                _unless_whole("configuration of the sidecars{of} is another"),
            ),
            (r"spec template metadata annotations sidecar.istio.io/(\S+)", "{0} of the sidecars{of} {values}"),
            (r"spec template metadata annotations (\S+)", "annotation {0} of the pods{of} {values}"),
            (r"spec template metadata annotations", "annotations of the pods{of} {values}"),
            (r"spec template spec topologySpreadConstraints.*", "spread over nodes{of} is another"),
            (r"spec template spec (.+)", "{0} of the pods{of} {values}"),
        ),
    ),
    "Service": (
        (r"spec ports (\S+) port", "port {0} {values}"),
        (r"spec ports (\S+) (\S+)", "{1} of port {0} {values}"),
        (r"spec ports (\S+)", _comes_or_goes("port {0}")),
        (r"spec ports", "ports {values}"),
        (r"spec selector.*", ""),
    ),
    **dict.fromkeys(
        ("Namespace", "NamespacePatch"), ((r"metadata labels (?:istio-injection|istio.io/rev)", ""),)
    ),
    "PodDisruptionBudget": (
        (r"spec (minAvailable|maxUnavailable)", "{0}{of} {values}"),
        (r"spec selector.*", ""),
    ),
    "NetworkPolicy": (
        (r"spec egress.*", "what the pods may call is another"),
        (r"spec ingress.*", "who may call the pods is another"),
        (r"spec podSelector.*", "the pods that it is about are others"),
    ),
    "Release": (
        (r"version|values global tag", "Istio {values}"),
        (r"chart", "charts {values}"),
        (r"repositoryOpts repo", "chart repository {values}"),
        (r"values global hub", "image hub {values}"),
        (
            r"values profile",
            lambda found: "profile " + " → ".join(_profile(side) for side in (found.old, found.new)),
        ),
        (rf"values podAnnotations {names.SIDECAR}", "pods{of} restart with another proxy"),
        (r"values service ports (\S+)", _comes_or_goes("port {0}{of}")),
        (r"values (.+)", "value {0}{of} {values}"),
    ),
    "Command": (
        (r"environment MESH_PURGE", "purge on destroy {values}"),
        (r"environment MESH_(CONTEXT|KUBECONFIG|NAMESPACE|OWNER)", "what destroy runs last follows"),
        (r"environment (\S+)", "{0} {values}"),
        (r"(?:create|delete|stdin|connection).*", "is done again"),
    ),
    "kubernetes": (
        (r"(context|kubeconfig)", "{0} {values}, so everything goes to another cluster"),
        (
            r"enableSecretMutable",
            lambda found: "Secrets are no longer changed in place"
            if found.new is MISSING
            else "Secrets are changed in place",
        ),
    ),
    "VirtualService": (
        (r"spec gateways.*", "gateways{of} {values}"),
    ),
    "DestinationRule": (
        (r"spec trafficPolicy tls.*", ""),
        (r"spec trafficPolicy loadBalancer.*", ""),
        (r"spec trafficPolicy (.+)", "{0} {values}"),
        (r"spec trafficPolicy", "traffic policy {values}"),
        (r"spec subsets.*", "the labels of a subset are others"),
    ),
    "Gateway": (
        (r"spec servers.*", "ways in from outside are others"),
    ),
}  # fmt: skip


def _profile(value: Any) -> str:
    """What the charts have without one is default, and minimal is that without gateways."""
    return "default" if value is MISSING else shown(value)


def _told_difference(change: Change, difference: Difference) -> Iterator[_Part]:
    path = " ".join(difference.path)
    for pattern, words in (*_WORDS.get(change.kind, ()), *_FOR_ALL):
        if match := re.fullmatch(pattern, path):
            template = words(difference) if callable(words) else words
            groups = [(group or "").replace(" ", ".") for group in match.groups()]
            break
    else:
        template, groups = "{0} of " + f"{change.kind} {change.name}" + " {values}", [_dotted(difference)]
    # What comes or goes as a whole: leaf by leaf, each with the words that it has of its own.
    leaves = inside(difference.old, difference.new) if "{values}" in template and not _is_much(difference) else []
    for key, old, new in leaves:
        yield from _told_difference(change, Difference((*difference.path, key), old, new))
    if template and not leaves:
        values = pair(difference.old, difference.new)
        yield _Part(template.format(*map(clean, groups), values=values, of="{of}"), _whose(change))


def _is_much(difference: Difference) -> bool:
    """Whether something comes or goes as a whole that is too much to tell leaf by leaf."""
    return MISSING in (difference.old, difference.new) and size(difference.old) + size(difference.new) > _WHOLE


def _dotted(difference: Difference) -> str:
    return ".".join(difference.path).removeprefix("spec.")


def _whose(change: Change) -> str:
    if change.kind in WORKLOADS:
        return version(change.new or change.old)
    return change.name if change.kind in ("Release", "PodDisruptionBudget", "VirtualService") else ""


def _joined(parts: Iterator[_Part]) -> Iterator[str]:
    of: dict[str, list[str]] = {}
    for part in parts:
        of.setdefault(part.text, []).append(part.of)
    for text, whose in of.items():
        known = list(dict.fromkeys(name for name in whose if name))
        text = text.replace("{these}", f"{affected(known)} {'is' if len(known) == 1 else 'are'}")
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


def affected(objects: Sequence[str]) -> str:
    """Up to four by name, more by count."""
    if len(objects) <= 4:
        return listed(objects)
    kinds: dict[str, int] = {}
    for one in objects:
        kind = one.partition(" ")[0]
        kinds[kind] = kinds.get(kind, 0) + 1
    return listed([count(number, kind) for kind, number in kinds.items()])
