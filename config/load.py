"""From the stack's raw values to one `StackConfig`, or to the list of everything that is wrong with them."""

from __future__ import annotations

import types
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from config import rules
from config.merge import merged
from config.model import StackConfig
from config.nodes import SYSCTLS
from config.problems import MISSING, Problem, nearest, report
from config.rules.raw import each_service, map_at
from config.types import SECRET, SecretKey

DEFAULTS = Path(__file__).parent.parent / "defaults.yaml"

_NAME_ERRORS = {"string_pattern_mismatch", "literal_error"}


class ConfigError(Exception):
    """The configuration is wrong; `problems` has every mistake in it."""

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__(report(problems))
        self.problems = problems


def load(
    stack: Mapping[str, Any],
    *,
    secret_keys: Sequence[str] = (),
    needs_cluster: bool = False,
    defaults: Path | None = DEFAULTS,
    model: type[StackConfig] = StackConfig,
) -> StackConfig:
    """The configuration of a stack, laid over the shared defaults.

    `stack` maps the keys of the project's namespace (`mesh`, `services`, …) to their values; `secret_keys` are those
    of them that hold a `secure:` value; `needs_cluster` refuses a configuration that does not say which cluster;
    `model` may ask for less than a whole stack.
    Raises `ConfigError` with all problems at once.
    """
    problems = [_nested_secret(key) for key in secret_keys if key in aliases(StackConfig) and key not in SECRETS]
    raw = _layered(_shared(defaults) if defaults else {}, stack)
    of_pods = rules.environment.secret_keys(raw)
    secret = {key for key, value in raw.items() if value == SECRET or key in secret_keys}
    for key in sorted((SECRETS | of_pods) & raw.keys()):
        if key not in secret:
            problems.append(_plain_secret(key))
        raw[key] = SECRET
    unused = secret - aliases(StackConfig).keys() - of_pods
    problems += [_unused_secret(key) for key in sorted(unused)]
    typed = {key: value for key, value in raw.items() if key not in of_pods | unused}
    config = None
    try:
        config = model.model_validate(typed, by_alias=True, by_name=False)
    except ValidationError as error:
        problems += [_problem(details) for details in error.errors(include_url=False)]
    problems += rules.check(raw, needs_cluster)
    problems = [problem for problem in problems if not _is_inherited(problem, problems)]
    if problems or config is None:
        raise ConfigError([_without_secrets(problem, secret_keys) for problem in problems])
    return config


def secret_keys(raw: Mapping[str, Any]) -> set[str]:
    """Those of the user's own that variables of pods name, in the template of all services as well."""
    return rules.environment.secret_keys(_layered({}, raw))


def _shared(defaults: Path) -> dict[str, Any]:
    document = yaml.safe_load(defaults.read_text())
    if document is None:
        return {}
    if not isinstance(document, Mapping):
        raise ConfigError(
            [Problem(defaults.name, document, "a map of the keys that a stack file can have", "make it one")]
        )
    return {str(key): _with_text_keys(value) for key, value in document.items()}


def _layered(defaults: Mapping[str, Any], stack: Mapping[str, Any]) -> dict[str, Any]:
    """`stack` laid over `defaults`, and both over the template of all services, in each one's own that has pods.

    Below all of them are the sysctls of a prepared node, so that `null` takes one out as it does any other entry.
    """
    if map_at(merged(defaults, stack), "nodes").get("mode", "none") != "none":
        defaults = merged({"nodes": {"sysctls": SYSCTLS}}, defaults)
    both = merged(defaults, stack)
    template = map_at(both, "template")
    own = [name for name, service, _ in each_service(both) if service.get("workload") != "existing"]
    if not (template and own):
        return both
    return merged(merged({"services": {name: {"template": template} for name in own}}, defaults), stack)


def _is_inherited(problem: Problem, problems: Sequence[Problem]) -> bool:
    """Whether it is told of the template of all services already."""
    match problem.key.split(".", 2):
        case ["services", _, inner] if inner.startswith("template."):
            return any(other.key == inner and problem.value in (other.value,) for other in problems)
    return False


def _with_text_keys(value: Any) -> Any:
    """YAML reads an unquoted `1` or `on` as a number or a truth value, also where a name belongs."""
    if isinstance(value, Mapping):
        return {str(key): _with_text_keys(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_with_text_keys(inner) for inner in value]
    return value


def _nested_secret(key: str) -> Problem:
    # Pulumi hands such an object over as plain text, which would end up readable in the state (pulumi#6531, #7127).
    instead = "; a variable of pods names a top-level one, env: {NAME: {secret: <key>}}" if key == "services" else ""
    return Problem(
        key,
        MISSING,
        "plain values; a `secure:` value may only be a top-level key",
        f"take the secret out of '{key}'{instead}",
    )


def _plain_secret(key: str) -> Problem:
    return Problem(
        key, MISSING, "a secret, which no file holds as plain text", f"pulumi config set --secret {key} < FILE"
    )


def _unused_secret(key: str) -> Problem:
    meant = nearest(key, SECRETS)
    use = (
        f"let a variable of some pods have it, env: {{NAME: {{secret: {key}}}}}, or take it out: pulumi config rm {key}"
    )
    return Problem(key, MISSING, "a secret key that something uses", meant if meant.startswith("did you mean") else use)


def _without_secrets(problem: Problem, secret_keys: Sequence[str]) -> Problem:
    secret = any(problem.key == key or problem.key.startswith(f"{key}.") for key in secret_keys)
    return replace(problem, value=MISSING) if secret else problem


def aliases(model: type[BaseModel]) -> dict[str, FieldInfo]:
    """The fields of a model by the keys that files have."""
    return {field.alias or name: field for name, field in model.model_fields.items()}


SECRETS = {alias for alias, field in aliases(StackConfig).items() if get_args(field.annotation) == get_args(SecretKey)}


def _problem(details: ErrorDetails) -> Problem:
    """A pydantic error in our words."""
    # pydantic says `[key]` after a name that is wrong itself; a key may also be called so.
    is_name = details["type"] in _NAME_ERRORS and details["loc"][-1] == "[key]"
    loc = [str(part) for part in (details["loc"][:-1] if is_name else details["loc"])]
    key, kind, value = ".".join(loc), details["type"], details["input"]
    *_, parent = _models_along(loc[:-1])
    if kind == "extra_forbidden":
        known = aliases(parent)
        return Problem(key, value, f"a known key: {', '.join(known)}", nearest(loc[-1], known))
    allowed = (_name_description(loc) if is_name else _description(loc)) or details["msg"]
    if is_name and kind == "literal_error":
        known_names = get_args(get_args(_container(loc))[0])
        return Problem(key, MISSING, f"a known key: {', '.join(known_names)}", nearest(loc[-1], known_names))
    if is_name:
        return Problem(key, MISSING, f"as a name {allowed}", f"rename '{loc[-1]}'")
    if kind == "missing":
        return Problem(key, MISSING, allowed, f"add '{loc[-1]}'")
    if isinstance(value, float) and loc[-1] == "version":
        return Problem(key, value, allowed, f'write it in quotes, or YAML makes it a number: "{value}.0"')
    return Problem(key, value, allowed, f"set '{key}' to {allowed}")


def _description(loc: Sequence[str]) -> str:
    """What the innermost field along `loc` says is allowed."""
    text = ""
    for annotation, description in _steps(StackConfig, loc):
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            text = f"a map with the keys {', '.join(aliases(annotation))}"
        text = description or text
    return text


def _name_description(loc: Sequence[str]) -> str:
    """What the map that has `loc` as a key says of its names."""
    return annotated_description(get_args(_container(loc))[0])


def _container(loc: Sequence[str]) -> Any:
    """The type of the map that has the last of `loc` as a key."""
    *_, (container, _) = _steps(StackConfig, loc[:-1])
    return container


def _models_along(loc: Sequence[str]) -> Iterator[type[BaseModel]]:
    """The models that hold the keys of `loc`, outermost first."""
    yield StackConfig
    for annotation, _ in _steps(StackConfig, loc):
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            yield annotation


def _steps(annotation: Any, loc: Sequence[str]) -> Iterator[tuple[Any, str]]:
    """The type and the description of each step of `loc`, below the type `annotation`."""
    for part in loc:
        description = ""
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            field = aliases(annotation).get(part)
            if field is None:
                return
            annotation = field.annotation
            description = field.description or annotated_description(annotation)
        elif get_origin(annotation) is not None and len(get_args(annotation)) >= 1:
            arguments = get_args(annotation)
            annotation = arguments[0] if get_origin(annotation) is tuple else arguments[-1]
            description = annotated_description(annotation)
        annotation = bare(annotation)
        yield annotation, description


def annotated_description(annotation: Any) -> str:
    """The description inside an `Annotated`, also in one that may be `None`, or ''."""
    if get_origin(annotation) in (Union, types.UnionType):
        return "".join(annotated_description(argument) for argument in get_args(annotation))
    return next((m.description for m in getattr(annotation, "__metadata__", ()) if getattr(m, "description", "")), "")


def bare(annotation: Any) -> Any:
    """Without `Annotated` and without `| None`."""
    if hasattr(annotation, "__metadata__"):
        return bare(annotation.__origin__)
    if get_origin(annotation) in (Union, types.UnionType):
        return bare(next(arg for arg in get_args(annotation) if arg is not type(None)))
    return annotation
