"""From the inputs of a component to the piece of the configuration that they are, or to all that is wrong with them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import pulumi
from pulumi.errors import InputPropertiesError

from config import ConfigError, PartConfig, Problem, StackConfig, load
from config.load import aliases, secret_keys
from config.problems import MISSING, nearest, report
from config.types import SECRET
from package.vocabulary import INPUTS, is_input

_SECRET_KEYS = ("sshPrivateKey", "bastionPrivateKey")
# Of a component that has none of its own: preflight looks somewhere.
_NO_NAMESPACE = {"name": "default", "create": False}


class RefusedError(InputPropertiesError):
    """`problems` are all that is wrong with the inputs of one component.

    They are told in words alone. Where Pulumi is told of single properties it adds their values, of secrets, too, that
    are none of the stack's configuration.
    """

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = [*problems]
        super().__init__(report(self.problems), [])  # without a list the SDK fails


def piece(component: str, name: str, given: Mapping[str, Any]) -> StackConfig:
    """Of the component `name`. Raises `RefusedError`, which Pulumi shows without a traceback."""
    inputs = {key: value for key, value in given.items() if value is not None}
    problems = [*_strange(component, inputs), *_missing(component, inputs), *_late(component, inputs)]
    problems += _wrong_secrets(inputs)
    if problems:
        raise RefusedError(problems)
    places, raw = _placed(component, name, {key: whole(value) for key, value in inputs.items() if key != "secrets"})
    secrets = _secret_keys(raw, inputs.get("secrets"))
    raw |= dict.fromkeys(secrets, SECRET)
    try:
        config = load(
            raw,
            secret_keys=[*secrets, *(key for key in _SECRET_KEYS if key in raw)],
            needs_cluster=True,
            defaults=None,
            model=PartConfig,
        )
    except ConfigError as error:
        raise RefusedError(_at_home(problem, places) for problem in error.problems) from None
    if idle := [*_useless(component, config)]:
        raise RefusedError(idle)
    return config


def secret(given: Mapping[str, Any], key: str) -> pulumi.Output[str] | None:
    """An input that may come from another resource, or one of `secrets`; it stays secret in the state."""
    if key in _SECRET_KEYS:
        return pulumi.Output.secret(given[key]) if given.get(key) is not None else None

    def value(values: Any) -> str:
        found = values.get(key) if isinstance(values, Mapping) else None
        if not isinstance(found, str):
            raise pulumi.RunError(f"secrets.{key} is no text, or is not there; nothing was changed")
        return found

    return pulumi.Output.secret(given["secrets"]).apply(value)


def _strange(component: str, inputs: Mapping[str, Any]) -> Iterator[Problem]:
    known = aliases(INPUTS[component])
    for key in inputs.keys() - known.keys():
        yield Problem(key, MISSING, f"a known input: {', '.join(known)}", nearest(key, known))


def _missing(component: str, inputs: Mapping[str, Any]) -> Iterator[Problem]:
    for key, field in aliases(INPUTS[component]).items():
        if field.is_required() and key not in inputs:
            yield Problem(key, MISSING, field.description or "it is required", f"add '{key}'")


def _late(component: str, inputs: Mapping[str, Any]) -> Iterator[Problem]:
    """Those that only the update knows, or that are secret, and may be neither."""
    for key, field in aliases(INPUTS[component]).items():
        if _has_output(inputs.get(key)) and not is_input(field.rebuild_annotation()):
            yield Problem(
                key,
                MISSING,
                "a value that each preview knows and that is no secret, so that it can be judged",
                f"write it out, or take it from the program's configuration; what '{key}' waits for goes to dependsOn",
            )


def _wrong_secrets(inputs: Mapping[str, Any]) -> Iterator[Problem]:
    """Without a word of any value."""
    for key in _SECRET_KEYS:
        if key in inputs and not _is_text(inputs[key]):
            yield Problem(key, MISSING, "a text that is not empty", f"give '{key}' the content of the key's file")
    values = inputs.get("secrets", {})
    if isinstance(values, Mapping):
        for key, value in values.items():
            if not _is_text(value):
                yield Problem(f"secrets.{key}", MISSING, "a text that is not empty", "make it one")
    elif not isinstance(values, pulumi.Output):
        yield Problem("secrets", MISSING, "a map of texts by key", "write it as {key: value}")


def _secret_keys(raw: Mapping[str, Any], values: Any) -> list[str]:
    """Those that variables of pods name, of the given ones. Raises `RefusedError` for those that none names."""
    named = secret_keys(raw)
    if isinstance(values, pulumi.Output):
        return sorted(named)
    given = {*(values or {})}
    if unused := sorted(given - named):
        fix = "let a variable of some pods have it, env: {NAME: {secret: key}}, or take it out"
        raise RefusedError(Problem(f"secrets.{key}", MISSING, "a key that a variable names", fix) for key in unused)
    return sorted(given)


def _useless(component: str, config: StackConfig) -> Iterator[Problem]:
    """A component that would make nothing, or what no other one of the package goes with."""
    if component == "Istio" and config.mesh.mode != "managed":
        fix = "leave it out, or leave this component out where Istio is somebody else's"
        yield Problem("mesh.mode", config.mesh.mode, "managed, as this component installs Istio", fix)
    if component == "NodePrep" and config.nodes.mode == "none":
        yield Problem("nodes.mode", config.nodes.mode, "ssh, daemonset or local", "say how the nodes are reached")
    if component == "Routing" and not config.mesh.on:
        yield Problem("mesh.mode", config.mesh.mode, "managed or existing, as it is Istio that routes", "leave it out")
    if component == "WorkloadNamespace" and config.namespace.default_deny:
        fix = "take an Application, which knows who calls whom, or write NetworkPolicies of your own"
        yield Problem("namespace.defaultDeny", True, "false in this component", fix)
    if component == "Workload":
        [service] = config.services.values()
        if service.workload == "existing":
            fix = "leave this component out; Routing needs none"
            yield Problem("workload", "existing", "Deployment, StatefulSet or DaemonSet", fix)
        if service.revision not in ("", config.mesh.default_revision):
            fix = "set mesh.revision, here and in the WorkloadNamespace, or take an Application"
            yield Problem("revision", service.revision, "unset: the namespace's label counts more", fix)


def _placed(component: str, name: str, given: Mapping[str, Any]) -> tuple[list[str], dict[str, Any]]:
    """The places in a whole configuration that the inputs of a component are spread over, and that configuration."""
    raw = {"mesh": {}, **{key: given[key] for key in given if key in ("cluster", "mesh", "protect")}}
    mesh = raw["mesh"]
    if component != "Istio" and isinstance(mesh, Mapping) and not mesh.keys() & {"mode", "version", "revisions"}:
        raw["mesh"] = {**mesh, "mode": "existing"}
    raw |= {key: SECRET for key in _SECRET_KEYS if key in given}
    own = {key: value for key, value in given.items() if key not in raw}
    if component not in ("Workload", "Routing"):
        return [], {"namespace": _NO_NAMESPACE, **raw, **own}
    raw["namespace"] = {"name": own.pop("namespace"), "create": False}
    if component == "Workload":
        raw["services"] = {name: own}
        return [f"services.{name}"], raw
    service = {key: own.pop(key) for key in ("ports", "selector", "versions") if key in own}
    if isinstance(weights := own.get("weights"), Mapping):
        service.setdefault("versions", {version: {} for version in weights})
    raw["services"] = {name: {"workload": "existing", **service}}
    raw["routing"] = {name: own}
    return [f"services.{name}", f"routing.{name}"], raw


def _at_home(problem: Problem, places: list[str]) -> Problem:
    """As the user has it: the name of the component says which service it is, and no stack file has it."""
    problem = replace(problem, fix=re.sub(r"pulumi config set --path (\S+) <\w+>", r"set \1", problem.fix))
    for place in places:
        problem = replace(
            problem,
            key="the component's name" if problem.key == place else problem.key.replace(f"{place}.", ""),
            fix=problem.fix.replace(f"{place}.", ""),
        )
    if places and problem.key == "namespace.name":
        return replace(problem, key="namespace", fix=problem.fix.replace("namespace.name", "namespace"))
    return problem


def _is_text(value: object) -> bool:
    return isinstance(value, pulumi.Output) or (isinstance(value, str) and value != "")


def _has_output(value: object) -> bool:
    if isinstance(value, Mapping):
        return any(map(_has_output, value.values()))
    return isinstance(value, pulumi.Output) or (isinstance(value, list) and any(map(_has_output, value)))


def whole(value: Any) -> Any:
    """Pulumi hands all numbers over as floats."""
    if isinstance(value, Mapping):
        return {key: whole(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [whole(inner) for inner in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value
