"""What istioctl, kubectl and Helm have made goes over to a stack; no request fails, and no pod restarts needlessly."""

from __future__ import annotations

import copy
import json
import re
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

import names
from harness.stack import PROJECT, PulumiError, Stack
from harness.traces import Traces, traces_settled
from harness.traffic import Load, ask, wait_until_answering, wait_until_enforced
from localcluster import EmbeddedCluster, build
from mesh import purge
from mesh.cluster.kubectl import Kubectl

from .binomial import is_plausible

NAMESPACE, MESH = "istio-demo", "istio-system"
REQUESTS = 400
BY_HAND = {"v1": 80, "v2": 20}

Object = dict[str, Any]


@pytest.fixture(scope="module")
def before(cluster: EmbeddedCluster) -> Traces:
    return Traces.of(cluster)


@pytest.fixture(scope="module")
def installed(before: Traces, stack: Stack, kubectl: Kubectl) -> Iterator[list[Object]]:
    """A mesh of istioctl's, and the story's workloads and rules as somebody applied them by kubectl."""
    del before
    build.build(["tools"])
    install = ["istioctl", "install", "--skip-confirmation", f"--filename={PROJECT / 'bench' / 'istio.yaml'}"]
    subprocess.run(install, env=stack.variables, capture_output=True, timeout=300, check=True)
    objects = [by_hand(item) for item in json.loads(stack.mesh("render", "--json").stdout) if NAMESPACE in place(item)]
    try:
        kubectl.run("apply", "--filename=-", stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": objects}))
        kubectl.run("rollout", "status", "deployments", f"--namespace={NAMESPACE}", timeout=300)
        wait_until_enforced(kubectl, NAMESPACE, BY_HAND)
        wait_until_answering(kubectl, NAMESPACE, {"v1", "v2"})
        yield objects
    finally:  # what a test that failed has left; the stack's own teardown comes after
        remains = ("namespace", NAMESPACE, MESH, "--ignore-not-found")
        if any(
            not owner(item) for item in kubectl.items("namespaces") if item["metadata"]["name"] in (NAMESPACE, MESH)
        ):
            kubectl.run("delete", *remains, timeout=300)
            subprocess.run(
                ["istioctl", "uninstall", "--purge", "--skip-confirmation"],
                env=stack.variables,
                capture_output=True,
                timeout=300,
                check=True,
            )


def place(item: Object) -> tuple[str, str]:
    return item["metadata"]["name"], item["metadata"].get("namespace", "")


def owner(item: Object) -> str:
    return str(item["metadata"].get("annotations", {}).get(names.OWNER, ""))


def by_hand(item: Object) -> Object:
    """Without the marks of a stack, and with other weights."""
    made = copy.deepcopy(item)
    del made["metadata"]["annotations"][names.OWNER], made["metadata"]["labels"]["app.kubernetes.io/managed-by"]
    if made["kind"] == "VirtualService":
        for destination in made["spec"]["http"][0]["route"]:
            destination["weight"] = BY_HAND[destination["destination"]["subset"]]
    return made


def pods(kubectl: Kubectl, namespace: str) -> set[str]:
    return {pod["metadata"]["uid"] for pod in kubectl.items("pods", f"--namespace={namespace}")}


def adopt(stack: Stack, *options: str, code: int = 0) -> Object:
    done = stack.mesh("adopt", "--json", *options)
    assert done.returncode == code, done.stdout + done.stderr
    found: Object = json.loads(done.stdout)
    return found


def operations(stack: Stack) -> set[str]:
    return {step["op"] for step in json.loads(stack.pulumi("preview", "--json"))["steps"]}


def assert_split(kubectl: Kubectl, share: float) -> None:
    answers = ask(kubectl, NAMESPACE, REQUESTS)
    assert answers.failed == 0
    assert is_plausible(answers.by_version["v1"], REQUESTS, share), answers


def assert_as_declared(stack: Stack, kubectl: Kubectl) -> None:
    wait_until_enforced(kubectl, NAMESPACE, {"v1": 90, "v2": 10})
    assert_split(kubectl, 0.9)
    stack.pulumi("preview", "--diff", "--expect-no-changes")
    drift = stack.mesh("drift")
    assert drift.returncode == 0, drift.stdout


def test_up_refuses_what_is_not_its_own(stack: Stack, installed: list[Object]) -> None:
    with pytest.raises(PulumiError) as refused:
        stack.up()
    assert "to take them over: mesh adopt" in refused.value.output
    assert all(
        f"{item['kind']} {item['metadata']['name']} was not made by a stack" in refused.value.output
        for item in installed
    )


def test_what_others_still_manage_is_refused_with_the_way_out(
    stack: Stack, installed: list[Object], kubectl: Kubectl
) -> None:
    del installed
    rule = ("virtualservice", "vs-bill-service", f"--namespace={NAMESPACE}")
    kubectl.run("annotate", *rule, "argocd.argoproj.io/tracking-id=shop:networking.istio.io/VirtualService:x/y")
    found = adopt(stack, "--yes", code=1)
    (refusal,) = found["refusals"]
    assert refusal["what"] == "managed by the Argo CD application shop"
    assert [one["name"] for one in refusal["objects"]] == ["vs-bill-service"]
    assert not [item for item in kubectl.items("namespaces") if owner(item)]
    kubectl.run("annotate", *rule, "argocd.argoproj.io/tracking-id-")


def test_a_dry_run_says_what_up_would_change(stack: Stack, installed: list[Object], kubectl: Kubectl) -> None:
    found = adopt(stack, "--dry-run")
    objects = {(one["kind"], one["name"]): one for one in found["objects"]}
    assert found["refusals"] == [] and found["releases"] == []
    assert {(item["kind"], item["metadata"]["name"]) for item in installed} <= objects.keys()
    changes = {name: [f for f in one["changes"] if not f.startswith("metadata.")] for name, one in objects.items()}
    weights = [f"spec.http[0].route[{number}].weight" for number in (0, 1)]
    assert changes["VirtualService", "vs-bill-service"] == weights
    assert [changes[item["kind"], item["metadata"]["name"]] for item in installed if item["kind"] == "Deployment"] == [
        []
    ] * 3
    assert objects["Deployment", "istiod"]["madeBy"] == "istioctl" and objects["Deployment", "istiod"]["restarts"]
    assert "istio-revision-tag-default" in {one["name"] for one in found["leftovers"]}
    assert not [item for item in kubectl.items("namespaces") if owner(item)]


def test_adopted_from_istioctl_and_kubectl(
    stack: Stack, installed: list[Object], kubectl: Kubectl, record_property: Any
) -> None:
    del installed
    workloads = pods(kubectl, NAMESPACE)
    with Load(kubectl, NAMESPACE) as load:
        mesh = pods(kubectl, MESH)
        adopt(stack, "--yes")
        assert pods(kubectl, MESH) == mesh
        assert adopt(stack, "--yes")["objects"] == [], "a second run finds nothing to do"
        assert operations(stack) <= {"create", "same"}
        stack.up()
        # istiod rolls as well, and the sidecars of a gone one come back to the next in their own time.
        wait_until_enforced(kubectl, NAMESPACE, {"v1": 90, "v2": 10}, seconds=60)
    record_property("requests", load.requests)
    assert load.requests > REQUESTS and load.failures == []
    assert pods(kubectl, NAMESPACE) == workloads, "nothing in the pods differs, so none restarts"
    assert_as_declared(stack, kubectl)


def test_adopted_from_helm_without_a_restart(stack: Stack, config: Object, kubectl: Kubectl) -> None:
    """The mesh is now of Helm releases; a stack that has lost its state, and objects without its marks, know no more
    of them than of those that somebody made by helm."""
    kinds = "namespaces,serviceaccounts,services,deployments,destinationrules,virtualservices"
    for item in kubectl.items(kinds, "--all-namespaces"):
        if owner(item):
            where = [f"--namespace={item['metadata']['namespace']}"] if "namespace" in item["metadata"] else []
            what = (item["kind"], item["metadata"]["name"], *where)
            kubectl.run("annotate", *what, f"{names.OWNER}-")
            kubectl.run("label", *what, "app.kubernetes.io/managed-by-")
    stack.pulumi("stack", "rm", "--force", "--yes", "--preserve-config")
    stack.select()
    stack.configure({**config, "mesh": {**config["mesh"], "purge": False}})
    there = pods(kubectl, NAMESPACE) | pods(kubectl, MESH)
    found = adopt(stack, "--yes")
    assert set(found["releases"]) == set(names.RELEASES.values())
    assert all(field.startswith("metadata.") for one in found["objects"] for field in one["changes"])
    assert operations(stack) <= {"create", "same"}
    stack.up()
    assert pods(kubectl, NAMESPACE) | pods(kubectl, MESH) == there
    assert_as_declared(stack, kubectl)


def test_destroy_owns_what_was_adopted_and_keeps_the_crds_without_purge(
    before: Traces, stack: Stack, cluster: EmbeddedCluster, kubectl: Kubectl
) -> None:
    crds = {crd["metadata"]["name"] for crd in kubectl.items("crds") if crd["spec"]["group"].endswith(".istio.io")}
    printed = stack.pulumi("destroy", "--yes", "--skip-preview")
    assert len(crds) > 10 and f"kept {len(crds)} CRDs of Istio (mesh.purge is false)" in printed
    command = re.search(r"kubectl delete crd ([\w. -]+)", printed)
    assert command and set(command[1].split()) == crds
    left = {key for key in Traces.of(cluster).keys - before.keys if "/pods/" not in key}
    kept = ("/customresourcedefinitions/", "/configmaps/", "/apiregistration.k8s.io/apiservices/")
    assert {key for key in left if not any(kind in key for kind in kept)} == set()
    assert {crd["metadata"]["name"] for crd in kubectl.items("crds")} >= crds
    purge.sweep(kubectl, "", MESH, purge=True)
    assert traces_settled(cluster, before) == before
