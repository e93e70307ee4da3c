"""Which objects `mesh adopt` takes over, which it refuses, and what it sends to the cluster."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from typing import Any

import pytest
import yaml

import names
from config import files
from mesh import adopt
from mesh.adopt import words
from mesh.adopt.find import ISTIOCTL
from mesh.cluster.kubectl import KubectlError
from mesh.cluster.releases import owned_by
from mesh.declared import declared_by
from mesh.program.recorder import Recording, Resource

from .fake_kubectl import FakeKubectl, Object, helm_record

OWNER = "istio-governance/dev"
HELM = owned_by("istiod", "istio-system", {})


def stack() -> Recording:
    return declared_by(files.values("dev"), "dev")


RECORDING, CONFIG = stack(), files.effective("dev")
VERSION = CONFIG.mesh.current.version


def labelled(item: Object, **parts: Mapping[str, str]) -> Object:
    """A copy with these labels and annotations besides."""
    made = copy.deepcopy(item)
    for part, marks in parts.items():
        made["metadata"][part] = {**made["metadata"].get(part, {}), **marks}
    return made


ISTIOD: Object = {
    "apiVersion": "apps/v1",
    "kind": "Deployment",
    "metadata": {"name": "istiod", "namespace": "istio-system", "labels": {"app": "istiod"}},
    "spec": {
        "replicas": 1,
        "template": {
            "metadata": {"labels": {"app": "istiod"}},
            "spec": {"containers": [{"name": "discovery", "image": f"docker.io/istio/pilot:{VERSION}"}]},
        },
    },
}
ROLE: Object = {
    "apiVersion": "rbac.authorization.k8s.io/v1",
    "kind": "ClusterRole",
    "metadata": {"name": "istiod-clusterrole-istio-system"},
    "rules": [],
}
OLD_ROLE: Object = {**ROLE, "metadata": {"name": "istio-reader"}}


def rendered(release: Resource) -> list[Object]:
    return [ISTIOD, ROLE] if release.inputs["name"] == "istiod" else []


def by_hand(kind: str, name: str) -> Object:
    """A declared object as somebody made it, without the marks of a stack."""
    made: Object = json.loads(
        json.dumps(RECORDING.named(kind)[name].inputs),
        object_hook=lambda found: {key: value for key, value in found.items() if value is not None},
    )
    del made["metadata"]["annotations"][names.OWNER], made["metadata"]["labels"]["app.kubernetes.io/managed-by"]
    return made


def record(status: str = "deployed", *objects: Object, name: str = "istiod") -> Object:
    """The secret in which Helm keeps a release of `objects`."""
    manifest = yaml.safe_dump_all(objects)
    return helm_record(name, status, chart={"metadata": {"name": name, "version": VERSION}}, manifest=manifest)


def look(kubectl: FakeKubectl, known: frozenset[str] = frozenset()) -> adopt.Plan:
    return adopt.find(RECORDING, adopt.Search(CONFIG, OWNER, kubectl, known, rendered))


def found(*objects: Object) -> adopt.Plan:
    return look(FakeKubectl(objects=copy.deepcopy([*objects])))


def taken(plan: adopt.Plan) -> set[tuple[str, str]]:
    return {(one.body["kind"], one.body["metadata"]["name"]) for one in plan.candidates}


SERVICE, RULE = by_hand("Service", "bill-service"), by_hand("VirtualService", "vs-bill-service")
DEPLOYMENT = by_hand("Deployment", "bill-service-v1")


def test_nothing_is_taken_from_an_empty_cluster() -> None:
    assert not found() and found() == adopt.Plan()


def test_what_is_as_declared_is_taken_without_a_change() -> None:
    plan = found(SERVICE, RULE, DEPLOYMENT)
    assert taken(plan) == {
        ("Service", "bill-service"),
        ("VirtualService", "vs-bill-service"),
        ("Deployment", "bill-service-v1"),
    }
    assert plan.refusals == []
    assert not any(one.restarts for one in plan.candidates)
    changes = {difference.field for one in plan.candidates for difference in one.changes}
    assert changes == {f"metadata.annotations[{names.OWNER}]", "metadata.labels[app.kubernetes.io/managed-by]"}


def test_what_up_would_change_is_shown() -> None:
    rule, deployment = copy.deepcopy(RULE), copy.deepcopy(DEPLOYMENT)
    for destination, weight in zip(rule["spec"]["http"][0]["route"], (70, 30), strict=True):
        destination["weight"] = weight
    rule["spec"]["exportTo"] = ["."]
    deployment["spec"]["template"]["spec"]["containers"][0]["image"] = "other"
    plan = found(rule, deployment)
    text = "\n".join(words.plan(plan, "dev"))
    assert "v1 70 % → 90 %; v2 30 % → 10 %" in text
    assert "spec.exportTo is not declared and stays" in text
    assert "one field; its pods restart" in text
    assert "spec.template.spec.containers[bill-service].image: other → nginx:alpine" in text


@pytest.mark.parametrize("mine", [SERVICE, RULE])
def test_what_is_the_stacks_own_is_left_alone(mine: Object) -> None:
    assert not found(labelled(mine, annotations={names.OWNER: OWNER}))


def test_what_is_in_the_state_is_left_alone() -> None:
    known = frozenset(resource.urn for resource in RECORDING)
    assert not look(FakeKubectl(objects=[SERVICE, ISTIOD, record()]), known)


@pytest.mark.parametrize(
    ("marks", "who", "fix"),
    [
        (
            {"annotations": {names.OWNER: "istio-governance/prod"}},
            "the stack istio-governance/prod",
            "pulumi state delete",
        ),
        ({"labels": {"app.kubernetes.io/managed-by": "pulumi"}}, "another Pulumi program", "pulumi state delete"),
        (
            {"annotations": {"argocd.argoproj.io/tracking-id": "shop:/Service:demo/bill-service"}},
            "the Argo CD application shop",
            "argocd app delete shop --cascade=false",
        ),
        (
            {"labels": {"kustomize.toolkit.fluxcd.io/name": "apps", "kustomize.toolkit.fluxcd.io/namespace": "flux"}},
            "Flux's kustomization flux/apps",
            "flux suspend kustomization apps -n flux",
        ),
        (
            {"annotations": {"meta.helm.sh/release-name": "bill", "meta.helm.sh/release-namespace": "istio-demo"}},
            "the Helm release istio-demo/bill",
            "kubectl delete secret -n istio-demo -l owner=helm,name=bill",
        ),
    ],
)
def test_what_others_manage_is_refused_with_the_way_to_release_it(
    marks: dict[str, Mapping[str, str]], who: str, fix: str
) -> None:
    plan = found(labelled(SERVICE, **marks))
    (refusal,) = plan.refusals
    assert refusal.what == f"managed by {who}" and fix in refusal.fix
    assert "take its marks away from each object: kubectl" in refusal.fix
    assert not plan.candidates
    assert f"managed by {who}: Service istio-demo/bill-service" in "\n".join(words.plan(plan, "dev"))


def test_what_an_operator_would_make_again_is_refused() -> None:
    istiod = copy.deepcopy(ISTIOD)
    istiod["metadata"]["ownerReferences"] = [{"kind": "IstioRevision", "name": "default"}]
    (refusal,) = found(istiod).refusals
    assert "the IstioRevision default" in refusal.what and "--cascade=orphan" in refusal.fix


def test_a_release_of_another_name_is_refused() -> None:
    (refusal,) = found(labelled(ISTIOD, **owned_by("pilot", "istio-system", {}))).refusals
    assert refusal.what == "managed by the Helm release istio-system/pilot"


def test_a_selector_that_cannot_change_is_refused() -> None:
    deployment = copy.deepcopy(DEPLOYMENT)
    deployment["spec"]["selector"]["matchLabels"] = {"app": "other"}
    (refusal,) = found(deployment).refusals
    assert "its pods are selected by" in refusal.what and "give the version another name" in refusal.fix


def test_a_container_that_would_stay_beside_the_declared_one_is_refused() -> None:
    deployment = copy.deepcopy(DEPLOYMENT)
    deployment["spec"]["template"]["spec"]["containers"][0]["name"] = "nginx"
    (refusal,) = found(deployment).refusals
    assert "has the containers nginx, and bill-service is declared" in refusal.what


@pytest.mark.parametrize("status", ["failed", "pending-upgrade", "uninstalling"])
def test_a_release_that_is_not_well_is_refused(status: str) -> None:
    (refusal,) = found(record(status)).refusals
    assert refusal.what == f"the Helm release istio-system/istiod is {status}"


def test_another_version_is_taken_over_before_it_is_upgraded() -> None:
    older = copy.deepcopy(ISTIOD)
    older["spec"]["template"]["spec"]["containers"][0]["image"] = "docker.io/istio/pilot:1.30.1"
    (refusal,) = found(older).refusals
    assert "Istio 1.30.1 runs in istio-system" in refusal.what and 'set mesh.version to "1.30.1"' in refusal.fix
    (refusal,) = found(labelled(ISTIOD, labels={"istio.io/rev": "green"})).refusals
    assert 'set mesh.revision to "green"' in refusal.fix


def test_what_lives_in_an_adopted_namespace_is_told() -> None:
    namespace, other = by_hand("Namespace", "istio-demo"), labelled(SERVICE)
    other["metadata"]["name"] = "others"
    plan = found(namespace, other, SERVICE)
    assert [str(one) for one in plan.inhabitants] == ["Service istio-demo/others"]
    assert "deletes it with the namespace:\n  Service istio-demo/others" in "\n".join(words.plan(plan, "dev"))


# What is sent.


def take(*objects: Object, patience: int | None = None) -> FakeKubectl:
    kubectl = FakeKubectl(objects=copy.deepcopy([*objects]), patience=patience)
    adopt.take(look(kubectl), OWNER, kubectl)
    return kubectl


def marks(kubectl: FakeKubectl, kind: str, name: str) -> Any:
    return next(o["metadata"] for o in kubectl.objects if (o["kind"], o["metadata"]["name"]) == (kind, name))


def test_own_objects_get_the_stacks_mark_and_nobody_owns_their_fields() -> None:
    kubectl = take(SERVICE, RULE)
    for item in (SERVICE, RULE):
        metadata = marks(kubectl, item["kind"], item["metadata"]["name"])
        assert metadata["annotations"][names.OWNER] == OWNER
        assert metadata["labels"][names.MANAGED_BY] == "pulumi"
        (entry,) = metadata["managedFields"]
        assert entry["fieldsV1"] == {
            "f:metadata": {"f:annotations": {f"f:{names.OWNER}": {}}, "f:labels": {f"f:{names.MANAGED_BY}": {}}}
        }
        assert entry["apiVersion"] == item["apiVersion"]
    assert {call[0] for call in kubectl.changes} == {"patch"}
    assert not look(kubectl)


def test_objects_of_istioctl_get_the_marks_of_helm() -> None:
    made = [labelled(item, labels={ISTIOCTL: "unknown"}) for item in (ISTIOD, ROLE, OLD_ROLE)]
    kubectl = take(*made)
    for kind, name in (("Deployment", "istiod"), ("ClusterRole", ROLE["metadata"]["name"])):
        metadata = marks(kubectl, kind, name)
        assert HELM["annotations"].items() <= metadata["annotations"].items()
        assert HELM["labels"].items() <= metadata["labels"].items()
    assert marks(kubectl, "ClusterRole", "istio-reader")["annotations"] == {names.OWNER: OWNER}, "destroy takes it away"
    assert not look(kubectl)


def test_the_record_of_helm_gives_way() -> None:
    inside = [labelled(item, **HELM) for item in (ISTIOD, ROLE, OLD_ROLE)]
    plan = found(*inside, record("deployed", ISTIOD, ROLE, OLD_ROLE))
    assert [one.made_by for one in plan.candidates] == ["Helm", "Helm"]
    assert not [one for one in plan.candidates if one.changes]
    assert [item["metadata"]["name"] for item in plan.leftovers] == ["istio-reader"]
    kubectl = take(*inside, record("deployed", ISTIOD, ROLE))
    assert ("Secret", "sh.helm.release.v1.istiod.v1") not in kubectl.left
    assert not look(kubectl)


def test_a_killed_run_is_repeated() -> None:
    """At every step: what is left to do is found again, and the preflight lets nothing through before the last."""
    objects = [ISTIOD, ROLE, record("deployed", ISTIOD), by_hand("Namespace", "istio-system"), SERVICE, RULE]
    steps = len(take(*objects).changes)
    assert steps > 3
    for patience in range(steps):
        kubectl = FakeKubectl(objects=copy.deepcopy(objects), patience=patience)
        with pytest.raises(KubectlError, match="killed"):
            adopt.take(look(kubectl), OWNER, kubectl)
        assert look(kubectl)
        adopt.take(look(kubectl), OWNER, again := FakeKubectl(objects=kubectl.objects))
        assert not look(again)
