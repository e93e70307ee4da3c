"""What takes long and is in flight to a version that goes: it ends as it would have, within `drainSeconds`."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import pytest

from config import merged
from harness import streams
from harness.stack import Stack
from mesh.cluster.kubectl import Kubectl

NAMESPACE = "istio-demo"
IMAGE = "localhost/istio-governance/nginx:debian-12"
HOST = f"{streams.NAME}.{NAMESPACE}"
CALLER = (f"--namespace={NAMESPACE}", "deployment/front-tomcat-v1", "--container=front-tomcat")
LONG, DRAIN = 50, 60
# As Istio has it before 1.27, and Kubernetes before 1.29: the sidecar is told to go when the server is.
BESIDE = {"podTemplate": {"metadata": {"annotations": {"sidecar.istio.io/nativeSidecar": "false"}}}}

Config = dict[str, Any]


def serving(config: Config, weights: Mapping[str, int], drain: int = DRAIN, **fields: Any) -> Config:
    """With the service for what takes long, in the versions that have a weight."""
    gone = dict.fromkeys({"v1", "v2"} - set(weights))
    service = {
        "ports": dict(streams.PORTS),
        "template": {"image": IMAGE, "drainSeconds": drain, **fields},
        "versions": {**{name: streams.version(name) for name in weights}, **gone},
    }
    return merged(config, {"services": {streams.NAME: service}, "routing": {streams.NAME: {"weights": dict(weights)}}})


@contextmanager
def all_whole(began: Sequence[streams.Held]) -> Iterator[None]:
    """Begun a moment ago, they are under way in here, and are not cut."""
    time.sleep(3)
    yield
    assert [cut for held in began if (cut := held.cut)] == []


def removal(stack: Stack, config: Config) -> str:
    """What `pulumi up` printed."""
    stack.configure(config)
    return stack.pulumi("up", "--yes", "--skip-preview")


def begun(kubectl: Kubectl, *kinds: str, seconds: int = LONG) -> list[streams.Held]:
    return streams.held(kubectl, CALLER, HOST, seconds, *kinds)


@pytest.fixture
def both(stack: Stack, config: Config) -> Config:
    """Everything goes to v1."""
    stack.configure(serving(config, {"v1": 100, "v2": 0}))
    stack.up()
    return config


def test_what_is_in_flight_survives_the_removal_of_its_version(both: Config, stack: Stack, kubectl: Kubectl) -> None:
    with all_whole(begun(kubectl)):
        printed = removal(stack, serving(both, {"v2": 100}))
    assert f"v1 of {streams.NAME}: 4 in flight, with {DRAIN} seconds left to end" in printed
    assert f"v1 of {streams.NAME}: the last in flight has ended" in printed
