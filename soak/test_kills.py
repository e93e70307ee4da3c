"""A killed command is made good by `mesh recover` and the same command again, and nothing is left over."""

from __future__ import annotations

from typing import Any

import pytest

from harness.kills import Moment, kill_at
from harness.stack import Stack
from harness.traces import Traces, traces_settled
from harness.traffic import ask, wait_until_answering, wait_until_enforced
from localcluster import EmbeddedCluster
from mesh.kubectl import Kubectl

NAMESPACE = "istio-demo"

INSTALL = (
    Moment("up", "Namespace istio-system creating"),
    Moment("up", "Release istio-base creating"),
    Moment("up", "Release istiod creating"),
    Moment("up", "Deployment front-tomcat-v1 creating"),
)
DESTROY = (
    Moment("destroy", "VirtualService vs-bill-service deleting"),
    Moment("destroy", "Namespace istio-demo deleting"),
    Moment("destroy", "Release istiod deleting"),
)


@pytest.fixture(scope="module")
def before(cluster: EmbeddedCluster) -> Traces:
    return Traces.of(cluster)


def assert_up(stack: Stack, kubectl: Kubectl) -> None:
    wait_until_enforced(kubectl, NAMESPACE, {"v1": 90, "v2": 10})
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
