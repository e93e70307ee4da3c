"""What the configuration of routing means in Istio's own objects; nothing here knows Pulumi or a cluster.

https://istio.io/latest/docs/reference/config/networking/
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import names
from config import Egress, Rule, Service, StackConfig
from config.routing import ConnectionPool, Expose, Match, OutlierDetection, Route, StringMatch, WholeMatch
from config.services import Port
from config.types import seconds

Spec = dict[str, Any]

# What every sidecar is bound to, beside the gateways.
MESH: Final = "mesh"
# Of Istio's own charts and of istioctl's gateways alike.
INGRESS_SELECTOR: Final = {"istio": "ingressgateway"}
EGRESS_SELECTOR: Final = {"istio": "egressgateway"}
_TLS_MODES: Final = {"STRICT": "ISTIO_MUTUAL", "DISABLE": "DISABLE"}


@dataclass(frozen=True)
class Object:
    """An Istio object in the namespace of the workloads."""

    kind: str
    name: str
    spec: Spec


@dataclass(frozen=True)
class Routed:
    """One service and its rule. `selector` is that of all its pods, `namespace` where they are."""

    name: str
    service: Service
    selector: Mapping[str, str]
    rule: Rule
    namespace: str

    @property
    def before(self) -> list[Object]:
        """What has to be there before the weights count: subsets, and what goes for the service as a whole."""
        base = {"host": self.name, **_optional(trafficPolicy=_policy(self.rule))}
        objects = [Object("DestinationRule", names.destination_rule(self.name), base)]
        for version, labels in self.subsets.items():
            subset: Spec = {"host": self.name, "subsets": [{"name": version, "labels": labels}]}
            objects.append(Object("DestinationRule", names.subset_rule(self.name, version), subset))
        if self.rule.mtls:
            mtls: Spec = {"selector": {"matchLabels": dict(self.selector)}, "mtls": {"mode": self.rule.mtls}}
            objects.append(Object("PeerAuthentication", names.peer_authentication(self.name), mtls))
        if self.rule.expose and not self.rule.expose.gateway:
            objects.append(Object("Gateway", names.gateway(self.name), _ingress(self.rule.expose)))
        return objects

    @property
    def subsets(self) -> dict[str, dict[str, str]]:
        """Version → the labels that tell its pods from those of the others."""
        return {version: {"version": self.service.version_label(version)} for version in self.service.versions}

    @property
    def idle(self) -> dict[str, dict[str, str]]:
        """Those of the versions that are to have no pods."""
        return {version: labels for version, labels in self.subsets.items() if version in self.service.idle}

    @property
    def shares(self) -> dict[str, int]:
        """Version → weight, of every version."""
        return {version: self.rule.weights.get(version, 0) for version in self.service.versions}

    @property
    def weights(self) -> Object:
        """The VirtualService."""
        expose = self.rule.expose
        hosts = [self.name, *(expose.hosts if expose else ())]
        bound = {"gateways": [self._gateway, MESH]} if expose else {}
        spec = {"hosts": hosts, **bound, **_optional(http=self._http(), tcp=self._tcp())}
        return Object("VirtualService", names.virtual_service(self.name), spec)

    @property
    def _gateway(self) -> str:
        return (self.rule.expose and self.rule.expose.gateway) or f"{self.namespace}/{names.gateway(self.name)}"

    def _http(self) -> list[Spec]:
        """Nobody calls an outside name at the service's own port: where it comes in, the route has to name one."""
        ports = {name: port for name, port in self.service.ports.items() if port.traffic(name) == "http"}
        expose = self.rule.expose
        if not ports or not expose:
            return self._routes() if ports else []
        exposed = ports[expose.port or next(iter(ports))]
        if len(ports) == 1:
            return self._routes(exposed)
        # By its own name, each port of the service leads to itself.
        return [*self._routes(exposed, expose.hosts), *self._routes()]

    def _routes(self, port: Port | None = None, outside_names: Sequence[str] = ()) -> list[Spec]:
        """To `port`, or to the port that was called; for the requests by one of these names alone, if there are any.

        Both kinds have the same names: they are the same rule, with the same weights.
        """
        routes = []
        for route in (*self.rule.match, self.rule):
            match = _match(route) if isinstance(route, Match) else {}
            matches = self._by_name(match, outside_names) if outside_names else [match] if match else []
            routes.append(
                {
                    "name": names.route(self.name, route.name) if isinstance(route, Match) else names.route(self.name),
                    **_optional(match=matches),
                    "route": self._destinations(route.weights or self.rule.weights, port),
                    **self._actions(route, port),
                }
            )
        return routes

    def _by_name(self, match: Spec, outside_names: Sequence[str]) -> list[Spec]:
        """What `match` describes, by the gateway, and where a caller in the mesh uses an outside name."""
        escaped = "|".join(name.replace(".", r"\.") for name in outside_names)
        within = {**match, "authority": {"regex": rf"(?i)({escaped})(:[0-9]+)?"}}
        # Istio does not look at sourceLabels beside gateways.
        return [within] if "sourceLabels" in match else [{**match, "gateways": [self._gateway]}, within]

    def _tcp(self) -> list[Spec]:
        return [
            {"match": [{"port": port.port}], "route": self._destinations(self.rule.weights, port)}
            for name, port in self.service.ports.items()
            if port.traffic(name) == "tcp"
        ]

    def _destinations(self, weights: Mapping[str, int], port: Port | None) -> list[Spec]:
        return [
            {"destination": self._destination(version, port), "weight": weights.get(version, 0)}
            for version in self.service.versions
        ]

    def _destination(self, version: str, port: Port | None) -> Spec:
        return {"host": self.name, "subset": version, **({"port": {"number": port.port}} if port else {})}

    def _actions(self, route: Route, port: Port | None) -> Spec:
        """What a match does not say it has from the rule."""
        timeout, retries = route.timeout or self.rule.timeout, route.retries or self.rule.retries
        faults, mirror = route.faults or self.rule.faults, route.mirror or self.rule.mirror
        spec: Spec = {}
        if timeout and seconds(timeout):
            spec["timeout"] = timeout
        if retries:
            more = _optional(perTryTimeout=retries.per_try_timeout, retryOn=",".join(retries.retry_on))
            spec["retries"] = {"attempts": retries.attempts, **more}
        fault: Spec = {}
        if faults and faults.delay:
            fault["delay"] = {
                "percentage": {"value": faults.delay.percentage},
                "fixedDelay": faults.delay.fixed_delay,
            }
        if faults and faults.abort:
            fault["abort"] = {
                "percentage": {"value": faults.abort.percentage},
                "httpStatus": faults.abort.http_status,
            }
        if fault:
            spec["fault"] = fault
        if mirror and mirror.percentage:
            spec["mirror"] = self._destination(mirror.version, port)
            spec["mirrorPercentage"] = {"value": mirror.percentage}
        return spec


def routed(config: StackConfig) -> Iterator[Routed]:
    """Every service with a rule; none without a mesh."""
    for name in config.weights:
        yield Routed(name, config.services[name], config.selector(name), config.routing[name], config.namespace.name)


def outside(host: str, egress: Egress, namespace: str, mesh_namespace: str) -> list[Object]:
    """A host outside the mesh, by way of the egress gateway; only this namespace and the gateway see it.

    https://istio.io/latest/docs/tasks/traffic-management/egress/egress-gateway/
    """
    name, gateway = names.outside(host), f"{namespace}/{names.outside(host)}"
    http = egress.protocol == "HTTP"
    exit_port, port_name = (80, "http") if http else (443, "tls")
    export = {"exportTo": [".", mesh_namespace]}
    policy = _optional(
        connectionPool=_pool(egress.connection_pool), outlierDetection=_outliers(egress.outlier_detection)
    )
    entry = {
        "hosts": [host],
        "location": "MESH_EXTERNAL",
        "ports": [{"number": egress.target, "name": port_name, "protocol": egress.protocol}],
        "resolution": "STATIC" if egress.addresses else "DNS",
        **_optional(endpoints=[{"address": address} for address in egress.addresses]),
        **export,
    }
    server = {
        "port": {"number": exit_port, "name": port_name, "protocol": egress.protocol},
        "hosts": [host],
        **({} if http else {"tls": {"mode": "PASSTHROUGH"}}),
    }
    sni = {} if http else {"sniHosts": [host]}
    exit_host = f"{names.RELEASES['egress']}.{mesh_namespace}.svc.cluster.local"
    routes: list[Spec] = [
        {
            "match": [{"gateways": [MESH], "port": egress.target, **sni}],
            "route": [{"destination": {"host": exit_host, "port": {"number": exit_port}}}],
        },
        {
            "match": [{"gateways": [gateway], "port": exit_port, **sni}],
            "route": [{"destination": {"host": host, "port": {"number": egress.target}}}],
        },
    ]
    return [
        Object("ServiceEntry", name, entry),
        Object("DestinationRule", name, {"host": host, **_optional(trafficPolicy=policy), **export}),
        Object("Gateway", name, {"selector": EGRESS_SELECTOR, "servers": [server]}),
        Object(
            "VirtualService",
            name,
            {"hosts": [host], "gateways": [MESH, gateway], ("http" if http else "tls"): routes, **export},
        ),
    ]


def _optional(**fields: Any) -> Spec:
    """The fields that say something."""
    return {key: value for key, value in fields.items() if value not in (None, "", {}, [])}


def _match(match: Match) -> Spec:
    return _optional(
        headers={header: _text(how) for header, how in match.headers.items()},
        uri=_text(match.uri) if match.uri else None,
        method=_text(match.method) if match.method else None,
        queryParams={parameter: _text(how) for parameter, how in match.query.items()},
        sourceLabels=dict(match.source_labels),
    )


def _text(match: WholeMatch) -> Spec:
    ways = {"exact": match.exact, "regex": match.regex}
    if isinstance(match, StringMatch):
        ways["prefix"] = match.prefix
    return {way: text for way, text in ways.items() if text is not None}


def _policy(rule: Rule) -> Spec:
    """https://istio.io/latest/docs/reference/config/networking/destination-rule/#TrafficPolicy"""
    tls = {"mode": _TLS_MODES[rule.mtls]} if rule.mtls in _TLS_MODES else None
    return _optional(
        tls=tls,
        connectionPool=_pool(rule.connection_pool),
        outlierDetection=_outliers(rule.outlier_detection),
        loadBalancer=_load_balancer(rule),
    )


def _pool(pool: ConnectionPool | None) -> Spec:
    dumped = pool.model_dump(by_alias=True, exclude_none=True) if pool else {}
    return {layer: fields for layer, fields in dumped.items() if fields}


def _outliers(detection: OutlierDetection | None) -> Spec:
    return detection.model_dump(by_alias=True, exclude_none=True) if detection else {}


def _load_balancer(rule: Rule) -> Spec:
    if rule.sticky and rule.sticky.header:
        return {"consistentHash": {"httpHeaderName": rule.sticky.header}}
    if rule.sticky and rule.sticky.cookie:
        return {"consistentHash": {"httpCookie": rule.sticky.cookie.model_dump(exclude_none=True)}}
    return {}


def _ingress(expose: Expose) -> Spec:
    """https://istio.io/latest/docs/tasks/traffic-management/ingress/secure-ingress/"""
    hosts = list(expose.hosts)
    http: Spec = {"port": {"number": 80, "name": "http", "protocol": "HTTP"}, "hosts": hosts}
    if not expose.tls_secret:
        return {"selector": INGRESS_SELECTOR, "servers": [http]}
    https = {
        "port": {"number": 443, "name": "https", "protocol": "HTTPS"},
        "tls": {"mode": "SIMPLE", "credentialName": expose.tls_secret},
        "hosts": hosts,
    }
    return {"selector": INGRESS_SELECTOR, "servers": [{**http, "tls": {"httpsRedirect": True}}, https]}
