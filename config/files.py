"""The stack files of the checkout, read without Pulumi and without a cluster."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from config.load import SECRETS, ConfigError, load
from config.model import StackConfig
from config.problems import MISSING, Problem, nearest
from config.types import SECRET as SECRET
from config.types import stand_in

PROJECT = Path(__file__).parent.parent
NAMESPACE = "istio-governance:"
LARGEST = 128 * 1024
"""Bytes. Pulumi passes a stack's configuration in one variable of the environment, and Linux takes no longer one."""


@dataclass(frozen=True)
class Origin:
    """Where a key of the effective configuration is declared."""

    file: str
    line: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


def stacks(project: Path = PROJECT) -> list[str]:
    """The stacks that have a file."""
    return sorted(path.name.removeprefix("Pulumi.").removesuffix(".yaml") for path in project.glob("Pulumi.*.yaml"))


def stack_file(stack: str, project: Path = PROJECT) -> Path:
    """Raises `ConfigError` when there is none."""
    file = project / f"Pulumi.{stack}.yaml"
    if not file.is_file():
        known = stacks(project)
        raise ConfigError(
            [Problem(file.name, MISSING, f"the file of a stack: {', '.join(known)}", nearest(stack, known))]
        )
    return file


def values(stack: str, project: Path = PROJECT) -> dict[str, Any]:
    """The values in the stack file by key of the project's namespace, encrypted ones as `SECRET`.

    Raises `ConfigError` for a file that Pulumi could not hand on to the program.
    """
    file = stack_file(stack, project)
    config = _config(file)
    if (size := len(json.dumps(as_pulumi_passes(config)))) >= LARGEST - len("PULUMI_CONFIG="):
        raise ConfigError(
            [
                Problem(
                    file.name,
                    f"{size} bytes as JSON",
                    f"less than {LARGEST}: Pulumi passes it in one variable, and Linux takes no longer one",
                    "move what is long, the services say, to defaults.yaml, which the program reads by itself",
                )
            ]
        )
    return {key: SECRET if _is_secure(value) else value for key, value in _own(config)}


def stand_ins(stack: str, project: Path = PROJECT) -> dict[str, str]:
    """For the secrets of the user's own, by their keys: another one when somebody has set the secret anew.

    Made from the encrypted text, of which each encryption gives another.
    """
    own = _own(_config(stack_file(stack, project)))
    return {key: stand_in(str(value["secure"])) for key, value in own if _is_secure(value) and key not in SECRETS}


def effective(stack: str, project: Path = PROJECT) -> StackConfig:
    """The configuration that `pulumi up` would take. Raises `ConfigError`."""
    return load(_in_order(values(stack, project)), defaults=project / "defaults.yaml")


def as_pulumi_passes(raw: Mapping[str, Any]) -> dict[str, str]:
    """Values as Pulumi gives them to a program: text as it is, all else as JSON."""
    return {key: value if isinstance(value, str) else json.dumps(value) for key, value in raw.items()}


def origins(stack: str, project: Path = PROJECT) -> dict[tuple[str, ...], Origin]:
    """Path of keys → where it is declared, for every key that a file of this stack sets and none removes."""
    declared = [*_declared(project / "defaults.yaml"), *_declared(stack_file(stack, project))]
    services = {path[1] for path, _, _ in declared if path[0] == "services" and len(path) > 1}
    services -= {path[1] for path, node, _ in declared if path[2:] == ("workload",) and node.value == "existing"}
    inherited = [
        (("services", name, *path), node, origin)
        for path, node, origin in declared
        if path[0] == "template"
        for name in sorted(services)
    ]
    found: dict[tuple[str, ...], Origin] = {}
    for path, node, origin in [*inherited, *declared]:
        if path in found and not isinstance(node, yaml.MappingNode):
            # A value replaces whatever was below it; null takes it away.
            found = {key: value for key, value in found.items() if key[: len(path)] != path}
        if node.tag != "tag:yaml.org,2002:null":
            found[path] = origin
    return found


def _declared(file: Path) -> Iterator[tuple[tuple[str, ...], yaml.Node, Origin]]:
    """Path of keys, value and place of all that a file says in the project's namespace."""
    for path, line, node in _nodes(yaml.compose(file.read_text())):
        if file.name == "defaults.yaml":
            yield path, node, Origin(file.name, line)
        elif path[0] == "config" and len(path) > 1 and path[1].startswith(NAMESPACE):
            yield (path[1].removeprefix(NAMESPACE), *path[2:]), node, Origin(file.name, line)


def _nodes(node: yaml.Node | None, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], int, yaml.Node]]:
    """Path of keys, the line of its last key, and the value; a value may begin lines below its key."""
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            inner = (*path, str(key.value))
            yield inner, key.start_mark.line + 1, value
            yield from _nodes(value, inner)


def _config(file: Path) -> Mapping[str, Any]:
    return (yaml.safe_load(file.read_text()) or {}).get("config") or {}


def _own(config: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Those of the project's namespace, by their keys in it."""
    return ((key.removeprefix(NAMESPACE), value) for key, value in config.items() if key.startswith(NAMESPACE))


def _in_order(value: Any) -> Any:
    """With the keys of each map as Pulumi hands them on to the program, whose lists in the rules follow that order."""
    if isinstance(value, Mapping):
        return {key: _in_order(value[key]) for key in sorted(value, key=str)}
    return [_in_order(item) for item in value] if isinstance(value, list) else value


def _is_secure(value: object) -> bool:
    return isinstance(value, Mapping) and set(value) == {"secure"}
