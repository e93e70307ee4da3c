"""What the two ends of `pulumi destroy` refuse, keep and remove."""

from __future__ import annotations

import pytest

import names
from components import Purge
from components.purge import PurgeArgs
from mesh import purge
from mesh.recorder import record

from .fake_kubectl import FakeKubectl, Object, crd, made
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
    assert f"  VirtualService {foreign['metadata']['namespace']}/theirs\n" in text
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


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> FakeKubectl:
    """Where `main` goes, with the environment that the component sets for it."""
    kubectl = FakeKubectl(objects=[RULES, *OURS])
    monkeypatch.setattr(purge, "Kubectl", lambda context, kubeconfig: connect(kubectl, context, kubeconfig))
    given = config(cluster={"context": "prod", "kubeconfig": "some/file"}, mesh={"purge": True})
    command = record(lambda: Purge("leftovers", PurgeArgs(given.cluster, given.mesh)), stack="dev").one("Command")
    for name, value in command.inputs["environment"].items():
        monkeypatch.setenv(name, value)
    return kubectl


def connect(kubectl: FakeKubectl, context: str, kubeconfig: str) -> FakeKubectl:
    assert (context, kubeconfig) == ("prod", "some/file")
    return kubectl


@pytest.mark.parametrize(
    ("step", "printed", "left"),
    [
        ("guard", "no Istio objects of others in the cluster\n", 3),
        ("sweep", "removed 1 CRDs and 0 ConfigMaps of Istio\n", 0),
    ],
)
def test_command_goes_where_the_component_says(
    cluster: FakeKubectl, capsys: pytest.CaptureFixture[str], step: str, printed: str, left: int
) -> None:
    purge.main(step)
    assert capsys.readouterr().out == printed
    assert len(cluster.objects) == left


def test_without_purge_the_guard_asks_nobody(cluster: FakeKubectl, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MESH_PURGE", "false")
    purge.main("guard")
    assert not cluster.calls


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
