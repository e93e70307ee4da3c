"""A killed command is made good by the documented recovery and the same command again, and nothing is left over."""

from __future__ import annotations

import os
import signal
import time
from typing import Any

import pytest

from config import merged
from harness.kills import Moment, disturbed_at, kill_at
from harness.stack import Stack
from harness.traces import Traces, traces_settled
from harness.traffic import ask, wait_until_answering, wait_until_enforced
from localcluster import EmbeddedCluster
from mesh.cluster.kubectl import Kubectl

NAMESPACE = "istio-demo"

INSTALL = (
    Moment("up", "Namespace istio-system creating"),
    Moment("up", "Release istio-base creating"),
    Moment("up", "Release istiod creating"),
    Moment("up", "Deployment front-tomcat-v1 creating"),
)
UPGRADE = (
    Moment("up", "Release istiod updating"),
    Moment("up", "Release istio-ingressgateway updating"),
    Moment("up", "Deployment bill-service-v1 updating"),
)
DESTROY = (
    Moment("destroy", "VirtualService vs-bill-service deleting"),
    Moment("destroy", "Namespace istio-demo deleting"),
    Moment("destroy", "Release istiod deleting"),
)
LOG_LEVELS = ("info", "error")
"""Each upgrade changes that of the sidecars, which makes istiod, gateways and pods roll."""


@pytest.fixture(scope="module")
def before(cluster: EmbeddedCluster) -> Traces:
    return Traces.of(cluster)


def assert_up(stack: Stack, kubectl: Kubectl) -> None:
    wait_until_enforced(kubectl, NAMESPACE, {"v1": 90, "v2": 10}, seconds=60)
    wait_until_answering(kubectl, NAMESPACE, {"v1", "v2"})
    assert ask(kubectl, NAMESPACE, 100).failed == 0
    assert set(stack.up()) == {"same"}


@pytest.mark.parametrize("moment", INSTALL, ids=str)
def test_killed_install(
    before: Traces, stack: Stack, config: dict[str, Any], cluster: EmbeddedCluster, kubectl: Kubectl, moment: Moment
) -> None:
    stack.configure(config)
    kill_at(stack, moment)
    stack.recover(kubectl)
    stack.up()
    assert_up(stack, kubectl)
    stack.destroy()
    assert traces_settled(cluster, before) == before


@pytest.mark.parametrize("turn", range(len(UPGRADE)), ids=[str(moment) for moment in UPGRADE])
def test_killed_upgrade(before: Traces, stack: Stack, config: dict[str, Any], kubectl: Kubectl, turn: int) -> None:
    del before
    if not turn:
        stack.configure(config)
        stack.up()
    values = {"istiod": {"global": {"proxy": {"logLevel": LOG_LEVELS[turn % 2]}}}}
    stack.configure(merged(config, {"mesh": {"values": values}}))
    kill_at(stack, UPGRADE[turn])
    stack.recover(kubectl)
    stack.up()
    assert_up(stack, kubectl)


@pytest.mark.parametrize("moment", DESTROY, ids=str)
def test_killed_destroy(
    before: Traces, stack: Stack, config: dict[str, Any], cluster: EmbeddedCluster, kubectl: Kubectl, moment: Moment
) -> None:
    stack.configure(config)
    stack.up()
    kill_at(stack, moment)
    stack.recover(kubectl)
    stack.destroy()
    assert traces_settled(cluster, before) == before


def test_api_server_dies_in_the_middle_of_an_install(
    before: Traces, stack: Stack, config: dict[str, Any], cluster: EmbeddedCluster, kubectl: Kubectl
) -> None:
    def kill(_: object) -> None:
        process = cluster.pid("kube-apiserver")
        assert process, "the API server does not run"
        os.kill(process, signal.SIGKILL)
        time.sleep(5)
        cluster.start("kube-apiserver")

    stack.configure(config)
    if not disturbed_at(stack, Moment("up", "Release istiod creating"), kill):
        stack.recover(kubectl)
        stack.up()
    assert_up(stack, kubectl)
    stack.destroy()
    assert traces_settled(cluster, before) == before


def test_istiod_dies_in_the_middle_of_a_roll_out(
    before: Traces, stack: Stack, config: dict[str, Any], cluster: EmbeddedCluster, kubectl: Kubectl
) -> None:
    def kill(_: object) -> None:
        kubectl.run(
            "delete", "pods", "--selector=app=istiod", "--namespace=istio-system", "--force", "--grace-period=0"
        )

    stack.configure(config)
    if not disturbed_at(stack, Moment("up", "Deployment front-tomcat-v1 creating"), kill):
        stack.recover(kubectl)
        stack.up()
    assert_up(stack, kubectl)
    stack.destroy()
    assert traces_settled(cluster, before) == before
