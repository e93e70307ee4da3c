"""A sidecar that cannot start, as its node has no inotify instance left, is named with the reason and the fix.

Alone on the machine: the limit is one for each user of the whole of it, so other clusters' sidecars could not start.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from harness.stack import Stack
from mesh.check.sidecars import limit
from mesh.cluster.kubectl import Kubectl

pytestmark = pytest.mark.alone

NAMESPACE = "istio-demo"

PROXYS_USER = 1337
HOG = f"""\
import ctypes, os, resource, signal, sys
signal.alarm(300)
libc = ctypes.CDLL(None, use_errno=True)
most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
os.setuid({PROXYS_USER})
held = 0
while held < most - 100 and libc.inotify_init1(0) >= 0:
    held += 1
print(held, held < most - 100, flush=True)
sys.stdin.read()
"""


@contextmanager
def no_inotify_instance_left() -> Iterator[None]:
    """Holds all that the user of the proxies has left, and ends with this process, or after five minutes.

    Lowering the limit would hit the machine's other users; this hits new proxies alone.
    """
    hogs: list[subprocess.Popen[str]] = []
    try:
        for _ in range(50):  # as many as it takes, as each may open so many files only
            hogs.append(
                subprocess.Popen([sys.executable, "-c", HOG], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            )
            said = hogs[-1].stdout
            assert said
            held, all_held = said.readline().split()
            if all_held == "True":
                break
        print(f"{len(hogs)} processes hold inotify instances, the last one {held}")
        assert all_held == "True"
        yield
    finally:
        for hog in hogs:
            hog.communicate()


def test_a_sidecar_that_cannot_start_is_named_with_the_reason_and_the_fix(owner: Stack, kubectl: Kubectl) -> None:
    def restart() -> None:
        kubectl.run("delete", "pod", f"--namespace={NAMESPACE}", "--selector=version=v2", "--wait=true", timeout=120)

    with no_inotify_instance_left():
        restart()
        end = time.monotonic() + 120
        while "istio-proxy of " not in (checked := owner.mesh("check")).stdout and time.monotonic() < end:
            time.sleep(2)
        print(checked.stdout)
        assert checked.returncode == 1
        (told,) = (line for line in checked.stdout.splitlines() if "istio-proxy of " in line)
        assert told.startswith(f"✗ istio-proxy of {NAMESPACE}/bill-service-v2-")
        assert "does not start on the node node: no inotify instance is left for it" in told
        assert "fix: raise fs.inotify.max_user_instances there: nodes.mode" in checked.stdout
    pods = kubectl.items("pods", f"--namespace={NAMESPACE}", "--selector=version=v1")
    assert limit(kubectl, pods) == int(Path("/proc/sys/fs/inotify/max_user_instances").read_text())
    restart()  # or it would wait for the end of its back-off
    kubectl.run("rollout", "status", "deployment/bill-service-v2", f"--namespace={NAMESPACE}", timeout=120)
    checked = owner.mesh("check")
    assert checked.returncode == 0, checked.stdout
    assert "✓ no sidecar or init container that cannot start" in checked.stdout
