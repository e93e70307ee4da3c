"""The debug messages of Pulumi's SDK for Python."""

from __future__ import annotations

import os

import pulumi


def keep_if_asked_for() -> None:
    """Leaves them out, unless MESH_DEBUG is set, for `pulumi up --debug`.

    The SDK has five for each resource, sends them whether Pulumi shows them or not, and waits for the engine each time.

    https://github.com/pulumi/pulumi/issues/7292
    """
    if "MESH_DEBUG" not in os.environ:
        pulumi.log.debug = lambda *_, **__: None
