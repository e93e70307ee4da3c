"""What Pulumi's SDK for Python waits for without need, which is most of its time with hundreds of resources."""

from __future__ import annotations

import asyncio
import os

import pulumi
from pulumi.runtime import settings


def without_needless_waits() -> None:
    """For the program that runs; to be called before its first resource.

    The SDK has five debug messages for each resource, sends them whether Pulumi shows them or not, and waits for the
    engine each time: they are left out, unless MESH_DEBUG is set, for `pulumi up --debug`. And at the end it waits for
    one of all outputs, again and again until there is none left, which grows with the square of their number: it gets
    something to wait for before, which is over when all outputs are.

    https://github.com/pulumi/pulumi/issues/7292, https://github.com/pulumi/pulumi/pull/22411
    """
    if "MESH_DEBUG" not in os.environ:
        pulumi.log.debug = lambda *_, **__: None
    settings._get_rpc_manager().rpcs.append(asyncio.ensure_future(_all_outputs()))


async def _all_outputs() -> None:
    """Those that fail stay where the SDK looks for them, and nothing else is waited for any more."""
    while waiting := [output for output in settings.SETTINGS.outputs if not output.done()]:
        done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_EXCEPTION)
        if any(output.cancelled() or output.exception() for output in done):
            return
