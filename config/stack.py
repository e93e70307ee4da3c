"""The configuration of the stack that Pulumi runs this program for."""

from __future__ import annotations

import json
import os
from typing import Any

import pulumi
from pulumi.runtime.config import CONFIG, is_config_secret

from config.load import ConfigError, load
from config.model import StackConfig


def read() -> StackConfig:
    """Ends the program with the list of all problems, and no traceback, when the configuration is wrong."""
    prefix = f"{pulumi.get_project()}:"
    keys = {key.removeprefix(prefix): key for key in CONFIG.get() if key.startswith(prefix)}
    raw = {name: _parsed(CONFIG.get()[key]) for name, key in keys.items()}
    secret = [name for name, key in keys.items() if is_config_secret(key)]
    try:
        # CI has one cluster to go to; anybody else could send prod to whatever context is current.
        return load(raw, secret_keys=secret, needs_cluster="CI" not in os.environ)
    except ConfigError as error:
        raise pulumi.RunError(str(error)) from None


def secret(key: str) -> pulumi.Output[str] | None:
    """A top-level secret key, which no model holds; it stays secret in the state."""
    return pulumi.Config().get_secret(key)


def _parsed(value: str) -> Any:
    """Pulumi hands objects over as JSON and anything else as plain text."""
    try:
        return json.loads(value)
    except ValueError:
        return value
