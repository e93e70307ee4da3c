"""The debug messages of Pulumi's SDK: whether the engine gets them."""

from __future__ import annotations

import importlib
from typing import Any

import pulumi
import pytest
from pulumi.runtime.mocks import MockEngine
from pulumi.runtime.proto import engine_pb2

from components import debug
from mesh.recorder import record


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
        debug.keep_if_asked_for()
        pulumi.ComponentResource("test:test:Test", "test")
        pulumi.log.info("of the program")

    record(program)
    assert "of the program" in [request.message for request in sent]
    about = [r.message for r in sent if r.severity == engine_pb2.DEBUG and "test:test:Test" in r.message]
    assert bool(about) is asked_for
