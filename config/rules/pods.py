"""The rules on pods: the API server would refuse them too, but one by one, and with half of a change done."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import names
from config.merge import HANDLERS, POD_TEMPLATE, keys_of, patched, settled
from config.problems import MISSING, Problem, nearest
from config.quantity import quantity
from config.rules.pieces import CONTAINERS, pieces_have_the_shape_of_pods
from config.rules.raw import Raw, each_of, each_service, inherited, is_whole, map_at
from config.types import DNS_LABEL, PORT_NAME

Path = tuple[str, ...]
"""Into a pod template, items of lists by the text of their keys: spec, containers, cart, env, DB."""

_PROBES: Final = ("readinessProbe", "livenessProbe", "startupProbe")
# Fields of a container that have a key of the schema's own, too.
_OF_THE_SCHEMA: Final = ("readinessProbe", "livenessProbe", "resources")


def pods_can_be_made(raw: Raw) -> Iterator[Problem]:
    """Whatever the levels of the configuration say together; what has no shape is told already."""
    misshapen = {problem.key.partition(f".{POD_TEMPLATE}")[0] for problem in pieces_have_the_shape_of_pods(raw)}
    found: dict[str, Problem] = {}
    for name, service, versions in each_service(raw):
        for version in versions if service.get("workload") != "existing" else ():
            places = _Places(raw, name, version)
            if misshapen.isdisjoint(("template", *places.levels)):
                generated = _generated(name, service, version)
                pod = _Pod(name, generated, settled(patched(generated, places.piece)))
                for rule in _OF_A_POD:
                    for path, value, allowed, fix in rule(pod):
                        key = places.key(path)
                        found.setdefault(key, Problem(key, value, allowed, fix))
    yield from found.values()


@dataclass(frozen=True)
class _Places:
    """Where the configuration says what the pods of a version have."""

    raw: Raw
    service: str
    version: str

    @property
    def levels(self) -> dict[str, Raw]:
        """By key, the innermost first; the service's template is laid over that of all services already."""
        service = map_at(self.raw, "services", self.service)
        return {
            f"services.{self.service}.versions.{self.version}": map_at(service, "versions", self.version),
            f"services.{self.service}.template": map_at(service, "template"),
        }

    @property
    def piece(self) -> Raw:
        own, inherited_piece = (map_at(level, POD_TEMPLATE) for level in self.levels.values())
        return patched(inherited_piece, own)

    def key(self, path: Path) -> str:
        """Of the innermost place that says something at `path`, or where it is missing, at what holds it."""
        for length in range(len(path), 0, -1):
            for key, level in self.levels.items():
                if found := self._at(level, path[:length]):
                    steps, value = found
                    shared = self._at(map_at(self.raw, "template"), path[:length])
                    where = ["template", *shared[0]] if shared and shared[1] == value else [key, *steps]
                    return ".".join([*where, *path[length:]])
        return ".".join([next(iter(self.levels)), POD_TEMPLATE, *path])

    def _at(self, level: Raw, path: Path) -> tuple[list[str], object] | None:
        """The keys below `level` that lead there, and the value."""
        if found := _find(map_at(level, POD_TEMPLATE), path):
            return [POD_TEMPLATE, *found[0]], found[1]
        *container, field = path
        generated = container == ["spec", "containers", self.service]
        return ([field], level[field]) if generated and field in _OF_THE_SCHEMA and field in level else None


def _find(value: Any, path: Path) -> tuple[list[str], object] | None:
    """`path` with the numbers of items in the place of their keys, and what is there; None for nothing."""
    steps: list[str] = []
    for before, step in zip(("", *path), path, strict=False):
        if isinstance(value, list):
            index = next((i for i, key in enumerate(keys_of(before, value)) if str(key[0][1]) == step), None)
            if index is None:
                return None
            value = value[index]
            steps.append(str(index))
        elif isinstance(value, Mapping) and step in value:
            value = value[step]
            steps.append(step)
        else:
            return None
    return steps, value


def _generated(name: str, service: Raw, version: str) -> Raw:
    """What the generated template has that a piece may refer to, or be laid over."""
    folders = _texts(inherited(service, version, "writablePaths"))
    ports: dict[int, str] = {}
    for port_name, port in map_at(service, "ports").items():
        number = map_at(port).get("targetPort", map_at(port).get("port"))
        if isinstance(number, int):
            ports.setdefault(number, port_name)
    ready, drain = inherited(service, version, "readinessProbe"), inherited(service, version, "drainSeconds")
    if ready is None and ports:
        ready = {"tcpSocket": {"port": next(iter(ports))}}
    variables = {**map_at(service, "template", "env"), **map_at(service, "versions", version, "env")}
    container = {
        "name": name,
        # A rule of its own tells where there is none.
        "image": inherited(service, version, "image") or "none",
        "env": [{"name": variable} for variable in variables],
        "ports": [{"name": port_name, "containerPort": port} for port, port_name in ports.items()],
        "volumeMounts": [{"name": names.writable(number), "mountPath": path} for number, path in enumerate(folders)],
        "readinessProbe": ready or None,
        "livenessProbe": inherited(service, version, "livenessProbe") or None,
        "resources": inherited(service, version, "resources"),
        "lifecycle": None if drain == 0 else {"preStop": {"exec": {}}},
    }
    return {
        "metadata": {
            "labels": {
                **(map_at(service, "selector") or {"app": name}),
                "version": inherited(service, version, "versionLabel") or version,
            }
        },
        "spec": {
            "containers": [container],
            "volumes": [{"name": names.writable(number), "emptyDir": {}} for number in range(len(folders))],
        },
    }


@dataclass(frozen=True)
class _Pod:
    """What the pods of a version are made from. `generated` is what concerns the rules of the service `name`."""

    name: str
    generated: Raw
    template: Raw

    @property
    def containers(self) -> list[tuple[Path, Raw]]:
        spec = map_at(self.template, "spec")
        return [found for kind in CONTAINERS for found in _items(("spec",), spec, kind)]

    @property
    def volumes(self) -> list[tuple[Path, Raw]]:
        return [*_items(("spec",), map_at(self.template, "spec"), "volumes")]


_Found = Iterator[tuple[Path, object, str, str]]
"""Where in the template, the value, what is allowed, and the fix."""


def _containers_have_images(pod: _Pod) -> _Found:
    for path, container in pod.containers:
        if not isinstance(container.get("image"), str) or not container["image"]:
            allowed = f"an image, for a container that is another than the generated one, '{pod.name}'"
            close = nearest(str(container["name"]), [pod.name])
            fix = close if close.startswith("did you mean") else f"add it, or change the name to '{pod.name}'"
            yield (*path, "image"), container.get("image", MISSING), allowed, fix
    if not map_at(pod.template, "spec").get("containers"):
        yield ("spec", "containers"), MISSING, "at least one container", "take out what removes it"


def _names_are_right(pod: _Pod) -> _Found:
    count = Counter(container["name"] for _, container in pod.containers)
    for path, item in [*pod.containers, *pod.volumes]:
        if not re.match(DNS_LABEL, str(item["name"])):
            allowed = "a DNS label (RFC 1123): at most 63 of a-z, 0-9 and '-', not first or last a '-'"
            yield (*path, "name"), item["name"], allowed, "rename it"
    for path, container in pod.containers:
        if path[1] == "initContainers" and count[container["name"]] > 1:
            yield (*path, "name"), container["name"], "a name that no other container of the pod has", "rename it"


def _volumes_are_there(pod: _Pod) -> _Found:
    known = {str(volume["name"]) for _, volume in pod.volumes}
    for path, volume in pod.volumes:
        sources = sorted(volume.keys() - {"name"})
        if len(sources) > 1:
            yield path, dict(volume), "one kind of volume", f"keep one of {', '.join(sources)}"
    for path, container in pod.containers:
        for list_name in ("volumeMounts", "volumeDevices"):
            for inner, mount in _items(path, container, list_name):
                if str(mount.get("name")) not in known:
                    fix = nearest(str(mount.get("name")), known) if known else "add it to podTemplate.spec.volumes"
                    yield (*inner, "name"), mount.get("name", MISSING), "the name of a volume of the pod", fix


def _variables_have_one_value(pod: _Pod) -> _Found:
    for path, container in pod.containers:
        for inner, variable in _items(path, container, "env"):
            value = variable.get("value", "")
            if not isinstance(value, str):
                yield (*inner, "value"), value, "a text", f'write it in quotes: "{value}"'
            elif value and "valueFrom" in variable:
                yield inner, dict(variable), "either value or valueFrom", "keep one of the two"


def _ports_are_right(pod: _Pod) -> _Found:
    for path, container in pod.containers:
        taken: set[str] = set()
        for inner, port in _items(path, container, "ports"):
            number, own = port["containerPort"], port.get("name")
            if not is_whole(number) or not 1 <= number <= 65535:
                yield (*inner, "containerPort"), number, "a whole number from 1 to 65535", "correct it"
            if own is None:
                continue
            if not isinstance(own, str) or not re.match(PORT_NAME, own):
                allowed = "a port name (RFC 6335): at most 15 of a-z, 0-9 and '-', first a letter, last no '-'"
                yield (*inner, "name"), own, allowed, "rename it"
            elif own in taken:
                yield (*inner, "name"), own, "a name that no other port of the container has", "rename it"
            taken.add(str(own))


def _handlers_can_be_called(pod: _Pod) -> _Found:
    for path, container in pod.containers:
        ports = {str(port["name"]) for _, port in _items(path, container, "ports") if "name" in port}
        handlers = {(*path, probe): container.get(probe) for probe in _PROBES}
        for hook, handler in map_at(container, "lifecycle").items():
            if hook != "stopSignal":
                handlers[(*path, "lifecycle", str(hook))] = handler
        for inner, handler in handlers.items():
            yield from _handler(inner, handler, ports)


def _handler(path: Path, handler: object, ports: set[str]) -> _Found:
    if not isinstance(handler, Mapping):
        return
    kinds = sorted(HANDLERS & handler.keys())
    if len(kinds) != 1:
        fix = f"keep one of {', '.join(kinds)}" if kinds else "add one"
        yield path, dict(handler), f"one of {', '.join(sorted(HANDLERS))}", fix
    for kind in kinds:
        port = map_at(handler, kind).get("port")
        if isinstance(port, str) and port not in ports:
            # Where several ports of the service lead to one, it has the name of the first.
            yield (*path, kind, "port"), port, "a number, or the name of a port of the container", nearest(port, ports)


def _resources_fit(pod: _Pod) -> _Found:
    for path, container in pod.containers:
        resources, amounts = map_at(container, "resources"), {}
        for kind in [kind for kind in resources if kind not in ("claims", "limits", "requests")]:
            yield (*path, "resources", str(kind)), resources[kind], "requests or limits", "rename it"
        for kind in ("requests", "limits"):
            for what, amount in map_at(resources, kind).items():
                is_text = isinstance(amount, str | int | float) and not isinstance(amount, bool)
                amounts[kind, what] = found = quantity(str(amount)) if is_text else None
                if found is None or found < 0:
                    allowed = "an amount such as 0.5, 250m or 64Mi"
                    yield (*path, "resources", kind, str(what)), amount, allowed, "correct it"
        for (kind, what), amount in amounts.items():
            limit = amounts.get(("limits", what))
            if kind == "requests" and amount is not None and limit is not None and amount > limit:
                at, wanted = (*path, "resources", kind, str(what)), resources[kind][what]
                most = resources["limits"][what]
                yield at, wanted, f"at most the limit, {most}", "lower it, or raise the limit"


def _workloads_can_run(pod: _Pod) -> _Found:
    spec = map_at(pod.template, "spec")
    if spec.get("restartPolicy", "Always") != "Always":
        yield ("spec", "restartPolicy"), spec["restartPolicy"], "Always, where pods are to stay", "take it out"
    if "activeDeadlineSeconds" in spec:
        value = spec["activeDeadlineSeconds"]
        yield ("spec", "activeDeadlineSeconds"), value, "nothing, where pods are to stay", "take it out"
    labels = map_at(pod.template, "metadata", "labels")
    for label, value in map_at(pod.generated, "metadata", "labels").items():
        if labels.get(label) != value:
            fix = "take it out: `selector` and `versionLabel` say what it is"
            yield ("metadata", "labels", label), labels.get(label), f"{value}, as the pods are found by it", fix


_OF_A_POD: Final[Sequence[Callable[[_Pod], _Found]]] = (
    _containers_have_images,
    _names_are_right,
    _volumes_are_there,
    _variables_have_one_value,
    _ports_are_right,
    _handlers_can_be_called,
    _resources_fit,
    _workloads_can_run,
)


def _items(path: Path, holder: Raw, name: str) -> Iterator[tuple[Path, Raw]]:
    items = holder.get(name)
    for key, item in zip(keys_of(name, items or ()), items or (), strict=False):
        yield (*path, name, str(key[0][1])), item


def _texts(values: object) -> list[str]:
    return [value for value in values if isinstance(value, str)] if isinstance(values, list | tuple) else []


def lists_say_nothing_twice(raw: Raw) -> Iterator[Problem]:
    """A folder is mounted once, and a spread is said once for each label and way."""
    levels = [("template", map_at(raw, "template"))]
    for name, service, versions in each_service(raw):
        levels.append((f"services.{name}.template", map_at(service, "template")))
        levels += [(f"services.{name}.versions.{version}", map_at(versions, version)) for version in versions]
    for key, level in levels:
        twice = [folder for folder, often in Counter(_texts(level.get("writablePaths"))).items() if often > 1]
        if twice:
            fix = f"take one of these out: {', '.join(twice)}"
            yield Problem(f"{key}.writablePaths", level["writablePaths"], "each folder once", fix)
        ways = [
            (str(one.get("topologyKey")), one.get("whenUnsatisfiable", "ScheduleAnyway"))
            for _, one in each_of(level.get("spread"))
        ]
        for index, way in enumerate(ways):
            if way in ways[:index]:
                allowed = "a topologyKey that no other has with the same whenUnsatisfiable"
                yield Problem(f"{key}.spread.{index}.topologyKey", way[0], allowed, "take one of them out")


RULES = (lists_say_nothing_twice, pods_can_be_made)
