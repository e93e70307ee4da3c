"""Whose an object is: whatever deletes, patches or takes over asks here first.

The stack's own objects carry its annotation, those inside its Helm releases Helm's marks. Where a mark may have been
edited away, the API server's record of who wrote to an object tells whether it is the one that the stack has made.
https://kubernetes.io/docs/reference/using-api/server-side-apply/#field-management
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import names
from mesh.cluster.kubectl import Kubectl, KubectlError
from mesh.cluster.objects import Object

HELM_NAME, HELM_NAMESPACE = "meta.helm.sh/release-name", "meta.helm.sh/release-namespace"
HELM = "pulumi-resource-kubernetes"
"""The field manager of what lies inside a Helm release: Helm takes the name of the program that it runs in."""

# What writes into every namespace by itself, by its field manager.
CONTROLLERS = frozenset(
    {
        "cloud-controller-manager",
        "cluster-policy-controller",  # OpenShift
        "kube-apiserver",
        "kube-controller-manager",
        "kube-scheduler",
        "kubelet",
        "openshift-controller-manager",
        "pilot-discovery",
    }
)
# Of no worth once the namespace goes, and too many to ask for.
_PASSING = frozenset({"endpoints", "endpointslices.discovery.k8s.io", "events", "events.events.k8s.io"})
_FORBIDDEN = re.compile(r'cannot list resource "([^"]+)" in API group "([^"]*)"')


def annotations_of(item: Object) -> Mapping[str, str]:
    return item["metadata"].get("annotations") or {}


def labels_of(item: Object) -> Mapping[str, str]:
    return item["metadata"].get("labels") or {}


def stack_of(item: Object) -> str:
    """`<project>/<stack>`, '' for none."""
    return annotations_of(item).get(names.OWNER, "")


def is_of(item: Object, owner: str) -> bool:
    """Whether it carries the mark of the stack `owner`; what carries none is nobody's, also where `owner` is ''."""
    return bool(owner) and stack_of(item) == owner


def goes_with(namespace: Object, owner: str) -> bool:
    """Whether a namespace is deleted with the stack `owner`: its own, and not kept by the state, which has it, too."""
    return is_of(namespace, owner) and names.KEPT not in annotations_of(namespace)


def release_of(item: Object) -> tuple[str, str]:
    """Namespace and name of the Helm release that it belongs to, both '' for none."""
    marks = annotations_of(item)
    return marks.get(HELM_NAMESPACE, ""), marks.get(HELM_NAME, "")


def is_in_mesh(item: Object, namespace: str) -> bool:
    """Whether it belongs to a Helm release of the mesh that a stack has in `namespace`."""
    of_namespace, name = release_of(item)
    return bool(namespace) and of_namespace == namespace and names.is_release(name)


def writers(item: Object) -> set[str]:
    """The field managers that have something to say in it; it has to be read with them."""
    return {entry["manager"] for entry in item["metadata"].get("managedFields") or ()}


def is_made_by(item: Object, owner: str, manager: str) -> bool:
    """Whether the stack `owner` made it, by the field manager that Pulumi gave it then."""
    return is_of(item, owner) or manager in writers(item)


def is_istio(item: Object) -> bool:
    """A CRD, an istiod or a webhook of Istio's, whoever made it."""
    if item["kind"] == "CustomResourceDefinition":
        return str(item["spec"]["group"]).endswith(".istio.io")
    if item["kind"] == "Deployment":
        return labels_of(item).get("app") == "istiod"
    return any(
        webhook["name"].endswith(".istio.io") and "istiod" in str(webhook.get("clientConfig"))
        for webhook in item.get("webhooks", ())
    )


def whose(item: Object) -> str:
    """In words, for an object that is not the asking stack's."""
    found = manager(item, "")
    return f"belongs to {found.who}" if found else "was not made by a stack"


def strangers(kubectl: Kubectl, owner: str, mesh_namespace: str, namespaces: Iterable[str]) -> list[Object]:
    """What others made in namespaces of the stack `owner`, and what would go with them.

    `mesh_namespace` is that of the stack's own mesh, '' for none. What a controller of the cluster made, or derived
    from another object, is left out. Raises `KubectlError`, also where something may not be looked at.
    """
    found: list[Object] = []
    kinds = ",".join(sorted(_kinds(kubectl))) if (namespaces := [*namespaces]) else ""
    for namespace in namespaces:
        try:
            items = kubectl.items(kinds, f"--namespace={namespace}", "--show-managed-fields", timeout=120)
        except KubectlError as error:
            if not (hidden := {f"{kind}.{group}".rstrip(".") for kind, group in _FORBIDDEN.findall(str(error))}):
                raise
            raise KubectlError(
                f"what others may have in the namespace {namespace} cannot be seen, as you may not list "
                f"{', '.join(sorted(hidden))} there"
            ) from None
        found += [one for one in items if not (_is_derived(one) or _is_own(one, owner, mesh_namespace))]
    return found


def _kinds(kubectl: Kubectl) -> set[str]:
    return {*kubectl.run("api-resources", "--namespaced", "--verbs=list,delete", "--output=name").split()} - _PASSING


def _is_own(item: Object, owner: str, mesh_namespace: str) -> bool:
    if is_of(item, owner) or is_in_mesh(item, mesh_namespace):
        return True
    of_helm = labels_of(item) if item["kind"] == "Secret" and labels_of(item).get("owner") == "helm" else {}
    return item["metadata"]["namespace"] == mesh_namespace and names.is_release(of_helm.get("name", ""))


def _is_derived(item: Object) -> bool:
    if (item["kind"], item["metadata"]["name"]) == ("ServiceAccount", "default"):
        return True  # it has no field that anybody could have written
    return "ownerReferences" in item["metadata"] or (bool(writers(item)) and writers(item) <= CONTROLLERS)


class Manager(NamedTuple):
    """`stop` says how it lets go of the object without deleting it; `marks` are then to be taken away, as kubectl's
    `annotate` and `label` take them."""

    who: str
    stop: str
    marks: tuple[str, ...] = ()


def manager(live: Object, owner: str, release: tuple[str, str] | None = None) -> Manager | None:
    """Who would go on changing or deleting `live`; None for nobody, the stack `owner` itself, or its own `release`,
    which is namespace and name."""
    return next(_managers(live["metadata"], owner, release), None)


def _managers(metadata: Mapping[str, Any], owner: str, release: tuple[str, str] | None) -> Iterator[Manager]:
    labels: Mapping[str, str] = metadata.get("labels") or {}
    annotations: Mapping[str, str] = metadata.get("annotations") or {}
    stack = annotations.get(names.OWNER, owner)
    if stack != owner:
        yield Manager(
            f"the stack {stack}",
            "take it out of that stack: pulumi state delete <its URN>, which keeps the object",
            (f"annotate {names.OWNER}-",),
        )
    elif labels.get(names.MANAGED_BY) == "pulumi" and names.OWNER not in annotations:
        yield Manager(
            "another Pulumi program",
            "take it out of its stack: pulumi state delete <its URN>, which keeps the object",
            (f"label {names.MANAGED_BY}-",),
        )
    # https://argo-cd.readthedocs.io/en/stable/user-guide/resource_tracking/
    tracked = annotations.get("argocd.argoproj.io/tracking-id", "").partition(":")[0]
    if application := tracked or labels.get("argocd.argoproj.io/instance", ""):
        yield Manager(
            f"the Argo CD application {application}",
            f"delete the application alone: argocd app delete {application} --cascade=false",
            ("annotate argocd.argoproj.io/tracking-id-", "label argocd.argoproj.io/instance-"),
        )
    # https://fluxcd.io/flux/components/kustomize/kustomizations/#prune
    for group, kind in (("kustomize", "kustomization"), ("helm", "helmrelease")):
        prefix = f"{group}.toolkit.fluxcd.io"
        if name := labels.get(f"{prefix}/name"):
            namespace = labels.get(f"{prefix}/namespace", "flux-system")
            yield Manager(
                f"Flux's {kind} {namespace}/{name}",
                f"suspend it (flux suspend {kind} {name} -n {namespace}), and delete it with its finalizer removed, "
                "so that it prunes nothing",
                (f"label {prefix}/name- {prefix}/namespace-",),
            )
    for reference in metadata.get("ownerReferences") or ():
        yield Manager(
            f"the {reference['kind']} {reference['name']}, which would make it again",
            f"delete that alone: kubectl delete {reference['kind'].lower()} {reference['name']} --cascade=orphan",
        )
    found = annotations.get(HELM_NAMESPACE, ""), annotations.get(HELM_NAME, "")
    if found[1] and found != release:
        namespace, name = found
        yield Manager(
            f"the Helm release {namespace}/{name}",
            "let Helm forget the release, which keeps its objects: "
            f"kubectl delete secret -n {namespace} -l owner=helm,name={name}",
            (f"annotate {HELM_NAME}- {HELM_NAMESPACE}-", f"label {names.MANAGED_BY}-"),
        )
