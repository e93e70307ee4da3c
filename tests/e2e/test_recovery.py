"""A killed command is made good by the documented recovery and the same command again; soak/ has more moments."""

from __future__ import annotations

from typing import Any

import pytest

from harness.kills import Moment, kill_at
from harness.stack import Stack
from harness.traffic import ask, wait_until_answering, wait_until_enforced
from mesh.kubectl import Kubectl

# Before Helm has begun, in the middle of istiod, while the workloads roll out.
MOMENTS = ("Namespace istio-system creating", "Release istiod creating", "Deployment front-tomcat-v1 creating")


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_killed_up_converges(stack: Stack, config: dict[str, Any], kubectl: Kubectl, moment: str) -> None:
    stack.configure(config)
    kill_at(stack, Moment("up", moment))
    stack.recover(kubectl)
    stack.up()
    wait_until_enforced(kubectl, "istio-demo", {"v1": 90, "v2": 10})
    wait_until_answering(kubectl, "istio-demo", {"v1", "v2"})
    assert ask(kubectl, "istio-demo", 100).failed == 0
    assert set(stack.up()) == {"same"}
    stack.destroy()
