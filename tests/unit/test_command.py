"""What the program sends to pulumi-command, and what the stand-in takes, against the schema that its SDK publishes."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, get_origin

import pytest
from pulumi._types import input_type_types
from pulumi_command import local, remote

from localcluster import build
from mesh import preflight
from mesh.program.recorder import Recording, Resource

from .given import program
from .test_nodes import HOST, SIGNATURE, recorded

ARGUMENTS: Mapping[str, type] = {
    "command:local:Command": local.CommandArgs,
    "command:remote:Command": remote.CommandArgs,
}
STAND_IN = build.GO / "cluster" / "cmd" / "pulumi-resource-command"


def commands(recording: Recording) -> list[Resource]:
    return [resource for resource in recording if resource.type.startswith("command:")]


def plain(value: Any) -> Any:
    """`value` without the marks of its secrets."""
    if isinstance(value, Mapping):
        return plain(value["value"]) if SIGNATURE in value.values() else {key: plain(one) for key, one in value.items()}
    return value


def objections(arguments: type, sent: Mapping[str, Any]) -> Iterator[str]:
    """What the schema, of which `arguments` is generated, has against the properties that are sent."""
    published = input_type_types(arguments)
    parameters = inspect.signature(arguments).parameters.values()
    yield from (f"{one.name} is missing" for one in parameters if one.default is one.empty and one.name not in sent)
    for name, value in sent.items():
        if (expected := published.get(name)) is None:
            yield f"{arguments.__name__} has no {name}"
        elif get_origin(expected) is not None:  # the one collection that we send: a map of texts
            if not isinstance(value, Mapping) or not all(isinstance(one, str) for one in value.values()):
                yield f"{name} is {value!r}, no {expected}"
        elif isinstance(value, Mapping):
            yield from objections(expected, value)
        # Every number arrives as a float.
        elif type(value) is not expected and not (expected is int and isinstance(value, float) and value.is_integer()):
            yield f"{name} is {value!r}, no {expected.__name__}"


@pytest.mark.parametrize("mode", ["ssh", "local"])
def test_each_property_of_the_preparation_is_in_the_published_schema(mode: str) -> None:
    host, bastion = {**HOST, "user": "admin"}, {**HOST, "address": "bastion"}
    ssh = {"reboot": True, "bastion": bastion, "hosts": {"a": host}}
    recording = recorded(nodes=ssh) if mode == "ssh" else recorded(nodes={"mode": mode, "hosts": None})
    sent = commands(recording)
    assert {command.type.split(":")[1] for command in sent} == ({"local", "remote"} if mode == "ssh" else {"local"})
    for command in sent:
        assert list(objections(ARGUMENTS[command.type], plain(command.inputs))) == [], command.line


def test_each_property_of_the_whole_program_is_in_the_published_schema(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preflight, "check", lambda _config, owner: None)  # noqa: ARG005
    sent = commands(program("local"))
    assert {key for command in sent for key in command.inputs} >= {"create", "delete", "environment", "stdin"}
    for command in sent:
        assert list(objections(ARGUMENTS[command.type], plain(command.inputs))) == [], command.line


def test_the_schema_has_something_against_what_is_wrong() -> None:
    wrong = {
        "connection": {"port": "22", "perDialTimeout": 0.5, "proxy": {"host": "b", "proxy": {}}},
        "environment": {"A": 1},
        "shell": "sh",
    }
    assert list(objections(remote.CommandArgs, wrong)) == [
        "host is missing",
        "port is '22', no float",
        "perDialTimeout is 0.5, no int",
        "ProxyConnectionArgs has no proxy",
        f"environment is {{'A': 1}}, no {input_type_types(remote.CommandArgs)['environment']}",
        "CommandArgs has no shell",
    ]


# The stand-in


def fields_of(struct: str) -> set[str]:
    """The properties that a Go struct of the stand-in is read from or written to."""
    sources = "".join(file.read_text() for file in STAND_IN.glob("*.go"))
    (body,) = re.findall(rf"^type {struct} struct {{\n(.*?)^}}", sources, re.MULTILINE | re.DOTALL)
    return set(re.findall(r'`json:"(\w+)"`', body))


def test_the_stand_in_takes_what_is_published_and_refuses_the_rest_by_name() -> None:
    published = {name for arguments in ARGUMENTS.values() for name in input_type_types(arguments)}
    outputs = {"stdout", "stderr"}
    compared_only, refused = {"triggers"}, {"archivePaths", "assetPaths"}
    assert fields_of("command") == published - compared_only - refused | outputs
    for name in outputs:
        assert isinstance(getattr(remote.Command, name), property), name
    provider = (STAND_IN / "provider.go").read_text()
    for name in compared_only | refused:
        assert f'"{name}"' in provider, name
    for level in remote.Logging:
        assert f'"{level.value}"' in provider, level


def test_the_stand_in_has_the_published_connection_and_its_defaults() -> None:
    assert fields_of("connection") == input_type_types(remote.ConnectionArgs).keys()
    found = re.search(
        r"^var connectionDefaults = map\[string\]any(\{.*\})$", (STAND_IN / "remote.go").read_text(), re.M
    )
    assert found is not None
    for arguments in (remote.ConnectionArgs, remote.ProxyConnectionArgs):
        given = arguments(host="h")
        values = {"port": given.port, "user": given.user}
        values |= {"dialErrorLimit": given.dial_error_limit, "perDialTimeout": given.per_dial_timeout}
        assert json.loads(found[1]) == values
