"""Questions to pods of a real cluster, by somebody who may do nothing else in it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from mesh.cluster.api import AT_ONCE, Pods, Question
from mesh.cluster.kubectl import Kubectl, KubectlError

NAMESPACE = "asking"
SYSTEM = "kube-system"

As = Callable[[str], Kubectl]


@pytest.fixture(scope="module")
def asking(kubectl: Kubectl, tmp_path_factory: pytest.TempPathFactory) -> Iterator[As]:
    """kubectl of an account with these verbs on pods/portforward, and no other right."""
    folder = tmp_path_factory.mktemp("kubeconfigs")
    made: list[str] = []

    def account(verbs: str) -> Kubectl:
        name, file = f"may-{verbs.replace(',', '-')}", folder / f"{verbs}.json"
        if not file.exists():
            made.append(name)
            kubectl.run("create", "serviceaccount", name, f"--namespace={NAMESPACE}")
            kubectl.run("create", "clusterrole", name, f"--verb={verbs}", "--resource=pods/portforward")
            subject = f"--serviceaccount={NAMESPACE}:{name}"
            kubectl.run("create", "clusterrolebinding", name, f"--clusterrole={name}", subject)
            config = yaml.safe_load(Path(kubectl.kubeconfig).read_text())
            token = kubectl.run("create", "token", name, f"--namespace={NAMESPACE}").strip()
            config["users"][0]["user"] = {"token": token}
            file.write_text(json.dumps(config))
        return Kubectl(kubectl.context, str(file))

    kubectl.run("create", "namespace", NAMESPACE)
    yield account
    for kind in ("clusterrolebindings", "clusterroles"):
        kubectl.run("delete", kind, *made)
    kubectl.run("delete", "namespace", NAMESPACE)


@pytest.fixture(scope="module")
def healthy(kubectl: Kubectl) -> Question:
    """One that the cluster's DNS server answers with OK."""
    [pod] = kubectl.items("pods", f"--namespace={SYSTEM}", "--selector=k8s-app=kube-dns")
    return Question(SYSTEM, pod["metadata"]["name"], 8080, "/health")


def test_it_takes_two_verbs_on_one_resource(asking: As, healthy: Question) -> None:
    with Pods(asking("get,create")) as pods:
        assert pods.get([healthy] * (2 * AT_ONCE)) == [b"OK"] * (2 * AT_ONCE)


@pytest.mark.parametrize("verbs", ["get", "create"])
def test_without_one_of_them_it_says_which_rights_are_needed(asking: As, healthy: Question, verbs: str) -> None:
    with Pods(asking(verbs)) as pods:
        [error] = pods.get([healthy])
    assert isinstance(error, KubectlError)
    assert "forbidden" in str(error) and "asking a pod takes the rights get and create on pods/portforward" in str(
        error
    )


def test_what_fails_for_one_pod_is_its_error_alone(kubectl: Kubectl, healthy: Question) -> None:
    wrong = [healthy._replace(pod="nobody"), healthy._replace(port=1), healthy._replace(path="/nothing")]
    with Pods(kubectl) as pods:
        good, *errors = pods.get([healthy, *wrong])
    assert good == b"OK"
    nobody, closed, nothing = map(str, errors)
    assert 'pods "nobody" not found' in nobody
    assert "connection refused" in closed
    assert "/nothing was answered with 404" in nothing


def test_pods_are_listed_as_kubectl_lists_them(kubectl: Kubectl) -> None:
    with Pods(kubectl) as pods:
        listed = [pod["metadata"]["name"] for pod in pods.labelled("k8s-app=kube-dns")]
    assert listed == [
        pod["metadata"]["name"] for pod in kubectl.items("pods", "--all-namespaces", "--selector=k8s-app=kube-dns")
    ]
