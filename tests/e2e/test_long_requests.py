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
from harness.traffic import splits
from harness.waiting import eventually
from mesh import drain
from mesh.cluster.envoy import proxies, running
from mesh.cluster.kubectl import Kubectl

NAMESPACE, ELSEWHERE = "istio-demo", "elsewhere"
IMAGE = "localhost/istio-governance/nginx:debian-12"
HOST = f"{streams.NAME}.{NAMESPACE}"
V1 = f"v1 of {streams.NAME}"
# Longer than a caller's proxy keeps a TCP connection whose routes have changed, unless it is told to.
LONG, DRAIN = 58, 60
# Longer than a sidecar beside its server outlives the word to stop, unless it is told to.
SHORT, SHORT_DRAIN = 35, 40
# As it is where Istio or Kubernetes know no native sidecars: it is told to go when the server is.
BESIDE = {"podTemplate": {"metadata": {"annotations": {"sidecar.istio.io/nativeSidecar": "false"}}}}

Config = dict[str, Any]


def serving(config: Config, weights: Mapping[str, int], drain: int = SHORT_DRAIN, **versions: Any) -> Config:
    """With the service for what takes long, in the versions that are listed in `weights`."""
    service = {
        "ports": dict(streams.PORTS),
        "template": {"image": IMAGE, "drainSeconds": drain},
        "versions": {name: streams.version(name, **versions.get(name, {})) for name in weights},
    }
    return merged(config, {"services": {streams.NAME: service}, "routing": {streams.NAME: {"weights": dict(weights)}}})


def up(stack: Stack, config: Config) -> str:
    """What `pulumi up` printed."""
    stack.configure(config)
    printed = stack.pulumi("up", "--yes", "--skip-preview")
    print(printed)  # where a test fails it tells more than the assertion, which cuts it
    return printed


def begun(kubectl: Kubectl, seconds: int, *kinds: str, host: str = HOST) -> list[streams.Held]:
    """From a pod of the stack."""
    caller = f"--namespace={NAMESPACE}", "deployment/front-tomcat-v1", "--container=front-tomcat"
    return streams.held(kubectl, caller, host, seconds, *kinds)


@contextmanager
def whole(began: Sequence[streams.Held]) -> Iterator[None]:
    """Begun a moment ago, they are under way in here, and not cut."""
    time.sleep(3)
    yield
    assert [cut for held in began if (cut := held.cut)] == []


@pytest.fixture
def strangers(both: Config, kubectl: Kubectl) -> Iterator[Sequence[str]]:
    """A pod of the mesh, in a namespace that is none of the stack's."""
    del both
    where = f"--namespace={ELSEWHERE}"
    kubectl.run("create", "namespace", ELSEWHERE)
    try:
        kubectl.run("label", "namespace", ELSEWHERE, "istio-injection=enabled")
        image = f"--image={IMAGE}", "--image-pull-policy=IfNotPresent"
        kubectl.run("run", "caller", where, *image, "--command", "--", "sleep", "600")
        kubectl.run("wait", "pod/caller", where, "--for=condition=Ready", timeout=60)
        yield where, "caller", "--container=caller"
    finally:
        kubectl.run("delete", "namespace", ELSEWHERE, timeout=120)


@pytest.fixture
def both(stack: Stack, config: Config, kubectl: Kubectl) -> Config:
    """Everything goes to v1, from a caller that takes its time as well."""
    config = merged(config, {"services": {"front-tomcat": {"template": {"drainSeconds": DRAIN}}}})
    up(stack, serving(config, {"v1": 100, "v2": 0}))
    wait_until_settled(kubectl)
    return config


def in_flight(kubectl: Kubectl) -> int:
    """To the pods of v1."""
    pods = kubectl.items("pods", f"--namespace={NAMESPACE}", f"--selector=app={streams.NAME},version=v1")
    return sum(host.counts["rq_active"] for proxy in running(kubectl, pods) for _, host in proxy.hosts("inbound|"))


def wait_until_settled(kubectl: Kubectl, seconds: float = 30) -> None:
    """Until the caller's proxy sends to v1 alone, and to the one of its pods that stays."""
    end = time.monotonic() + seconds
    while True:
        pods = kubectl.items("pods", f"--namespace={NAMESPACE}", f"--selector=app={streams.NAME},version=v1")
        stay = {pod["status"].get("podIP") for pod in pods if "deletionTimestamp" not in pod["metadata"]}
        caller = next(proxy for proxy in proxies(kubectl, NAMESPACE) if proxy.pod.startswith("front-tomcat"))
        shares = splits(caller, streams.NAME, NAMESPACE, f"{streams.NAME}-route")
        known = [one for one in caller.endpoints(streams.NAME, NAMESPACE) if one.cluster.subset == "v1"]
        settled = {one.address.rpartition(":")[0] for one in known} == stay and len(stay) == 1
        if settled and all(set(share) == {"v1"} for share in shares):
            return
        assert time.monotonic() < end, (stay, known, shares)
        time.sleep(0.5)


def test_what_is_in_flight_survives_the_removal_of_its_version(both: Config, stack: Stack, kubectl: Kubectl) -> None:
    """Also from before it lost its weight."""
    up(stack, serving(both, {"v1": 100, "v2": 0}, DRAIN))
    wait_until_settled(kubectl)
    with whole(begun(kubectl, LONG)):
        up(stack, serving(both, {"v1": 0, "v2": 100}, DRAIN))
        printed = up(stack, serving(both, {"v2": 100}, DRAIN))
    assert f"{V1}: 4 in flight, with {DRAIN} seconds left to end" in printed
    assert f"{V1}: the last in flight has ended" in printed


def test_nothing_waits_when_nothing_is_in_flight(
    both: Config, stack: Stack, kubectl: Kubectl, record_property: Callable[[str, object], None]
) -> None:
    """The connections that the proxies keep for the next request are nothing in flight."""
    up(stack, serving(both, {"v1": 100, "v2": 0}, 3))
    with whole(begun(kubectl, 1)):
        pass
    began = time.monotonic()
    drain.drained(kubectl, drain.going(kubectl, NAMESPACE, {V1: {"app": streams.NAME, "version": "v1"}}))
    record_property("seconds", time.monotonic() - began)
    assert time.monotonic() - began < 2
    assert "in flight" not in up(stack, serving(both, {"v2": 100}, 3))


def test_the_wait_ends_after_the_seconds_and_says_what_is_cut(both: Config, stack: Stack, kubectl: Kubectl) -> None:
    up(stack, serving(both, {"v1": 100, "v2": 0}, 3))
    wait_until_settled(kubectl)
    began = begun(kubectl, LONG)

    def all_of_them() -> None:
        assert in_flight(kubectl) == len(began)

    eventually(all_of_them)
    printed = up(stack, serving(both, {"v2": 100}, 3))
    assert f"{V1}: 4 in flight still, after 3 seconds. Pods that go now cut what does not end in time" in printed
    assert all(held.cut for held in began)


def test_what_is_in_flight_survives_an_update_of_its_pods(both: Config, stack: Stack, kubectl: Kubectl) -> None:
    """Of v1 with a native sidecar, of v2 with one that is told to go when the server is."""
    before, after = (
        serving(both, {"v1": 50, "v2": 50}, v1={"env": env}, v2={"env": env, **BESIDE})
        for env in ({"RELEASE": "before"}, {"RELEASE": "after"})
    )
    up(stack, before)
    pods = kubectl.items("pods", f"--namespace={NAMESPACE}", f"--selector=app={streams.NAME}")
    pods = [pod for pod in pods if "deletionTimestamp" not in pod["metadata"]]
    assert sorted(len(pod["spec"]["containers"]) for pod in pods) == [1, 2]
    with whole([held for pod in pods for held in begun(kubectl, SHORT, host=pod["status"]["podIP"])]):
        up(stack, after)


def test_a_version_loses_requests_and_pods_in_one_step(
    both: Config, stack: Stack, kubectl: Kubectl, no_request_fails: Callable[[], AbstractContextManager[None]]
) -> None:
    """Under load to another service that does the same. Then it has its pods again before it has requests."""
    rest = {"v1": 0, "v2": 100}
    changed = merged(
        serving(both, rest, v1={"replicas": 0}),
        {
            "services": {"bill-service": {"versions": {"v1": {"replicas": 0}}}},
            "routing": {"bill-service": {"weights": rest}},
        },
    )
    with no_request_fails(), whole(begun(kubectl, SHORT)):
        printed = up(stack, changed)
    assert f"{V1}: the last in flight has ended" in printed
    deployment = kubectl.json("get", "deployment", "bill-service-v1", f"--namespace={NAMESPACE}")
    assert deployment["spec"]["replicas"] == 0
    stack.pulumi("preview", "--expect-no-changes")
    with no_request_fails():
        up(stack, serving(both, {"v1": 100, "v2": 0}, v1={"replicas": 1}))


def test_what_is_in_flight_survives_the_removal_of_the_whole_service(
    both: Config, stack: Stack, kubectl: Kubectl
) -> None:
    with whole(begun(kubectl, SHORT)):
        printed = up(stack, both)
    assert f"{V1}: 4 in flight" in printed


def test_what_others_have_in_flight_survives_a_destroy(
    both: Config, stack: Stack, kubectl: Kubectl, strangers: Sequence[str]
) -> None:
    del both
    with whole(streams.held(kubectl, strangers, HOST, SHORT, "answer", "WebSocket")):
        printed = stack.pulumi("destroy", "--yes", "--skip-preview")
    assert f"{V1}: 2 in flight" in printed
