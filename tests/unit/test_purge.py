"""What the two ends of `pulumi destroy` refuse, keep and remove."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import names
from components import Purge
from components.purge import PurgeArgs
from mesh import purge
from mesh.program.recorder import record
from mesh.program.stack import Stack

from .fake_kubectl import FakeKubectl, Object, crd, helm_record, made
from .given import config

OWNER = "istio-governance/dev"
RULES = crd("virtualservices", "networking.istio.io")
FOREIGN_CRD = crd("certificates", "cert-manager.io")
ALIKE_CRD = crd("gateways", "notistio.io")


def helm(name: str, release: str, namespace: str) -> Object:
    origin = {"meta.helm.sh/release-name": release, "meta.helm.sh/release-namespace": namespace}
    return made("VirtualService", name, "istio-system", origin)


def owned(name: str, owner: str) -> Object:
    return made("VirtualService", name, "shop", {names.OWNER: owner})


OURS = [owned("ours", OWNER), helm("helms", "istiod", "istio-system")]


@pytest.mark.parametrize(
    "objects",
    [
        [],
        [RULES],
        [RULES, *OURS],
        [FOREIGN_CRD, made("Certificate", "theirs", "shop")],
        [ALIKE_CRD, made("Gateway", "theirs", "shop")],
    ],
    ids=["empty cluster", "no objects", "only ours", "others' CRD", "a CRD named alike"],
)
def test_guard_lets_go_when_nobody_else_loses_anything(objects: list[Object]) -> None:
    kubectl = FakeKubectl(objects=objects)
    assert "no Istio objects of others" in purge.guard(kubectl, OWNER, "istio-system")


@pytest.mark.parametrize(
    "foreign",
    [
        made("VirtualService", "theirs", "shop"),
        made("VirtualService", "theirs", "shop", {"note": "by hand"}),
        owned("theirs", "istio-governance/prod"),
        helm("theirs", "istiod", "other-mesh"),
        helm("theirs", "kiali", "istio-system"),
    ],
    ids=["by hand", "annotated by hand", "another stack's", "another mesh's", "another chart beside the mesh"],
)
def test_guard_refuses_while_an_object_of_others_would_go(foreign: Object) -> None:
    kubectl = FakeKubectl(objects=[RULES, *OURS, foreign])
    with pytest.raises(purge.ForeignObjectsError) as refused:
        purge.guard(kubectl, OWNER, "istio-system")
    text = str(refused.value)
    assert re.search(rf"^  VirtualService {foreign['metadata']['namespace']}/theirs( \(the .*\))?$", text, re.M)
    assert "with them 1 object" in text
    assert "shop/ours" not in text
    assert "set mesh.purge to false" in text
    assert all(call[0] == "get" for call in kubectl.calls)


def test_sweep_keeps_the_crds_without_purge_and_says_how_to_remove_them() -> None:
    kubectl = FakeKubectl(objects=[RULES, FOREIGN_CRD])
    assert purge.sweep(kubectl, OWNER, "istio-system", purge=False) == (
        "kept 1 CRDs of Istio (mesh.purge is false); "
        "to remove them: kubectl delete crd virtualservices.networking.istio.io"
    )
    assert all(call[0] == "get" for call in kubectl.calls)


def test_sweep_removes_what_is_istios_and_nothing_else() -> None:
    others = [
        FOREIGN_CRD,
        ALIKE_CRD,
        made("Certificate", "theirs", "shop"),
        made("ConfigMap", "settings", "shop"),
        made("Namespace", "shop"),
    ]
    maps = [made("ConfigMap", name, ns) for name in ("istio-ca-root-cert", "istio-ca-crl") for ns in ("shop", "x")]
    kubectl = FakeKubectl(objects=[RULES, crd("wasmplugins", "extensions.istio.io"), *OURS, *maps, *others])
    assert purge.sweep(kubectl, OWNER, "istio-system", purge=True) == "removed 2 CRDs and 4 ConfigMaps of Istio"
    assert kubectl.objects == others


def test_what_carries_no_mark_is_nobody_s() -> None:
    """Also where no owner is given."""
    unmarked = [made("ClusterRole", "system:node"), made("Namespace", "istio-system"), made("Namespace", "shop")]
    kubectl = FakeKubectl(objects=[*unmarked])
    purge.sweep(kubectl, "", "istio-system", purge=True)
    assert kubectl.objects == unmarked and kubectl.changes == []


WEBHOOK = "MutatingWebhookConfiguration"


@pytest.mark.parametrize("purging", [True, False])
def test_sweep_removes_what_is_left_of_a_release_whose_record_is_lost(purging: bool) -> None:
    ours = {"meta.helm.sh/release-name": "istiod-canary", "meta.helm.sh/release-namespace": "istio-system"}
    others = [
        made(WEBHOOK, "kiali", annotations={**ours, "meta.helm.sh/release-name": "kiali"}),
        made(WEBHOOK, "other", annotations={**ours, "meta.helm.sh/release-namespace": "other-mesh"}),
        made("ClusterRole", "by-hand"),
        made("Namespace", "istio-demo", annotations={names.OWNER: OWNER}),
    ]
    remains = [
        made(WEBHOOK, "istio-sidecar-injector-canary", annotations=ours),
        made("ClusterRole", "istiod-clusterrole-canary-istio-system", annotations=ours),
        made("Namespace", "istio-system", annotations={names.OWNER: OWNER}),
    ]
    kubectl = FakeKubectl(objects=[*others, *remains])
    text = purge.sweep(kubectl, OWNER, "istio-system", purging)
    assert kubectl.objects == others
    assert all(item["metadata"]["name"] in text for item in remains)


@pytest.mark.parametrize(
    ("purging", "text"), [(True, "removed 0 CRDs and 0 ConfigMaps of Istio"), (False, "there was nothing to keep")]
)
def test_sweep_of_a_clean_cluster_changes_nothing(purging: bool, text: str) -> None:
    kubectl = FakeKubectl(objects=[made("Namespace", "shop")])
    assert purge.sweep(kubectl, OWNER, "istio-system", purging) == text
    assert all(call[0] == "get" for call in kubectl.calls)


# Who would lose something with the stack's namespaces, or by the names of its objects


MINE = made("Namespace", "shop", annotations={names.OWNER: OWNER})


@dataclass
class FakeStack(Stack):
    """A stack that is nothing but its state."""

    state: Sequence[Object] = ()

    def resources(self, show_secrets: bool = False) -> list[Object]:
        assert not show_secrets
        return [*self.state]


def entry(item: Object, manager: str = "pulumi-kubernetes-1234") -> Object:
    """An object in the state."""
    inputs = {"apiVersion": "v1", "kind": item["kind"], "metadata": item["metadata"]}
    return {"type": f"kubernetes:core/v1:{item['kind']}", "inputs": inputs, "outputs": {"__fieldManager": manager}}


RELEASE = {"type": "kubernetes:helm.sh/v3:Release", "inputs": {"namespace": "istio-system"}, "outputs": {}}


def written(item: Object, *managers: str, **metadata: Any) -> Object:
    fields = [{"manager": manager} for manager in managers]
    return {**item, "metadata": {**item["metadata"], "managedFields": fields, **metadata}}


@pytest.mark.parametrize(
    "inside",
    [
        owned("ours", OWNER),
        made("ServiceAccount", "default", "shop"),
        written(made("ConfigMap", "kube-root-ca.crt", "shop"), "kube-controller-manager"),
        written(made("ConfigMap", "istio-ca-root-cert", "shop"), "pilot-discovery"),
        written(made("Pod", "web-1", "shop"), "somebody", ownerReferences=[{"kind": "ReplicaSet"}]),
        made("Service", "theirs", "elsewhere"),
    ],
    ids=["of the stack", "of the namespace", "of Kubernetes", "of istiod", "derived", "elsewhere"],
)
def test_a_namespace_may_go_with_what_is_the_stack_s(inside: Object) -> None:
    kubectl = FakeKubectl(objects=[MINE, made("Namespace", "elsewhere"), inside])
    assert purge.guard_others(kubectl, FakeStack("dev"), OWNER) == "nothing of others would go"


@pytest.mark.parametrize(
    ("inside", "of"),
    [
        (written(made("Service", "theirs", "shop"), "kubectl"), ""),
        (written(made("Service", "theirs", "shop"), "kubectl", "kube-controller-manager"), ""),
        (owned("theirs", "istio-governance/prod"), "the stack istio-governance/prod"),
        (made("Deployment", "theirs", "shop", {"meta.helm.sh/release-name": "kiali"}), "the Helm release /kiali"),
        (helm_record("theirs") | {"metadata": {"name": "theirs", "namespace": "shop"}}, ""),
    ],
)
def test_a_namespace_does_not_go_with_what_others_have_in_it(inside: Object, of: str) -> None:
    kubectl = FakeKubectl(objects=[MINE, owned("ours", OWNER), inside])
    with pytest.raises(purge.ForeignObjectsError) as refused:
        purge.guard_others(kubectl, FakeStack("dev"), OWNER)
    text = str(refused.value)
    assert f"  {inside['kind']} shop/theirs{f' ({of})' if of else ''}\n" in text and "shop/ours" not in text
    assert f"{names.OWNER}={OWNER}" in text and kubectl.changes == []


def test_a_namespace_that_stays_may_hold_anything() -> None:
    kept = made("Namespace", "shop", annotations={names.OWNER: OWNER, names.KEPT: "true"})
    kubectl = FakeKubectl(objects=[kept, written(made("Service", "theirs", "shop"), "kubectl")])
    assert purge.guard_others(kubectl, FakeStack("dev"), OWNER) == "nothing of others would go"


def test_the_mesh_goes_with_what_is_its_own() -> None:
    """Its releases, Helm's records of them, and what istiod writes; a chart of others beside it stays."""
    mesh = made("Namespace", "istio-system", annotations={names.OWNER: OWNER})
    objects = [mesh, helm("helms", "istiod", "istio-system"), helm_record("istiod")]
    state = FakeStack("dev", state=[RELEASE])
    assert "nothing of others" in purge.guard_others(FakeKubectl(objects=objects), state, OWNER)
    for foreign in (helm("theirs", "kiali", "istio-system"), helm_record("kiali")):
        with pytest.raises(purge.ForeignObjectsError, match=r"Helm release istio-system/kiali|v1\.kiali\.v1"):
            purge.guard_others(FakeKubectl(objects=[*objects, foreign]), state, OWNER)
    with pytest.raises(purge.ForeignObjectsError, match="helms"):  # with no mesh of its own none of it is the stack's
        purge.guard_others(FakeKubectl(objects=objects), FakeStack("dev"), OWNER)


@pytest.mark.parametrize(
    ("there", "refused"),
    [
        (owned("web", OWNER) | {"kind": "Service"}, False),
        (written(made("Service", "web", "shop"), "kubectl", "pulumi-kubernetes-1234"), False),
        (written(made("Service", "web", "shop"), "kubectl"), True),
        (owned("web", "istio-governance/prod") | {"kind": "Service"}, True),
    ],
    ids=["the same", "its mark edited away", "made by hand", "another stack's"],
)
def test_what_only_has_the_name_of_an_own_object_stays(there: Object, refused: bool) -> None:
    """In a namespace of others: the provider would delete it by its name."""
    kubectl = FakeKubectl(objects=[made("Namespace", "shop"), {**there, "apiVersion": "v1"}])
    state = FakeStack("dev", state=[entry(made("Service", "web", "shop")), entry(made("Service", "gone", "shop"))])
    if refused:
        with pytest.raises(purge.ForeignObjectsError, match=r"In the place of objects(?s:.)*Service shop/web"):
            purge.guard_others(kubectl, state, OWNER)
    else:
        assert purge.guard_others(kubectl, state, OWNER) == "nothing of others would go"


ISTIOD = made("Deployment", "istiod", "other-mesh")
ISTIOD["metadata"]["labels"] = {"app": "istiod"}
THEIR_CRD = crd("sidecars", "networking.istio.io")
THEIR_CRD["metadata"]["annotations"] = helm("", "istio-base", "other-mesh")["metadata"]["annotations"]
THEIR_WEBHOOK = made(
    "MutatingWebhookConfiguration",
    "theirs",
    webhooks=[{"name": "rev.namespace.sidecar-injector.istio.io", "clientConfig": {"service": {"name": "istiod"}}}],
)


@pytest.mark.parametrize("theirs", [ISTIOD, THEIR_CRD, THEIR_WEBHOOK], ids=["istiod", "CRD", "webhook"])
def test_another_istio_keeps_what_it_needs(theirs: Object) -> None:
    """And so the objects of others are in no danger, either."""
    objects = [RULES, made("ConfigMap", "istio-ca-root-cert", "shop"), made("VirtualService", "theirs", "shop"), theirs]
    kubectl = FakeKubectl(objects=[*objects])
    told = purge.sweep(kubectl, OWNER, "istio-system", purge=False)
    assert "for another one: " in told and "kubectl delete" not in told
    assert "for another" in purge.guard(kubectl, OWNER, "istio-system")
    assert "for another one: " in purge.sweep(kubectl, OWNER, "istio-system", purge=True)
    assert kubectl.objects == objects and kubectl.changes == []


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> FakeKubectl:
    """Where `main` goes, with the environment that the component sets for it."""
    kubectl = FakeKubectl(objects=[RULES, *OURS])
    monkeypatch.setattr(purge, "Kubectl", lambda context, kubeconfig: connect(kubectl, context, kubeconfig))
    monkeypatch.setattr(purge, "Stack", FakeStack)
    given = config(cluster={"context": "prod", "kubeconfig": "some/file"}, mesh={"purge": True})
    command = record(lambda: Purge("leftovers", PurgeArgs(given.cluster, given.mesh)), stack="dev").one("Command")
    for name, value in command.inputs["environment"].items():
        monkeypatch.setenv(name, value)
    return kubectl


def connect(kubectl: FakeKubectl, context: str, kubeconfig: str) -> FakeKubectl:
    assert (context, kubeconfig) == ("prod", str(Path.cwd() / "some/file"))
    return kubectl


@pytest.mark.parametrize(
    ("step", "printed", "left"),
    [
        ("guard", "no Istio objects of others in the cluster\nnothing of others would go\n", 3),
        ("sweep", "removed 1 CRDs and 0 ConfigMaps of Istio\n", 0),
    ],
)
def test_command_goes_where_the_component_says(
    cluster: FakeKubectl, capsys: pytest.CaptureFixture[str], step: str, printed: str, left: int
) -> None:
    purge.main(step)
    assert capsys.readouterr().out == printed
    assert len(cluster.objects) == left


def test_without_purge_the_crds_are_no_question(
    cluster: FakeKubectl, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MESH_PURGE", "false")
    cluster.objects.append(made("VirtualService", "theirs", "elsewhere"))
    purge.main("guard")
    assert capsys.readouterr().out == "nothing of others would go\n"


def test_command_with_an_unknown_step_removes_nothing(cluster: FakeKubectl) -> None:
    with pytest.raises(SystemExit, match="gaurd"):
        purge.main("gaurd")
    assert not cluster.calls


@pytest.mark.parametrize("step", ["guard", "sweep"])
def test_command_fails_in_one_line_when_the_cluster_does(
    monkeypatch: pytest.MonkeyPatch, cluster: FakeKubectl, step: str
) -> None:
    broken = FakeKubectl(objects=cluster.objects, error="connection refused")
    monkeypatch.setattr(purge, "Kubectl", lambda _context, _kubeconfig: broken)
    with pytest.raises(SystemExit, match=r"^the cluster could not be cleaned: connection refused$"):
        purge.main(step)
