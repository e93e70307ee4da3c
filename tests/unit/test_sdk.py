"""What is done about the waits of Pulumi's SDK."""

from __future__ import annotations

import asyncio
import importlib
import subprocess
import sys
from typing import Any

import pulumi
import pytest
from pulumi.runtime.mocks import MockEngine
from pulumi.runtime.proto import engine_pb2

from components import sdk
from mesh.program.recorder import record

from .given import ROOT


@pytest.mark.parametrize("asked_for", [False, True])
def test_the_engine_gets_debug_messages_when_they_are_asked_for(
    asked_for: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[Any] = []
    monkeypatch.setattr(MockEngine, "Log", lambda _, request: sent.append(request))
    importlib.reload(pulumi.log)  # a program that ran here before has left them out
    monkeypatch.delenv("MESH_DEBUG", raising=False)
    if asked_for:
        monkeypatch.setenv("MESH_DEBUG", "1")

    def program() -> None:
        sdk.without_needless_waits()
        pulumi.ComponentResource("test:test:Test", "test")
        pulumi.log.info("of the program")

    record(program)
    assert "of the program" in [request.message for request in sent]
    about = [r.message for r in sent if r.severity == engine_pb2.DEBUG and "test:test:Test" in r.message]
    assert bool(about) is asked_for


def waited_for(count: int, *, needlessly: bool) -> list[int]:
    """How many outputs are waited for each time by a program with so many resources."""
    asked: list[int] = []
    real = asyncio.wait

    async def counted(waiting: Any, **how: Any) -> Any:
        asked.append(len(waiting))
        return await real(waiting, **how)

    def program() -> None:
        if not needlessly:
            sdk.without_needless_waits()
        for number in range(count):
            pulumi.ComponentResource("test:test:Test", f"test-{number}")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(asyncio, "wait", counted)
        record(program)
    return asked


def test_outputs_are_waited_for_once_and_not_once_for_each() -> None:
    assert sum(waited_for(200, needlessly=False)) < 2 * 200 * 2 < sum(waited_for(200, needlessly=True))


def test_an_output_that_fails_ends_the_program_though_another_never_comes() -> None:
    def program() -> None:
        sdk.without_needless_waits()
        pulumi.Output.from_input(asyncio.get_running_loop().create_future())
        pulumi.Output.from_input(1).apply(lambda _: 1 / 0)

    with pytest.raises(ZeroDivisionError):
        record(program)


_LAZY = """
import sys
from components import sdk
sdk.import_classes()
assert "requests.api" not in sys.modules
import pulumi_kubernetes.yaml
import requests, requests.adapters
assert requests.get.__module__ == "requests.api" and requests.adapters.HTTPAdapter
assert pulumi_kubernetes.yaml.yaml.requests.get is requests.get
"""


def test_what_is_left_for_later_is_there_when_it_is_used() -> None:
    done = subprocess.run([sys.executable, "-c", _LAZY], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


_PROGRAM = """
import gc, sys
from unittest import mock
from components import sdk
from mesh import preflight
from tests.unit.given import program
with sdk.imports_meanwhile():
    pass
assert gc.isenabled() and gc.get_freeze_count() and "pulumi_kubernetes.core.v1" in sys.modules
with mock.patch.object(preflight, "check", lambda _config, owner: None):
    program("dev", **CHANGES)
print(*sorted(name for name in sys.modules if name.startswith(("pulumi_kubernetes.", "pulumi_command."))))
"""


@pytest.mark.parametrize(
    ("changes", "module", "loaded"),
    [
        ({}, "pulumi_kubernetes.networking.v1.NetworkPolicy", False),
        ({"namespace": {"defaultDeny": True}}, "pulumi_kubernetes.networking.v1.NetworkPolicy", True),
        ({}, "pulumi_kubernetes.policy.v1.PodDisruptionBudget", False),
        ({}, "pulumi_command.remote.command", False),
        ({}, "pulumi_command.local.command", True),
        ({}, "pulumi_kubernetes.core.v1.Namespace", True),
    ],
)
def test_a_stack_loads_the_classes_of_what_it_has(changes: dict[str, Any], module: str, loaded: bool) -> None:
    program = _PROGRAM.replace("CHANGES", repr(changes))
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (module in done.stdout.split()) is loaded
