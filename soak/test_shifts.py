"""Shifts and gates by the dozen: no failed request, every bad version caught, every healthy one promoted."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from harness.stack import Stack
from harness.traffic import ask, wait_until_enforced
from mesh.kubectl import Kubectl
from tests.e2e.test_traffic import FAULTY, GATED, HALF, NAMESPACE, SLOW, START, assert_agree, serving

TRIES = range(20)
SHIFTS, AT_ONCE = 20, 400

Record = Callable[[str, object], None]


@pytest.fixture(scope="module")
def config(config: dict[str, Any]) -> dict[str, Any]:
    return {**config, "mesh": {**config["mesh"], "ingress": False, "egress": False}}


def test_no_request_fails_in_a_series_of_shifts(
    stack: Stack, config: dict[str, Any], kubectl: Kubectl, record_property: Record
) -> None:
    stack.configure(config)
    stack.up()
    wait_until_enforced(kubectl, NAMESPACE, START)

    def shifts() -> None:
        for number in range(SHIFTS):
            done = stack.mesh("shift", "bill-service", f"v2={(10, 50, 90)[(number + 1) % 3]}", "--now")
            assert done.returncode == 0, done.stdout + done.stderr

    requests = failed = 0
    with ThreadPoolExecutor() as pool:
        series = pool.submit(shifts)
        while not series.done() or requests < 20_000:
            answers = ask(kubectl, NAMESPACE, AT_ONCE)
            requests, failed = requests + answers.requests, failed + answers.failed
        series.result()
    record_property("requests", requests)
    record_property("failed requests", failed)
    assert failed == 0


@pytest.mark.parametrize("number", TRIES)
@pytest.mark.parametrize("bad", [FAULTY, SLOW], ids=["faulty", "slow"])
def test_bad_versions(stack: Stack, config: dict[str, Any], kubectl: Kubectl, bad: str, number: int) -> None:
    if number == 0:
        stack.configure(serving(config, bad))
        stack.up()
    back = stack.mesh("shift", "bill-service", *GATED)
    assert back.returncode == 1, back.stdout + back.stderr
    assert_agree(stack, kubectl, START)


@pytest.mark.parametrize("number", TRIES)
def test_healthy_versions(stack: Stack, config: dict[str, Any], kubectl: Kubectl, number: int) -> None:
    del number
    stack.configure(serving(config, "echo good;"))
    stack.up()
    promoted = stack.mesh("shift", "bill-service", *GATED)
    assert promoted.returncode == 0, promoted.stdout + promoted.stderr
    assert_agree(stack, kubectl, HALF)
