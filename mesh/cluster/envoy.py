"""What the sidecars' Envoys say of themselves, by their admin interface, which is reached as `istioctl` reaches it.

https://www.envoyproxy.io/docs/envoy/latest/operations/admin
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, TypeVar
from urllib.parse import urlencode

from mesh.cluster import api
from mesh.cluster.kubectl import Kubectl, KubectlError
from mesh.traffic.counts import Traffic

CONTAINER = "istio-proxy"
ADMIN_PORT = 15000
_INJECTED = "service.istio.io/canonical-name"

Answer = TypeVar("Answer")

# The same again for a part of the requests (`….external.upstream_rq_2xx`) is left out.
_STATISTIC = re.compile(
    r"cluster\.(outbound\|\d+\|[^|]*\|[^;]+?);?(?<!\.external)(?<!\.internal)(?<!\.canary)(?<!\.retry)\.(upstream_\w+)"
)


@dataclass(frozen=True)
class Cluster:
    """One of Envoy's clusters, by Istio's name for it: `outbound|9999|v1|bill-service.istio-demo.svc.cluster.local`."""

    direction: str
    port: int
    subset: str
    host: str

    @classmethod
    def parse(cls, name: str) -> Cluster | None:
        """None for a name of another form, such as `xds-grpc`."""
        parts = name.split("|")
        return cls(parts[0], int(parts[1]), parts[2], parts[3]) if len(parts) == 4 and parts[1].isdecimal() else None

    def leads_to(self, service: str, namespace: str) -> bool:
        return self.direction == "outbound" and self.host.startswith(f"{service}.{namespace}.svc.")


@dataclass(frozen=True)
class Endpoint:
    """One address behind a cluster, and the attempts that this proxy made there since it knows the address."""

    cluster: Cluster
    address: str
    healthy: bool
    succeeded: int
    """Answers below 500."""
    failed: int
    """Answers from 500 on, resets, and connections that could not be made."""
    begun: int = 0
    """Requests, or connections where the port is not read as HTTP."""


@dataclass(frozen=True)
class Proxy:
    """The sidecar of one pod."""

    kubectl: Kubectl = field(repr=False)
    namespace: str
    pod: str
    labels: Mapping[str, str] = field(default_factory=dict, hash=False, compare=False, repr=False)
    port: int = field(default=ADMIN_PORT, hash=False, compare=False, repr=False)
    is_gateway: bool = field(default=False, hash=False, compare=False, repr=False)

    @classmethod
    def of(cls, kubectl: Kubectl, pod: Mapping[str, Any]) -> Proxy:
        """By the pod's object."""
        metadata = pod["metadata"]
        where = metadata["namespace"], metadata["name"]
        return cls(kubectl, *where, metadata.get("labels", {}), admin_port(pod), is_gateway(pod))

    def read(self, path: str, **query: str) -> str:
        """GET of `path`, such as `stats`. Raises `KubectlError`."""
        target = f"/{path}?{urlencode(query)}" if query else f"/{path}"
        [answer] = api.pods(self.kubectl).get([api.Question(self.namespace, self.pod, self.port, target)])
        if isinstance(answer, KubectlError):
            raise answer
        return answer.decode()

    def json(self, path: str, **query: str) -> Any:
        return json.loads(self.read(path, **query) or "{}")

    def config(self, resource: str, mask: str = "") -> list[dict[str, Any]]:
        """The entries of a part of `/config_dump`, such as `dynamic_route_configs`, whole or only the fields `mask`."""
        query = {"resource": resource, **({"mask": mask} if mask else {})}
        entries: list[dict[str, Any]] = self.json("config_dump", **query).get("configs", [])
        return entries

    def splits(self, service: str, namespace: str, route: str) -> list[dict[str, int]]:
        """Subset → weight for every port on which the route called `route` leads to `service`; weights of 0 are not
        there. [] when this proxy knows no such route, and so is none of the service's clients."""
        found = []
        for entry in self.config("dynamic_route_configs", "route_config.virtual_hosts"):
            for host in entry["route_config"].get("virtual_hosts", []):
                for rule in host.get("routes", []):
                    clusters = _weighted(rule.get("route", {})) if rule.get("name") == route else {}
                    if clusters and all(cluster.leads_to(service, namespace) for cluster in clusters):
                        found.append({cluster.subset: weight for cluster, weight in clusters.items()})
        return found

    def destinations(self) -> set[Cluster]:
        """Every cluster that a route of this proxy leads to, mirrors and weights of 0 included."""
        found: set[Cluster] = set()
        for entry in self.config("dynamic_route_configs", "route_config.virtual_hosts"):
            for host in entry["route_config"].get("virtual_hosts", []):
                for rule in host.get("routes", []):
                    found |= set(_weighted(rule.get("route", {})))
                    mirrors = rule.get("route", {}).get("request_mirror_policies", [])
                    found |= {cluster for mirror in mirrors if (cluster := Cluster.parse(mirror.get("cluster", "")))}
        return found

    def is_gone(self) -> bool:
        """Whether the pod is no longer there, or on its way."""
        pods = self.kubectl.items("pod", self.pod, f"--namespace={self.namespace}")
        return not pods or "deletionTimestamp" in pods[0]["metadata"]

    def endpoints(self, service: str, namespace: str) -> list[Endpoint]:
        """All endpoints of `service`, under each of its subsets and under '' for the service as a whole."""
        return [
            _endpoint(cluster, host)
            for status in self.json("clusters", format="json").get("cluster_statuses", [])
            if (cluster := Cluster.parse(status["name"])) and cluster.leads_to(service, namespace)
            for host in status.get("host_statuses", [])
        ]

    def traffic(self, service: str, namespace: str) -> dict[str, Traffic]:
        """Subset → what was sent there. A proxy that drops the statistics of its clusters, as Istio's do by default,
        counts by endpoint alone: attempts instead of requests, nothing on time, and nothing from endpoints that went.
        """
        pattern = rf"^cluster\.outbound\|[0-9]+\|[^|]+\|{re.escape(service)}\.{re.escape(namespace)}\.svc\."
        answer = self.json("stats", format="json", histogram_buckets="cumulative", filter=pattern)
        kept = _traffic(answer.get("stats", []), service, namespace)
        return kept or _traffic_by_endpoint(self.endpoints(service, namespace))


def proxies(kubectl: Kubectl, namespace: str = "") -> list[Proxy]:
    """The running proxies: the sidecars of one namespace, or all of the mesh, gateways included."""
    # Istio labels what it injects, which spares the cluster a list of all its pods.
    where = [f"--namespace={namespace}"] if namespace else ["--all-namespaces", f"--selector={_INJECTED}"]
    return running(kubectl, kubectl.items("pods", *where))


def running(kubectl: Kubectl, pods: Iterable[Mapping[str, Any]]) -> list[Proxy]:
    """The running proxies of these pods."""
    return [
        Proxy.of(kubectl, pod) for pod in pods if "deletionTimestamp" not in pod["metadata"] and _has_running_proxy(pod)
    ]


def each(proxies: Sequence[Proxy], ask: Callable[[Proxy], Answer]) -> dict[Proxy, Answer]:
    """What `ask` finds at each proxy, all of them at once."""
    with ThreadPoolExecutor(max_workers=api.AT_ONCE) as pool:
        return dict(zip(proxies, pool.map(ask, proxies), strict=True))


def is_gateway(pod: Mapping[str, Any]) -> bool:
    """Whether the pod is nothing but a proxy."""
    return [container["name"] for container in pod["spec"]["containers"]] == [CONTAINER]


def admin_port(pod: Mapping[str, Any]) -> int:
    """Where the admin interface of its proxy listens: a ProxyConfig can move it, and the injection writes that down.

    https://istio.io/latest/docs/reference/config/istio.mesh.v1alpha1/#ProxyConfig
    """
    spec = pod["spec"]
    for container in (*spec.get("containers", ()), *spec.get("initContainers", ())):
        if container["name"] == CONTAINER:
            given = {variable["name"]: variable.get("value", "") for variable in container.get("env", ())}
            with suppress(ValueError):
                return int(json.loads(given.get("PROXY_CONFIG") or "{}").get("proxyAdminPort", ADMIN_PORT))
    return ADMIN_PORT


def _has_running_proxy(pod: Mapping[str, Any]) -> bool:
    """Where the cluster knows native sidecars, the proxy is one of the init containers."""
    status = pod.get("status", {})
    statuses = [*status.get("containerStatuses", []), *status.get("initContainerStatuses", [])]
    return any(s["name"] == CONTAINER and s["ready"] and "running" in s["state"] for s in statuses)


def _weighted(action: Mapping[str, Any]) -> dict[Cluster, int]:
    weighted = action.get("weighted_clusters", {}).get("clusters", [])
    named = [(entry["name"], entry.get("weight", 0)) for entry in weighted]
    if "cluster" in action:
        named.append((action["cluster"], 100))
    parsed = [(Cluster.parse(name), weight) for name, weight in named]
    return {cluster: weight for cluster, weight in parsed if cluster is not None}


def _endpoint(cluster: Cluster, host: Mapping[str, Any]) -> Endpoint:
    address = host.get("address", {}).get("socket_address", {})
    counts = {stat["name"]: int(stat.get("value", 0)) for stat in host.get("stats", [])}
    health = host.get("health_status", {})
    return Endpoint(
        cluster,
        f"{address.get('address', '')}:{address.get('port_value', '')}",
        # Whatever else stands in there is a reason not to send requests to this address.
        health.get("eds_health_status", "HEALTHY") == "HEALTHY" and len(health) <= 1,
        counts.get("rq_success", 0),
        counts.get("rq_error", 0),
        counts.get("rq_total", 0),
    )


def _traffic(stats: Iterable[Mapping[str, Any]], service: str, namespace: str) -> dict[str, Traffic]:
    found: defaultdict[str, Traffic] = defaultdict(Traffic)
    for name, cluster, value in _statistics(stats):
        if not cluster.leads_to(service, namespace):
            continue
        match name:
            case "upstream_rq_total":  # the only one that is there before the first request
                found[cluster.subset] += Traffic()
            case "upstream_rq_2xx" | "upstream_rq_3xx" | "upstream_rq_4xx":
                found[cluster.subset] += Traffic(succeeded=value)
            case "upstream_rq_5xx":
                found[cluster.subset] += Traffic(failed=value)
            case "upstream_rq_retry":
                found[cluster.subset] += Traffic(retried=value)
            case "upstream_rq_time":
                found[cluster.subset] += Traffic(slower=value)
    return dict(found)


def _statistics(stats: Iterable[Mapping[str, Any]]) -> Iterator[tuple[str, Cluster, Any]]:
    """(name, cluster, count), or for a histogram how many are above each of its bounds."""
    for stat in stats:
        if "histograms" in stat:
            for histogram in stat["histograms"]:
                if named := _named(histogram["name"]):
                    buckets = histogram.get("buckets", [])
                    total = max((bucket["cumulative"] for bucket in buckets), default=0)
                    above = {float(b["upper_bound"]): total - b["cumulative"] for b in buckets}
                    yield *named, {0.0: total, **above} if total else {}
        elif "name" in stat and (named := _named(stat["name"])):
            yield *named, stat["value"]


def _named(statistic: str) -> tuple[str, Cluster] | None:
    found = _STATISTIC.fullmatch(statistic)
    cluster = Cluster.parse(found[1]) if found else None
    return (found[2], cluster) if found and cluster else None


def _traffic_by_endpoint(endpoints: Iterable[Endpoint]) -> dict[str, Traffic]:
    found: defaultdict[str, Traffic] = defaultdict(Traffic)
    for endpoint in endpoints:
        if endpoint.cluster.subset:
            found[endpoint.cluster.subset] += Traffic(endpoint.succeeded, endpoint.failed)
    return dict(found)
