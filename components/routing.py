"""How the requests to one service are routed between its versions, and how they leave the mesh."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pulumi

import names
from components.command import LocalCommand
from components.kubernetes import KubernetesObject
from config import Cluster
from config import Egress as EgressConfig
from istio.rules import Object, Routed, outside

# A relative path, as Pulumi runs its plugins in the project's folder: the state must not name a machine.
_WAIT = ".venv/bin/python -m mesh.wait"


@dataclass(frozen=True)
class RoutingArgs:
    """`cluster` is for the commands that ask its proxies."""

    routed: Routed
    cluster: Cluster


class Routing(pulumi.ComponentResource):
    """Subsets → the proxies know them → weights → no proxy uses another subset.

    Each subset is a DestinationRule of its own beside a base one; Istio merges the rules of one host and namespace. So
    Pulumi makes a new subset before the weights change, and deletes an old one after everything else. Two commands
    wait for the proxies on the way. Their inputs are the subsets alone: a change of weights does not run them.

    https://istio.io/latest/docs/ops/best-practices/traffic-management/#split-virtual-services
    https://istio.io/latest/docs/reference/config/networking/destination-rule/
    https://istio.io/latest/docs/reference/config/networking/virtual-service/
    """

    weights: pulumi.Output[Mapping[str, int]]

    def __init__(self, name: str, args: RoutingArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("istio-governance:routing:Routing", name, None, opts)
        routed = args.routed
        environment = {
            "MESH_CONTEXT": args.cluster.context,
            "MESH_KUBECONFIG": args.cluster.kubeconfig,
            "MESH_NAMESPACE": routed.namespace,
            "MESH_SERVICE": name,
            "MESH_SELECTOR": json.dumps(dict(routed.selector), sort_keys=True),
            "MESH_SUBSETS": json.dumps(routed.subsets, sort_keys=True),
        }
        before = [_object(self, made, routed.namespace) for made in routed.before]
        announced = LocalCommand(
            names.announced(name),
            create=f"{_WAIT} announced",
            delete=f"{_WAIT} forgotten",
            environment=environment,
            opts=pulumi.ResourceOptions(parent=self, depends_on=before),
        )
        weights = _object(self, routed.weights, routed.namespace, after=[*before, announced])
        LocalCommand(
            names.drained(name),
            update=f"{_WAIT} drained",
            environment=environment,
            opts=pulumi.ResourceOptions(parent=self, depends_on=[weights]),
        )
        self.weights = pulumi.Output.from_input(routed.shares)
        self.register_outputs({"weights": self.weights})


@dataclass(frozen=True)
class EgressArgs:
    """`namespace` is that of the workloads that may see the host."""

    egress: EgressConfig
    namespace: str
    mesh_namespace: str


class Egress(pulumi.ComponentResource):
    """The host `name` outside the mesh, by way of the egress gateway."""

    def __init__(self, name: str, args: EgressArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("istio-governance:routing:Egress", name, None, opts)
        *before, routes = outside(name, args.egress, args.namespace, args.mesh_namespace)
        _object(self, routes, args.namespace, after=[_object(self, made, args.namespace) for made in before])
        self.register_outputs({})


def _object(
    parent: pulumi.Resource, made: Object, namespace: str, after: Sequence[pulumi.Resource] = ()
) -> KubernetesObject:
    opts = pulumi.ResourceOptions(parent=parent, depends_on=after)
    return KubernetesObject(made.kind, made.name, namespace=namespace, spec=made.spec, opts=opts)
