"""Writes inputs.py, schema.json and docs/components.md from the vocabulary: `python -m package.generate`.

Pulumi's analyzer wants a TypedDict with a text below each key, and takes neither `Literal` nor unions nor tuples.
https://www.pulumi.com/docs/iac/guides/building-extending/components/build-a-component/
"""

from __future__ import annotations

import json
import re
import textwrap
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from config.load import annotated_description, bare
from config.reference import default
from config.services import Workload
from package import vocabulary

FOLDER = Path(__file__).parent
INPUTS, SCHEMA = FOLDER / "inputs.py", FOLDER / "schema.json"
PAGE = FOLDER.parent / "docs" / "components.md"
_MARK = "<!-- made by `python -m package.generate` from here on -->\n"

_HEAD = '''\
"""The inputs as Pulumi's analyzer takes them. Made by `python -m package.generate`; change vocabulary.py instead."""

from collections.abc import Mapping, Sequence
from enum import Enum
from typing import Any, NotRequired, TypedDict

import pulumi
'''
# A version of a workload; the package has a component of the name that it has in the model.
_RENAMED: Mapping[type[BaseModel], str] = {Workload: "Version"}


def inputs() -> str:
    """The text of inputs.py."""
    made: dict[str, str] = {}
    for name, model in vocabulary.INPUTS.items():
        _add(model, f"{name}Inputs", made)
    return _HEAD + "".join(made.values())


def _add(model: type[BaseModel], name: str, made: dict[str, str]) -> None:
    """The class of a model, behind those that it needs."""
    if name in made:
        return
    lines = [] if name.endswith("Inputs") or not model.__doc__ else [_text(model.__doc__), ""]
    for python_name, field in model.model_fields.items():
        alias = field.alias or python_name
        owner = next(one for one in reversed(model.__mro__) if python_name in getattr(one, "model_fields", {}))
        kind = _kind(field.rebuild_annotation(), f"{_name(owner)}{alias[0].upper()}{alias[1:]}", made)
        lines += [f"{alias}: {kind if field.is_required() else f'NotRequired[{kind}]'}", _text(_description(field))]
    made[name] = f"\n\nclass {name}(TypedDict):\n" + "".join(f"    {line}\n" if line else "\n" for line in lines)


def _name(model: type[BaseModel]) -> str:
    return _RENAMED.get(model, model.__name__)


def _kind(annotation: Any, name: str, made: dict[str, str]) -> str:
    """The type of a value in the source of inputs.py; `name` is for an enum that is the value's own."""
    plain = bare(annotation)
    origin = get_origin(plain)
    if _is_union(annotation):
        kind = "Any"
    elif isinstance(plain, type) and issubclass(plain, BaseModel):
        kind = _name(plain)
        _add(plain, kind, made)
    elif plain in (str, int, float, bool):
        kind = plain.__name__
    elif origin is Literal:
        kind = _enum(get_args(plain), name, made)
    elif origin is tuple:
        kind = f"Sequence[{_kind(get_args(plain)[0], name, made)}]"
    elif isinstance(origin, type) and issubclass(origin, Mapping):
        kind = f"Mapping[str, {_kind(get_args(plain)[1], name, made)}]"
    else:
        kind = "Any"
    return f"pulumi.Input[{kind}]" if vocabulary.is_input(annotation) else kind


def _is_union(annotation: Any) -> bool:
    """Whether values of several types are taken, `None` aside."""
    if hasattr(annotation, "__metadata__"):
        return _is_union(annotation.__origin__)
    arms = [arm for arm in get_args(annotation) if arm is not type(None)]
    if get_origin(annotation) not in (Union, types.UnionType):
        return False
    return len(arms) > 1 or any(map(_is_union, arms))


def _enum(values: tuple[str, ...], name: str, made: dict[str, str]) -> str:
    named = {re.sub("(?<=[a-z])(?=[A-Z])", "_", value).upper(): value for value in values}
    members = "".join(f"    {member} = {json.dumps(value)}\n" for member, value in named.items())
    made.setdefault(name, f"\n\nclass {name}(Enum):\n{members}")
    return name


def _description(field: FieldInfo) -> str:
    said, inner = field.description or annotated_description(field.annotation), bare(field.annotation)
    if isinstance(inner, type) and issubclass(inner, BaseModel):
        return said or (inner.__doc__ or "").split("\n\n")[0].replace("\n    ", " ").removesuffix(".")
    otherwise = default(field)
    return said if otherwise in ("required", "unset") else f"{said}; default: {otherwise}"


def _text(said: str) -> str:
    """A docstring; on one line, as Pulumi takes it over as it stands."""
    return json.dumps(textwrap.dedent(said).strip().replace("\n    ", "\n"), ensure_ascii=False)


def schema() -> str:
    """The text of schema.json, as `pulumi package get-schema` prints it."""
    from package.host import provider  # it needs inputs.py

    made = {key: value for key, value in _printed(json.loads(provider().schema or "")).items() if value}
    return json.dumps({"config": {}, **made}, indent=2, sort_keys=True) + "\n"


def _printed(value: Any) -> Any:
    """Pulumi says of a list or a map what it is, and not once more of what is in it."""
    if isinstance(value, list):
        return [_printed(one) for one in value]
    if not isinstance(value, Mapping):
        return value
    kept = {key: _printed(inner) for key, inner in value.items() if inner not in (None, [], {})}
    for key in ("items", "additionalProperties"):
        if isinstance(kept.get(key), dict):
            kept[key].pop("description", None)
    return kept


def page(schema: Mapping[str, Any]) -> str:
    """The text of docs/components.md: what stands above the mark there, and what each component takes and gives."""
    above = PAGE.read_text().split(_MARK)[0]
    return above + _MARK + "".join(_component(name, one) for name, one in schema["resources"].items())


def _component(token: str, resource: Mapping[str, Any]) -> str:
    name = token.rsplit(":", 1)[-1]
    required = resource.get("requiredInputs", [])
    inputs = sorted(resource["inputProperties"].items(), key=lambda item: (item[0] not in required, item[0]))
    rows = [f"| `{key}` | {_shown(one)} | {'yes' if key in required else ''} | {_cell(one)} |\n" for key, one in inputs]
    gives = [f"| `{key}` | {_shown(one)} | {_cell(one)} |\n" for key, one in resource.get("properties", {}).items()]
    return (
        f"\n## {name}\n\n{resource['description']}\n\n| input | type | required | |\n|---|---|---|---|\n{''.join(rows)}"
        f"\n| output | type | |\n|---|---|---|\n{''.join(gives)}"
    )


def _shown(value: Mapping[str, Any]) -> str:
    if "items" in value:
        return f"list of {_shown(value['items'])}"
    if "additionalProperties" in value:
        return f"map of {_shown(value['additionalProperties'])}"
    return str(value.get("$ref", value.get("type", ""))).rsplit(":", 1)[-1].rsplit("/", 1)[-1]


def _cell(value: Mapping[str, Any]) -> str:
    return str(value.get("description", "")).replace("|", "\\|").replace("\n", " ")


if __name__ == "__main__":
    INPUTS.write_text(inputs())
    made = schema()
    SCHEMA.write_text(made)
    PAGE.write_text(page(json.loads(made)))
