"""How the caller's proxy sends a request on: which of its listeners, routes and clusters take part."""

from __future__ import annotations

from dataclasses import dataclass

from mesh.cluster import dump
from mesh.cluster.dump import Cluster, Dump, Host, Resource, Route
from mesh.explain.live import Object, Snapshot


@dataclass(frozen=True)
class Way:
    """What one Envoy does with a request to a Service; None or '' for what it does not have.

    `table` is the name of the route table, '' when the listener passes connections on without reading them.
    """

    proxy: Dump
    listener_name: str
    listener: Resource | None
    table: str
    routes_from: Resource | None
    virtual_host: str
    routes: tuple[Route, ...]

    @property
    def default(self) -> Route | None:
        """The route of a request that no other route asks for."""
        return next((route for route in self.routes if not route.match), self.routes[-1] if self.routes else None)

    @property
    def clusters(self) -> list[str]:
        """The clusters that some route sends requests to."""
        used = [destination.cluster for route in self.routes for destination in route.destinations if destination.share]
        return list(dict.fromkeys(used))

    def hosts(self, cluster: str) -> tuple[Host, ...]:
        return self.proxy.hosts.get(cluster, ())


def find(snapshot: Snapshot, envoy: Dump) -> Way:
    """Envoy takes the listener of the exact address before the one of any address."""
    port = snapshot.port.port
    addresses = [endpoint.address.rpartition(":")[0] for endpoint in snapshot.endpoints]
    names = [f"{address}_{port}" for address in (snapshot.cluster_ip, "0.0.0.0", *addresses)]  # noqa: S104
    name = next((name for name in names if name in envoy.listeners), "")
    listener = envoy.listeners.get(name)
    if listener is None:
        return Way(envoy, "", None, "", None, "", ())
    table = dump.route_table(listener.body)
    if not table:
        return Way(envoy, name, listener, "", None, "", _tcp_routes(listener))
    routes = envoy.routes.get(table)
    for host in routes.body.get("virtual_hosts", []) if routes else []:
        if any(domain == snapshot.host or domain.startswith(f"{snapshot.host}.") for domain in host["domains"]):
            return Way(envoy, name, listener, table, routes, host["name"], tuple(dump.routed(host)))
    return Way(envoy, name, listener, table, routes, "", ())


def _tcp_routes(listener: Resource) -> tuple[Route, ...]:
    found = (tcp for chain in dump.chains(listener.body) for tcp in dump.filters(chain, dump.TCP))
    return tuple(Route("", "", listener.object, dump.destinations(tcp), {}) for tcp in found)


def subset(cluster: str) -> str:
    """`outbound|9999|v1|bill-service.istio-demo.svc.cluster.local` → v1; '' for a cluster of all pods."""
    parsed = Cluster.parse(cluster)
    return parsed.subset if parsed else ""


def host(cluster: str) -> str:
    """`outbound|9999|v1|bill-service.istio-demo.svc.cluster.local` → the host at its end."""
    return cluster.rpartition("|")[2]


def label(cluster: str) -> str:
    """A short name: the subset, or the service."""
    return subset(cluster) or host(cluster).partition(".")[0]


def rule_of(snapshot: Snapshot, name: str) -> Object | None:
    """The DestinationRule that has the subset `name`; Istio merges all of one host."""
    for rule in snapshot.rules_of("DestinationRule"):
        if any(each["name"] == name for each in rule["spec"].get("subsets", [])):
            return rule
    return None


def subset_labels(snapshot: Snapshot, name: str) -> dict[str, str]:
    rule = rule_of(snapshot, name)
    subsets = rule["spec"]["subsets"] if rule else []
    return next((dict(each.get("labels", {})) for each in subsets if each["name"] == name), {})


def reference(rule: Object) -> str:
    """`VirtualService istio-demo/vs-bill-service`."""
    return f"{rule['kind']} {rule['metadata']['namespace']}/{rule['metadata']['name']}"
