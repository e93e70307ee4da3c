"""The namespace of the workloads, and the label by which Istio injects sidecars into it."""

from __future__ import annotations

from dataclasses import dataclass

import pulumi

from components.kubernetes import KubernetesObject
from config import Mesh
from config import Namespace as NamespaceConfig


@dataclass(frozen=True)
class WorkloadNamespaceArgs:
    """`mesh` says whether and by which revision sidecars are injected."""

    namespace: NamespaceConfig
    mesh: Mesh


class WorkloadNamespace(pulumi.ComponentResource):
    """A namespace of this stack's own, or only the injection label on somebody else's.

    https://istio.io/latest/docs/setup/additional-setup/sidecar-injection/#automatic-sidecar-injection
    """

    namespace: pulumi.Output[str]

    def __init__(self, name: str, args: WorkloadNamespaceArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("istio-governance:namespace:WorkloadNamespace", name, None, opts)
        child, labels = pulumi.ResourceOptions(parent=self), injection_labels(args.mesh)
        target = args.namespace.name
        if args.namespace.create:
            KubernetesObject("Namespace", target, labels=labels, opts=child)
        elif labels:
            KubernetesObject("NamespacePatch", target, labels=labels, opts=child)
        self.namespace = pulumi.Output.from_input(target)
        self.register_outputs({"namespace": self.namespace})


def injection_labels(mesh: Mesh) -> dict[str, str]:
    """`istio-injection` for the default revision, `istio.io/rev` for any other; both together would not work."""
    if not mesh.on:
        return {}
    return {"istio.io/rev": mesh.revision} if mesh.revision else {"istio-injection": "enabled"}
