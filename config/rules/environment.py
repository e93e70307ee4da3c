"""The rules on the environment variables of the pods, and on the secrets that these take their values from."""

from __future__ import annotations

import re
from collections.abc import Iterator

from config.model import StackConfig
from config.problems import MISSING, Problem, nearest
from config.rules.raw import Raw, each_service, map_at
from config.types import CONFIG_KEY

_KNOWN = {field.alias or name for name, field in StackConfig.model_fields.items()}


def secret_keys(raw: Raw) -> set[str]:
    """The top-level keys of the user's own that variables take their values from, there or not."""
    return {key for _, key in _keys(raw) if key not in _KNOWN}


def values_have_one_source(raw: Raw) -> Iterator[Problem]:
    for path, value in _from_secrets(raw):
        if ("secret" in value) == ("secretKeyRef" in value) and value.keys() <= {"secret", "secretKeyRef"}:
            yield Problem(
                path,
                dict(value),
                "either secret or secretKeyRef",
                "keep one of the two; `null` takes out what another file or the template says",
            )


def secrets_are_set(raw: Raw) -> Iterator[Problem]:
    own = sorted(raw.keys() - _KNOWN)
    for path, key in _keys(raw):
        if key in _KNOWN:
            yield Problem(path, key, "a secret key of your own, which nothing else reads", "set it under another key")
        elif key not in own:
            fix, meant = f"pulumi config set --secret {key}", nearest(key, own)
            yield Problem(
                path,
                key,
                f"a top-level secret key of the stack file: {', '.join(own) or 'there is none yet'}",
                f"{meant} Otherwise: {fix}" if meant.startswith("did you mean") else fix,
            )


def existing_pods_have_no_env(raw: Raw) -> Iterator[Problem]:
    for name, service, versions in each_service(raw):
        if service.get("workload") != "existing":
            continue
        for path in ("template", *(f"versions.{version}" for version in versions)):
            if map_at(service, *path.split(".", 1), "env"):
                yield Problem(
                    f"services.{name}.{path}.env",
                    MISSING,
                    "none: somebody else owns these pods",
                    "take it out, or set it where the pods are made",
                )


def _keys(raw: Raw) -> Iterator[tuple[str, str]]:
    """The path of each `secret`, and the top-level key in it."""
    for path, value in _from_secrets(raw):
        key = value.get("secret")
        if isinstance(key, str) and re.match(CONFIG_KEY, key):
            yield f"{path}.secret", key


def _from_secrets(raw: Raw) -> Iterator[tuple[str, Raw]]:
    """The path of each variable whose value is a map, and that map."""
    for name, service, versions in each_service(raw):
        envs = {"template": map_at(service, "template", "env")}
        envs |= {f"versions.{version}": map_at(versions, version, "env") for version in versions}
        for path, env in envs.items():
            for variable, value in env.items():
                if value == {} or map_at(value):
                    yield f"services.{name}.{path}.env.{variable}", map_at(value)


RULES = (values_have_one_source, secrets_are_set, existing_pods_have_no_env)
