"""How the requests to one service are routed between its versions, and how they leave the mesh."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pulumi
from pulumi_command import local
from pulumi_kubernetes.apiextensions import CustomResource

import names
from components.commands import python
from components.kubernetes import InCluster, istio_object
from components.workload import Workload
from config import Cluster, StackConfig
from config import Egress as EgressConfig
from istio.rules import Object, Routed, outside, routed


@dataclass(frozen=True)
class RoutingArgs:
    routed: Routed


class Routing(pulumi.ComponentResource):
    """Subsets → the proxies know those of all services → weights → no proxy uses another subset.

    Each subset is a DestinationRule of its own beside a base one; Istio merges the rules of one host and namespace. So
    Pulumi makes a new subset before the weights change, and deletes an old one after everything else. `Announced`
    waits for the proxies on the way, and `split` makes what comes after it.

    https://istio.io/latest/docs/ops/best-practices/traffic-management/#split-virtual-services
    https://istio.io/latest/docs/reference/config/networking/destination-rule/
    https://istio.io/latest/docs/reference/config/networking/virtual-service/
    """

    weights: pulumi.Output[Mapping[str, int]]

    def __init__(self, name: str, args: RoutingArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("istio-governance:routing:Routing", name, None, opts)
        self.routed = args.routed
        self.before = [_object(self, made, self.routed.namespace) for made in self.routed.before]

    def split(self, *after: pulumi.Resource) -> None:
        """Registers the weights, which is all that a change of them touches, `after` the subsets are announced."""
        self.made = _object(self, self.routed.weights, self.routed.namespace, after=after)
        self.weights = pulumi.Output.from_input(self.routed.shares)
        self.register_outputs({"weights": self.weights})


@dataclass(frozen=True)
class WaitArgs:
    """`cluster` is for the command that asks its proxies, `rules` are all that the stack has."""

    cluster: Cluster
    rules: Sequence[Routing]


class Announced(pulumi.ComponentResource):
    """The wait for the proxies, once for all services: so each proxy is asked once, however many services change.

    Its input is the subsets alone, and another one makes it anew: the new command waits before the weights change until
    every proxy knows the subsets. Pulumi deletes what it has replaced at the end, after the rules that go and before
    their subsets: the old command then waits until no proxy has a route to a subset that goes, and nothing is in flight
    to its pods.
    """

    def __init__(self, name: str, args: WaitArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("istio-governance:routing:Announced", name, None, opts)
        subsets = {rule.routed.name: rule.routed.subsets for rule in args.rules}
        opts = pulumi.ResourceOptions(
            parent=self,
            depends_on=[made for rule in args.rules for made in rule.before],
            replace_on_changes=["stdin"],
            delete_before_replace=False,
        )
        _wait(names.announced(name), args, subsets, opts, "announced", "forgotten")
        self.register_outputs({})


class Drained(pulumi.ComponentResource):
    """The same wait, after the weights have changed, for the versions that are to have no pods and so have no weight.

    Its input is these versions alone; it waits when it is made, and again when they are others.
    """

    def __init__(self, name: str, args: WaitArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("istio-governance:routing:Drained", name, None, opts)
        subsets = {rule.routed.name: rule.routed.idle for rule in args.rules}
        opts = pulumi.ResourceOptions(parent=self, depends_on=[rule.made for rule in args.rules])
        _wait(names.drained(name), args, subsets, opts, "drained")
        self.register_outputs({})


def _wait(
    name: str,
    args: WaitArgs,
    subsets: Mapping[str, Mapping[str, Mapping[str, str]]],
    opts: pulumi.ResourceOptions,
    create: str,
    delete: str = "",
) -> None:
    services = {
        rule.routed.name: {"selector": dict(rule.routed.selector), "subsets": subsets[rule.routed.name]}
        for rule in args.rules
    }
    local.Command(
        name,
        create=python(f"-m mesh.wait {create}"),
        delete=python(f"-m mesh.wait {delete}") if delete else None,
        environment={
            "MESH_CONTEXT": args.cluster.context,
            "MESH_KUBECONFIG": args.cluster.kubeconfig,
            "MESH_NAMESPACE": args.rules[0].routed.namespace,
        },
        stdin=json.dumps(services, sort_keys=True),
        opts=opts,
    )


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


def route(config: StackConfig, cluster: InCluster, workloads: Mapping[str, Workload], *home: pulumi.Resource) -> None:
    """The requests to all services, as soon as there is who answers them, and those to hosts outside; then the versions
    that nobody is sent to any more lose their pods. `home` is the namespace, where it is this stack's to make."""

    def served(service: str) -> Sequence[pulumi.Resource]:
        return workloads[service].serving if service in workloads else ()

    rules = [
        # The workload of somebody else has nothing to wait for.
        cluster.has(Routing(one.name, RoutingArgs(one), cluster.after(*home, *served(one.name))))
        for one in routed(config)
    ]
    if rules:
        announced = cluster.has(
            Announced(cluster.called(names.SUBSETS), WaitArgs(config.cluster, rules), cluster.after(*home))
        )
        for rule in rules:
            rule.split(announced)
    left = [rule for rule in rules if rule.routed.idle]
    waits = WaitArgs(config.cluster, left)
    drained = [cluster.has(Drained(cluster.called(names.VERSIONS), waits, cluster.after(*home)))] if left else []
    for workload in workloads.values():
        workload.rest(*drained)
    for host, egress in config.outside.items():
        args = EgressArgs(egress, config.namespace.name, config.mesh.namespace)
        cluster.has(Egress(host, args, cluster.after(*home)))


def _object(
    parent: pulumi.Resource, made: Object, namespace: str, after: Sequence[pulumi.Resource] = ()
) -> CustomResource:
    opts = pulumi.ResourceOptions(parent=parent, depends_on=after)
    return istio_object(made.kind, made.name, namespace, made.spec, opts)
