"""What a program that uses the package would stumble over when it takes another schema."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

Schema = Mapping[str, Any]
_KINDS = ("$ref", "type", "items", "additionalProperties", "plain")


def breaking(old: Schema, new: Schema) -> list[str]:
    """What of `old` is gone, is of another type or is asked for where it was not; [] when programs go on as they are.

    Inputs may be added, and outputs; an input may stop being required, an output may not.
    """
    named = [f"the package's {key} is another" for key in ("name", "namespace") if old.get(key) != new.get(key)]
    return [*named, *_resources(old, new), *_types(old.get("types", {}), new.get("types", {}))]


def _resources(old: Schema, new: Schema) -> Iterator[str]:
    for token, resource in old.get("resources", {}).items():
        if (other := new.get("resources", {}).get(token)) is None:
            yield f"{token} is gone"
            continue
        yield from _properties(token, resource, other, "inputProperties", "requiredInputs")
        yield from _properties(token, resource, other, "properties", "")
        for key in sorted({*resource.get("required", ())} - {*other.get("required", ())}):
            yield f"{token}: the output {key} is not always there any more"


def _types(old: Schema, new: Schema) -> Iterator[str]:
    for token, kind in old.items():
        other = new.get(token)
        if other is None:
            yield f"{token} is gone"
        elif kind["type"] != other["type"] or ("enum" in kind) != ("enum" in other):
            yield f"{token} is of another type"
        elif "enum" in kind:
            left = [one["value"] for one in other["enum"]]
            for value in [one["value"] for one in kind["enum"] if one["value"] not in left]:
                yield f"{token}: the value {value} is gone"
        else:
            yield from _properties(token, kind, other, "properties", "required")


def _properties(token: str, old: Schema, new: Schema, where: str, required: str) -> Iterator[str]:
    for key, value in old.get(where, {}).items():
        if key not in new.get(where, {}):
            yield f"{token}: {key} is gone"
        elif _kind(value) != _kind(new[where][key]):
            yield f"{token}: {key} is of another type"
    for key in sorted({*(new.get(required) or ())} - {*(old.get(required) or ())}) if required else ():
        yield f"{token}: {key} is required now"


def _kind(value: Any) -> Any:
    """The type of a property, without what is said of it."""
    if isinstance(value, Mapping):
        return {key: _kind(inner) for key, inner in value.items() if key in _KINDS}
    return value
