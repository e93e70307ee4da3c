"""Writes the JSON Schemas of the stack files and of defaults.yaml from the model: `python -m config.schema`.

Editors with the YAML language server complete and check the files by them. Each file is one layer of two, so nothing is
required in it, and `null` is allowed everywhere: it removes what lies below. The rules between keys are the model's.
https://json-schema.org/draft/2020-12
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from config.files import NAMESPACE
from config.load import SECRETS
from config.model import StackConfig

FOLDER = Path(__file__).parent.parent / "schema"

_DIALECT = "https://json-schema.org/draft/2020-12/schema"
_SECRET = {
    "description": "pulumi config set --secret <key>",
    "type": "object",
    "properties": {"secure": {"type": "string"}},
    "required": ["secure"],
    "additionalProperties": False,
}
# What Pulumi itself keeps beside the configuration: https://www.pulumi.com/docs/iac/concepts/projects/stack-settings-file/
_PULUMI: Mapping[str, Any] = {
    "secretsprovider": {"type": "string"},
    "encryptedkey": {"type": "string"},
    "encryptionsalt": {"type": "string"},
    "environment": {},
}


def schemas() -> dict[str, dict[str, Any]]:
    """File name in `schema/` → schema."""
    model = _layer(StackConfig.model_json_schema(by_alias=True))
    keys, definitions = model["properties"], model["$defs"]
    plain = {key: value for key, value in keys.items() if key not in SECRETS}
    config = {NAMESPACE + key: _SECRET if key in SECRETS else value for key, value in keys.items()}
    return {
        "defaults.json": _document("defaults.yaml", plain, definitions),
        "stack.json": _document(
            "Pulumi.<stack>.yaml",
            {
                **_PULUMI,
                "config": {
                    "type": ["object", "null"],
                    "properties": config,
                    # Other namespaces are other programs' affair; in ours all other keys are secrets.
                    "patternProperties": {f"^(?!{NAMESPACE})": {}},
                    "additionalProperties": _SECRET,
                },
            },
            definitions,
        ),
    }


def _document(title: str, properties: Mapping[str, Any], definitions: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "$schema": _DIALECT,
        "title": title,
        "type": "object",
        "properties": properties,
        "additionalProperties": False,
        "$defs": definitions,
    }


def _layer(schema: Any) -> Any:
    """The same for one layer of a configuration."""
    if isinstance(schema, list):
        return [_layer(one) for one in schema]
    if not isinstance(schema, Mapping):
        return schema
    kept = {
        key: _layer(value)
        for key, value in schema.items()
        if key not in ("required", "minProperties", "default", "title", "propertyNames")
    }
    for key in ("properties", "patternProperties"):
        if isinstance(kept.get(key), Mapping):
            kept[key] = {name: _or_null(value) for name, value in kept[key].items()}
    if isinstance(kept.get("additionalProperties"), Mapping):
        kept["additionalProperties"] = _or_null(kept["additionalProperties"])
    return kept


def _or_null(schema: Mapping[str, Any]) -> dict[str, Any]:
    inner = {key: value for key, value in schema.items() if key != "description"}
    said = {"description": schema["description"]} if "description" in schema else {}
    if {"type": "null"} in inner.get("anyOf", []):
        return {**said, **inner}
    return {**said, "anyOf": [inner, {"type": "null"}]}


def text(schema: Mapping[str, Any]) -> str:
    return json.dumps(schema, indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for name, schema in schemas().items():
        (FOLDER / name).write_text(text(schema))
