"""Shifts and gates by the dozen: no failed request, every bad version caught, every healthy one promoted."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from typing import Any

import pytest

from config import merged
from harness.stack import PulumiError, Stack
from harness.traffic import ask, enforced_weights, wait_until_enforced
from mesh.cluster.kubectl import Kubectl
from mesh.traffic.statistics import lower_bound
from tests.e2e.binomial import FALSE_ALARM
from tests.e2e.test_traffic import FAULTY, NAMESPACE, SERVER, SLOW, assert_agree

TRIES = range(int(os.environ.get("SOAK_TRIES", "20")))
SHIFTS, REQUESTS, AT_ONCE = 20, 20_000, 100

# At the first step 4,000 requests give the new version about 1,000. Of one that fails once in twenty the gate then
# cannot tell in 3 of ten million tries. With 1,500, enough to promote a healthy one, it is one of a hundred.
GATED = ("--steps=50,100", "--interval=1s", "--probe=4000", "--json")
FIRST_STEP = 25

# Goes down after 150 requests; the kubelet starts it again.
CRASH = """
printf 'server {{ listen 80; access_log /tmp/requests; location / {{ echo "this is bill-service-{version}"; }} }}' \
  > /etc/nginx/sites-enabled/default
: > /tmp/requests
nginx -g 'daemon off;' &
tail --follow --lines=+1 /tmp/requests | head --lines=150 > /dev/null
exit 1
"""
GOOD = 'echo "this is bill-service-good";'

Record = Callable[[str, object], None]
Config = dict[str, Any]


def server(version: str, bad: str, script: str = SERVER) -> dict[str, Any]:
    return {"command": ["sh", "-c", script.format(version=version, bad=bad)]}


VERSIONS: Mapping[str, Mapping[str, Any]] = {
    "v1": server("v1", GOOD),
    "healthy": server("healthy", GOOD),
    "faulty": server("faulty", FAULTY),
    "slow": server("slow", SLOW),
    # The shell does not pass on the signal to end.
    "crashing": {**server("crashing", "", CRASH), "podTemplate": {"spec": {"terminationGracePeriodSeconds": 1}}},
}
BROKEN: Mapping[str, Mapping[str, Any]] = {
    "never ready": {**server("broken", GOOD), "readinessProbe": {"exec": {"command": ["false"]}}},
    "crashing at start": {"command": ["sh", "-c", "exit 1"]},
}
ALL_V1 = dict.fromkeys(VERSIONS, 0) | {"v1": 100}


def serving(config: Config, versions: Mapping[str, Mapping[str, Any]], weights: Mapping[str, int]) -> Config:
    """Nothing but istiod and the node agent is needed for these versions of bill-service."""
    changed = merged(deepcopy(config), {"mesh": {"ingress": False, "egress": False}})  # that of the session stays
    gone = dict.fromkeys({"v1", "v2"} - set(versions))
    changed["services"]["bill-service"]["versions"] = {**gone, **versions}
    changed["routing"] = {"bill-service": {"weights": dict(weights)}}
    return changed


def renew(kubectl: Kubectl, version: str) -> None:
    """A pod that has not gone down yet, in place of one that has to wait longer each time.

    By a roll-out: of a pod that is only deleted the Deployment's status may not know yet, and the shift be refused.
    """
    deployment, where = f"deployment/bill-service-{version}", f"--namespace={NAMESPACE}"
    kubectl.run("rollout", "restart", deployment, where)
    kubectl.run("rollout", "status", deployment, where, timeout=60)


@pytest.fixture(scope="module")
def side_by_side(stack: Stack, config: Config) -> Stack:
    """All versions of a service, good and bad, and v1 has all requests."""
    stack.configure(serving(config, VERSIONS, ALL_V1))
    stack.up()
    return stack


@pytest.fixture
def all_on_v1(side_by_side: Stack) -> Iterator[Stack]:
    """Afterwards again, so that a try that went wrong is the only one that fails."""
    yield side_by_side
    back = side_by_side.mesh("shift", "bill-service", "v1=100", "--now")
    assert back.returncode == 0, back.stdout + back.stderr


def test_no_request_fails_in_a_series_of_shifts(
    stack: Stack, config: Config, kubectl: Kubectl, record_property: Record
) -> None:
    """20 of them; then a version is added, shifted to and rolled back by the gate, as it is slow, and removed."""
    two = {"v1": VERSIONS["v1"], "healthy": VERSIONS["healthy"]}
    stack.configure(serving(config, two, {"v1": 90, "healthy": 10}))
    stack.up()
    wait_until_enforced(kubectl, NAMESPACE, {"v1": 90, "healthy": 10})

    def changes() -> None:
        for number in range(SHIFTS):
            weight = (10, 50, 90)[(number + 1) % 3]
            done = stack.mesh("shift", "bill-service", f"healthy={weight}", "--now")
            assert done.returncode == 0, done.stdout + done.stderr
        stack.configure(serving(config, {**two, "slow": VERSIONS["slow"]}, {"v1": 50, "healthy": 50}))
        stack.up()
        back = stack.mesh("shift", "bill-service", "slow=50", *GATED)
        assert back.returncode == 1 and json.loads(back.stdout)["outcome"] == "rolled_back", back.stdout + back.stderr
        stack.configure(serving(config, two, {"v1": 50, "healthy": 50}))
        stack.up()

    requests = failed = 0
    with ThreadPoolExecutor() as pool:
        series = pool.submit(changes)
        while not series.done() or requests < REQUESTS:
            answers = ask(kubectl, NAMESPACE, AT_ONCE)
            requests, failed = requests + answers.requests, failed + answers.failed
        series.result()
    record_property("requests", requests)
    record_property("failed requests", failed)
    assert failed == 0


@pytest.mark.parametrize("number", TRIES)
@pytest.mark.parametrize("version", ["faulty", "slow", "crashing"])
def test_bad_versions(all_on_v1: Stack, kubectl: Kubectl, record_property: Record, version: str, number: int) -> None:
    del number
    if version == "crashing":
        renew(kubectl, version)
    done = all_on_v1.mesh("shift", "bill-service", f"{version}=50", *GATED)
    assert done.returncode == 1, done.stdout + done.stderr
    shift = json.loads(done.stdout)
    assert len(shift["steps"]) == 1, done.stdout + done.stderr
    step = shift["steps"][0]
    exposed, requests = step["requests"].get(version, 0), sum(step["requests"].values())
    record_property("requests", requests)
    record_property("of them to the bad version", exposed)
    assert shift["outcome"] == "rolled_back" and step["weights"][version] == FIRST_STEP
    assert lower_bound(exposed, requests, 1 - FALSE_ALARM) <= FIRST_STEP / 100, step
    assert_agree(all_on_v1, kubectl, ALL_V1)


@pytest.mark.parametrize("number", TRIES)
def test_healthy_versions(all_on_v1: Stack, kubectl: Kubectl, record_property: Record, number: int) -> None:
    del number
    done = all_on_v1.mesh("shift", "bill-service", "healthy=50", *GATED)
    assert done.returncode == 0, done.stdout + done.stderr
    record_property("requests", sum(sum(step["requests"].values()) for step in json.loads(done.stdout)["steps"]))
    assert_agree(all_on_v1, kubectl, ALL_V1 | {"v1": 50, "healthy": 50})


@pytest.mark.parametrize("number", TRIES)
@pytest.mark.parametrize("kind", BROKEN)
def test_versions_that_never_start(
    side_by_side: Stack, config: Config, kubectl: Kubectl, record_property: Record, kind: str, number: int
) -> None:
    """The first request to them would fail: the shift is refused before there is any."""
    if number == 0:
        # Without pods first, so that the rule is as declared: else the shift would be refused for that.
        versions = {"v1": VERSIONS["v1"], "broken": {**BROKEN[kind], "replicas": 0}}
        side_by_side.configure(serving(config, versions, {"v1": 100}))
        side_by_side.up()
        changed = serving(config, versions | {"broken": BROKEN[kind]}, {"v1": 100})
        changed["services"]["bill-service"]["timeout"] = "20s"
        side_by_side.configure(changed)
        with pytest.raises(PulumiError, match="broken"):
            side_by_side.up()
    done = side_by_side.mesh("shift", "bill-service", "broken=50", *GATED)
    assert done.returncode == 1 and "no ready pod" in done.stderr, done.stdout + done.stderr
    record_property("of them to the bad version", 0)
    assert enforced_weights(kubectl, NAMESPACE) == {"v1": 100}
