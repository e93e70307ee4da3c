"""The namespace of the workloads, and the label by which Istio injects sidecars into it."""

from __future__ import annotations

from dataclasses import dataclass

import pulumi

import names
from components.kubernetes import KubernetesObject
from config import Mesh
from config import Namespace as NamespaceConfig
from config.mesh import DEFAULT_REVISION


@dataclass(frozen=True)
class WorkloadNamespaceArgs:
    """`mesh` says whether and by which revision sidecars are injected; without `injects` the pods alone say which."""

    namespace: NamespaceConfig
    mesh: Mesh
    injects: bool = True


class WorkloadNamespace(pulumi.ComponentResource):
    """A namespace of this stack's own, or only the injection label on somebody else's.

    https://istio.io/latest/docs/setup/additional-setup/sidecar-injection/#automatic-sidecar-injection
    """

    namespace: pulumi.Output[str]

    def __init__(self, name: str, args: WorkloadNamespaceArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("istio-governance:namespace:WorkloadNamespace", name, None, opts)
        child = pulumi.ResourceOptions(parent=self)
        labels = injection_labels(args.mesh) if args.injects else {}
        target = args.namespace.name
        if args.namespace.create:
            # The live mark says that the state has taken it in: see `preflight`, and the guard of `destroy`.
            marks = {names.KEPT: "true"} if args.namespace.keep else None
            child.retain_on_delete = args.namespace.keep or None
            KubernetesObject("Namespace", target, labels=labels, annotations=marks, opts=child)
        elif args.mesh.on:
            KubernetesObject("NamespacePatch", target, labels=labels, opts=child)
        self.namespace = pulumi.Output.from_input(target)
        self.register_outputs({"namespace": self.namespace})


def injection_labels(mesh: Mesh) -> dict[str, str]:
    """`istio-injection` for the default revision, `istio.io/rev` for any other; both together would not work."""
    if not mesh.on:
        return {}
    if mesh.default_revision == DEFAULT_REVISION:
        return {"istio-injection": "enabled"}
    return {names.REVISION: mesh.revision}
