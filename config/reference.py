"""Writes docs/configuration.md from the model: `python -m config.reference`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from config.load import annotated_description, bare
from config.model import StackConfig
from config.services import Workload

PAGE = Path(__file__).parent.parent / "docs" / "configuration.md"

_HEAD = """\
# Configuration

All keys are in the namespace `istio-governance:` of a stack file. `defaults.yaml` has the same keys without it, for
what all stacks share: a stack file is laid over it, maps are merged, anything else replaces, `null` removes.
Unknown keys are errors. A `secure:` value may only be a top-level key.

`<name>` stands for a name of your own, `[]` for each item of a list.

| key | default | allowed |
|---|---|---|
"""


def page() -> str:
    return _HEAD + "".join(f"| `{key}` | {default} | {allowed} |\n" for key, default, allowed in _rows(StackConfig, ""))


def _rows(model: type[BaseModel], path: str) -> Iterator[tuple[str, str, str]]:
    for name, field in model.model_fields.items():
        key = path + (field.alias or name)
        annotation, inner_path = bare(field.annotation), f"{key}."
        inner = annotation
        if get_origin(annotation) is tuple:
            inner, inner_path = bare(get_args(annotation)[0]), f"{key}[]."
        elif get_origin(annotation) is not None and len(get_args(annotation)) == 2:
            inner, inner_path = bare(get_args(annotation)[1]), f"{key}.<name>."
        if inner is Workload and name == "versions":
            yield f"{inner_path}…", "inherited", "at least one version; each key of `template`, for this version alone"
        elif inner is Workload and path:
            yield f"{inner_path}…", "inherited", "each key of `template`, for this service alone"
        elif isinstance(inner, type) and issubclass(inner, BaseModel):
            if also := annotated_description(get_args(annotation)[-1] if get_args(annotation) else None):
                yield inner_path.removesuffix("."), "unset", also  # a map is one of the shapes of such a value
            yield from _rows(inner, inner_path)
        else:
            yield key, default(field), field.description or annotated_description(field.annotation)


def default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    default: Any = field.get_default(call_default_factory=True, validated_data={})
    if default in (None, "", (), {}):
        return "unset"
    if isinstance(default, tuple):
        return f"`[{', '.join(map(str, default))}]`"
    return f"`{str(default).lower() if isinstance(default, bool) else default}`"


if __name__ == "__main__":
    PAGE.write_text(page())
