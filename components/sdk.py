"""What Pulumi's SDKs for Python take their time for without need."""

from __future__ import annotations

import asyncio
import gc
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from threading import Thread
from types import ModuleType
from typing import Any

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


def import_classes() -> None:
    """What nearly every stack needs of pulumi-kubernetes: 4 MB of classes (4.25.0), which take a sixth of a second.

    None of them is ever garbage to look for. What comes with `helm.v3` imports requests, a fifth of all, for manifests
    at a URL: there are none here.
    """
    gc.disable()
    _lazily("requests")
    for module in ("core.v1", "apps.v1", "helm.v3", "apiextensions"):
        import_module(f"pulumi_kubernetes.{module}")
    gc.freeze()
    gc.enable()


def _lazily(name: str) -> None:
    """Lets a module load when something of it is used."""
    if name in sys.modules:
        return
    stub = ModuleType(name)

    def load(attribute: str) -> Any:
        if sys.modules.get(name) is stub:
            del sys.modules[name]
        return getattr(import_module(name), attribute)

    stub.__dict__["__getattr__"] = load
    sys.modules[name] = stub


@contextmanager
def imports_meanwhile() -> Iterator[None]:
    """Imports the classes while the program waits in here for the cluster.

    Nothing in here may use the package: its modules, which are loaded when they are used first, do not wait for each
    other (findings/pulumi-lazy-modules-and-threads.sh).
    """
    thread = Thread(target=import_classes)
    thread.start()
    try:
        yield
    finally:
        thread.join()


async def _all_outputs() -> None:
    """Those that fail stay where the SDK looks for them, and nothing else is waited for any more."""
    while waiting := [output for output in settings.SETTINGS.outputs if not output.done()]:
        done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_EXCEPTION)
        if any(output.cancelled() or output.exception() for output in done):
            return
