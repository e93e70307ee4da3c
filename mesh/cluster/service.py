"""One service as it is in the cluster: its pods, its VirtualService, and the proxies that call it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import names
from config import StackConfig
from mesh.cluster import envoy
from mesh.cluster.envoy import Counters, Proxy
from mesh.cluster.kubectl import Kubectl, KubectlError
from mesh.cluster.objects import Object, conditions, is_ready
from mesh.traffic.counts import Place, Traffic

Weights = Mapping[str, int]


@dataclass(frozen=True)
class Pods:
    """Those of a version: the addresses of the ready ones, and how often each container was started again."""

    ready: list[str]
    restarts: Mapping[str, int]
    names: Mapping[str, str] = field(default_factory=dict)
    """Those of all of them, by address."""

    @classmethod
    def of(cls, pods: Sequence[Mapping[str, Any]]) -> Pods:
        return cls(
            [pod["status"]["podIP"] for pod in pods if is_ready(pod) and "deletionTimestamp" not in pod["metadata"]],
            {
                f"{container['name']} of {pod['metadata']['name']}": container["restartCount"]
                for pod in pods
                for container in pod.get("status", {}).get("containerStatuses", [])
            },
            {pod["status"]["podIP"]: pod["metadata"]["name"] for pod in pods if "podIP" in pod.get("status", {})},
        )


@dataclass(frozen=True)
class Rollout:
    """A version whose ready pods may still be the old ones. `failed` is when Kubernetes has given it up."""

    updated: int
    pods: int
    failed: bool

    def __str__(self) -> str:
        return f"{self.updated} of {self.pods} pods are from its newest template"


@dataclass(frozen=True)
class Server:
    """A pod of a version, by the proxy beside it."""

    proxy: Proxy
    version: str
    address: str


@dataclass(frozen=True)
class LiveService:
    """The service `name` of a stack; its weights are those of the route that is there for all requests that no `match`
    has described."""

    config: StackConfig
    name: str
    kubectl: Kubectl

    @classmethod
    def of(cls, config: StackConfig, name: str) -> LiveService:
        return cls(config, name, Kubectl(config.cluster.context, config.cluster.kubeconfig))

    @property
    def namespace(self) -> str:
        return self.config.namespace.name

    @property
    def versions(self) -> dict[str, str]:
        """Version → the value of its pods' label `version`."""
        service = self.config.services[self.name]
        return {version: service.version_label(version) for version in service.versions}

    def look(self) -> Sequence[Object]:
        """All that the following are told of, by one question to the cluster."""
        return look(self.config, self.kubectl)

    def pods(self, found: Sequence[Object]) -> dict[str, Pods]:
        """By version."""
        selector = self.config.selector(self.name).items()
        pods = [pod for pod in _of(found, "Pod", self.namespace) if selector <= _labels(pod).items()]
        return {
            version: Pods.of([pod for pod in pods if _labels(pod).get("version") == label])
            for version, label in self.versions.items()
        }

    def rollouts(self, found: Sequence[Object]) -> dict[str, Rollout]:
        """Version → its roll-out, of those that are not over; of an `existing` workload none is known."""
        kind = self.config.services[self.name].workload
        versions = {names.workload(self.name, version): version for version in self.versions}
        workloads = [] if kind == "existing" else _of(found, kind, self.namespace)
        known = {versions[name]: _rollout(one) for one in workloads if (name := one["metadata"]["name"]) in versions}
        return {version: rollout for version, rollout in known.items() if rollout}

    def rule(self, found: Sequence[Object]) -> Object | None:
        """The VirtualService with its weights."""
        name = names.virtual_service(self.name)
        rules = _of(found, "VirtualService", self.namespace)
        return next((rule for rule in rules if rule["metadata"]["name"] == name), None)

    def weights(self, found: Sequence[Object]) -> dict[str, int]:
        """Version → weight in the VirtualService, of requests or of connections; {} where there is none."""
        rule = self.rule(found)
        spec = rule["spec"] if rule else {}
        http = [route for route in spec.get("http", ()) if route.get("name") == names.route(self.name)]
        for route in (*http, *spec.get("tcp", ())):
            shares = {entry["destination"]["subset"]: entry.get("weight", 0) for entry in route["route"]}
            # Istio sends everything to a single destination without a weight.
            return dict.fromkeys(shares, 100) if len(shares) == 1 else shares
        return {}

    def clients(self) -> list[Proxy]:
        """The sidecars of all namespaces of the mesh, and the gateways where the service is exposed."""
        exposed = _is_exposed(self.config, self.name)
        return [proxy for proxy in envoy.proxies(self.kubectl) if exposed or not proxy.is_gateway]

    @property
    def tcp_ports(self) -> set[int]:
        return self.config.services[self.name].tcp_ports

    def counted(self, clients: Sequence[Proxy]) -> dict[Place, dict[str, Traffic]]:
        """Place → version → what was sent there; nothing from pods that went."""
        found = envoy.each(clients, self._counted).values()
        return {place: versions for places in found for place, versions in places.items()}

    def _counted(self, proxy: Proxy) -> dict[Place, dict[str, Traffic]]:
        try:
            return proxy.counted(self.name, self.namespace, self.tcp_ports)
        except KubectlError:
            return {}

    def counted_by(self, counters: Counters) -> dict[Place, dict[str, Traffic]]:
        """The same, of what one proxy has counted."""
        return counters.of(self.name, self.namespace, self.tcp_ports)

    def servers(self, found: Sequence[Object]) -> list[Server]:
        """Those with a proxy among the service's ready pods."""
        pods = self.pods(found)
        where = {of.names[address]: (version, address) for version, of in pods.items() for address in of.ready}
        running = envoy.running(self.kubectl, _of(found, "Pod", self.namespace))
        return [Server(proxy, *where[proxy.pod]) for proxy in running if proxy.pod in where]

    def served(self, servers: Sequence[Server]) -> dict[Place, dict[str, Traffic]]:
        """Place → version → what the pods' own proxies have counted; nothing from pods that went."""
        found = envoy.each([server.proxy for server in servers], self._served)
        return {
            Place("", f"{self.namespace}/{one.proxy.pod}", pod=one.address): {one.version: traffic}
            for one in servers
            if (traffic := found[one.proxy])
        }

    def _served(self, proxy: Proxy) -> Traffic | None:
        ports = self.config.services[self.name].ports.values()
        others = {port.target for port in ports if port.port not in self.tcp_ports}
        try:
            return proxy.served({port.target for port in ports} - others)
        except KubectlError:
            return None

    def answered(self, proxy: Proxy) -> Counter[str]:
        """Version → the requests, or connections, that one proxy has sent to its pods, by whatever rule.

        Copies that it mirrors are among them; a pod that is none of a version's stands by its address.
        """
        pods = self.pods(self.look())
        version_of = {address: version for version in pods for address in pods[version].ready}
        counts: Counter[str] = Counter()
        for endpoint in proxy.endpoints(self.name, self.namespace):
            address = endpoint.address.rpartition(":")[0]
            counted = endpoint.connected if endpoint.cluster.port in self.tcp_ports else endpoint.attempts
            counts[version_of.get(address, address)] += counted.requests
        return counts


def look(config: StackConfig, kubectl: Kubectl) -> Sequence[Object]:
    """The rules, workloads and pods of the stack's namespace."""
    kinds = {f"{service.workload.lower()}s.apps" for service in config.services.values()} - {"existings.apps"}
    rules = [f"{kind}.networking.istio.io" for kind in ("destinationrules", "virtualservices") if config.mesh.on]
    return kubectl.items(",".join([*rules, *sorted(kinds), "pods"]), f"--namespace={config.namespace.name}")


def _is_exposed(config: StackConfig, service: str) -> bool:
    rule = config.routing.get(service)
    return bool(rule and rule.expose)


def _labels(pod: Object) -> Mapping[str, str]:
    labels: Mapping[str, str] = pod["metadata"].get("labels", {})
    return labels


def _of(found: Sequence[Object], kind: str, namespace: str) -> list[Object]:
    return [one for one in found if one["kind"] == kind and one["metadata"]["namespace"] == namespace]


def _rollout(workload: Mapping[str, Any]) -> Rollout | None:
    """None when it is over. As `kubectl rollout status`, but that not all of the new pods have to be ready.

    https://kubernetes.io/docs/concepts/workloads/controllers/deployment/#deployment-status
    """
    status = workload.get("status", {})
    pods = status.get("desiredNumberScheduled", status.get("replicas", 0))
    updated = status.get("updatedNumberScheduled", status.get("updatedReplicas", 0))
    seen = status.get("observedGeneration", 0) >= workload["metadata"].get("generation", 0)
    if seen and updated >= pods:
        return None
    return Rollout(updated if seen else 0, pods, conditions(workload).get("Progressing") == "False")
