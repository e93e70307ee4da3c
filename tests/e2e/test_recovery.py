"""A killed command is made good by the documented recovery and the same command again; soak/ has more moments."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from harness.kills import Moment, kill_at
from harness.stack import Stack
from harness.traffic import ask, wait_until_answering, wait_until_enforced
from mesh.kubectl import Kubectl
from mesh.recover import locks

# Before Helm has begun, in the middle of istiod, while the workloads roll out.
MOMENTS = ("Namespace istio-system creating", "Release istiod creating", "Deployment front-tomcat-v1 creating")


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_killed_up_converges(stack: Stack, config: dict[str, Any], kubectl: Kubectl, moment: str) -> None:
    stack.configure(config)
    kill_at(stack, Moment("up", moment))
    hanging = stack.mesh("recover", "--yes", "--wait=0")
    assert hanging.returncode == 4 and "fix: wait until it has ended" in hanging.stderr
    stack.end_orphans()
    recovered = stack.mesh("recover", "--yes")
    assert recovered.returncode == 0, recovered.stdout + recovered.stderr
    assert "the stack's lock" in recovered.stdout and "unfinished operation" in recovered.stdout
    assert stack.mesh("recover").stdout == "Nothing was left behind.\n"
    stack.up()
    wait_until_enforced(kubectl, "istio-demo", {"v1": 90, "v2": 10})
    wait_until_answering(kubectl, "istio-demo", {"v1", "v2"})
    assert ask(kubectl, "istio-demo", 100).failed == 0
    assert set(stack.up()) == {"same"}
    stack.destroy()


def test_a_running_up_is_not_disturbed(stack: Stack, config: dict[str, Any]) -> None:
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
