"""What the sidecars' Envoys say of themselves, by their admin interface, which is reached as `istioctl` reaches it.

https://www.envoyproxy.io/docs/envoy/latest/operations/admin
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, TypeVar
from urllib.parse import urlencode

import names
from mesh.cluster import api
from mesh.cluster.dump import Cluster
from mesh.cluster.kubectl import Kubectl
from mesh.traffic.counts import Place, Traffic

CONTAINER = "istio-proxy"
ADMIN_PORT = 15000

Answer = TypeVar("Answer")

# The same again for a part of the requests (`….external.upstream_rq_2xx`) is left out.
_STATISTIC = re.compile(
    r"cluster\.(outbound\|\d+\|[^|]*\|[^;]+?|inbound\|\d+\|\|);?(?<!\.external)(?<!\.internal)(?<!\.canary)(?<!\.retry)\.(upstream_\w+)"
)


@dataclass(frozen=True)
class Host:
    """One address, as `10.0.0.1:80`, behind a cluster, and what this proxy has counted there since it knows it."""

    address: str
    healthy: bool
    counts: Mapping[str, int]
    """https://www.envoyproxy.io/docs/envoy/latest/operations/admin#get--clusters"""


@dataclass(frozen=True)
class Endpoint(Host):
    """One of a service."""

    cluster: Cluster

    @property
    def attempts(self) -> Traffic:
        """Requests, of which gRPC's fail by their status, wherever it stands."""
        count = self.counts.get
        # A connection that could not be made fails the requests that wait for it, which then are not in `rq_total`.
        unconnected = min(count("cx_connect_fail", 0), count("rq_error", 0))
        return Traffic(
            succeeded=count("rq_success", 0),
            failed=count("rq_error", 0),
            begun=count("rq_total", 0) + unconnected,
            active=count("rq_active", 0),
            late=count("rq_timeout", 0),
            unconnected=unconnected,
        )

    @property
    def connected(self) -> Traffic:
        """The same of a TCP port: whether anything comes back on a connection is counted for all addresses together."""
        failed = self.counts.get("cx_connect_fail", 0)
        return Traffic(self.counts.get("rq_total", 0), failed, unconnected=failed)


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
        return api.said(answer).decode()

    def json(self, path: str, **query: str) -> Any:
        return json.loads(self.read(path, **query) or "{}")

    def config(self, resource: str, mask: str = "") -> list[dict[str, Any]]:
        """The entries of a part of `/config_dump`, such as `dynamic_route_configs`, whole or only the fields `mask`."""
        query = {"resource": resource, **({"mask": mask} if mask else {})}
        entries: list[dict[str, Any]] = self.json("config_dump", **query).get("configs", [])
        return entries

    def is_gone(self) -> bool:
        """Whether the pod is no longer there, or on its way."""
        pods = self.kubectl.items("pod", self.pod, f"--namespace={self.namespace}")
        return not pods or "deletionTimestamp" in pods[0]["metadata"]

    def endpoints(self, service: str, namespace: str) -> list[Endpoint]:
        """All endpoints of `service`, under each of its subsets and under '' for the service as a whole."""
        return [one for one in self._endpoints(namespace) if one.cluster.leads_to(service, namespace)]

    def _endpoints(self, namespace: str) -> list[Endpoint]:
        return [
            Endpoint(host.address, host.healthy, host.counts, cluster)
            for name, host in self.hosts(f".{namespace}.svc.")
            if (cluster := Cluster.parse(name))
        ]

    def hosts(self, part: str = "") -> Iterator[tuple[str, Host]]:
        """Those behind each cluster in whose name `part` stands, with that name. Raises `KubectlError`."""
        for status in self.json("clusters", format="json").get("cluster_statuses", []):
            if part in status["name"]:
                yield from ((status["name"], _host(host)) for host in status.get("host_statuses", []))

    @property
    def workload(self) -> str:
        """That the pod belongs to, by the name that Istio gives it."""
        return f"{self.namespace}/{self.labels.get(names.INJECTED, self.pod)}"

    def counted(self, service: str, namespace: str, tcp: Collection[int]) -> dict[Place, dict[str, Traffic]]:
        """Place → subset → what was sent there; `tcp` are the ports at which connections count in place of requests.

        Attempts are counted by endpoint, by every proxy. What only a whole cluster counts is added where the proxy
        keeps it (`names.SUBSET_STATISTICS`): times, what was tried again, half answers, and requests that met nobody.
        """
        return self.counters(namespace, service).of(service, namespace, tcp)

    def counters(self, namespace: str, service: str = "") -> Counters:
        """All that it counts of one service, or of all in a namespace, by two questions."""
        host = re.escape(service) if service else "[^.]+"
        pattern = rf"^cluster\.outbound\|[0-9]+\|[^|]+\|{host}\.{re.escape(namespace)}\.svc\."
        return Counters(self, self._endpoints(namespace), self._statistics(pattern))

    def served(self, tcp: Collection[int]) -> Traffic:
        """What the application beside this proxy was asked by all callers, and how far it answered, where the proxy
        keeps that; `tcp` are those of its ports at which connections count."""
        found = Traffic()
        for statistic, cluster, value in self._statistics(r"^cluster\.inbound\|[0-9]+\|\|"):
            if cluster.direction == "inbound":
                found += (_of_connections if cluster.port in tcp else _of_answers)(statistic, value)
        return found

    def _statistics(self, pattern: str) -> list[tuple[str, Cluster, Any]]:
        answer = self.json("stats", format="json", histogram_buckets="cumulative", filter=pattern)
        return [*_statistics(answer.get("stats", []))]


@dataclass(frozen=True)
class Counters:
    """What one proxy has counted, of several services."""

    proxy: Proxy
    endpoints: Sequence[Endpoint]
    statistics: Sequence[tuple[str, Cluster, Any]]

    def of(self, service: str, namespace: str, tcp: Collection[int]) -> dict[Place, dict[str, Traffic]]:
        """As `Proxy.counted`."""
        found: defaultdict[Place, defaultdict[str, Traffic]] = defaultdict(lambda: defaultdict(Traffic))
        workload, name = self.proxy.workload, f"{self.proxy.namespace}/{self.proxy.pod}"
        for endpoint in self.endpoints:
            cluster = endpoint.cluster
            if cluster.subset and cluster.leads_to(service, namespace):
                place = Place(workload, name, cluster.port, endpoint.address.rpartition(":")[0])
                found[place][cluster.subset] += endpoint.connected if cluster.port in tcp else endpoint.attempts
        for statistic, cluster, value in self.statistics:
            if cluster.leads_to(service, namespace):
                kept = (_of_connections if cluster.port in tcp else _of_requests)(statistic, value)
                found[Place(workload, name, cluster.port)][cluster.subset] += kept
        return {place: dict(versions) for place, versions in found.items()}


def proxies(kubectl: Kubectl, namespace: str = "") -> list[Proxy]:
    """The running proxies: the sidecars of one namespace, or all of the mesh, gateways included."""
    if namespace:
        return running(kubectl, kubectl.items("pods", f"--namespace={namespace}"))
    return running(kubectl, api.pods(kubectl).labelled(names.INJECTED))


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


def _host(host: Mapping[str, Any]) -> Host:
    address = host.get("address", {}).get("socket_address", {})
    counts = {stat["name"]: int(stat.get("value", 0)) for stat in host.get("stats", [])}
    health = host.get("health_status", {})
    return Host(
        f"{address.get('address', '')}:{address.get('port_value', '')}",
        # Whatever else stands in there is a reason not to send requests to this address.
        health.get("eds_health_status", "HEALTHY") == "HEALTHY" and len(health) <= 1,
        counts,
    )


def _of_requests(statistic: str, value: Any) -> Traffic:
    """https://www.envoyproxy.io/docs/envoy/latest/configuration/upstream/cluster_manager/cluster_stats"""
    match statistic:
        case "upstream_cx_none_healthy" | "upstream_rq_pending_overflow":  # no endpoint was asked
            return Traffic(begun=value, failed=value, unconnected=value)
        case "upstream_rq_cancelled":  # given up while it waited for a connection
            return Traffic(begun=value, abandoned=value)
        case "upstream_cx_destroy_local_with_active_rq" | "upstream_rq_tx_reset":  # HTTP/1, HTTP/2
            return Traffic(abandoned=value)
        case "upstream_cx_protocol_error" | "upstream_rq_rx_reset":
            return Traffic(cut=value)
        case "upstream_rq_retry":
            return Traffic(retried=value)
        case "upstream_rq_time":
            return Traffic(slower=value)
    return Traffic()


def _of_answers(statistic: str, value: Any) -> Traffic:
    match statistic:
        case "upstream_rq_2xx" | "upstream_rq_3xx" | "upstream_rq_4xx":
            return Traffic(succeeded=value)
        case "upstream_rq_5xx":
            return Traffic(failed=value)
        case "upstream_cx_protocol_error" | "upstream_rq_rx_reset":
            return Traffic(cut=value)
    return Traffic()


def _of_connections(statistic: str, value: Any) -> Traffic:
    match statistic:
        case "upstream_cx_none_healthy":
            return Traffic(failed=value, unconnected=value)
        case "upstream_cx_total":
            return Traffic(connections=value)
        case "upstream_cx_rx_bytes_total":
            return Traffic(received=value)
    return Traffic()


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
