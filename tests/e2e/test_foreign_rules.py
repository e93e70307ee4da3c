"""Rules of others that take the weights away from the shop's services: every command names them, and what they do."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest
import yaml

from harness.gateway_api import installed
from harness.stack import PulumiError, Stack
from harness.unchanged import Unchanged
from harness.waiting import eventually
from mesh.cluster.kubectl import Kubectl
from tests.e2e.conftest import SHOP


@dataclass(frozen=True)
class Foreign:
    """A document of foreign-rules.yaml, the callers for whom it decides, and what they get."""

    document: int
    name: str
    caller: str
    what: str
    is_ours: bool
    """Whether callers of the shop itself are concerned."""


FOREIGN = (
    Foreign(0, "HTTPRoute shop/theirs", "shop/web", "all pods alike", is_ours=True),
    Foreign(1, "VirtualService shop/theirs", "shop/web", "v1 100 %", is_ours=True),
    Foreign(2, "VirtualService office/theirs", "office/clerk", "all pods alike", is_ours=False),
    Foreign(3, "Sidecar office/default", "office/clerk", "does not know the service", is_ours=False),
    Foreign(4, "DestinationRule office/theirs", "office/clerk", "does not know the subset", is_ours=False),
    Foreign(5, "EnvoyFilter shop/theirs", "shop/web", "a timeout of 1s", is_ours=True),
)
OURS = "virtualservices.networking.istio.io/vs-search"


@pytest.fixture(scope="module")
def world(shop: Stack, kubectl: Kubectl) -> Iterator[Stack]:
    with installed(kubectl):
        yield shop


@contextmanager
def put_in(kubectl: Kubectl, document: int) -> Iterator[None]:
    """By somebody else. One for the host of ours is made first: of two the older one wins."""
    item = list(yaml.safe_load_all((SHOP / "foreign-rules.yaml").read_text()))[document]
    text = json.dumps(item)
    first = item["kind"] == "VirtualService" and item["metadata"]["namespace"] == "shop"
    (ours,) = kubectl.items(OURS, "--namespace=shop", "--show-managed-fields") if first else [None]
    if ours:
        kubectl.run("delete", OURS, "--namespace=shop")
    kubectl.run("apply", "--filename=-", stdin=text)
    try:
        if ours:
            again(kubectl, ours)
        yield
    finally:
        kubectl.run("delete", "--filename=-", "--ignore-not-found", stdin=text)
        if ours:
            kubectl.run("delete", OURS, "--namespace=shop")
            again(kubectl, ours)


def again(kubectl: Kubectl, item: dict[str, Any]) -> None:
    """Made once more as it was, in the name of who made it; at the earliest a second later, by which Istio counts."""
    kept = {
        key: item["metadata"][key] for key in ("name", "namespace", "labels", "annotations") if key in item["metadata"]
    }
    manager = next(entry["manager"] for entry in item["metadata"]["managedFields"])
    body = {"apiVersion": item["apiVersion"], "kind": item["kind"], "metadata": kept, "spec": item["spec"]}

    time.sleep(1.1)
    kubectl.run("apply", "--server-side", f"--field-manager={manager}", "--filename=-", stdin=json.dumps(body))


def as_declared(shop: Stack) -> None:
    def check() -> None:
        done = shop.mesh("status", "search")
        assert done.returncode == 0, done.stdout + done.stderr

    eventually(check)


@pytest.mark.parametrize("foreign", FOREIGN, ids=lambda foreign: foreign.name)
def test_a_rule_of_others_is_named_by_every_command(
    world: Stack, others: Unchanged, kubectl: Kubectl, foreign: Foreign
) -> None:
    del others
    as_declared(world)
    with put_in(kubectl, foreign.document):

        def seen() -> None:
            shown = world.mesh("status", "search", "--json")
            assert shown.returncode == 1, shown.stdout + shown.stderr
            found = [one for row in json.loads(shown.stdout) for one in row["findings"]]
            assert {one["object"] for one in found} == {foreign.name}
            assert all(foreign.what in one["what"] and one["fix"] and one["owner"] for one in found)
            callers = {caller.rpartition("-")[0] for one in found for caller in one["callers"]}
            assert any(caller.startswith(foreign.caller) for caller in callers)
            assert foreign.is_ours or all(caller.startswith("office/") for caller in callers)

        eventually(seen)
        text = world.mesh("status", "search").stdout
        assert f"by {foreign.name} (made with" in text and foreign.caller in text and "fix: " in text
        checked = world.mesh("check")
        assert checked.returncode == 1 and f"by {foreign.name}" in checked.stdout, checked.stdout
        drift = world.mesh("drift")
        assert drift.returncode == 1 and "Decided by others" in drift.stdout and foreign.name in drift.stdout
        verified = world.mesh("verify", "search", "-n", "60", f"--from={foreign.caller.removeprefix('shop/')}")
        assert verified.returncode == 1 and foreign.name in verified.stdout, verified.stdout + verified.stderr
        explained = world.mesh("explain", foreign.caller.removeprefix("shop/"), "search")
        assert explained.returncode == 1 and foreign.name in " ".join(explained.stdout.split()), explained.stdout
        assert "`pulumi up` mends" not in " ".join(explained.stdout.split())
        before = world.file.read_bytes()
        shifted = world.mesh("shift", "search", "v2=20", "--now")
        if foreign.is_ours:
            # One in the shop's own namespace is refused without looking at proxies.
            kind, _, name = foreign.name.replace(" shop/", " ").partition(" ")
            assert shifted.returncode == 1 and kind in shifted.stderr, shifted.stdout + shifted.stderr
            assert name in shifted.stderr
            assert "nothing was changed" in shifted.stderr and world.file.read_bytes() == before
            with pytest.raises(PulumiError, match=name):
                world.pulumi("up", "--yes", "--skip-preview")
        else:
            assert shifted.returncode == 0, shifted.stdout + shifted.stderr
            assert f"the shift does not reach {foreign.caller}" in shifted.stdout and foreign.name in shifted.stdout
            assert foreign.name in world.pulumi("preview")
            assert world.mesh("shift", "search", "v2=0", "--now").returncode == 0
            assert world.file.read_bytes() == before
    as_declared(world)


def test_what_is_meant_is_accepted(world: Stack, others: Unchanged, kubectl: Kubectl) -> None:
    """It is shown, and nothing fails for it."""
    del others
    text = world.file.read_text()
    with put_in(kubectl, 3):
        accepted = text.replace("mode: existing", 'mode: existing, accept: ["Sidecar office/default"]', 1)
        assert accepted != text
        world.file.write_text(accepted)
        try:

            def seen() -> None:
                shown = world.mesh("status", "search")
                assert shown.returncode == 0 and "accepted (mesh.accept): office/clerk" in shown.stdout, shown.stdout

            eventually(seen)
            assert "Sidecar" not in world.pulumi("preview", "--expect-no-changes")
        finally:
            world.file.write_text(text)


REFUSED = {
    "apiVersion": "networking.istio.io/v1alpha3",
    "kind": "EnvoyFilter",
    "metadata": {"name": "refused", "namespace": "office"},
    "spec": {
        "workloadSelector": {"labels": {"app": "clerk"}},
        "configPatches": [
            {
                "applyTo": "HTTP_ROUTE",
                "match": {
                    "context": "SIDECAR_OUTBOUND",
                    "routeConfiguration": {"vhost": {"name": "search.shop.svc.cluster.local:80"}},
                },
                "patch": {"operation": "MERGE", "value": {"match": {"safe_regex": {"regex": "("}}}},
            }
        ],
    },
}


def test_a_proxy_that_refuses_updates_is_named_and_not_waited_for(
    world: Stack, others: Unchanged, kubectl: Kubectl
) -> None:
    """It still has the right routes, and will not get the next ones."""
    del others
    as_declared(world)
    text = json.dumps(REFUSED)
    kubectl.run("apply", "--filename=-", stdin=text)
    try:

        def seen() -> None:
            shown = world.mesh("status", "search")
            assert shown.returncode == 1 and "office/clerk: its proxy refuses what istiod sends" in shown.stdout

        eventually(seen)
        shifted = world.mesh("shift", "search", "v2=20", "--now")
        assert shifted.returncode == 0 and "the shift does not reach office/clerk" in shifted.stdout, shifted.stderr
        assert world.mesh("shift", "search", "v2=0", "--now").returncode == 0
    finally:
        kubectl.run("delete", "--filename=-", "--ignore-not-found", stdin=text)
    as_declared(world)
