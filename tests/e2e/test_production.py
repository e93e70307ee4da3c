"""The stack prod on a real cluster: what its file asks for is in force in the pods and in the API server.

What differs from the file is in `replaced`, and no more. The cluster's network plugin knows no NetworkPolicy, so of
default-deny only the objects are looked at.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import names
from config import merged
from harness.stack import PulumiError, Stack, stack_file
from harness.traffic import ask, wait_until_answering
from localcluster import ClusterError, EmbeddedCluster
from mesh.cluster.kubectl import Kubectl, KubectlError
from mesh.declared import declared_by

NAMESPACE = "istio-demo"
VERSIONS = {"front-tomcat-v1": 2, "bill-service-v1": 3, "bill-service-v2": 3}

Object = dict[str, Any]


def replaced(config: dict[str, Any]) -> dict[str, Any]:
    """The file prod with cluster, images and charts of the suite's `config`, and what follows from these."""
    local = {key: config["mesh"][key] for key in ("purge", "charts", "hub", "values")}
    image = config["services"]["bill-service"]["template"]["image"]
    # Debian's nginx keeps its bodies elsewhere.
    paths = ["/run", "/tmp", "/var/lib/nginx"]  # noqa: S108
    front = {
        "versions": {"v1": {"image": image}},
        "template": {"writablePaths": paths},
    }
    bill = {"template": {"image": image, "writablePaths": [*paths, "/usr/share/nginx/html"]}}
    prod = merged(stack_file("prod"), {"mesh": local, "services": {"front-tomcat": front, "bill-service": bill}})
    return {**prod, "cluster": config["cluster"]}


@pytest.fixture(scope="module")
def prod(stack: Stack, config: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The configuration, deployed; the end is as the docs say it for a protected stack."""
    prod = replaced(config)
    stack.configure(prod)
    try:
        stack.up()
        yield prod
    finally:
        stack.pulumi("state", "unprotect", "--all", "--yes")


@pytest.fixture(scope="module")
def pods(prod: dict[str, Any], kubectl: Kubectl) -> list[Object]:
    del prod
    return list(kubectl.items("pods", f"--namespace={NAMESPACE}"))


def inside(kubectl: Kubectl, pod: Object, script: str) -> str:
    """What the script prints in the pod's own container."""
    container = pod["spec"]["containers"][0]["name"]
    place = [pod["metadata"]["name"], f"--namespace={NAMESPACE}", f"--container={container}"]
    return kubectl.run("exec", *place, "--", "sh", "-c", script)


def test_every_pod_is_ready_with_its_sidecar(pods: list[Object], kubectl: Kubectl) -> None:
    deployments = kubectl.items("deployments", f"--namespace={NAMESPACE}")
    assert {d["metadata"]["name"]: d["status"].get("readyReplicas") for d in deployments} == VERSIONS
    assert len(pods) == sum(VERSIONS.values())
    for pod in pods:
        statuses = [*pod["status"]["containerStatuses"], *pod["status"].get("initContainerStatuses", [])]
        assert {"istio-proxy"} < {status["name"] for status in statuses if status["ready"]}, pod["metadata"]["name"]
    mesh = kubectl.items("deployments", "--namespace=istio-system")
    ready = {d["metadata"]["name"] for d in mesh if d["status"].get("readyReplicas")}
    assert ready == {"istiod", "istio-ingressgateway", "istio-egressgateway"}


def test_the_containers_are_hardened_in_the_kernels_eyes(pods: list[Object], kubectl: Kubectl) -> None:
    by_version = {pod["metadata"]["name"].rsplit("-", 2)[0]: pod for pod in pods}
    assert set(by_version) == set(VERSIONS)
    for pod in by_version.values():
        status = dict(line.split(":\t", 1) for line in inside(kubectl, pod, "cat /proc/1/status").splitlines())
        assert status["Uid"].split() == ["101"] * 4
        assert int(status["CapEff"], 16) == int(status["CapBnd"], 16) == 0
        assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")
        said = inside(kubectl, pod, "touch /run/here && (touch /etc/not-here 2>&1 || true)")
        assert "Read-only file system" in said


def test_no_pod_breaks_the_restricted_security_standard(pods: list[Object], kubectl: Kubectl) -> None:
    """https://kubernetes.io/docs/concepts/security/pod-security-standards/"""
    del pods
    label = [f"namespace/{NAMESPACE}", "pod-security.kubernetes.io/enforce=restricted", "--dry-run=server"]
    asked = subprocess.run(kubectl.command("label", *label), capture_output=True, text=True, timeout=60, check=True)
    assert asked.stderr == ""


def test_requests_come_by_mutual_tls_alone(pods: list[Object], kubectl: Kubectl, cluster: EmbeddedCluster) -> None:
    wait_until_answering(kubectl, NAMESPACE, {"v1"})
    answers = ask(kubectl, NAMESPACE, 100)
    assert (answers.by_version, answers.failed) == ({"v1": 100}, 0), answers
    bill = next(pod for pod in pods if pod["metadata"]["name"].startswith("bill-service"))
    with pytest.raises(ClusterError, match="56"):  # the connection is reset
        cluster.execute("curl", "--silent", "--show-error", f"http://{bill['status']['podIP']}:80/")


def test_the_network_policies_are_there_as_declared(stack: Stack, prod: dict[str, Any], kubectl: Kubectl) -> None:
    wanted = declared_by(prod, stack.name).named("NetworkPolicy")
    found = {p["metadata"]["name"]: p["spec"] for p in kubectl.items("networkpolicies", f"--namespace={NAMESPACE}")}
    assert names.DEFAULT_DENY in found and set(found) == set(wanted)
    assert found[names.DEFAULT_DENY]["podSelector"] == {}
    assert found[names.DEFAULT_DENY]["policyTypes"] == ["Ingress", "Egress"]


def test_a_budget_lets_one_pod_go_at_a_time(pods: list[Object], kubectl: Kubectl) -> None:
    budgets = kubectl.items("poddisruptionbudgets", f"--namespace={NAMESPACE}")
    assert {b["metadata"]["name"]: b["status"]["expectedPods"] for b in budgets} == VERSIONS
    assert {b["status"]["disruptionsAllowed"] for b in budgets} == {1}
    first, second, _ = (name for pod in pods if (name := pod["metadata"]["name"]).startswith("bill-service-v2"))
    evict(kubectl, first)
    with pytest.raises(KubectlError, match="would violate the pod's disruption budget"):
        evict(kubectl, second)


def evict(kubectl: Kubectl, pod: str) -> None:
    """https://kubernetes.io/docs/concepts/scheduling-eviction/api-eviction/"""
    eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": pod, "namespace": NAMESPACE}}
    path = f"/api/v1/namespaces/{NAMESPACE}/pods/{pod}/eviction"
    kubectl.run("create", f"--raw={path}", "--filename=-", stdin=json.dumps(eviction))


def test_the_api_server_takes_all_that_the_file_itself_declares(
    stack: Stack, prod: dict[str, Any], kubectl: Kubectl, tmp_path: Path
) -> None:
    """With the official images, and a LoadBalancer for the gateway; the charts are the local ones."""
    charts = {"mesh": {"charts": prod["mesh"]["charts"]}}
    itself = Stack("prod", tmp_path, stack.environment)
    itself.configure(merged(stack_file("prod"), charts))
    rendered = tmp_path / "prod.yaml"
    done = itself.mesh("render", f"--output={rendered}")
    assert done.returncode == 0, done.stderr
    said = kubectl.run(
        "apply", "--server-side", "--force-conflicts", "--dry-run=server", f"--filename={rendered}", timeout=120
    )
    objects = rendered.read_text().count("\nkind: ")
    assert objects > 60 and said.count("serverside-applied (server dry run)") == objects


def test_a_protected_stack_is_not_destroyed(stack: Stack, prod: dict[str, Any]) -> None:
    del prod
    before = [resource["urn"] for resource in stack.resources()]
    with pytest.raises(PulumiError) as refused:
        stack.destroy()
    assert "protected" in refused.value.output and "pulumi state unprotect" in refused.value.output
    assert [resource["urn"] for resource in stack.resources()] == before
