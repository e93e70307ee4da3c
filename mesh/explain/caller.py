"""The hops in the caller's pod: from the redirect to the choice of an endpoint."""

from __future__ import annotations

from mesh.cluster import dump
from mesh.cluster.dump import Delivery
from mesh.explain import problems, redirect, sources, way
from mesh.explain.live import Snapshot
from mesh.explain.model import Hop, Kind, Source
from mesh.explain.way import Way

_ENVOY = "Envoy of the caller"


def redirected(snapshot: Snapshot) -> Hop:
    rules, derived = redirect.outbound(snapshot, snapshot.caller)
    return Hop(
        Kind.REDIRECT,
        f"kernel, in the network of pod {snapshot.caller.name}",
        "iptables: any port → 15001",
        "Rules in the pod's own network turn each outgoing connection around to the Envoy beside the program.",
        sources=sources.of_pod(snapshot, snapshot.caller, "mesh", "cni"),
        derived=derived,
        fields={"rules": "\n".join(rules), **redirect.settings(snapshot.caller)},
    )


def virtual_listener(found: Way) -> Hop:
    listener = found.proxy.listeners.get("virtualOutbound")
    return Hop(
        Kind.VIRTUAL_LISTENER,
        _ENVOY,
        "virtualOutbound, 0.0.0.0:15001",
        "Envoy asks the kernel where the connection was going, and hands it to the listener of that port.",
        delivery=listener.delivery if listener else None,
        fields={"use_original_dst": str(listener.body.get("use_original_dst", False)).lower()} if listener else {},
    )


def listener(snapshot: Snapshot, found: Way) -> Hop:
    port = snapshot.port
    said = f"has appProtocol {port.app_protocol}" if port.app_protocol else f"is called {port.name or 'nothing'}"
    if found.listener is None:
        why = "There is no listener for this port: virtualOutbound passes the bytes on to where they were going."
    elif found.table:
        why = f"It reads HTTP, as the Service's port {said}, and looks each request up in route table {found.table}."
    else:
        why = f"It does not read the bytes, as the Service's port {said}: whole connections are routed, not requests."
    chains = dump.chains(found.listener.body) if found.listener else []
    return Hop(
        Kind.LISTENER,
        _ENVOY,
        found.listener_name or "none",
        why,
        sources=sources.of_service(snapshot),
        delivery=found.listener.delivery if found.listener else None,
        fields={"filters": ", ".join(each["name"] for chain in chains for each in chain.get("filters", []))},
        problems=tuple(problems.listener(snapshot, found)),
    )


def route(snapshot: Snapshot, found: Way) -> Hop:
    default = found.default
    names = [found.table, found.virtual_host, default.name if default else ""]
    return Hop(
        Kind.ROUTE,
        _ENVOY,
        " / ".join(filter(None, names)) or found.listener_name,
        "The Host header selects a virtual host; its first route that fits decides by weight, request by request."
        if found.table
        else "There is no route table: each connection goes to one cluster as a whole.",
        rows=tuple((_row(found, entry),) for entry in found.routes),
        sources=_rules(snapshot, found),
        delivery=found.routes_from.delivery if found.routes_from else None,
        fields=default.fields if default else {},
        problems=tuple(problems.route(snapshot, found)),
    )


def _row(found: Way, entry: dump.Route) -> str:
    condition = f"if {entry.match}: " if entry.match else "else: " if len(found.routes) > 1 else ""
    weights = (f"{each.share * 100:.10g} % → {way.label(each.cluster)}" for each in entry.destinations)
    return condition + (", ".join(weights) or "an answer of its own")


def _rules(snapshot: Snapshot, found: Way) -> tuple[Source, ...]:
    """The rules of the routes, with the line of each weight."""
    key = ("routing", snapshot.service, "weights")
    return sources.merged(
        snapshot.declared.source(entry.object, *key, *([way.subset(each.cluster)] if way.subset(each.cluster) else []))
        for entry in found.routes
        for each in entry.destinations
        if entry.object
    )


def clusters(snapshot: Snapshot, found: Way) -> Hop:
    shown = _shown(snapshot, found)
    resources = [found.proxy.clusters[name] for name in shown if name in found.proxy.clusters]
    body = resources[0].body if resources else {}
    return Hop(
        Kind.CLUSTER,
        _ENVOY,
        ", ".join(map(way.label, shown)) or "none",
        "A cluster is a group of servers that are alike: here a subset, the pods with one version label.",
        rows=tuple(_cluster_row(snapshot, found, name) for name in shown),
        sources=sources.merged(source for name in shown for source in _cluster_sources(snapshot, found, name)),
        delivery=max((each.delivery for each in resources), key=lambda carried: carried.updated, default=None),
        fields={
            "balancing": body.get("lb_policy", "ROUND_ROBIN"),
            "kind": body.get("type", ""),
            "connect timeout": body.get("connect_timeout", ""),
            "outlier detection": "on" if "outlier_detection" in body else "off",
        },
        problems=tuple(problems.cluster(snapshot, found)),
    )


def _cluster_row(snapshot: Snapshot, found: Way, name: str) -> tuple[str, ...]:
    labels = ", ".join(f"{key}={value}" for key, value in way.subset_labels(snapshot, way.subset(name)).items())
    pods = f"pods with {labels}" if labels else "" if way.subset(name) else "all its pods"
    return (way.label(name), name, pods if name in found.proxy.clusters else "not there")


def _cluster_sources(snapshot: Snapshot, found: Way, name: str) -> tuple[Source, ...]:
    subset, cluster = way.subset(name), found.proxy.clusters.get(name)
    if rule := way.rule_of(snapshot, subset) if subset else None:
        key = ("services", snapshot.service, "versions", subset)
        return (snapshot.declared.source(way.reference(rule), *key),)
    if cluster and cluster.object:
        return (Source(cluster.object),)
    return () if subset else sources.of_service(snapshot)


def _shown(snapshot: Snapshot, found: Way) -> list[str]:
    """The clusters on the way to what TO names."""
    version = problems.focused_version(snapshot)
    return [name for name in found.clusters if not version or way.subset(name) in {"", version}] or found.clusters


def endpoints(snapshot: Snapshot, found: Way) -> Hop:
    shown = _shown(snapshot, found)
    hosts = [(name, host) for name in shown for host in found.hosts(name)]
    empty = [name for name in shown if not found.hosts(name)]
    return Hop(
        Kind.ENDPOINT,
        _ENVOY,
        f"{sum(not host.health for _, host in hosts)} healthy of {len(hosts)}",
        "One healthy pod of the cluster is chosen and called at its own address: kube-proxy plays no part here.",
        rows=(
            *(_endpoint_row(snapshot, found, name, host) for name, host in hosts),
            *((way.label(name), "none") for name in empty),
        ),
        sources=sources.of_versions(snapshot, map(way.subset, shown)),
        delivery=Delivery("EDS"),
        problems=tuple(problems.endpoints(snapshot, found)),
    )


def _endpoint_row(snapshot: Snapshot, found: Way, name: str, host: dump.Host) -> tuple[str, ...]:
    pod, cluster = snapshot.pod_at(host.address), found.proxy.clusters.get(name)
    speaks = "mutual TLS" if cluster and problems.speaks_mtls(cluster.body, host) else "plain text"
    return (way.label(name), pod.name if pod else "", host.address, host.health or f"healthy, {speaks}")
