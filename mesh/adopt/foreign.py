"""Whether somebody else still manages an object, by the marks that the common tools leave on theirs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import names
from mesh.objects import Object

HELM_NAME, HELM_NAMESPACE = "meta.helm.sh/release-name", "meta.helm.sh/release-namespace"


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
