"""The namespace of the workloads, and the label by which Istio injects sidecars into it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pulumi
from pulumi_kubernetes import core

import names
from components.kubernetes import InCluster, metadata
from config import Mesh, StackConfig
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
            core.v1.Namespace(target, metadata=metadata(target, labels=labels, annotations=marks), opts=child)
        elif args.mesh.on:
            # Somebody else's object must not say that it is ours.
            core.v1.NamespacePatch(target, metadata={"name": target, "labels": labels}, opts=child)
        self.namespace = pulumi.Output.from_input(target)
        self.register_outputs({"namespace": self.namespace})


def open_for(config: StackConfig, cluster: InCluster, injection: Sequence[pulumi.Resource]) -> WorkloadNamespace:
    """The stack's workloads, when a pod can start with a sidecar."""
    args = WorkloadNamespaceArgs(config.namespace, config.mesh, config.follows_one_revision)
    return cluster.has(
        WorkloadNamespace(cluster.called("workloads"), args, cluster.after(*injection, protect=config.protect))
    )


def injection_labels(mesh: Mesh) -> dict[str, str]:
    """`istio-injection` for the default revision, `istio.io/rev` for any other; both together would not work."""
    if not mesh.on:
        return {}
    if mesh.default_revision == DEFAULT_REVISION:
        return {"istio-injection": "enabled"}
    return {names.REVISION: mesh.revision}
