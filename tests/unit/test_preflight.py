"""Which live objects stop a run, before anything is changed."""

from __future__ import annotations

import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pulumi
import pytest

import names
from config import StackConfig
from config.types import SECRET
from istio import charts
from mesh import preflight
from mesh.cluster.kubectl import Kubectl
from mesh.program.offline import offline

from .fake_kubectl import FakeKubectl, Object, crd, made
from .given import STACKS, config, program

OWNER = "istio-governance/dev"
RULES = ("destinationrules", "virtualservices", "gateways", "serviceentries")
CRDS = [*(crd(kind, "networking.istio.io") for kind in RULES), crd("peerauthentications", "security.istio.io")]


ALL_KINDS = {
    *("Namespace", "Service", "ServiceAccount", "Secret", "Deployment", "StatefulSet", "DaemonSet"),
    *("NetworkPolicy", "PodDisruptionBudget", "PeerAuthentication"),
    *("DestinationRule", "VirtualService", "Gateway", "ServiceEntry"),
}
"""That the components make."""


def istiod(version: str) -> Object:
    pod = made("Pod", "istiod-1", "istio-system", spec={"containers": [{"image": f"docker.io/istio/pilot:{version}"}]})
    pod["metadata"]["labels"] = {"app": "istiod", "istio.io/rev": "default"}
    return pod


def live(kind: str, name: str, owner: str = "", namespace: str = "istio-demo") -> Object:
    """An object as the cluster has it, in the workloads' namespace."""
    return made(kind, name, "" if kind == "Namespace" else namespace, {names.OWNER: owner} if owner else None)


def check(monkeypatch: pytest.MonkeyPatch, given: StackConfig, kubectl: FakeKubectl) -> bool:
    def connect(context: str, kubeconfig: str) -> Kubectl:
        assert (context, kubeconfig) == (given.cluster.context, given.cluster.kubeconfig)
        return kubectl

    monkeypatch.setattr(preflight, "Kubectl", connect)
    return preflight.check(given, OWNER)


def refusal(monkeypatch: pytest.MonkeyPatch, given: StackConfig, *objects: Object) -> str:
    with pytest.raises(pulumi.RunError) as refused:
        check(monkeypatch, given, FakeKubectl(objects=[*CRDS, *objects]))
    assert "nothing was changed" in str(refused.value)
    return str(refused.value)


@pytest.mark.parametrize("stack_file", STACKS)
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"mesh": {"mode": "off"}},
        {"mesh": {"mode": "existing"}},
        {"mesh": {"namespace": "mesh-system"}},
        {"namespace": {"name": "shop", "create": False, "defaultDeny": False}},
        {"routing": None},
        {"services": {"bill-service": {"workload": "existing", "disruptionBudget": None}}},
        {"services": {"third": {"workload": "DaemonSet", "versions": {"v1": {"image": "x"}}}}},
        {"services": {"third": {"ports": {"http": {"port": 1}}, "versions": {"v1": {"image": "x"}}}}},
        {"routing": {"bill-service": {"mtls": "STRICT", "expose": {"hosts": ["bills.example.com"]}}}},
        {"egress": {"api.example.com": {}, "old.example.com": {"protocol": "HTTP"}}},
        {"dbPassword": SECRET, "services": {"bill-service": {"template": {"env": {"DB": {"secret": "dbPassword"}}}}}},
    ],
    ids=str,
)
def test_declared_is_what_the_program_makes(
    monkeypatch: pytest.MonkeyPatch, stack_file: str, changes: Mapping[str, Any]
) -> None:
    """A component that makes a new object has to declare it, or the provider would adopt somebody else's."""
    given: list[StackConfig] = []
    monkeypatch.setattr(preflight, "check", lambda config, **_: given.append(config))
    made_by_program = {
        (resource.kind, resource.inputs["metadata"]["name"])
        for resource in program(stack_file, **changes)
        if resource.type.startswith("kubernetes:")
        and not resource.type.startswith("kubernetes:helm.sh/")
        and not resource.kind.endswith("Patch")
    }
    assert preflight.declared(given[0]) == made_by_program


def test_an_upgrade_is_told_from_a_first_install_by_the_pods(monkeypatch: pytest.MonkeyPatch) -> None:
    given = config(cluster={"context": "c"}, mesh={"mode": "managed"})
    assert check(monkeypatch, given, FakeKubectl(objects=[*CRDS])) is False
    assert check(monkeypatch, given, FakeKubectl(objects=[*CRDS, istiod(given.mesh.current.version)])) is True
    with offline():
        assert preflight.check(given, OWNER) is True


def test_every_kind_that_the_components_make_is_looked_up(monkeypatch: pytest.MonkeyPatch) -> None:
    others = {
        kind.lower(): {"workload": kind, "versions": {"v1": {"image": "x"}}} for kind in ("StatefulSet", "DaemonSet")
    }
    given = config(
        services={
            **others,
            "bill-service": {
                "disruptionBudget": {"maxUnavailable": 1},
                "template": {"env": {"DB": {"secret": "dbPassword"}}},
            },
        },
        dbPassword=SECRET,
        namespace={"defaultDeny": True},
        mesh={"profile": "demo"},
        routing={"bill-service": {"mtls": "STRICT", "expose": {"hosts": ["bills.example.com"]}}},
        egress={"api.example.com": {}},
    )
    declared = preflight.declared(given)
    assert {kind for kind, _ in declared} == ALL_KINDS == preflight._RESOURCES.keys() | {"Secret"}
    text = refusal(monkeypatch, given, *(live(kind, name) for kind, name in declared))
    assert f"  {len(declared)}. " in text
    for kind, name in declared:
        assert f"{kind} {name} was not made by a stack" in text


def test_namespace_of_others_has_to_be_there(monkeypatch: pytest.MonkeyPatch) -> None:
    given = config(namespace={"name": "shop", "create": False}, mesh={"mode": "existing"})
    text = refusal(monkeypatch, given)
    assert "the namespace shop is not there" in text
    assert "namespace.create" in text
    check(monkeypatch, given, FakeKubectl(objects=[*CRDS, live("Namespace", "shop")]))


def test_files_that_are_not_there_are_told_before_the_cluster_is_asked(tmp_path: Path) -> None:
    given = config(cluster={"kubeconfig": "no/file"}, mesh={"charts": str(tmp_path), "profile": "demo"})
    chart(tmp_path, "istiod", "1.31.0")
    packed(tmp_path, "base", "1.31.0", "1.31.0")
    (tmp_path / "cni").mkdir()
    with pytest.raises(pulumi.RunError) as refused:
        preflight.check(given, OWNER)
    text = str(refused.value)
    assert "the configuration has 3 problems; nothing was changed" in text
    assert 'cluster.kubeconfig = "no/file"' in text
    assert "with the chart cni, as cni/ or as cni-1.31.0.tgz" in text
    assert "helm pull gateway --repo https://blob.istio.io/istio-release/charts --version 1.31.0" in text


def chart(folder: Path, name: str, version: str) -> None:
    (folder / name).mkdir(parents=True)
    (folder / name / "Chart.yaml").write_text(f"name: {name}\nversion: {version}\n")


def packed(folder: Path, name: str, version: str, named: str) -> None:
    chart(folder / "scratch", name, version)
    with tarfile.open(folder / f"{name}-{named}.tgz", "w:gz") as archive:
        archive.add(folder / "scratch" / name, name)


def test_charts_of_another_version_are_told_before_the_cluster_is_asked(tmp_path: Path) -> None:
    given = config(mesh={"charts": str(tmp_path), "profile": "minimal", "version": "1.31.0", "cni": False})
    chart(tmp_path, "istiod", "1.30.4")
    packed(tmp_path, "base", "1.29.0", "1.31.0")
    with pytest.raises(pulumi.RunError) as refused:
        preflight.check(given, OWNER)
    text = str(refused.value)
    assert "2 problems" in text
    assert f"charts of Istio 1.31.0, as mesh.version says; {tmp_path}/istiod is of 1.30.4" in text
    assert f"{tmp_path}/base-1.31.0.tgz is of 1.29.0" in text
    assert "or set mesh.version to 1.30.4" in text


@pytest.mark.parametrize("version", ["1.31.0", "v1.31.0", "1.31.0-vendor.1", "1.31.0+build", "1.0.0"])
def test_a_vendors_version_and_the_place_holder_of_the_sources_are_no_other_one(tmp_path: Path, version: str) -> None:
    for name in ("base", "istiod"):
        chart(tmp_path, name, version)
    given = config(mesh={"charts": str(tmp_path), "profile": "minimal", "version": "1.31.0", "cni": False})
    assert [*charts.problems(given.mesh, Path("/"))] == []


def test_a_changed_selector_is_refused_with_a_way_that_keeps_the_pods(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pulumi would delete the Deployment before it makes the new one, and all requests in between would fail."""
    deployment = live("Deployment", "bill-service-v1", OWNER)
    deployment["spec"] = {"selector": {"matchLabels": {"service": "bill-service", "version": "v1"}}}
    check(monkeypatch, config(), FakeKubectl(objects=[*CRDS, deployment]))
    relabelled = config(services={"bill-service": {"versions": {"v1": {"versionLabel": "one"}}}})
    text = refusal(monkeypatch, relabelled, deployment)
    assert "services.bill-service.versions.v1: its pods are selected by" in text
    assert "give the version another name beside the new label" in text


def test_own_objects_are_no_hindrance(monkeypatch: pytest.MonkeyPatch) -> None:
    given = config()
    kubectl = FakeKubectl(objects=[*CRDS, *(live(kind, name, OWNER) for kind, name in preflight.declared(given))])
    check(monkeypatch, given, kubectl)
    assert all(call[0] == "get" for call in kubectl.calls)


def test_objects_of_another_stack_are_refused_with_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    text = refusal(monkeypatch, config(), live("Deployment", "bill-service-v1", "istio-governance/prod"))
    assert "1. Deployment bill-service-v1 belongs to the stack istio-governance/prod" in text
    assert "2. " not in text


@pytest.mark.parametrize("host", ["bill-service", "bill-service.istio-demo.svc.cluster.local"])
@pytest.mark.parametrize("kind", ["VirtualService", "DestinationRule"])
def test_rules_of_others_for_the_same_host_are_refused(monkeypatch: pytest.MonkeyPatch, kind: str, host: str) -> None:
    rule = live(kind, "by-hand")
    rule["spec"] = {"hosts": ["x", host]} if kind == "VirtualService" else {"host": host}
    text = refusal(monkeypatch, config(), rule)
    assert f"1. {kind} by-hand was not made by a stack, and has rules for the host bill-service" in text
    rule["spec"] = {"hosts": ["front-tomcat"]} if kind == "VirtualService" else {"host": "front-tomcat"}
    check(monkeypatch, config(), FakeKubectl(objects=[*CRDS, rule]))


@pytest.mark.parametrize(
    "other",
    [
        live("Deployment", "bill-service-v9"),
        live("Deployment", "bill-service"),
        live("Service", "front-tomcat"),
        live("Deployment", "bill-service-v1", namespace="elsewhere"),
        live("VirtualService", "vs-bill-service", namespace="elsewhere"),
        live("Namespace", "elsewhere"),
    ],
    ids=["another version", "no version", "a kind that is not made", "elsewhere", "rule elsewhere", "namespace"],
)
def test_objects_that_the_stack_does_not_make_are_none_of_its_business(
    monkeypatch: pytest.MonkeyPatch, other: Object
) -> None:
    kubectl = FakeKubectl(objects=[*CRDS, other])
    check(monkeypatch, config(), kubectl)
    assert kubectl.calls


def test_empty_cluster_without_istio_is_fine(monkeypatch: pytest.MonkeyPatch) -> None:
    kubectl = FakeKubectl()
    check(monkeypatch, config(), kubectl)
    own = [call[1] for call in kubectl.calls if "--all-namespaces" not in call]
    first, second = [kinds for kinds in own if "virtualservices" in kinds or "namespaces" in kinds]
    assert "virtualservices" in first and "virtualservices" not in second


@pytest.mark.parametrize("mode", ["off", "existing"])
def test_mesh_does_not_go_while_its_crds_hold_objects_of_others(monkeypatch: pytest.MonkeyPatch, mode: str) -> None:
    """The guard of destroy would say so, too, but late: the workloads would have lost their sidecars before."""
    given = config(mesh={"mode": mode, "purge": True})
    others = live("VirtualService", "theirs", namespace="shop")
    text = refusal(monkeypatch, given, live("Namespace", "istio-system", OWNER), others)
    assert "VirtualService shop/theirs" in text
    check(monkeypatch, config(mesh={"mode": mode}), FakeKubectl(objects=[*CRDS, others]))


@pytest.mark.parametrize("name", ["istio-system", "old", names.NODES])
def test_a_namespace_does_not_go_with_what_others_made_in_it(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """It was renamed, the mesh became another one's, or the nodes are prepared in another way."""
    given = config(mesh={"mode": "existing"})
    ours = [live("Namespace", name, OWNER), live("Service", "ours", OWNER, namespace=name)]
    text = refusal(monkeypatch, given, *ours, live("Service", "legacy", namespace=name))
    assert f"Service {name}/legacy was not made by a stack, and would go with its namespace" in text
    assert "/ours" not in text
    check(monkeypatch, given, FakeKubectl(objects=[*CRDS, *ours]))


def test_a_namespace_is_given_up_only_by_keeping_it(monkeypatch: pytest.MonkeyPatch) -> None:
    given = config(namespace={"create": False})
    namespace, legacy = live("Namespace", "istio-demo", OWNER), live("Service", "legacy")
    assert "set namespace.keep to true with it" in refusal(monkeypatch, given, namespace)
    namespace["metadata"]["annotations"][names.KEPT] = "true"
    check(monkeypatch, given, FakeKubectl(objects=[*CRDS, namespace, legacy]))


def test_what_is_of_this_stack_costs_no_further_look(monkeypatch: pytest.MonkeyPatch) -> None:
    kubectl = FakeKubectl(objects=[*CRDS, live("Namespace", "istio-demo", OWNER), live("Namespace", "shop")])
    check(monkeypatch, config(), kubectl)
    assert not any(call[0] == "api-resources" for call in kubectl.calls)


def test_mesh_of_others_is_no_affair_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    given = config(mesh={"mode": "existing", "purge": True})
    objects = [*CRDS, live("Namespace", "istio-system"), live("VirtualService", "theirs", namespace="shop")]
    check(monkeypatch, given, FakeKubectl(objects=objects))


def test_downgrade_is_refused_before_anything_is_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    objects = [live("Namespace", "istio-system", OWNER), istiod("1.31.0")]
    text = refusal(monkeypatch, config(mesh={"version": "1.30.0"}), *objects)
    assert "Istio 1.31.0 runs in istio-system, and mesh.version is 1.30.0" in text


def test_rules_are_not_looked_up_where_none_are_made(monkeypatch: pytest.MonkeyPatch) -> None:
    kubectl = FakeKubectl(objects=[*CRDS, live("VirtualService", "vs-bill-service")])
    check(monkeypatch, config(mesh={"mode": "off"}), kubectl)
    assert not any("virtualservices" in call[1] for call in kubectl.calls)


@pytest.mark.parametrize(
    ("kind", "name", "fix"),
    [
        ("Namespace", "istio-system", "set mesh.mode to existing"),
        ("Namespace", "istio-demo", "set namespace.create to false"),
        ("Service", "bill-service", "kubectl -n istio-demo delete service bill-service"),
        ("VirtualService", "vs-bill-service", "kubectl -n istio-demo delete virtualservice vs-bill-service"),
    ],
)
def test_refusal_says_what_to_do(monkeypatch: pytest.MonkeyPatch, kind: str, name: str, fix: str) -> None:
    assert fix in refusal(monkeypatch, config(), live(kind, name))


@pytest.mark.parametrize(
    ("cluster", "where"),
    [({"context": "prod"}, "(prod)"), ({"context": ""}, "(the current context)")],
)
@pytest.mark.parametrize("error", ["connection refused", 'forbidden: User "x" cannot list resource "services"'])
def test_cluster_that_cannot_be_read_is_told(
    monkeypatch: pytest.MonkeyPatch, cluster: Mapping[str, str], where: str, error: str
) -> None:
    with pytest.raises(pulumi.RunError) as refused:
        check(monkeypatch, config(cluster=cluster), FakeKubectl(error=error))
    assert f"cannot be read {where}; nothing was changed" in str(refused.value)
    assert f"kubectl says: {error}" in str(refused.value)


def test_kubeconfig_that_is_not_there_is_told_before_kubectl_is_asked(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    kubectl = FakeKubectl()
    with pytest.raises(pulumi.RunError, match=r"cluster\.kubeconfig"):
        check(monkeypatch, config(cluster={"kubeconfig": str(tmp_path / "nothing")}), kubectl)
    assert not kubectl.calls


def test_home_folder_in_the_kubeconfig_is_understood_by_everybody(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "config").touch()
    command = Kubectl(kubeconfig="~/config").command("get")
    assert f"--kubeconfig={tmp_path / 'config'}" in command
