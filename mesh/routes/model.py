"""Who calls a service, what each of them does with its requests, and what its rule says they should do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

import names
from istio.rules import INGRESS_SELECTOR, Routed
from istio.rules import Object as Rule
from mesh.cluster.dump import Cluster, Route
from mesh.traffic.weights import without_zeros

Shares = Mapping[str, float]
"""Version → share of the requests, 0 to 1; what is no version stands there by its host. Shares of 0 are left out."""


@dataclass(frozen=True)
class Caller:
    """A proxy that may send requests: a sidecar, a gateway, or one that has no pod in this cluster, such as a VM's."""

    namespace: str
    name: str
    labels: Mapping[str, str] = field(default_factory=dict, hash=False, compare=False, repr=False)
    is_gateway: bool = False
    has_pod: bool = True

    @property
    def workload(self) -> str:
        """`office/clerk`, as Istio's own metrics call it; without that label the proxy's own name."""
        return f"{self.namespace}/{self.labels.get(names.INJECTED, self.name)}"

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


@dataclass(frozen=True)
class VirtualHost:
    """The routes for some names at one port, in the order in which they are tried."""

    name: str
    domains: tuple[str, ...]
    routes: tuple[Route, ...]

    @property
    def port(self) -> int:
        """0 for a name without one."""
        number = self.name.rpartition(":")[2]
        return int(number) if number.isdecimal() else 0


@dataclass(frozen=True)
class Connections:
    """Where the connections to one address and port go, that are not read as HTTP."""

    address: str
    port: int
    route: Route


@dataclass(frozen=True)
class Config:
    """What decides over requests in one Envoy. `clusters`: name → the DestinationRule that it comes from, or ''.

    `reached` are the clusters with an endpoint, None where that was not asked for.
    """

    virtual_hosts: tuple[VirtualHost, ...]
    connections: tuple[Connections, ...]
    clusters: Mapping[str, str]
    reached: frozenset[str] | None = None

    @property
    def destinations(self) -> set[str]:
        """Every cluster that requests, connections or copies of requests go to, weights of 0 included."""
        routes = [
            *(route for host in self.virtual_hosts for route in host.routes),
            *(one.route for one in self.connections),
        ]
        return {name for route in routes for name in (*(to.cluster for to in route.destinations), *route.mirrors)}


@dataclass(frozen=True)
class Wanted:
    """One route of a rule. `source_labels` are those of the only callers that have it, {} for all."""

    shares: Shares
    timeout: str = ""
    mirror: str = ""
    source_labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Expected:
    """What the rule of a service says: `http` by the names of its routes, in order; `tcp` by port.

    `ports` are the Service's: number → http or tcp; `address` is its cluster IP, '' where it is not known; `outside`
    are the names by which gateways know it, those with the labels `gateway`. `rule` is the object, as
    `VirtualService shop/vs-cart`.
    """

    service: str
    namespace: str
    rule: str
    ports: Mapping[int, str]
    http: Mapping[str, Wanted]
    tcp: Mapping[int, Shares]
    outside: tuple[str, ...] = ()
    gateway: Mapping[str, str] = field(default_factory=dict)
    address: str = ""

    def is_host(self, host: str) -> bool:
        """Whether a name in the cluster is that of the service, in full."""
        return host.startswith(f"{self.service}.{self.namespace}.svc.")

    def applied_to(self, caller: Caller) -> list[str]:
        """The names of the routes that this caller has, in order."""
        return [
            name
            for name, wanted in self.http.items()
            if wanted.source_labels.items() <= caller.labels.items()
            and not (caller.is_gateway and wanted.source_labels)
        ]

    @property
    def default(self) -> Shares:
        """Of the requests that no match describes, or of connections."""
        if names.route(self.service) in self.http:
            return self.http[names.route(self.service)].shares
        return next(iter(self.tcp.values()), {})


class Kind(Enum):
    """In what way a caller's requests are not treated as the rule says."""

    ELSEWHERE = "decided by another object"
    LATE = "not taken over yet"
    NO_SUBSET = "a subset is not known"
    CHANGED = "the route is changed"
    HIDDEN = "the service is hidden"
    SILENT = "the proxy cannot be asked"


@dataclass(frozen=True)
class Difference:
    """`where` is `port 80`, or an outside name; `what` is what the callers get, in words; `object` is what decides, as
    far as Envoy tells: `VirtualService office/theirs`, or ''.
    """

    kind: Kind
    where: str
    what: str
    object: str = ""


def expected(routed: Routed, weights: Mapping[str, int] | None = None, address: str = "") -> Expected:
    """By the configuration; `weights` stand for those of the rule where they are given."""
    rule = routed.rule if weights is None else routed.rule.model_copy(update={"weights": dict(weights)})
    made = Routed(routed.name, routed.service, routed.selector, rule, routed.namespace)
    return by_rule(made, made.weights.spec, address)


def by_rule(routed: Routed, spec: Mapping[str, Any], address: str = "") -> Expected:
    """By the `spec` of a VirtualService that is there."""
    expose = routed.rule.expose
    made: Rule = routed.weights
    return Expected(
        routed.name,
        routed.namespace,
        f"{made.kind} {routed.namespace}/{made.name}",
        {port.port: port.traffic(name) for name, port in routed.service.ports.items()},
        {route.get("name", ""): _wanted(route) for route in spec.get("http", ())},
        {
            match["port"]: shares(route["route"])
            for route in spec.get("tcp", ())
            for match in route.get("match", ())
            if "port" in match
        },
        tuple(expose.hosts) if expose else (),
        # Which gateways are bound by somebody else's Gateway, its own routes tell.
        {} if expose and expose.gateway else INGRESS_SELECTOR,
        address,
    )


def shares(route: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Of the destinations in a route of a VirtualService. A single one gets everything, whatever its weight."""
    named = {_version(entry["destination"]): entry.get("weight", 0) for entry in route}
    if len(named) == 1:
        return dict.fromkeys(named, 1.0)
    total = sum(named.values()) or 1
    return {version: weight / total for version, weight in without_zeros(named).items()}


def by_version(route: Route, service: Expected) -> dict[str, float]:
    """The shares of a route in Envoy. All pods of the service stand as '', another host by its name."""
    found: dict[str, float] = {}
    for destination in route.destinations:
        if destination.share:
            to = Cluster.parse(destination.cluster)
            name = destination.cluster if to is None else to.subset if service.is_host(to.host) else to.host
            found[name] = found.get(name, 0) + destination.share
    return found


def percents(found: Shares) -> str:
    """`v1 90 %, v2 10 %`; '' reads `all pods alike`."""
    if set(found) == {""}:
        return "all pods alike"
    return ", ".join(f"{name or 'all pods'} {100 * share:.3g} %" for name, share in found.items()) or "nobody"


def same(one: Shares, other: Shares) -> bool:
    """Weights are ratios: Envoy may have others of the same."""
    return all(abs(one.get(name, 0) - other.get(name, 0)) < 1e-6 for name in {*one, *other})


def _version(destination: Mapping[str, Any]) -> str:
    return destination.get("subset") or str(destination["host"])


def _wanted(route: Mapping[str, Any]) -> Wanted:
    matches: Sequence[Mapping[str, Any]] = route.get("match", ())
    mirror = route.get("mirror", {}).get("subset", "") if route.get("mirrorPercentage", {}).get("value", 100) else ""
    return Wanted(
        shares(route.get("route", ())),
        # Where Istio plays faults it has no timeout.
        "" if "fault" in route else route.get("timeout", ""),
        mirror,
        next((match["sourceLabels"] for match in matches if "sourceLabels" in match), {}),
    )
