"""State that a team shares: two people at once, and a lock that a killed `up` leaves behind."""

from __future__ import annotations

import copy
import re
import signal
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from harness.kills import begun
from harness.servers import postgresql, s3_stand_in
from harness.stack import PulumiError, Stack
from localcluster import EmbeddedCluster
from mesh.cluster.kubectl import Kubectl

SERVERS = {"postgresql": postgresql, "s3-stand-in": s3_stand_in}
NAMESPACE = "shared-state"


@pytest.fixture(scope="module", params=SERVERS)
def shared(
    request: pytest.FixtureRequest,
    cluster: EmbeddedCluster,
    kubectl: Kubectl,
    config: dict[str, Any],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[Stack, Stack]]:
    """One small stack, without a mesh, in the checkouts of two people."""
    folder = tmp_path_factory.mktemp(request.param)
    with ExitStack() as server:
        state = server.enter_context(SERVERS[request.param]())
        one, other = (
            Stack(request.param, folder / person, {**cluster.environment, **state}) for person in ("one", "other")
        )
        template = {**config["services"]["bill-service"]["template"], "drainSeconds": 0}
        small = {
            "cluster": config["cluster"],
            "mesh": {"mode": "off"},
            "namespace": {"name": NAMESPACE},
            "services": {"bill-service": {"template": template}, "front-tomcat": None},
        }
        one.configure(small)
        other.configure(small)
        one.select()
        try:
            yield one, other
        finally:
            one.recover(kubectl)
            one.destroy()


def begin_up(stack: Stack) -> subprocess.Popen[str]:
    """An `up` that has the lock and has begun with a Deployment."""
    up = begun(stack, "up")
    assert up.stdout is not None
    assert any(re.search("Deployment bill-service-v1 (creating|updating)", line) for line in up.stdout)
    return up


def test_of_two_at_once_one_wins_and_the_other_is_told(shared: tuple[Stack, Stack]) -> None:
    one, other = shared
    winner = begin_up(one)
    winner.send_signal(signal.SIGSTOP)  # on a quick machine it would be done before the other has begun
    try:
        with pytest.raises(PulumiError) as loser:
            other.up()
    finally:
        winner.send_signal(signal.SIGCONT)
    assert "the stack is currently locked by 1 lock(s)" in loser.value.output
    assert "Traceback" not in loser.value.output
    printed, _ = winner.communicate(timeout=120)
    assert winner.returncode == 0, printed
    assert set(other.up()) == {"same"}


def test_a_killed_up_leaves_a_lock_that_can_be_seen_and_cleared(shared: tuple[Stack, Stack], kubectl: Kubectl) -> None:
    one, other = shared
    changed = copy.deepcopy(one.config)
    changed["services"]["bill-service"]["template"]["labels"] = {"changed": "true"}
    one.configure(changed)
    other.configure(changed)
    killed = begin_up(one)
    killed.kill()
    killed.wait()
    with pytest.raises(PulumiError) as locked:
        other.up()
    assert "the stack is currently locked by 1 lock(s)" in locked.value.output
    assert "pulumi cancel" in locked.value.output
    one.recover(kubectl)
    other.up()
    assert set(one.up()) == {"same"}
    pods = [d["spec"]["template"]["metadata"] for d in kubectl.items("deployments", f"--namespace={NAMESPACE}")]
    assert [pod["labels"]["changed"] for pod in pods] == ["true", "true"]
