"""A stack that an earlier version of the program has made: what the next `pulumi up` would do to it.

`states/` has what `pulumi stack export` gave after such an `up` on the embedded cluster, without the outputs. A preview
is a comparison of inputs, by URN: those of the state with those that the program registers today.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from mesh import preflight
from mesh.program.recorder import Recording, Resource

from .given import program
from .test_architecture import LIVE
from .test_secrets import SECRET_MARK

STATES = Path(__file__).parent / "states"
CONFIG: Mapping[str, Any] = {
    "cluster": {"context": "istio-governance", "kubeconfig": ".cluster/kubeconfig"},
    "namespace": {"defaultDeny": True},
    "services": {
        "bill-service": {
            "disruptionBudget": {"maxUnavailable": 1},
            "template": {
                "env": {"DB": {"secret": "dbPassword"}, "LEVEL": "info"},
                "spread": [{"topologyKey": "kubernetes.io/hostname"}],
                "writablePaths": ["/var/spare"],
            },
        },
        "batch": {
            "workload": "StatefulSet",
            "ports": {"http": {"port": 80}},
            "versions": {"v1": {"image": "localhost/istio-governance/nginx:debian-12"}},
        },
    },
    "routing": {"bill-service": {"mtls": "STRICT", "expose": {"hosts": ["bills.example.com"]}}},
    "egress": {"api.example.com": {}},
}
"""Of the stack `local`, and of all kinds of objects that need no machine of their own."""

UPDATES = {
    "spec.template.metadata.annotations.proxy.istio.io/config": "the gate needs more statistics: the pods roll once",
    "spec.http": "an exposed service has the port in its destinations: it is the same for a service with one",
}


@pytest.fixture
def today(monkeypatch: pytest.MonkeyPatch) -> Recording:
    monkeypatch.setattr(preflight, "check", lambda _config, owner: True)  # noqa: ARG005
    return program("local", {"dbPassword": "hunter2"}, **CONFIG)


def states() -> dict[str, dict[str, Any]]:
    """Name of the commit → URN without stack and project → what the state has of it."""
    return {file.stem: _resources(json.loads(file.read_text())) for file in sorted(STATES.glob("*.json"))}


def _resources(state: Mapping[str, Any]) -> dict[str, Any]:
    return {"::".join(one["urn"].split("::")[2:]): one for one in state["deployment"]["resources"]}


@pytest.mark.parametrize("commit", states())
def test_nothing_is_replaced_or_deleted_and_what_is_updated_is_known(commit: str, today: Recording) -> None:
    state = states()[commit]
    recorded = {one.line: one for one in today if one.type != "pulumi:providers:kubernetes"}
    assert recorded.keys() == state.keys()
    differing = {path for line, one in recorded.items() for path in _differing(one, state[line].get("inputs", {}))}
    assert differing == UPDATES.keys()


@pytest.mark.parametrize("commit", states())
def test_what_its_commands_run_is_what_never_moves(commit: str) -> None:
    """They run as they stand in the state when the resource is deleted or replaced: test_architecture.py runs them."""
    inputs = [one["inputs"] for one in states()[commit].values() if one["type"] == "command:local:Command"]
    lines = [line for given in inputs for name, line in given.items() if name in ("create", "delete")]
    called = {(module, step) for line in lines for module, step in re.findall(r"-m (mesh\.\w+) (\w+)", line)}
    assert {step for _, step in called} == {"announced", "forgotten", "sweep", "guard"}
    assert {module for module, _ in called} <= {f"mesh.{module}" for module in LIVE}


def _differing(one: Resource, before: Any) -> Iterator[str]:
    stack = json.loads(json.dumps(dict(one.inputs)).replace("istio-governance/local", "istio-governance/earlier"))
    # Of a release the provider adds what it takes for everything that is not given.
    given = before if one.kind != "Release" else {key: before.get(key) for key in stack}
    yield from _paths(stack, given)


def _paths(now: Any, before: Any, path: str = "") -> Iterator[str]:
    if isinstance(before, Mapping) and SECRET_MARK in before:
        # The state has it encrypted: whether it is the same cannot be seen, only that it is a secret still.
        if SECRET_MARK not in str(now):
            yield path
    elif isinstance(now, Mapping) and isinstance(before, Mapping):
        for key in sorted({*now, *before} - {"compat", "resourceNames"}):
            yield from _paths(now.get(key), before.get(key), f"{path}.{key}".removeprefix("."))
    elif now != before:
        yield path
