"""What `mesh check` finds, each finding with its fix."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import pytest

from config import versions
from mesh import check
from mesh.check import Finding, Situation
from mesh.kubectl import KubectlError
from mesh.pulumi import Stack

from .fake_kubectl import FakeKubectl, Object, crd, made
from .given import config


@dataclass(frozen=True)
class Cluster(FakeKubectl):
    """A cluster of one version of Kubernetes, in which somebody may create what is not in `denied`."""

    version: str = "1.31"
    denied: tuple[str, ...] = ()

    def run(self, *args: str, timeout: float = 60, stdin: str | None = None) -> str:
        if args[0] == "version":
            major, minor = self.version.split(".")
            server = {"major": major, "minor": f"{minor}+", "gitVersion": f"v{self.version}.0"}
            return json.dumps({"serverVersion": server})
        if args[:2] == ("auth", "can-i"):
            if args[2] == "--list":
                return "pods  []  []  [get]\n" if self.denied else "*.*  []  []  [*]\n"
            if args[3] in self.denied:
                raise KubectlError("no")
            return ""
        return super().run(*args, timeout=timeout, stdin=stdin)


def found(one: check.Check, cluster: Cluster, **changes: Any) -> list[Finding]:
    findings = [*one(Situation(Stack("dev"), config(**changes), cluster))]
    assert all(finding.fix for finding in findings if finding.level != "good")
    return findings


def levels(findings: list[Finding]) -> list[str]:
    return [finding.level for finding in findings]


@pytest.mark.parametrize(
    ("istio", "kubernetes", "level"),
    [
        ("1.29.0", "1.31", None),
        ("1.29.0", "1.35", None),
        ("1.29.0", "1.36", "warning"),
        ("1.29.0", "1.30", "problem"),
        ("1.17.1", "1.31", "warning"),
        ("1.17.1", "1.26", None),
        ("1.30.0", "1.32", None),
        ("1.31.0", "1.36", None),
        ("1.31.0", "1.37", "warning"),
        ("1.31.0", "1.31", "problem"),
    ],
)
def test_the_version_of_kubernetes_has_to_suit_that_of_istio(istio: str, kubernetes: str, level: str | None) -> None:
    first, *rest = found(check.kubernetes_version, Cluster(version=kubernetes), mesh={"version": istio})
    assert first.level == "good" and kubernetes in first.what
    assert levels(rest) == ([level] if level else [])


def test_the_table_has_every_minor_in_order() -> None:
    (_, oldest), (_, newest) = (
        versions.minor(f"{found}.0") for found in (versions.OLDEST_MINOR, versions.NEWEST_MINOR)
    )
    assert list(check.KUBERNETES) == list(range(oldest, newest + 1))
    assert all(oldest < newest for oldest, newest in check.KUBERNETES.values())


def test_permissions_that_are_missing_are_named() -> None:
    assert levels(found(check.permissions, Cluster())) == ["good"]
    (finding,) = found(check.permissions, Cluster(denied=("secrets",)))
    assert finding.level == "problem" and "secrets" in finding.what


ISTIOD = made("Deployment", "istiod", "istio-system", spec={})
HELM = {"meta.helm.sh/release-name": "istiod", "meta.helm.sh/release-namespace": "istio-system"}


def webhook(annotations: dict[str, str] | None = None) -> Object:
    client = {"service": {"name": "istiod"}}
    hook = {"name": "rev.namespace.sidecar-injector.istio.io", "clientConfig": client}
    return made("MutatingWebhookConfiguration", "istio-sidecar-injector", "", annotations, webhooks=[hook])


def istiod(annotations: dict[str, str] | None = None) -> Object:
    item = made("Deployment", "istiod", "istio-system", annotations, spec={})
    item["metadata"]["labels"] = {"app": "istiod"}
    return item


def test_another_istio_is_refused_with_the_way_out() -> None:
    (finding,) = found(check.another_istio, Cluster(objects=[istiod(), webhook()]))
    assert finding.level == "problem" and "another Istio" in finding.what and "mesh.mode" in finding.fix


def test_what_another_istio_left_over_is_named() -> None:
    left = [webhook(), crd("virtualservices", "networking.istio.io"), crd("others", "example.com")]
    hook, crds = found(check.another_istio, Cluster(objects=left))
    assert hook.fix == "kubectl delete MutatingWebhookConfiguration istio-sidecar-injector"
    assert (crds.level, crds.fix.split()[-1]) == ("warning", "virtualservices.networking.istio.io")


def test_our_own_istio_is_no_other_one() -> None:
    assert levels(found(check.another_istio, Cluster(objects=[istiod(HELM), webhook(HELM)]))) == ["good"]
    assert found(check.another_istio, Cluster(objects=[istiod()]), mesh={"mode": "existing"}) == []


def test_pods_that_wait_for_kernel_modules_are_named() -> None:
    event = made(
        "Event",
        "x",
        "istio-demo",
        message="iptables-restore: unable to initialize table 'nat'",
        involvedObject={"namespace": "istio-demo", "name": "bill-service-v1-x"},
    )
    (finding,) = found(check.node_modules, Cluster(objects=[event]))
    assert finding.level == "problem" and "istio-demo/bill-service-v1-x" in finding.what and "nodes.mode" in finding.fix
    assert levels(found(check.node_modules, Cluster())) == ["good"]


def test_a_node_port_that_is_taken_is_named() -> None:
    taken = made("Service", "other", "shop", spec={"ports": [{"nodePort": 30080}]})
    values = {"ingress": {"service": {"ports": [{"name": "http2", "port": 80, "nodePort": 30080}]}}}
    (finding,) = found(check.ports, Cluster(objects=[taken]), mesh={"values": values})
    assert "30080" in finding.what and "shop/other" in finding.what
    assert found(check.ports, Cluster(objects=[taken])) == []
