"""The story, row by row, on a real cluster; the tests build on each other in the order in which they stand."""

from __future__ import annotations

import copy
import itertools
import json
import subprocess
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from harness.charts import mirror, pack
from harness.stack import PulumiError, Stack
from harness.traces import Traces, traces_settled
from harness.traffic import Answers, ask, enforced_weights, wait_until_answering, wait_until_enforced
from harness.waiting import eventually
from localcluster import EmbeddedCluster, build
from mesh.cluster.kubectl import Kubectl
from tests.e2e.binomial import is_plausible

NAMESPACE = "istio-demo"
REQUESTS = 400

Config = dict[str, Any]
NoRequestFails = Callable[[], AbstractContextManager[None]]


def pods(kubectl: Kubectl, namespace: str = NAMESPACE) -> list[dict[str, Any]]:
    """The pods that are not going already."""
    items = kubectl.items("pods", f"--namespace={namespace}")
    return [pod for pod in items if "deletionTimestamp" not in pod["metadata"]]


def containers(pod: dict[str, Any]) -> dict[str, bool]:
    """Container → ready, native sidecars included."""
    statuses = [*pod["status"]["containerStatuses"], *pod["status"].get("initContainerStatuses", [])]
    return {status["name"]: status["ready"] for status in statuses if "running" in status["state"]}


def has_proxy(pod: dict[str, Any]) -> bool:
    return "istio-proxy" in containers(pod)


def within(seconds: float, check: Callable[[], bool]) -> bool:
    end = time.monotonic() + seconds
    while not (done := check()) and time.monotonic() < end:
        time.sleep(0.5)
    return done


def off(config: Config) -> Config:
    return {**config, "mesh": {**config["mesh"], "mode": "off"}}


def weighted(config: Config, **weights: int) -> Config:
    return {**config, "routing": {"bill-service": {"weights": weights}}}


def assert_split(answers: Answers, v1: float) -> None:
    assert answers.failed == 0, answers
    assert is_plausible(answers.by_version.get("v1", 0), answers.requests, v1), answers


@pytest.fixture(scope="module")
def before(cluster: EmbeddedCluster) -> Traces:
    """What was there before the stack."""
    return Traces.of(cluster)


def test_first_preview_on_an_empty_cluster(before: Traces, stack: Stack) -> None:
    del before
    preview = stack.pulumi("preview", "--diff")
    assert "to create" in preview and "vs-bill-service" in preview


def test_workloads_without_the_mesh_are_balanced_evenly(stack: Stack, config: Config, kubectl: Kubectl) -> None:
    stack.configure(off(config))
    stack.up()
    deployments = {d["metadata"]["name"]: d for d in kubectl.items("deployments", f"--namespace={NAMESPACE}")}
    assert set(deployments) == {"front-tomcat-v1", "bill-service-v1", "bill-service-v2"}
    labels = deployments["bill-service-v2"]["spec"]["template"]["metadata"]["labels"]
    assert {"service": "bill-service", "version": "v2"}.items() <= labels.items()
    (service,) = kubectl.items("service", "bill-service", f"--namespace={NAMESPACE}")
    assert service["spec"]["type"] == "ClusterIP"
    assert service["spec"]["selector"] == {"service": "bill-service"}
    (port,) = service["spec"]["ports"]
    assert (port["name"], port["port"], port["targetPort"]) == ("http", 9999, 80)
    assert all(set(containers(pod).values()) == {True} and len(containers(pod)) == 1 for pod in pods(kubectl))
    wait_until_answering(kubectl, NAMESPACE, {"v1", "v2"})
    assert_split(ask(kubectl, NAMESPACE, REQUESTS), 0.5)
    assert stack.outputs()["weights"] == {}
    verified = stack.mesh("verify", "bill-service", "-n", str(REQUESTS), "--json")
    found = json.loads(verified.stdout)
    counts = {version: entry["requests"] for version, entry in found["versions"].items()}
    assert found["failed"] == 0 and "kube-proxy" in found["balancedBy"], verified.stdout + verified.stderr
    assert sum(counts.values()) == REQUESTS and is_plausible(counts["v1"], REQUESTS, 0.5)


def test_kube_proxy_gives_each_version_half(cluster: EmbeddedCluster, stack: Stack) -> None:
    del stack
    chains = cluster.execute("iptables-save", "-t", "nat")
    balanced = [line for line in chains.splitlines() if "istio-demo/bill-service:http" in line and "statistic" in line]
    assert len(balanced) == 1 and "--probability 0.50000000000" in balanced[0]


def assert_injected(kubectl: Kubectl) -> None:
    for pod in pods(kubectl):
        ready = containers(pod)
        assert len(ready) == 2 and "istio-proxy" in ready and all(ready.values()), (pod["metadata"]["name"], ready)


def test_the_mesh_splits_by_weight(stack: Stack, config: Config, kubectl: Kubectl) -> None:
    stack.configure(config)
    stack.up()
    # A roll-out is over when the new pods are ready; the old ones get the word to go a moment later.
    eventually(lambda: assert_injected(kubectl), seconds=20)
    names = {pod["metadata"]["name"].rsplit("-", 2)[0] for pod in pods(kubectl, "istio-system")}
    assert {"istiod", "istio-ingressgateway", "istio-egressgateway"} <= names
    assert kubectl.items("daemonset", "istio-cni-node", "--namespace=istio-system")
    wait_until_enforced(kubectl, NAMESPACE, {"v1": 90, "v2": 10})
    assert_split(ask(kubectl, NAMESPACE, REQUESTS), 0.9)
    assert stack.outputs() == {
        "meshVersion": "1.31.0",
        "namespace": NAMESPACE,
        "weights": {"bill-service": {"v1": 90, "v2": 10}},
        "urls": {"bill-service": f"http://bill-service.{NAMESPACE}:9999"},
    }


def test_the_sidecars_have_the_version_of_the_mesh(stack: Stack, kubectl: Kubectl) -> None:
    version = stack.outputs()["meshVersion"]
    for pod in pods(kubectl):
        images = {c["image"] for c in [*pod["spec"]["containers"], *pod["spec"].get("initContainers", [])]}
        assert any(image.endswith(f"/proxyv2:{version}") for image in images), images


def test_the_rules_have_the_names_of_the_story(stack: Stack, kubectl: Kubectl) -> None:
    del stack
    rules = kubectl.items("destinationrules.networking.istio.io", f"--namespace={NAMESPACE}")
    subsets = {subset["name"]: subset["labels"] for rule in rules for subset in rule["spec"].get("subsets", [])}
    assert "dest-bill-service" in {rule["metadata"]["name"] for rule in rules}
    assert subsets == {"v1": {"version": "v1"}, "v2": {"version": "v2"}}
    (service,) = kubectl.items("virtualservice.networking.istio.io", "vs-bill-service", f"--namespace={NAMESPACE}")
    (route,) = service["spec"]["http"]
    assert route["name"] == "bill-service-route"
    assert {r["destination"]["subset"]: r["weight"] for r in route["route"]} == {"v1": 90, "v2": 10}


def test_a_second_up_and_a_refresh_change_nothing(stack: Stack) -> None:
    assert set(stack.up()) == {"same"}
    stack.pulumi("preview", "--expect-no-changes")
    stack.pulumi("refresh", "--yes", "--skip-preview", "--expect-no-changes")


def test_istioctl_finds_nothing_wrong(stack: Stack, kubectl: Kubectl) -> None:
    """Neither with the configuration nor with what the proxies have of it."""
    build.build(["tools"])

    def istioctl(*args: str) -> Any:
        command = ["istioctl", *args, "--output=json"]
        done = subprocess.run(command, env=stack.variables, capture_output=True, text=True, timeout=60, check=True)
        # Its own log is on stdout, too: of a connection that ended while it was read, for instance.
        lines = done.stdout.splitlines()
        return json.loads("\n".join(itertools.dropwhile(lambda line: line[:1] not in ("[", "{"), lines)))

    # Those without a sidecar may still be going.
    assert within(60, lambda: len(kubectl.items("pods", f"--namespace={NAMESPACE}")) == len(pods(kubectl)))
    for namespace in (NAMESPACE, "istio-system"):
        assert istioctl("analyze", f"--namespace={namespace}") == []
    status = {
        proxy["node"]["id"]: {config["configStatus"] for config in proxy["genericXdsConfigs"]}
        for proxy in istioctl("proxy-status")["resources"]
    }
    for namespace, count in {NAMESPACE: 3, "istio-system": 2}.items():
        proxies = {f"{pod['metadata']['name']}.{namespace}" for pod in pods(kubectl, namespace) if has_proxy(pod)}
        assert len(proxies) == count and proxies <= status.keys()
    assert set.union(*status.values()) == {"SYNCED"}


def test_a_shift_updates_one_resource_and_fails_no_request(stack: Stack, config: Config, kubectl: Kubectl) -> None:
    stack.configure(weighted(config, v1=30, v2=70))
    with ThreadPoolExecutor() as pool:
        shift = pool.submit(stack.up)
        load = ask(kubectl, NAMESPACE, REQUESTS)
        while not shift.done():
            more = ask(kubectl, NAMESPACE, REQUESTS)
            load = Answers(load.requests + more.requests, {**load.by_version, **more.by_version})
            assert more.failed == 0, more
        changes = shift.result()
    assert changes["update"] == 1 and set(changes) == {"update", "same"}
    assert wait_until_enforced(kubectl, NAMESPACE, {"v1": 30, "v2": 70}) < 5
    assert_split(ask(kubectl, NAMESPACE, REQUESTS), 0.3)


def test_a_weight_of_all_sends_nothing_to_the_other(stack: Stack, config: Config, kubectl: Kubectl) -> None:
    stack.configure(weighted(config, v1=100))
    stack.up()
    wait_until_enforced(kubectl, NAMESPACE, {"v1": 100})
    assert ask(kubectl, NAMESPACE, REQUESTS).by_version == {"v1": REQUESTS}


def test_a_version_without_weight_is_removed_without_a_failed_request(
    stack: Stack, config: Config, kubectl: Kubectl
) -> None:
    stack.configure(weighted(config, v1=100))
    stack.up()
    wait_until_enforced(kubectl, NAMESPACE, {"v1": 100})
    one = copy.deepcopy(weighted(config, v1=100))
    one["services"]["bill-service"]["versions"] = {"v2": None}
    stack.configure(one)
    with ThreadPoolExecutor() as pool:
        removal = pool.submit(stack.up)
        while not removal.done():
            answers = ask(kubectl, NAMESPACE, REQUESTS)
            assert answers.failed == 0, answers
        changes = removal.result()
    assert changes["delete"] == 2, changes
    assert enforced_weights(kubectl, NAMESPACE) == {"v1": 100}
    stack.configure(config)
    stack.up()


def test_charts_from_a_mirror_leave_every_pod_as_it_is(
    stack: Stack, config: Config, kubectl: Kubectl, tmp_path: Path
) -> None:
    def running() -> set[str]:
        return {pod["metadata"]["uid"] for namespace in (NAMESPACE, "istio-system") for pod in pods(kubectl, namespace)}

    before = running()
    with mirror(pack(tmp_path)) as url:
        stack.configure({**config, "mesh": {**config["mesh"], "charts": url}})
        assert stack.up().keys() == {"same", "update"}
        assert running() == before
    stack.configure(config)
    stack.up()


def test_the_mesh_goes_off_and_comes_back(
    stack: Stack, config: Config, kubectl: Kubectl, no_request_fails: NoRequestFails
) -> None:
    stack.configure(off(config))
    with no_request_fails():
        stack.up()
    assert kubectl.items("pods", "--namespace=istio-system") == []
    assert within(20, lambda: all(len(containers(pod)) == 1 for pod in pods(kubectl)))
    wait_until_answering(kubectl, NAMESPACE, {"v1", "v2"})
    assert_split(ask(kubectl, NAMESPACE, REQUESTS), 0.5)
    stack.configure(config)
    with no_request_fails():
        stack.up()
    # The old pods are told to go a moment after the new ones are ready; one without a sidecar would stay.
    assert within(20, lambda: all(len(containers(pod)) == 2 for pod in pods(kubectl)))
    wait_until_enforced(kubectl, NAMESPACE, {"v1": 90, "v2": 10})
    assert_split(ask(kubectl, NAMESPACE, REQUESTS), 0.9)


def test_destroy_refuses_to_take_the_rules_of_others(stack: Stack, kubectl: Kubectl) -> None:
    foreign = {
        "apiVersion": "networking.istio.io/v1beta1",
        "kind": "VirtualService",
        "metadata": {"name": "foreign", "namespace": "default"},
        "spec": {"hosts": ["foreign"], "http": [{"route": [{"destination": {"host": "foreign"}}]}]},
    }
    kubectl.run("apply", "--filename=-", stdin=json.dumps(foreign))
    resources = len(stack.resources())
    try:
        with pytest.raises(PulumiError) as refused:
            stack.destroy()
        assert "VirtualService default/foreign" in refused.value.output
        assert len(stack.resources()) == resources
        assert_split(ask(kubectl, NAMESPACE, REQUESTS), 0.9)
    finally:
        kubectl.run("delete", "virtualservice", "foreign", "--namespace=default")


def test_destroy_leaves_what_was_there_before(stack: Stack, cluster: EmbeddedCluster, before: Traces) -> None:
    stack.destroy()
    assert traces_settled(cluster, before) == before
