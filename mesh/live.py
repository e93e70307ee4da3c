"""One service as it is in the cluster: its pods, its VirtualService, and the proxies that call it."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import names
from config import StackConfig
from mesh import envoy
from mesh.envoy import Proxy
from mesh.kubectl import Kubectl, KubectlError
from mesh.objects import conditions, is_ready
from mesh.traffic.counts import Traffic

Weights = Mapping[str, int]


class NotEnforcedError(Exception):
    """Some proxies still had other weights when the time was over."""


@dataclass(frozen=True)
class Pods:
    """Those of a version: the addresses of the ready ones, and how often each container was started again."""

    ready: list[str]
    restarts: Mapping[str, int]

    @classmethod
    def of(cls, pods: Sequence[Mapping[str, Any]]) -> Pods:
        return cls(
            [pod["status"]["podIP"] for pod in pods if is_ready(pod) and "deletionTimestamp" not in pod["metadata"]],
            {
                f"{container['name']} of {pod['metadata']['name']}": container["restartCount"]
                for pod in pods
                for container in pod.get("status", {}).get("containerStatuses", [])
            },
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

    def ready_pods(self) -> dict[str, list[str]]:
        """Version → the addresses of its ready pods."""
        return {version: pods.ready for version, pods in self.pods().items()}

    def pods(self) -> dict[str, Pods]:
        """By version."""
        selector = ",".join(f"{key}={value}" for key, value in self.config.selector(self.name).items())
        found = self.kubectl.items("pods", f"--namespace={self.namespace}", f"--selector={selector}")
        return {
            version: Pods.of([pod for pod in found if pod["metadata"]["labels"].get("version") == label])
            for version, label in self.versions.items()
        }

    def rollouts(self) -> dict[str, Rollout]:
        """Version → its roll-out, of those that are not over; of an `existing` workload none is known."""
        kind = self.config.services[self.name].workload
        if kind == "existing":
            return {}
        versions = {names.workload(self.name, version): version for version in self.versions}
        objects = self.kubectl.items(f"{kind.lower()}s.apps", *versions, f"--namespace={self.namespace}")
        found = {versions[name]: _rollout(item) for item in objects if (name := item["metadata"]["name"]) in versions}
        return {version: rollout for version, rollout in found.items() if rollout}

    def weights(self) -> dict[str, int]:
        """Version → weight in the VirtualService; {} where there is none."""
        rules = self.kubectl.items(
            "virtualservices.networking.istio.io",
            names.virtual_service(self.name),
            f"--namespace={self.namespace}",
        )
        for route in (route for rule in rules for route in rule["spec"].get("http", [])):
            if route.get("name") == names.route(self.name):
                found = {entry["destination"]["subset"]: entry.get("weight", 0) for entry in route["route"]}
                # Istio sends everything to a single destination without a weight.
                return dict.fromkeys(found, 100) if len(found) == 1 else found
        return {}

    def clients(self) -> list[Proxy]:
        """The sidecars of the stack's namespace, and the gateways where the service is exposed."""
        rule = self.config.routing.get(self.name)
        gateways = envoy.proxies(self.kubectl, self.config.mesh.namespace) if rule and rule.expose else []
        return [*envoy.proxies(self.kubectl, self.namespace), *gateways]

    def out_of_sync(self, weights: Weights, clients: Sequence[Proxy] | None = None) -> dict[str, list[dict[str, int]]]:
        """Pod → the weights that its proxy has in place of these; the proxies that have them are left out."""
        wanted = {version: weight for version, weight in weights.items() if weight}
        found = envoy.each(self.clients() if clients is None else clients, self._splits)
        return {
            proxy.pod: splits
            for proxy, splits in found.items()
            if splits is not None and any(split != wanted for split in splits)
        }

    def _splits(self, proxy: Proxy) -> list[dict[str, int]] | None:
        """None for a pod that went while it was asked."""
        try:
            return proxy.splits(self.name, self.namespace, names.route(self.name))
        except KubectlError:
            if self.kubectl.items("pod", proxy.pod, f"--namespace={proxy.namespace}"):
                raise
            return None

    def wait_until_enforced(self, weights: Weights, seconds: float = 30) -> float:
        """Waits until every client has these weights, and says how long that took. Raises `NotEnforcedError`."""
        start, waiting = time.monotonic(), self.clients()
        while late := self.out_of_sync(weights, waiting):
            if time.monotonic() - start > seconds:
                listed = "; ".join(f"{pod} has {splits}" for pod, splits in sorted(late.items()))
                raise NotEnforcedError(
                    f"after {seconds:.0f} s not every proxy has the weights {dict(weights)}: {listed}"
                )
            waiting = [proxy for proxy in waiting if proxy.pod in late]
            time.sleep(0.1)
        return time.monotonic() - start

    def traffic(self, clients: Sequence[Proxy]) -> dict[Proxy, dict[str, Traffic]]:
        """Proxy → version → what it has sent there; nothing for pods that went."""
        return envoy.each(clients, self._traffic)

    def _traffic(self, proxy: Proxy) -> dict[str, Traffic]:
        try:
            return proxy.traffic(self.name, self.namespace)
        except KubectlError:
            return {}

    def answered(self, proxy: Proxy) -> Counter[str]:
        """Version → the requests that one proxy has sent there, with subsets or without."""
        if self.name in self.config.weights:
            return Counter({v: t.requests for v, t in proxy.traffic(self.name, self.namespace).items()})
        version_of = {address: version for version, pods in self.ready_pods().items() for address in pods}
        counts: Counter[str] = Counter()
        for endpoint in proxy.endpoints(self.name, self.namespace):
            if not endpoint.cluster.subset:
                address = endpoint.address.rpartition(":")[0]
                counts[version_of.get(address, address)] += endpoint.succeeded + endpoint.failed
        return counts


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
