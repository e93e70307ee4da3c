"""What a proxy's admin interface tells about its Envoy, typed.

https://www.envoyproxy.io/docs/envoy/latest/api-v3/admin/v3/config_dump.proto
https://www.envoyproxy.io/docs/envoy/latest/api-v3/admin/v3/clusters.proto
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Json = Mapping[str, Any]

HTTP = "envoy.filters.network.http_connection_manager"
TCP = "envoy.filters.network.tcp_proxy"


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
class Delivery:
    """The xDS type that carried a piece of configuration to a proxy.

    `updated` is an RFC 3339 time in UTC. Envoy keeps no time for endpoints, and no version for what came as a delta:
    both may be ''. https://www.envoyproxy.io/docs/envoy/latest/api-docs/xds_protocol
    """

    type: str
    updated: str = ""
    version: str = ""


@dataclass(frozen=True)
class Resource:
    """One resource that came by xDS; `error` is why Envoy refused the newest one, or ''."""

    body: Json
    delivery: Delivery
    error: str = ""

    @property
    def object(self) -> str:
        return istio_object(self.body)


@dataclass(frozen=True)
class Host:
    """One endpoint of a cluster. `health` is '' for one that gets requests; `mtls`: it takes Istio's mutual TLS."""

    address: str
    health: str
    mtls: bool


@dataclass(frozen=True)
class Destination:
    """A cluster and its share of the requests, 0 to 1."""

    cluster: str
    share: float


@dataclass(frozen=True)
class Route:
    """Which requests go where. `object` is the Istio object that it comes from, or ''; `mirrors` get a copy."""

    name: str
    match: str
    object: str
    destinations: tuple[Destination, ...]
    fields: Mapping[str, str] = field(default_factory=dict, hash=False)
    mirrors: tuple[str, ...] = ()


@dataclass(frozen=True)
class Dump:
    """One Envoy's configuration by name, as it has it now."""

    listeners: Mapping[str, Resource]
    routes: Mapping[str, Resource]
    clusters: Mapping[str, Resource]
    hosts: Mapping[str, tuple[Host, ...]]


def parse(dump: Json, clusters: Json) -> Dump:
    """From `/config_dump?include_eds` and `/clusters?format=json`."""
    sections = {section["@type"].rsplit(".", 1)[-1]: section for section in dump.get("configs", [])}
    listeners = _listeners(sections.get("ListenersConfigDump", {}).get("dynamic_listeners", []))
    routes = _resources(sections.get("RoutesConfigDump", {}), "RDS", "dynamic_route_configs", "route_config")
    known = _resources(sections.get("ClustersConfigDump", {}), "CDS", "dynamic_active_clusters", "cluster")
    return Dump(listeners, routes, known, dict(_hosts(sections.get("EndpointsConfigDump", {}), clusters)))


def _listeners(entries: Sequence[Json]) -> dict[str, Resource]:
    """Those that take connections. What was refused may stand in an entry of its own, without a name."""
    errors = {
        entry.get("name") or error.get("failed_configuration", {}).get("name", ""): error.get("details", "refused")
        for entry in entries
        if (error := entry.get("error_state"))
    }
    active = {entry["name"]: entry["active_state"] for entry in entries if "active_state" in entry}
    return {
        name: Resource(state["listener"], _delivery("LDS", state), errors.get(name, ""))
        for name, state in active.items()
    }


def _resources(section: Json, xds: str, items: str, key: str) -> dict[str, Resource]:
    return {
        entry[key]["name"]: Resource(entry[key], _delivery(xds, entry), entry.get("error_state", {}).get("details", ""))
        for entry in section.get(items, [])
    }


def _delivery(xds: str, state: Json) -> Delivery:
    return Delivery(xds, state.get("last_updated", ""), state.get("version_info", ""))


def _hosts(endpoints: Json, clusters: Json) -> Iterator[tuple[str, tuple[Host, ...]]]:
    """The health flags are in `/clusters`, the metadata of an endpoint is in `/config_dump` alone."""
    mtls: set[tuple[str, str]] = set()
    for entry in endpoints.get("dynamic_endpoint_configs", []):
        assignment = entry["endpoint_config"]
        for endpoint in (host for group in assignment.get("endpoints", []) for host in group.get("lb_endpoints", [])):
            metadata = endpoint.get("metadata", {}).get("filter_metadata", {})
            if metadata.get("envoy.transport_socket_match", {}).get("tlsMode") == "istio":
                mtls.add((assignment["cluster_name"], _address(endpoint["endpoint"]["address"])))
    for status in clusters.get("cluster_statuses", []):
        name = status["name"]
        yield (
            name,
            tuple(
                Host(
                    address := _address(host["address"]),
                    _health(host.get("health_status", {})),
                    (name, address) in mtls,
                )
                for host in status.get("host_statuses", [])
            ),
        )


def _address(address: Json) -> str:
    socket = address.get("socket_address", {})
    return f"{socket.get('address', '')}:{socket.get('port_value', '')}"


def _health(status: Json) -> str:
    """'' for a host that gets requests; Envoy names each reason against it by a flag of its own."""
    flags = [name for name, value in status.items() if value is True]
    eds = status.get("eds_health_status", "HEALTHY")
    return ", ".join([*flags, *([] if eds in {"HEALTHY", "UNKNOWN"} else [eds])])


def istio_object(body: Json) -> str:
    """The object that istiod made a resource from, as `VirtualService istio-demo/vs-bill-service`; '' for none."""
    path = body.get("metadata", {}).get("filter_metadata", {}).get("istio", {}).get("config", "")
    found = re.search(r"/namespaces/([^/]+)/([^/]+)/([^/]+)$", path)
    if not found:
        return ""
    namespace, kind, name = found.groups()
    return f"{''.join(word.capitalize() for word in kind.split('-'))} {namespace}/{name}"


def filters(chain: Json, name: str) -> list[Json]:
    """The settings of each filter of that name in a filter chain."""
    return [entry.get("typed_config", {}) for entry in chain.get("filters", []) if entry["name"] == name]


def chains(listener: Json) -> list[Json]:
    """The filter chains, the default one last."""
    default = listener.get("default_filter_chain")
    return [*listener.get("filter_chains", []), *([default] if default else [])]


def route_table(listener: Json) -> str:
    """The name of the route table that HTTP requests are looked up in; '' when they are not read as HTTP."""
    managers = (manager for chain in chains(listener) for manager in filters(chain, HTTP))
    return next((manager["rds"]["route_config_name"] for manager in managers if "rds" in manager), "")


def routed(virtual_host: Json) -> list[Route]:
    """The routes of a virtual host, in the order in which they are tried."""
    return [
        Route(
            route.get("name", ""),
            _match(route.get("match", {})),
            istio_object(route),
            destinations(route.get("route", {})),
            _route_fields(route),
            tuple(policy["cluster"] for policy in route.get("route", {}).get("request_mirror_policies", [])),
        )
        for route in virtual_host.get("routes", [])
    ]


def destinations(action: Json) -> tuple[Destination, ...]:
    """From the action of an HTTP route, or from a TCP proxy: both have one cluster or several by weight."""
    if cluster := action.get("cluster"):
        return (Destination(cluster, 1),)
    weighted: Sequence[Json] = action.get("weighted_clusters", {}).get("clusters", [])
    total = sum(entry.get("weight", 0) for entry in weighted) or 1
    return tuple(Destination(entry["name"], entry.get("weight", 0) / total) for entry in weighted)


def _match(match: Json) -> str:
    """In words; '' for every request."""
    words = [
        f"path {'is' if kind == 'path' else 'begins with'} {match[kind]}"
        for kind in ("path", "prefix", "path_separated_prefix")
        if match.get(kind, "/") != "/"
    ]
    if "safe_regex" in match:
        words.append(f"path matches {match['safe_regex'].get('regex', '')}")
    words += [_matcher("header", header) for header in match.get("headers", [])]
    words += [_matcher("query", parameter) for parameter in match.get("query_parameters", [])]
    return " and ".join(words)


def _matcher(what: str, matcher: Json) -> str:
    name = {":method": "method", ":authority": "host"}.get(matcher["name"], f"{what} {matcher['name']}")
    test = matcher.get("string_match", {})
    if matcher.get("present_match"):
        return f"{name} is there"
    for kind, verb in (("exact", "is"), ("prefix", "begins with"), ("suffix", "ends with"), ("contains", "contains")):
        if kind in test:
            return f"{name} {verb} {test[kind]}"
    return f"{name} matches {test.get('safe_regex', {}).get('regex', '?')}"


def _route_fields(route: Json) -> dict[str, str]:
    action = route.get("route", {})
    retries = action.get("retry_policy", {})
    mirrors = ", ".join(policy["cluster"] for policy in action.get("request_mirror_policies", []))
    fault = route.get("typed_per_filter_config", {}).get("envoy.filters.http.fault", {})
    found = {
        "timeout": "none" if action.get("timeout") == "0s" else action.get("timeout", ""),
        "retries": f"{retries.get('num_retries', 1)} on {retries.get('retry_on', '')}" if retries else "",
        "mirrored to": mirrors,
        "faults": " and ".join(kind for kind in ("delay", "abort") if kind in fault),
    }
    return {name: value for name, value in found.items() if value}
