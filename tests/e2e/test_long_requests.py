"""What takes long and is in flight to a version that goes: it ends as it would have, within `drainSeconds`."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import pytest

from config import merged
from harness import streams
from harness.stack import Stack
from mesh.cluster.kubectl import Kubectl

NAMESPACE = "istio-demo"
IMAGE = "localhost/istio-governance/nginx:debian-12"
V1 = f"v1 of {streams.NAME}"
# Longer than a caller's proxy keeps a TCP connection whose routes have changed, unless it is told to.
LONG, DRAIN = 58, 60
# As it is where Istio or Kubernetes know no native sidecars: it is told to go when the server is.
BESIDE = {"podTemplate": {"metadata": {"annotations": {"sidecar.istio.io/nativeSidecar": "false"}}}}

Config = dict[str, Any]


def serving(config: Config, weights: Mapping[str, int], **fields: Any) -> Config:
    """With the service for what takes long, in the versions that are listed here."""
    gone = dict.fromkeys({"v1", "v2"} - set(weights))
    service = {
        "ports": dict(streams.PORTS),
        "template": {"image": IMAGE, "drainSeconds": DRAIN, **fields},
        "versions": {**{name: streams.version(name) for name in weights}, **gone},
    }
    return merged(config, {"services": {streams.NAME: service}, "routing": {streams.NAME: {"weights": dict(weights)}}})


def up(stack: Stack, config: Config) -> str:
    """What `pulumi up` printed."""
    stack.configure(config)
    return stack.pulumi("up", "--yes", "--skip-preview")


def begun(kubectl: Kubectl, seconds: int, *kinds: str) -> list[streams.Held]:
    """From a pod of the stack."""
    caller = f"--namespace={NAMESPACE}", "deployment/front-tomcat-v1", "--container=front-tomcat"
    return streams.held(kubectl, caller, f"{streams.NAME}.{NAMESPACE}", seconds, *kinds)


@contextmanager
def whole(began: Sequence[streams.Held]) -> Iterator[None]:
    """Begun a moment ago, they are under way in here, and not cut."""
    time.sleep(3)
    yield
    assert [cut for held in began if (cut := held.cut)] == []


@pytest.fixture
def both(stack: Stack, config: Config) -> Config:
    """Everything goes to v1."""
    up(stack, serving(config, {"v1": 100, "v2": 0}))
    return config


def test_what_is_in_flight_survives_the_removal_of_its_version(both: Config, stack: Stack, kubectl: Kubectl) -> None:
    with whole(begun(kubectl, LONG)):
        printed = up(stack, serving(both, {"v2": 100}))
    assert f"{V1}: 4 in flight, with {DRAIN} seconds left to end" in printed
    assert f"{V1}: the last in flight has ended" in printed


def test_a_version_without_weight_keeps_what_it_has_from_before(both: Config, stack: Stack, kubectl: Kubectl) -> None:
    with whole(begun(kubectl, LONG, "WebSocket", "connection")):
        up(stack, serving(both, {"v1": 0, "v2": 100}))
        printed = up(stack, serving(both, {"v2": 100}))
    assert f"{V1}: 2 in flight" in printed


def test_nothing_waits_when_nothing_is_in_flight(
    both: Config, stack: Stack, kubectl: Kubectl, record_property: Callable[[str, object], None]
) -> None:
    """The connections that the proxies keep for the next request are nothing in flight."""
    with whole(begun(kubectl, 1)):
        pass
    up(stack, serving(both, {"v1": 100, "v2": 0}, drainSeconds=5))
    began = time.monotonic()
    printed = up(stack, serving(both, {"v2": 100}, drainSeconds=5))
    record_property("seconds", time.monotonic() - began)
    assert "in flight" not in printed


def test_the_wait_ends_after_the_seconds_and_says_what_is_cut(both: Config, stack: Stack, kubectl: Kubectl) -> None:
    up(stack, serving(both, {"v1": 100, "v2": 0}, drainSeconds=3))
    began = begun(kubectl, LONG)
    time.sleep(3)
    printed = up(stack, serving(both, {"v2": 100}, drainSeconds=3))
    assert f"{V1}: 4 in flight still, after 3 seconds. Its pods go, and cut what does not end in time" in printed
    assert all(held.cut for held in began)


@pytest.mark.parametrize("fields", [{}, BESIDE], ids=["native sidecar", "sidecar beside"])
def test_what_is_in_flight_survives_an_update_of_its_pods(
    fields: Mapping[str, Any], both: Config, stack: Stack, kubectl: Kubectl
) -> None:
    before, after = (
        serving(both, {"v1": 100, "v2": 0}, env={"RELEASE": release}, **fields) for release in ("before", "after")
    )
    up(stack, before)
    with whole(begun(kubectl, 45)):
        up(stack, after)


def test_a_version_loses_requests_and_pods_in_one_step(
    both: Config, stack: Stack, kubectl: Kubectl, no_request_fails: Callable[[], AbstractContextManager[None]]
) -> None:
    """Under load to another service that does the same. Then it has its pods again before it has requests."""
    idle = {"versions": {"v1": {"replicas": 0}}}
    rest = {"v1": 0, "v2": 100}
    changed = merged(serving(both, rest), {"routing": {"bill-service": {"weights": rest}}})
    changed = merged(changed, {"services": {streams.NAME: idle, "bill-service": idle}})
    with no_request_fails(), whole(begun(kubectl, LONG)):
        printed = up(stack, changed)
    assert f"{V1}: the last in flight has ended" in printed
    assert not kubectl.items("pods", f"--namespace={NAMESPACE}", "--selector=service=bill-service,version=v1")
    stack.pulumi("preview", "--expect-no-changes")
    with no_request_fails():
        up(stack, serving(both, {"v1": 100, "v2": 0}))


def test_what_is_in_flight_survives_the_removal_of_the_whole_service(
    both: Config, stack: Stack, kubectl: Kubectl
) -> None:
    with whole(begun(kubectl, 30)):
        printed = up(stack, both)
    assert f"{V1}: 4 in flight" in printed
