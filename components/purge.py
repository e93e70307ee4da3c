"""What `pulumi destroy` has to do beyond deleting its resources.

Destroy does not run the program, so both ends of it hang on the delete command of a resource: `PurgeGuard` depends on
everything and goes first, `Purge` is what everything depends on and goes last.
"""

from __future__ import annotations

from dataclasses import dataclass

import pulumi
from pulumi_command import local

from components.commands import python
from components.kubernetes import InCluster, owner
from config import Cluster, Mesh, StackConfig


@dataclass(frozen=True)
class PurgeArgs:
    """`mesh.purge` decides whether the CRDs go, and with them every Istio object in the cluster."""

    cluster: Cluster
    mesh: Mesh
    guarded: str = ""
    """The namespace that the guard is for; '': all of the stack's, and whatever it has outside of them."""

    @property
    def environment(self) -> dict[str, str]:
        return {
            "MESH_CONTEXT": self.cluster.context,
            "MESH_KUBECONFIG": self.cluster.kubeconfig,
            "MESH_NAMESPACE": self.mesh.namespace,
            "MESH_OWNER": owner(),
            "MESH_PURGE": "true" if self.mesh.mode == "managed" and self.mesh.purge else "false",
            **({"MESH_GUARDS": self.guarded} if self.guarded else {}),
        }


class _AtDestroy(pulumi.ComponentResource):
    """A step of mesh/purge.py that runs when this is deleted, and at no other time."""

    def __init__(self, name: str, step: str, args: PurgeArgs, opts: pulumi.ResourceOptions | None) -> None:
        super().__init__(f"istio-governance:purge:{type(self).__name__}", name, None, opts)
        local.Command(
            f"mesh-{name}",
            delete=python(f"-m mesh.purge {step}"),
            environment=args.environment,
            # For another namespace it is made anew: the old one is deleted, and so runs, before a namespace that goes,
            # if it depends on that by itself: what its parent depends on counts for a destroy alone.
            triggers=[args.guarded] if args.guarded else None,
            opts=pulumi.ResourceOptions(parent=self, depends_on=opts.depends_on if opts and args.guarded else None),
        )
        self.register_outputs({})


class Purge(_AtDestroy):
    """Deleted last: removes what Helm and istiod leave behind, or prints what it kept."""

    def __init__(self, name: str, args: PurgeArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__(name, "sweep", args, opts)


class PurgeGuard(_AtDestroy):
    """Deleted first: refuses while anything of others would go, with the CRDs, with a namespace or by its name.

    In a protected stack it is protected, too: else Pulumi would delete all that depends on what is, and refuse then.
    """

    def __init__(self, name: str, args: PurgeArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__(name, "guard", args, opts)


def guard(config: StackConfig, cluster: InCluster) -> None:
    """All that the stack has in the cluster by now."""
    _guard(cluster, PurgeArgs(config.cluster, config.mesh), config.protect)


def guard_namespace(config: StackConfig, cluster: InCluster, namespace: str, crds: bool = False) -> None:
    """One namespace of a program that has other things, too; with `crds` those of Istio as well."""
    mesh = config.mesh if crds else config.mesh.model_copy(update={"purge": False})
    _guard(cluster, PurgeArgs(config.cluster, mesh, namespace), config.protect)


def _guard(cluster: InCluster, args: PurgeArgs, protect: bool) -> None:
    PurgeGuard(cluster.called("guard"), args, cluster.after(*cluster.made, protect=protect))
