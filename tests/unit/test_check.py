"""What `mesh check` finds, each finding with its fix."""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from config import versions
from mesh.check import find as check
from mesh.check.find import Finding, Situation
from mesh.cluster import api
from mesh.cluster import istiod as control_plane
from mesh.cluster.api import Question
from mesh.cluster.kubectl import KubectlError
from mesh.program.stack import Stack

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


def test_without_nodes_no_kernel_modules_are_missing() -> None:
    assert levels(found(check.node_modules, Cluster())) == ["good"]


def test_node_ports_that_are_taken_are_named() -> None:
    taken = made("Service", "other", "shop", spec={"ports": [{"nodePort": 30080}], "healthCheckNodePort": 30081})
    ours = made("Service", "istio-ingressgateway", "istio-system", HELM, spec={"ports": [{"nodePort": 30082}]})
    wanted = [{"name": str(number), "port": number, "nodePort": number} for number in (30080, 30081, 30082)]
    values = {"ingress": {"service": {"ports": wanted}}}
    findings = found(check.ports, Cluster(objects=[taken, ours]), mesh={"values": values})
    assert [finding.what.split()[2] for finding in findings] == ["30080", "30081"]
    assert all(finding.level == "problem" and "shop/other" in finding.what for finding in findings)
    assert found(check.ports, Cluster(objects=[taken])) == []


def test_two_gateways_that_want_one_node_port_are_named() -> None:
    service = {"service": {"ports": [{"name": "https", "port": 443, "nodePort": 30443}]}}
    values = {"ingress": service, "egress": service}
    (finding,) = found(check.ports, Cluster(), mesh={"values": values, "profile": "demo"})
    assert "mesh.values.egress is taken by mesh.values.ingress" in finding.what


def node(name: str, **fields: Any) -> Object:
    item = made("Node", name, status={"nodeInfo": {"kubeletVersion": fields.pop("kubelet", "v1.34.1")}})
    item["metadata"]["labels"] = {"kubernetes.io/os": "linux", **fields}
    return item


def pod(name: str, namespace: str, labels: dict[str, str], *, on: str = "", ready: bool = True, **spec: Any) -> Object:
    conditions = [{"type": "Ready", "status": str(ready)}]
    item = made("Pod", name, namespace, spec={"nodeName": on, **spec}, status={"conditions": conditions})
    item["metadata"]["labels"] = labels
    return item


def balancer(service: str, on: str) -> Object:
    """k3s's own load balancer: a pod on each node that holds the Service's ports there."""
    held = [{"ports": [{"containerPort": 80, "hostPort": 80}]}]
    labels = {"svccontroller.k3s.cattle.io/svcname": service}
    return pod(f"svclb-{service}-{on}", "kube-system", labels, on=on, containers=held)


def test_host_ports_that_k3s_cannot_open_are_named() -> None:
    nodes = [node(name, kubelet="v1.34.1+k3s1") for name in ("a", "b")]
    on_a, on_b, ours = balancer("traefik", "a"), balancer("traefik", "b"), balancer("istio-ingressgateway", "a")
    (finding,) = found(check.ports, Cluster(objects=[*nodes, on_a, on_b, ours]))
    assert finding.level == "problem"
    assert "port 80 of istio-ingressgateway is taken on a, b by the pod kube-system/svclb-traefik-a" in finding.what
    assert levels(found(check.ports, Cluster(objects=[*nodes, on_a, ours]))) == ["warning"]
    assert found(check.ports, Cluster(objects=[*nodes, ours])) == []
    # Elsewhere a Service takes no port of a node.
    assert found(check.ports, Cluster(objects=[node("a"), on_a])) == []


AGENT = {"k8s-app": "istio-cni-node"}


def agents(*pods: Object) -> Cluster:
    """Three machines, and one node that is none, with these agents on them."""
    container = {"name": "install-cni", "image": "istio/install-cni:1.31.0"}
    template = {"metadata": {}, "spec": {"containers": [container]}}
    agent = made("DaemonSet", "istio-cni-node", "istio-system", spec={"template": template, "selector": {}})
    agent["metadata"]["labels"] = AGENT
    virtual = node("virtual", type="virtual-kubelet")
    return Cluster(objects=[agent, *(node(name) for name in "abc"), virtual, *pods])


def test_nodes_without_a_ready_cni_agent_are_named() -> None:
    ready = [
        pod(
            f"istio-cni-node-{name}", "istio-system", AGENT, on=name, containers=[{"name": "install-cni", "image": "x"}]
        )
        for name in "abc"
    ]
    assert levels(found(check.cni_agents, agents(*ready))) == ["good"]
    late = copy.deepcopy(ready[1])
    late["status"]["conditions"][0]["status"] = "False"
    on_b, on_c = found(check.cni_agents, agents(ready[0], late))
    assert (on_b.level, on_b.what) == ("problem", "istio-cni-node is not ready on the node b")
    assert "describe pod istio-cni-node-b" in on_b.fix
    assert on_c.what == "istio-cni-node has no pod on the node c" and "describe daemonset" in on_c.fix
    assert found(check.cni_agents, Cluster()) == []


@dataclass(frozen=True)
class Asked(Cluster):
    """A cluster whose istiods know these proxies, or cannot be asked."""

    known: dict[str, list[Object]] = field(default_factory=dict)

    def get(self, questions: Sequence[Question]) -> list[bytes | KubectlError]:
        """As `mesh.cluster.api.Pods`."""
        return [
            json.dumps(self.known[asked.pod]).encode() if asked.pod in self.known else KubectlError("pods is forbidden")
            for asked in questions
        ]


SIDECAR = [{"name": "istio-proxy", "image": "istio/proxyv2:1.31.0"}]
NONCES = {f"{kind}_{what}": "1" for kind in ("listener", "route", "cluster", "endpoint") for what in ("sent", "acked")}


def knowing(**known: list[Object]) -> Asked:
    """Two sidecars, and these istiods."""
    istiods = [
        pod(name, "istio-system", {"app": "istiod"}, containers=[{"name": "discovery", "image": "x"}])
        for name in known or ("istiod",)
    ]
    sidecars = [pod(name, "istio-demo", {}, containers=SIDECAR) for name in ("a", "b")]
    return Asked(objects=[*istiods, *sidecars], known=known)


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control_plane, "_PAUSE", 0.0)
    monkeypatch.setattr(api, "pods", lambda kubectl: kubectl)


A, B = {"proxy": "a.istio-demo", **NONCES}, {"proxy": "b.istio-demo", **NONCES}


def test_proxies_that_istiod_knows_are_in_sync() -> None:
    (finding,) = found(check.proxies, knowing(one=[A], two=[B]))
    assert (finding.level, finding.what) == ("good", "2 proxies are in sync with istiod")
    assert found(check.proxies, Cluster()) == []


def test_a_proxy_that_no_istiod_knows_is_named() -> None:
    (finding,) = found(check.proxies, knowing(one=[A], two=[]))
    assert (finding.level, finding.what) == ("problem", "1 proxy is not connected to istiod: istio-demo/b")


def test_a_proxy_that_did_not_take_its_configuration_is_named_with_what_envoy_says() -> None:
    refused = {**B, "route_sent": "2", "resources": {"routes": {"lastError": "no such filter"}}}
    (finding,) = found(check.proxies, knowing(one=[A, refused]))
    assert finding.level == "problem"
    assert "istio-demo/b has not taken istiod's latest route. Envoy says: no such filter" in finding.what
    (finding,) = found(check.proxies, knowing(one=[A, {**B, "cluster_sent": "2"}]))
    assert "latest cluster." in finding.what and "delete pod b" in finding.fix
    # What a former connection has not taken is of no interest.
    assert levels(found(check.proxies, knowing(one=[A, refused], two=[B]))) == ["good"]


def test_an_istiod_that_cannot_be_asked_is_a_warning() -> None:
    (finding,) = found(check.proxies, knowing())
    assert finding.level == "warning" and "pods is forbidden" in finding.what and "pods/portforward" in finding.fix


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ({"disabled": True}, True),
        ({"disabled": True, "match": {"metric": "REQUEST_COUNT", "mode": "CLIENT"}}, True),
        ({"disabled": True, "match": {"metric": "REQUEST_COUNT", "mode": "SERVER"}}, False),
        ({"disabled": True, "match": {"metric": "REQUEST_SIZE"}}, False),
        ({"tagOverrides": {"x": {"operation": "REMOVE"}}}, False),
    ],
)
def test_what_takes_the_requests_from_prometheus_is_named(override: Object, told: bool) -> None:
    objects = [
        crd("telemetries", "telemetry.istio.io"),
        made("Telemetry", "theirs", "office", spec={"metrics": [{"overrides": [override]}]}),
    ]
    by_prometheus = {"prometheus": "http://prometheus:9090"}
    findings = found(check.statistics, Cluster(objects=objects), mesh=by_prometheus)
    assert ["Telemetry office/theirs" in one.what and "callers in office" in one.what for one in findings] == [
        True
    ] * told
    assert found(check.statistics, Cluster(objects=objects)) == []
