"""Node preparation → mesh → namespace → workloads → routing, all from the stack's configuration."""

import pulumi

from components import sdk
from components.istio import Istio, IstioArgs
from components.kubernetes import KubernetesProvider
from components.namespace import WorkloadNamespace, WorkloadNamespaceArgs
from components.network import NetworkPolicies, NetworkPoliciesArgs
from components.nodes import NodePrep, NodePrepArgs
from components.purge import Purge, PurgeArgs, PurgeGuard
from components.routing import Announced, Drained, Egress, EgressArgs, Routing, RoutingArgs, WaitArgs
from components.workload import Workload, WorkloadArgs
from config import stack
from istio import kernel
from istio.rules import routed
from mesh import preflight

sdk.without_needless_waits()
config = stack.read()
runs_already = preflight.check(config, owner=f"{pulumi.get_project()}/{pulumi.get_stack()}")

has_secrets = any(service.secrets for service in config.services.values())
cluster = KubernetesProvider("cluster", config.cluster, has_secrets=has_secrets)


def after(*resources: pulumi.Resource, protect: bool = False) -> pulumi.ResourceOptions:
    """In this cluster, when `resources` are done; on destroy before them. The children are protected, too."""
    return pulumi.ResourceOptions(provider=cluster, depends_on=resources, protect=protect)


prepared: list[pulumi.Resource] = []
if config.nodes.mode != "none":
    keys = stack.secret("sshPrivateKey"), stack.secret("bastionPrivateKey")
    prepared.append(
        NodePrep("nodes", NodePrepArgs(config.nodes, kernel.modules(config), config.cluster, *keys), after())
    )

istio: Istio | None = None
if config.mesh.mode == "managed":
    leftovers = Purge("leftovers", PurgeArgs(config.cluster, config.mesh))
    istio = Istio(
        "mesh", IstioArgs(config.mesh, first=not runs_already), after(leftovers, *prepared, protect=config.protect)
    )

workload_namespace = WorkloadNamespace(
    "workloads",
    WorkloadNamespaceArgs(config.namespace, config.mesh, config.follows_one_revision),
    after(*(istio.injection if istio else prepared), protect=config.protect),
)
namespace = workload_namespace.namespace

workloads = {
    name: Workload(
        name,
        WorkloadArgs(
            service,
            config.selector(name),
            namespace,
            config.mesh_of(name),
            config.protect,
            stack.secrets(service.secrets),
        ),
        after(workload_namespace),
    )
    for name, service in config.services.items()
}
policies: list[pulumi.Resource] = []
if config.namespace.default_deny:
    policies.append(NetworkPolicies("network", NetworkPoliciesArgs(config, namespace), after(workload_namespace)))
rules = [
    # The workload of somebody else has nothing to wait for.
    Routing(service.name, RoutingArgs(service), after(workload_namespace, *workloads[service.name].serving))
    for service in routed(config)
]
announced = [Announced("subsets", WaitArgs(config.cluster, rules), after(workload_namespace))] if rules else []
for rule in rules:
    rule.split(*announced)
left = [rule for rule in rules if rule.routed.idle]
drained = [Drained("versions", WaitArgs(config.cluster, left), after(workload_namespace))] if left else []
for workload in workloads.values():
    workload.rest(*drained)
exits = [
    Egress(host, EgressArgs(egress, config.namespace.name, config.mesh.namespace), after(workload_namespace))
    for host, egress in config.outside.items()
]
everything = [*prepared, workload_namespace, *workloads.values(), *policies, *rules, *announced, *drained, *exits]
everything += [istio] if istio else []
PurgeGuard("guard", PurgeArgs(config.cluster, config.mesh), after(*everything, protect=config.protect))

pulumi.export("meshVersion", config.mesh.current.version if config.mesh.mode == "managed" else config.mesh.mode)
pulumi.export("namespace", namespace)
pulumi.export("weights", config.weights)
pulumi.export("urls", {name: workload.url for name, workload in workloads.items() if config.services[name].ports})
