"""Node preparation → mesh → namespace → workloads → routing, all from the stack's configuration."""

import pulumi

from components import istio, namespace, network, nodes, purge, routing, sdk, workload
from components.kubernetes import InCluster, owner
from config import stack
from mesh import preflight

sdk.without_needless_waits()
config = stack.read()
with sdk.imports_meanwhile():
    runs_already = preflight.check(config, owner=owner())
cluster = InCluster.of(config)

prepared = nodes.prepare(config, cluster)
injection = istio.install(config, cluster, prepared, first=not runs_already)
home = namespace.open_for(config, cluster, injection)
workloads = workload.deploy(config, cluster, home.namespace, home)
network.close(config, cluster, home)
routing.route(config, cluster, workloads, home)
purge.guard(config, cluster)

pulumi.export("meshVersion", config.mesh.current.version if config.mesh.mode == "managed" else config.mesh.mode)
pulumi.export("namespace", home.namespace)
pulumi.export("weights", config.weights)
pulumi.export("urls", {name: made.url for name, made in workloads.items() if config.services[name].ports})
