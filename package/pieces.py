"""From the inputs of a component to the piece of the configuration that they are, or to all that is wrong with them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import pulumi
from pulumi.errors import InputPropertiesError

from config import ConfigError, PartConfig, Problem, StackConfig, load
from config.problems import MISSING
from config.rules.environment import secret_keys
from config.types import SECRET
from package.vocabulary import INPUTS, is_input

_EXISTING = {"mode": "existing"}
_SECRET_KEYS = ("sshPrivateKey", "bastionPrivateKey")


def piece(component: str, name: str, given: Mapping[str, Any]) -> StackConfig:
    """Of the component `name`. Raises Pulumi's own error for inputs, which shows all problems and no traceback."""
    inputs = {key: whole(value) for key, value in given.items() if value is not None}
    if late := [key for key, value in inputs.items() if _has_output(value) and key not in _late(component)]:
        raise _refusal(map(_unknown, late))
    missing = list(_missing(component, inputs))
    places, raw = _placed(component, name, inputs)
    values: Any = inputs.get("secrets", {})
    named = [key for key in secret_keys(raw) if isinstance(values, pulumi.Output) or key in values]
    raw |= dict.fromkeys(named, SECRET)
    secrets = [*named, *(key for key in _SECRET_KEYS if key in raw)]
    try:
        config = load(raw, secret_keys=secrets, needs_cluster=True, defaults=None, model=PartConfig)
    except ConfigError as error:
        told = {problem.key: problem for problem in (_at_home(one, places) for one in error.problems)}
        raise _refusal({**{problem.key: problem for problem in missing}, **told}.values()) from None
    if refused := [*missing, *_idle(component, config)]:
        raise _refusal(refused)
    return config


def _missing(component: str, inputs: Mapping[str, Any]) -> Iterator[Problem]:
    for key, field in INPUTS[component].model_fields.items():
        name = field.alias or key
        if field.is_required() and name not in inputs:
            yield Problem(name, MISSING, field.description or "it is required", f"add '{name}'")


def _idle(component: str, config: StackConfig) -> Iterator[Problem]:
    """A component that would make nothing."""
    if component == "Istio" and config.mesh.mode != "managed":
        fix = "leave it out, or leave this component out where Istio is somebody else's"
        yield Problem("mesh.mode", config.mesh.mode, "managed, as this component installs Istio", fix)
    if component == "NodePrep" and config.nodes.mode == "none":
        yield Problem("nodes.mode", config.nodes.mode, "ssh, daemonset or local", "say how the nodes are reached")


def _refusal(problems: Iterable[Problem]) -> InputPropertiesError:
    return InputPropertiesError(
        "what it is given; nothing was changed",
        [
            {"property_path": one.key, "reason": f"\n     allowed: {one.allowed}\n     fix:     {one.fix}"}
            for one in problems
        ],
    )


def secret(given: Mapping[str, Any], key: str) -> pulumi.Output[str] | None:
    """An input that may come from another resource, or one of `secrets`; it stays secret in the state."""
    if key not in _SECRET_KEYS:
        return pulumi.Output.secret(given["secrets"]).apply(lambda values: str(values[key]))
    return pulumi.Output.secret(given[key]) if given.get(key) is not None else None


def _placed(component: str, name: str, given: Mapping[str, Any]) -> tuple[list[str], dict[str, Any]]:
    """The places in a whole configuration that the inputs of a component are spread over, and that configuration."""
    raw = {"mesh": _EXISTING, **{key: given[key] for key in given if key in ("cluster", "mesh", "protect")}}
    raw |= {key: SECRET for key in _SECRET_KEYS if key in given}
    own = {key: value for key, value in given.items() if key not in (*raw, "secrets")}
    if component not in ("Workload", "Routing"):
        return [], {**raw, **own}
    raw["namespace"] = {"name": own.pop("namespace", ""), "create": False}
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
    """As the user has it: the name of the component says which service it is."""
    for place in places:
        problem = replace(
            problem,
            key=problem.key.replace(f"{place}.", "").replace(place, "inputs"),
            fix=problem.fix.replace(f"{place}.", ""),
        )
    return replace(problem, key="namespace") if problem.key == "namespace.name" else problem


def _late(component: str) -> set[str]:
    """The inputs that may come from another resource."""
    fields = INPUTS[component].model_fields
    return {field.alias or key for key, field in fields.items() if is_input(field.rebuild_annotation())}


def _unknown(key: str) -> Problem:
    return Problem(
        key,
        MISSING,
        "a value that each preview knows and that is no secret, so that it can be judged",
        f"write it out, or take it from the program's configuration; what '{key}' has to wait for goes to dependsOn",
    )


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
