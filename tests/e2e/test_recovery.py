"""A killed command is made good by the documented recovery and the same command again; soak/ has more moments.

One kill each of an install, an upgrade and a destroy, which is that of a mesh whose istiod is dead, whose CRDs are gone
and whose workloads have a stuck pod.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from config import merged
from harness.kills import Moment, kill_at
from harness.stack import PulumiError, Stack
from harness.traces import Traces, traces_settled
from harness.traffic import ask, wait_until_answering, wait_until_enforced
from localcluster import EmbeddedCluster
from mesh.cluster.kubectl import Kubectl
from mesh.program.stack import TORN
from mesh.recover import locks

NAMESPACE = "istio-demo"

Config = dict[str, Any]


@pytest.fixture(scope="module")
def before(cluster: EmbeddedCluster) -> Traces:
    return Traces.of(cluster)


def assert_up(stack: Stack, kubectl: Kubectl) -> None:
    wait_until_enforced(kubectl, NAMESPACE, {"v1": 90, "v2": 10})
    wait_until_answering(kubectl, NAMESPACE, {"v1", "v2"})
    assert ask(kubectl, NAMESPACE, 100).failed == 0
    assert set(stack.up()) == {"same"}


def recover(stack: Stack) -> str:
    """What the documented command prints, which has nothing to do any more when it is run once more."""
    stack.end_orphans()
    recovered = stack.mesh("recover", "--yes")
    assert recovered.returncode == 0, recovered.stdout + recovered.stderr
    assert stack.mesh("recover").stdout == "Nothing was left behind.\n"
    return recovered.stdout


def test_killed_install_converges(before: Traces, stack: Stack, config: Config, kubectl: Kubectl) -> None:
    del before
    stack.configure(config)
    kill_at(stack, Moment("up", "Release istiod creating"))
    hanging = stack.mesh("recover", "--yes", "--wait=0")
    assert hanging.returncode == 4 and "fix: wait until it has ended" in hanging.stderr
    printed = recover(stack)
    assert "the stack's lock" in printed and "unfinished operation" in printed
    stack.up()
    assert_up(stack, kubectl)


def test_killed_upgrade_converges(stack: Stack, config: Config, kubectl: Kubectl) -> None:
    changed = {"values": {"istiod": {"global": {"proxy": {"logLevel": "info"}}}}}
    stack.configure(merged(config, {"mesh": changed}))
    kill_at(stack, Moment("up", "Release istiod updating"))
    recover(stack)
    stack.up()
    assert_up(stack, kubectl)


def test_a_state_that_is_being_written_is_read_a_moment_later(stack: Stack) -> None:
    """As Pulumi leaves it for a moment at each write, here for half a second."""
    state = Path(stack.variables["PULUMI_BACKEND_URL"].removeprefix("file://"))
    (attributes,) = state.rglob(f"{stack.name}.json.attrs")
    whole = attributes.read_bytes()
    attributes.write_bytes(b"")
    with pytest.raises(PulumiError, match=TORN):
        stack.pulumi("stack", "output")
    written = threading.Timer(0.5, attributes.write_bytes, [whole])
    written.start()
    assert stack.outputs()["weights"] and stack.resources()
    written.join()
    assert stack.mesh("recover").stdout == "Nothing was left behind.\n"


@pytest.fixture
def stuck(kubectl: Kubectl) -> Iterator[str]:
    """A pod that nobody can delete, as of a controller that is gone."""
    pods = kubectl.items("pods", f"--namespace={NAMESPACE}", "--selector=app=front-tomcat")
    pod = next(pod["metadata"]["name"] for pod in pods if "deletionTimestamp" not in pod["metadata"])
    place = ("pod", pod, f"--namespace={NAMESPACE}")
    kubectl.run("patch", *place, "--patch", '{"metadata":{"finalizers":["example.com/never"]}}')
    yield pod
    if kubectl.items(*place):
        kubectl.run("patch", *place, "--patch", '{"metadata":{"finalizers":null}}')


def test_destroy_without_istiod_and_crds_goes_as_far_as_a_stuck_pod_and_says_so(
    stack: Stack, config: Config, kubectl: Kubectl, stuck: str
) -> None:
    stack.configure(merged(config, {"services": {"front-tomcat": {"timeout": "10s"}}}))
    stack.up()
    kubectl.run("delete", "deployment", "istiod", "--namespace=istio-system")
    crds = [crd["metadata"]["name"] for crd in kubectl.items("crds") if crd["spec"]["group"].endswith(".istio.io")]
    kubectl.run("delete", "crd", *crds)
    with pytest.raises(PulumiError) as refused:
        stack.destroy()
    assert "Deployment front-tomcat-v1 **deleting failed**" in refused.value.output
    assert "finalizers might be preventing deletion" in refused.value.output
    assert kubectl.items("pod", stuck, f"--namespace={NAMESPACE}"), "its finalizer is somebody's promise"
    assert kubectl.items("daemonset", "istio-cni-node", "--namespace=istio-system"), "the mesh goes after the workloads"


def test_killed_destroy_converges(before: Traces, stack: Stack, cluster: EmbeddedCluster) -> None:
    kill_at(stack, Moment("destroy", "Release istiod deleting"))
    recover(stack)
    stack.destroy()
    assert traces_settled(cluster, before) == before


def test_a_running_up_is_not_disturbed(stack: Stack, config: Config) -> None:
    stack.configure({**config, "mesh": {**config["mesh"], "mode": "off"}})
    with ThreadPoolExecutor() as pool:
        up = pool.submit(stack.up)
        end = time.monotonic() + 60
        while not locks(stack) and time.monotonic() < end:
            time.sleep(0.1)
        assert locks(stack) and not up.done()
        # Shorter than the patience of the command, so that it has to give up while `up` still works.
        refused = stack.mesh("recover", "--yes", "--wait=0")
        changes = up.result()
    assert refused.returncode == 4, refused.stdout + refused.stderr
    assert "at work on the stack" in refused.stderr
    assert set(changes) == {"create"}
    stack.destroy()
