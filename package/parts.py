"""The components of the package: each reads its piece of the configuration, looks at the cluster, and makes its part.

Pulumi's analyzer reads the annotations as they are, so they must not be put off by `from __future__`.
"""

from typing import Any

import pulumi

from components import istio, namespace, network, nodes, purge, routing, workload
from components.kubernetes import InCluster, owner
from config import StackConfig
from mesh import preflight
from package.inputs import (
    ApplicationInputs,
    GuardInputs,
    IstioInputs,
    NodePrepInputs,
    RoutingInputs,
    WorkloadInputs,
    WorkloadNamespaceInputs,
)
from package.pieces import piece, secret

PACKAGE = "istio-governance"


class _Part(pulumi.ComponentResource):
    def __init__(self, name: str, args: Any, opts: pulumi.ResourceOptions | None) -> None:
        kind = type(self).__name__
        self._config: StackConfig = piece(kind, name, args)
        self._runs_already = preflight.check(self._config, owner(), whole=False)
        super().__init__(f"{PACKAGE}:index:{kind}", name, None, opts)
        self._cluster = InCluster.of(self._config, self, f"{name}-", lambda key: secret(args, key))


class NodePrep(_Part):
    """The kernel modules and sysctls that sidecars need, on every node, now and at each boot.

    See docs/nodes.md for the ways in.
    """

    results: pulumi.Output[dict[str, str]]
    """host → a line for each module and sysctl"""

    def __init__(self, name: str, args: NodePrepInputs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__(name, args, opts)
        [prepared] = nodes.prepare(self._config, self._cluster)
        self.results = prepared.results
        self.register_outputs({"results": self.results})


class Istio(_Part):
    """Istio by its Helm charts: base, istiod (one for each revision), the CNI node agent and the gateways.

    Its deletion removes what Helm and istiod leave behind, and refuses while others use it.
    """

    version: pulumi.Output[str]
    """the version of the default control plane"""
    namespace: pulumi.Output[str]
    """where it is"""

    def __init__(self, name: str, args: IstioInputs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__(name, args, opts)
        istio.install(self._config, self._cluster, [], first=not self._runs_already)
        purge.guard_namespace(self._config, self._cluster, self._config.mesh.namespace, crds=True)
        self.version = pulumi.Output.from_input(self._config.mesh.current.version)
        self.namespace = pulumi.Output.from_input(self._config.mesh.namespace)
        self.register_outputs({"version": self.version, "namespace": self.namespace})


class WorkloadNamespace(_Part):
    """A namespace with the label by which Istio injects sidecars.

    Its deletion refuses while others have something in it.
    """

    namespace: pulumi.Output[str]
    """its name"""

    def __init__(self, name: str, args: WorkloadNamespaceInputs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__(name, args, opts)
        home = namespace.open_for(self._config, self._cluster, [])
        if self._config.namespace.create:
            purge.guard_namespace(self._config, self._cluster, self._config.namespace.name)
        self.namespace = home.namespace
        self.register_outputs({"namespace": self.namespace})


class Workload(_Part):
    """What runs as the service of this name: a Service, a ServiceAccount and a Deployment (or the like) a version.

    Without a rule on who gets how many of its requests: that is Routing, which depends on this.
    """

    url: pulumi.Output[str]
    """where it is called inside the cluster; empty without ports"""

    def __init__(self, name: str, args: WorkloadInputs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__(name, args, opts)
        [made] = workload.deploy(self._config, self._cluster, self._config.namespace.name).values()
        made.rest()
        self.url = made.url
        self.register_outputs({"url": self.url})


class Routing(_Part):
    """The rule on who gets how many of the requests to the Service of this name, and what else happens to them.

    Every proxy knows a version before it gets requests, and none uses one any more before it goes.
    """

    weights: pulumi.Output[dict[str, int]]
    """version → weight"""

    def __init__(self, name: str, args: RoutingInputs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__(name, args, opts)
        routing.route(self._config, self._cluster, {})
        self.weights = pulumi.Output.from_input(self._config.weights.get(name, {}))
        self.register_outputs({"weights": self.weights})


class Application(_Part):
    """Services with their namespace, their rules and the hosts that they call outside, as a stack file has them.

    All in one, it also keeps the order in which versions come and go.
    """

    namespace: pulumi.Output[str]
    """the name of the namespace"""
    weights: pulumi.Output[dict[str, dict[str, int]]]
    """service → version → weight"""
    urls: pulumi.Output[dict[str, str]]
    """service → where it is called inside the cluster"""

    def __init__(self, name: str, args: ApplicationInputs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__(name, args, opts)
        config, cluster = self._config, self._cluster
        home = namespace.open_for(config, cluster, [])
        workloads = workload.deploy(config, cluster, home.namespace, home)
        network.close(config, cluster, home)
        routing.route(config, cluster, workloads, home)
        if config.namespace.create:
            purge.guard_namespace(config, cluster, config.namespace.name)
        self.namespace = home.namespace
        self.weights = pulumi.Output.from_input(config.weights)
        urls = {one: made.url for one, made in workloads.items() if config.services[one].ports}
        self.urls = pulumi.Output.all(**urls)
        self.register_outputs({"namespace": self.namespace, "weights": self.weights, "urls": self.urls})


class Guard(_Part):
    """Deleted before all that it depends on, it refuses while anything of others would go with the stack.

    The components refuse by themselves only for their own namespaces, and when what depends on them is gone already.
    """

    def __init__(self, name: str, args: GuardInputs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__(name, args, opts)
        purge.guard(self._config, self._cluster)
        self.register_outputs({})


COMPONENTS = [NodePrep, Istio, WorkloadNamespace, Workload, Routing, Application, Guard]
