"""The JSON Schemas are those of the model, and find in an editor what the model would refuse."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]

from config import files
from config.files import NAMESPACE
from config.schema import FOLDER, schemas, text

from .given import ROOT, STACKS


def errors(name: str, document: object) -> list[str]:
    return [error.message for error in Draft202012Validator(schemas()[name]).iter_errors(document)]


def stack(**keys: Any) -> Mapping[str, Any]:
    return {"config": {NAMESPACE + key: value for key, value in keys.items()}}


@pytest.mark.parametrize("name", ["stack.json", "defaults.json"])
def test_a_schema_is_current_and_sound(name: str) -> None:
    assert (FOLDER / name).read_text() == text(schemas()[name]), "run `.venv/bin/python -m config.schema`"
    Draft202012Validator.check_schema(json.loads((FOLDER / name).read_text()))


@pytest.mark.parametrize("file", ["defaults.yaml", *(f"Pulumi.{name}.yaml" for name in STACKS)])
def test_every_file_names_its_schema_and_keeps_it(file: str) -> None:
    name = "defaults.json" if file == "defaults.yaml" else "stack.json"
    content = (ROOT / file).read_text()
    assert content.startswith(f"# yaml-language-server: $schema=schema/{name}\n")
    assert errors(name, yaml.safe_load(content)) == []


@pytest.mark.parametrize("name", STACKS)
def test_every_stack_file_is_right_with_the_defaults(name: str) -> None:
    assert files.effective(name).services


@pytest.mark.parametrize(
    "keys",
    [
        {"mesh": {"profil": "demo"}},
        {"mesh": {"profile": "domo"}},
        {"mesh": {"version": 1.3}},
        {"services": {"a": {"ports": {"http": {"port": 99999}}}}},
        {"services": {"a": {"ports": {"http": {"port": "80"}}}}},
        {"services": {"a": {"template": {"replicas": -1}}}},
        {"services": {"a": {"versions": {"v1": {"imagePullPolicy": "Sometimes"}}}}},
        {"services": {"a": {"version": {}}}},
        {"services": {"a": {"template": {"env": {"A": 1}}}}},
        {"services": {"a": {"template": {"env": {"A": {"secrt": "dbPassword"}}}}}},
        {"services": {"a": {"template": {"env": {"A": {"secretKeyRef": "tokens"}}}}}},
        {"routing": {"a": {"weights": {"v1": 101}}}},
        {"routing": {"a": {"weights": {"v1": 0.5}}}},
        {"namespace": {"create": "yes"}},
        {"rooting": {}},
        {"sshPrivateKey": "plain text"},
        {"dbPassword": "plain text"},
    ],
    ids=str,
)
def test_a_typical_mistake_is_found(keys: Mapping[str, Any]) -> None:
    assert errors("stack.json", stack(**keys))
    if not {"sshPrivateKey", "dbPassword"} & keys.keys():
        assert errors("defaults.json", keys)


@pytest.mark.parametrize(
    "document",
    [
        {},
        {"config": {}, "encryptionsalt": "v1:abc"},
        {"config": {"aws:region": "eu-west-1"}},
        stack(sshPrivateKey={"secure": "v1:abc"}),
        stack(
            dbPassword={"secure": "v1:abc"},
            services={
                "a": {
                    "template": {
                        "env": {
                            "A": "1",
                            "B": {"secret": "dbPassword"},
                            "C": {"secretKeyRef": {"name": "a", "key": "b"}},
                        }
                    },
                    "versions": {"v1": {"env": {"A": None}}},
                }
            },
        ),
        stack(services={"a": None, "b": {"versions": {"v2": None}}}, routing=None),
    ],
)
def test_what_pulumi_keeps_and_what_takes_away_is_allowed(document: Mapping[str, Any]) -> None:
    assert errors("stack.json", document) == []
