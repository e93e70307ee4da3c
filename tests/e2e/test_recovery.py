"""A killed `pulumi up` is made good by the documented recovery and another `up`."""

from __future__ import annotations

import subprocess
import time
from typing import Any

import pytest

from harness.stack import Stack
from harness.traffic import ask, wait_until_answering, wait_until_enforced
from mesh.kubectl import Kubectl

# Before Helm has begun, in the middle of istiod, while the workloads roll out.
MOMENTS = ("Namespace istio-system creating", "Release istiod creating", "Deployment front-tomcat-v1 creating")


def kill_at(stack: Stack, line: str) -> None:
    """Starts `pulumi up` and kills it as soon as it prints `line`; its plugins go on, as they do after a real kill."""
    up = subprocess.Popen(
        stack.command("up", "--yes", "--skip-preview"),
        cwd=stack.folder,
        env=stack.variables,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert up.stdout is not None
    try:
        seen = next((printed for printed in up.stdout if line in printed), None)
    finally:
        time.sleep(0.3)
        up.kill()
        up.wait()
    assert seen, f"`pulumi up` never printed '{line}'"


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_killed_up_converges(stack: Stack, config: dict[str, Any], kubectl: Kubectl, moment: str) -> None:
    stack.configure(config)
    kill_at(stack, moment)
    stack.recover(kubectl)
    stack.up()
    wait_until_enforced(kubectl, "istio-demo", {"v1": 90, "v2": 10})
    wait_until_answering(kubectl, "istio-demo", {"v1", "v2"})
    assert ask(kubectl, "istio-demo", 100).failed == 0
    assert set(stack.up()) == {"same"}
    stack.destroy()
