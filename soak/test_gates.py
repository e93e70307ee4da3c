"""Versions that are bad in the ways of the end-to-end tests, time after time, and good ones, under callers' load."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest

from harness.calls import Calling
from harness.stack import Stack
from localcluster import EmbeddedCluster
from mesh.cluster.kubectl import Kubectl
from tests.e2e.test_gate import (
    BAD,
    CLOSING,
    LEDGER,
    PATIENT,
    RPC,
    SEARCH,
    clerk,
    failed,
    listening,
    ours,
    server,
    serving,
    shifted,
    shop,
)

__all__ = ["shop"]

TRIES = range(int(os.environ.get("SOAK_TRIES", "20")))
CALLERS = {
    "search": [ours(SEARCH), ours(SEARCH, CLOSING), clerk(SEARCH)],
    "rpc": [ours("rpc.shop:80", kind="grpc"), clerk("rpc.shop:80", kind="grpc")],
    "ledger": [ours("ledger.shop:7000", kind="tcp"), clerk("ledger.shop:7000", kind="tcp")],
}
WORSE = [("rpc", version) for version in RPC if version not in ("v1", "good")]
WORSE += [("ledger", version) for version in LEDGER if version not in ("v1", "good")]

Record = Callable[[str, object], None]


@pytest.mark.parametrize("number", TRIES)
@pytest.mark.parametrize("bad", BAD)
def test_bad_versions(
    shop: Stack, cluster: EmbeddedCluster, kubectl: Kubectl, record_property: Record, bad: str, number: int
) -> None:
    if number == 0 or bad in ("deaf", "crash"):  # these do not stay ready for long
        shop.configure(serving(cluster, server()))
        shop.up()
        shop.configure(serving(cluster, listening(BAD[bad])))
        shop.up()
    _recorded(shifted(shop, kubectl, "search", "v2", CALLERS["search"]), "v2", record_property)


@pytest.mark.parametrize("number", TRIES)
@pytest.mark.parametrize(("service", "version"), WORSE)
def test_bad_versions_of_grpc_and_tcp(
    shop: Stack, kubectl: Kubectl, record_property: Record, service: str, version: str, number: int
) -> None:
    del number
    _recorded(shifted(shop, kubectl, service, version, CALLERS[service]), version, record_property)


@pytest.mark.parametrize("number", TRIES)
@pytest.mark.parametrize(("service", "version"), [("search", "v2"), ("rpc", "good"), ("ledger", "good")])
def test_good_versions(
    shop: Stack, cluster: EmbeddedCluster, kubectl: Kubectl, record_property: Record, service: str, version: str,
    number: int,
) -> None:  # fmt: skip
    if number == 0:
        shop.configure(serving(cluster, server()))
        shop.up()
    with Calling(kubectl, *PATIENT[service]) as calling:
        done = shop.mesh("shift", service, f"{version}=80", "--steps=50,100", "--interval=20s")
        back = shop.mesh("shift", service, f"{version}=0", "--now")
    record_property("requests", sum(calling.ended.values()))
    record_property("failed requests", sum(count for end, count in calling.ended.items() if end not in ("200", "OK")))
    assert done.returncode == 0 and back.returncode == 0, done.stdout + done.stderr + back.stderr
    assert set(calling.ended) <= {"200", "OK"}, calling.ended


def _recorded(shift: dict[str, Any], version: str, record_property: Record) -> None:
    assert failed(shift)
    [step] = shift["steps"]
    record_property("requests", sum(step["requests"].values()))
    record_property("of them to the bad version", step["requests"].get(version, 0))
    record_property("milliseconds of the way back", round(1000 * sum(shift["back"].values())))
