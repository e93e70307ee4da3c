"""The shop, a stack as real teams have it, beside the one that owns Istio; each test builds on those before it.

Each command has to do what it says, and to leave alone whatever is not the shop's.
"""

from __future__ import annotations

import json
import re
import signal
import subprocess
import time
from collections.abc import Mapping

import pytest
import yaml

from harness import streams
from harness.stack import PulumiError, Stack
from harness.unchanged import Unchanged
from harness.waiting import eventually
from mesh.cluster.kubectl import Kubectl
from mesh.recover import locks

NAMESPACE = "shop"
KINDS = (
    "configmaps,daemonsets.apps,deployments.apps,destinationrules.networking.istio.io,gateways.networking.istio.io,"
    "namespaces,secrets,serviceaccounts,serviceentries.networking.istio.io,services,statefulsets.apps,"
    "virtualservices.networking.istio.io"
)
FLAT = Mapping[str, object]


def fields(kubectl: Kubectl) -> dict[str, object]:
    """`Kind/name path` → value, of everything in the shop's namespace that somebody declares."""
    found: dict[str, object] = {}
    for item in kubectl.items(KINDS, f"--namespace={NAMESPACE}"):
        metadata = {key: item["metadata"].get(key) for key in ("uid", "labels", "annotations")}
        body = {key: value for key, value in item.items() if key not in ("metadata", "status")}
        found |= flat({**body, "metadata": metadata}, f"{item['kind']}/{item['metadata']['name']} ")
    return found


def flat(value: object, path: str) -> dict[str, object]:
    if isinstance(value, Mapping):
        return {inner: leaf for key, one in value.items() for inner, leaf in flat(one, f"{path}.{key}").items()}
    if isinstance(value, list):
        return {inner: leaf for i, one in enumerate(value) for inner, leaf in flat(one, f"{path}[{i}]").items()}
    return {path: value}


def changed(before: FLAT, after: FLAT) -> dict[str, tuple[object, object]]:
    return {
        path: (before.get(path), after.get(path))
        for path in sorted(before.keys() | after.keys())
        if before.get(path) != after.get(path)
    }


def routes(service: str, indices: Mapping[int, list[int]]) -> set[str]:
    return {
        f"VirtualService/vs-{service} .spec.http[{route}].route[{number}].weight"
        for route, numbers in indices.items()
        for number in numbers
    }


def succeeds(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_it_comes_up_and_stays(shop: Stack, others: Unchanged) -> None:
    del others
    shop.pulumi("preview", "--expect-no-changes")
    assert shop.outputs()["weights"]["cart"] == {"v1": 70, "v2": 30}


@pytest.mark.parametrize(
    ("command", "code"),
    [
        (("check",), 0),
        (("drift",), 0),
        (("repair", "--yes"), 0),
        (("recover", "--yes"), 0),
        (("version",), 0),
        (("config",), 0),
        (("diff",), 0),
        (("verify", "cart"), 0),
        (("verify", "search"), 0),
        (("explain", "web", "cart"), 0),
        (("explain", "web", "catalog"), 0),
        (("shift", "cart", "v2=40", "--pr"), 0),
        (("shift", "cart", "v9=40"), 2),
        (("shift", "nobody", "v2=40"), 2),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_what_only_looks_changes_nothing(
    command: tuple[str, ...], code: int, shop: Stack, others: Unchanged, kubectl: Kubectl
) -> None:
    del others
    before, text = fields(kubectl), shop.file.read_bytes()
    done = shop.mesh(*command)
    assert done.returncode == code, done.stdout + done.stderr
    assert "left behind by" not in done.stdout
    assert changed(before, fields(kubectl)) == {}
    assert shop.file.read_bytes() == text


@pytest.mark.parametrize(
    ("service", "to", "old", "new", "weights"),
    [
        ("cart", "v2=50", "{v1: 70, v2: 30}", "{v1: 50, v2: 50}", {2: [0, 1], 5: [0, 1]}),
        ("legacy", "v2=60", "{v1: 50, v2: 50}", "{v1: 40, v2: 60}", {0: [0, 1]}),
        ("search", "v2=1", "{v1: 100, v2: 0}", "{v1: 99, v2: 1}", {0: [0, 1]}),
        ("catalog", "canary=10", "stable: 95\n        canary: 5", "stable: 90\n        canary: 10", {0: [0, 1]}),
    ],
)
def test_a_shift_changes_its_weights_alone(
    service: str, to: str, old: str, new: str, weights: dict[int, list[int]], shop: Stack, others: Unchanged,
    kubectl: Kubectl,
) -> None:  # fmt: skip
    del others
    before, text = fields(kubectl), shop.file.read_text()
    assert text.count(old) >= 1
    succeeds(shop.mesh("shift", service, to, "--now"))
    at = text.index(old, text.index(f"    {service}:"))
    assert shop.file.read_text() == text[:at] + new + text[at + len(old) :]
    assert changed(before, fields(kubectl)).keys() == routes(service, weights)
    shop.pulumi("preview", "--expect-no-changes")


def test_connections_are_shifted_shown_and_verified_as_requests_are(
    shop: Stack, others: Unchanged, kubectl: Kubectl
) -> None:
    """By a caller of another namespace, too."""
    del others
    before, text = fields(kubectl), shop.file.read_text()
    succeeds(shop.mesh("shift", "ledger", "v2=50", "--now"))
    assert shop.file.read_text() == text.replace("{v1: 80, v2: 20}", "{v1: 50, v2: 50}")
    weights = {f"VirtualService/vs-ledger .spec.tcp[0].route[{number}].weight" for number in (0, 1)}
    assert changed(before, fields(kubectl)).keys() == weights
    verified = succeeds(shop.mesh("verify", "ledger", "-n", "700", "--from=office/clerk"))
    assert "700 connections from clerk-" in verified
    rows = json.loads(succeeds(shop.mesh("status", "ledger", "--json")))
    assert [row["live"] for row in rows] == [50, 50] and rows[0]["proxies"] == rows[0]["proxiesInSync"] > 15
    assert 0.4 < rows[0]["measured"] < 0.6
    succeeds(shop.mesh("shift", "ledger", "v1=80", "--now"))
    assert shop.file.read_text() == text


def test_copies_are_told_from_requests(shop: Stack, others: Unchanged) -> None:
    """All of them are copied to the canary, which has 20 % for itself."""
    del others
    verified = succeeds(shop.mesh("verify", "catalog", "-n", "600"))
    assert "600 copies that were mirrored to canary are not counted" in verified
    rows = {row["version"]: row for row in json.loads(succeeds(shop.mesh("status", "catalog", "--json")))}
    assert (
        rows["canary"]["declared"] / 100 - 0.08 < rows["canary"]["measured"] < rows["canary"]["declared"] / 100 + 0.08
    )
    assert rows["canary"]["requests"] > rows["stable"]["requests"]


def test_a_shift_by_steps_and_its_way_back_leave_no_trace(shop: Stack, others: Unchanged, kubectl: Kubectl) -> None:
    """Ctrl-C on the way: the file is as it was to the byte, and so is every field."""
    del others
    before, text = fields(kubectl), shop.file.read_bytes()
    walk = shop.begin("shift", "cart", "v2=90", "--steps=25,50,100", "--interval=10m")
    wait_until_watched(shop, text)
    walk.send_signal(signal.SIGINT)
    printed, _ = walk.communicate(timeout=60)
    assert walk.returncode == 130, printed
    assert shop.file.read_bytes() == text
    assert changed(before, fields(kubectl)) == {}


def test_a_killed_shift_is_taken_back_and_keeps_what_was_written_since(
    shop: Stack, others: Unchanged, kubectl: Kubectl
) -> None:
    del others
    before, text = fields(kubectl), shop.file.read_bytes()
    walk = shop.begin("shift", "catalog", "canary=90", "--steps=50,100", "--interval=10m")
    wait_until_watched(shop, text)
    walk.kill()
    walk.communicate(timeout=60)
    shop.end_orphans()
    shop.file.write_bytes(shop.file.read_bytes() + b"# noted meanwhile\n")
    succeeds(shop.mesh("shift", "catalog", "--back"))
    assert shop.file.read_bytes() == text + b"# noted meanwhile\n"
    assert changed(before, fields(kubectl)) == {}
    shop.file.write_bytes(text)


def test_a_shift_takes_nothing_else_along(shop: Stack, others: Unchanged, kubectl: Kubectl) -> None:
    """What the file asks for beside the weights waits for `pulumi up`: of the same rule, and of others."""
    del others
    before, text = fields(kubectl), shop.file.read_text()
    shop.file.write_text(text.replace("timeout: 3s", "timeout: 4s"))
    refused = shop.mesh("shift", "cart", "v2=60", "--now")
    assert refused.returncode == 1 and "spec.http[0].timeout" in refused.stderr, refused.stdout + refused.stderr
    succeeds(shop.mesh("shift", "search", "v2=2", "--now"))
    assert changed(before, fields(kubectl)).keys() == routes("search", {0: [0, 1]})
    shop.file.write_text(text)
    shop.up()
    assert changed(before, fields(kubectl)) == {}


def test_a_shift_by_config_is_the_same(shop: Stack, others: Unchanged, kubectl: Kubectl) -> None:
    del others
    before, text = fields(kubectl), shop.file.read_text()
    pairs = [part for pair in ("stable=80", "canary=20") for part in ("--plaintext", f"routing.catalog.weights.{pair}")]
    shop.pulumi("config", "set-all", "--path", *pairs)
    assert yaml.safe_load(shop.file.read_text())["config"]["istio-governance:routing"]["cart"]["match"]
    assert shop.up().get("update") == 1
    assert changed(before, fields(kubectl)).keys() == routes("catalog", {0: [0, 1]})
    shop.file.write_text(text)
    shop.up()


def test_a_version_goes_after_what_any_caller_has_in_flight_to_it(
    shop: Stack, others: Unchanged, kubectl: Kubectl
) -> None:
    """From another namespace, by the rules; and from a pod without a sidecar, by the address of the version's own."""
    del others
    defaults, text = shop.folder / "defaults.yaml", shop.file.read_text()
    shared = defaults.read_text()
    document = yaml.safe_load(shared)
    document["services"]["catalog"]["versions"]["canary"] = streams.version("canary", replicas=1, drainSeconds=60)
    bare = "bare", "--namespace=default", "--image=localhost/istio-governance/nginx:debian-12"
    kubectl.run("run", *bare, "--image-pull-policy=IfNotPresent", "--command", "--", "sleep", "600")
    kubectl.run("wait", "pod/bare", "--namespace=default", "--for=condition=Ready", timeout=60)
    try:
        defaults.write_text(yaml.safe_dump(document))
        # A copy is in flight, too, as long as it takes.
        plain = text.replace("      mirror: {version: canary, percentage: 100}\n", "")
        shop.file.write_text(re.sub("canary: [0-9]+", "canary: 100", re.sub("stable: [0-9]+", "stable: 0", plain)))
        shop.up()
        clerk = "--namespace=office", "deployment/clerk", "--container=clerk"
        stranger = "--namespace=default", "bare"

        def answered() -> None:
            assert streams.held(kubectl, clerk, "catalog.shop", 0, "answer")[0].cut == ""

        eventually(answered, seconds=20)
        # Only now is the pod the new one, which has the name of the one before it.
        (pod,) = kubectl.items("pods", f"--namespace={NAMESPACE}", "--selector=app=catalog,version=canary")
        began = streams.held(kubectl, clerk, "catalog.shop", 40, "answer", "WebSocket")
        began += streams.held(kubectl, stranger, pod["status"]["podIP"], 40, "answer", "connection")
        time.sleep(3)
        del document["services"]["catalog"]["versions"]["canary"]
        defaults.write_text(yaml.safe_dump(document))
        rest = re.sub("        canary: [0-9]+.*\n", "", plain)
        shop.file.write_text(re.sub("stable: [0-9]+", "stable: 100", rest))
        printed = shop.pulumi("up", "--yes", "--skip-preview")
        assert [cut for held in began if (cut := held.cut)] == []
        waited = re.search("canary of catalog: ([0-9]+) in flight, with ([0-9]+) seconds left to end", printed)
        told = "\n".join(line for line in printed.splitlines() if "canary" in line)
        # More may be in flight than what was begun here: the tests before this one have callers, too.
        assert waited and int(waited[1]) >= len(began) and int(waited[2]) > 50, told
    finally:
        kubectl.run("delete", "pod", "bare", "--namespace=default", "--now")
        defaults.write_text(shared)
        shop.file.write_text(text)
        shop.up()


def test_destroy_refuses_while_others_live_in_its_namespace(shop: Stack, others: Unchanged, kubectl: Kubectl) -> None:
    del others
    before = fields(kubectl)
    with pytest.raises(PulumiError) as refused:
        shop.destroy()
    for name in ("Service shop/legacy", "Deployment shop/legacy-one", "Deployment shop/legacy-two"):
        assert name in refused.value.output
    assert changed(before, fields(kubectl)) == {}


def wait_until_watched(stack: Stack, text: bytes, seconds: float = 60) -> None:
    """Until the first step of a shift is in the stack's file and state, and Pulumi is done with it."""
    declared = yaml.safe_load(text)["config"]["istio-governance:routing"]
    old, end = {service: rule["weights"] for service, rule in declared.items()}, time.monotonic() + seconds
    while stack.file.read_bytes() == text or stack.outputs()["weights"] == old or locks(stack):
        assert time.monotonic() < end
        time.sleep(0.2)
