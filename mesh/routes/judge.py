"""What one caller does with requests to a service, held against what the rule says: pure, of what was read before."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from config.types import seconds
from mesh.cluster.dump import Cluster, Route
from mesh.routes.model import Caller, Config, Difference, Expected, Kind, VirtualHost, by_version, percents, same


def differences(config: Config, caller: Caller, expected: Expected) -> list[Difference]:
    """None where every request of this caller to the service goes as the rule says, at all ports and by all names."""
    found = _at_gateway(config, caller, expected) if caller.is_gateway else _in_mesh(config, caller, expected)
    return list(dict.fromkeys(found))


def sees(config: Config, expected: Expected) -> bool:
    """Whether the caller's proxy knows the service at all."""
    return any(_leads_to(name, expected) for name in config.clusters)


def _in_mesh(config: Config, caller: Caller, expected: Expected) -> Iterator[Difference]:
    if not sees(config, expected) and not any(_hosts(config, expected)):
        yield Difference(Kind.HIDDEN, "all ports", "its proxy does not know the service")
        return
    for port, traffic in expected.ports.items():
        if traffic == "http" and expected.http:
            host = next((host for host in _hosts(config, expected) if host.port == port), None)
            if host is None:
                yield Difference(Kind.ELSEWHERE, f"port {port}", "its proxy has no route for this port")
            else:
                yield from _routes(host, f"port {port}", config, caller, expected)
        elif traffic == "tcp" and port in expected.tcp:
            yield from _connections(config, port, expected)
    for name in expected.outside:
        # Used from inside, at whatever port the proxy listens, an outside name leads to the same rule.
        for host in config.virtual_hosts:
            if name in host.domains:
                yield from _routes(_until_default(host, expected), name, config, caller, expected)


def _at_gateway(config: Config, caller: Caller, expected: Expected) -> Iterator[Difference]:
    for name in expected.outside:
        hosts = [host for host in config.virtual_hosts if {name, f"{name}:{host.port}"} & {*host.domains}]
        if not hosts:
            yield Difference(Kind.ELSEWHERE, name, "the gateway has no route for this name")
        for host in hosts:
            yield from _routes(host, name, config, caller, expected)


def _until_default(host: VirtualHost, expected: Expected) -> VirtualHost:
    """What comes after the rule's last route is for other names than this one, and never reached by it."""
    last = [*expected.http][-1] if expected.http else ""
    number = next((number for number, route in enumerate(host.routes) if route.name == last), len(host.routes))
    return replace(host, routes=host.routes[: number + 1])


def _hosts(config: Config, expected: Expected) -> Iterator[VirtualHost]:
    return (host for host in config.virtual_hosts if expected.is_host(host.name.partition(":")[0]))


def _routes(host: VirtualHost, where: str, config: Config, caller: Caller, expected: Expected) -> Iterator[Difference]:
    names = expected.applied_to(caller)
    ours = [route for route in host.routes if route.object == expected.rule]
    for route in host.routes:
        if route.object != expected.rule:
            yield _elsewhere(route, where, expected)
        elif route.name not in names:
            yield Difference(Kind.LATE, where, f"it has the route {route.name}, which the rule has not", route.object)
        else:
            yield from _route(route, where, config, expected)
    if ours:
        seen = list(dict.fromkeys(route.name for route in ours if route.name in names))
        if missing := [name for name in names if name not in seen]:
            yield Difference(Kind.LATE, where, f"it lacks the route {', '.join(missing)}", expected.rule)
        elif seen != names:
            yield Difference(Kind.LATE, where, f"it tries the routes in the order {', '.join(seen)}", expected.rule)


def _route(route: Route, where: str, config: Config, expected: Expected) -> Iterator[Difference]:
    """One of the rule's own."""
    wanted, has = expected.http[route.name], by_version(route, expected)
    if not same(has, wanted.shares):
        yield Difference(Kind.LATE, where, f"{percents(has)} at {route.name}", route.object)
    timeout, limit = route.fields.get("timeout", "none"), wanted.timeout or "none"
    if _seconds(timeout) != _seconds(limit):
        what = f"a timeout of {timeout} at {route.name}, {limit} by the rule"
        yield Difference(Kind.CHANGED, where, what, route.object)
    mirrored = {cluster.subset for cluster in map(Cluster.parse, route.mirrors) if cluster}
    if mirrored != ({wanted.mirror} if wanted.mirror else set()):
        copies = ", ".join(sorted(mirrored)) or "nobody"
        what = f"copies to {copies} at {route.name}, to {wanted.mirror or 'nobody'} by the rule"
        yield Difference(Kind.LATE, where, what, route.object)
    yield from _subsets(route, where, config)


def _connections(config: Config, port: int, expected: Expected) -> Iterator[Difference]:
    where = f"port {port}"
    found = [
        one.route
        for one in config.connections
        if one.port == port
        and (one.address == expected.address or any(_leads_to(to.cluster, expected) for to in one.route.destinations))
    ]
    if not found:
        yield Difference(Kind.ELSEWHERE, where, "its proxy has no rule for connections to this port")
    for route in found:
        has = by_version(route, expected)
        if route.object != expected.rule:
            yield _elsewhere(route, where, expected)
        elif not same(has, expected.tcp[port]):
            yield Difference(Kind.LATE, where, percents(has), route.object)
        else:
            yield from _subsets(route, where, config)


def _subsets(route: Route, where: str, config: Config) -> Iterator[Difference]:
    """Requests to a cluster that the proxy does not have fail with 503."""
    for to in route.destinations:
        cluster = Cluster.parse(to.cluster)
        if cluster and to.share and to.cluster not in config.clusters:
            decides = config.clusters.get(f"outbound|{cluster.port}||{cluster.host}", "")
            what = f"its proxy does not know the subset {cluster.subset}: requests to it fail with 503"
            yield Difference(Kind.NO_SUBSET, where, what, decides)


def _elsewhere(route: Route, where: str, expected: Expected) -> Difference:
    has = by_version(route, expected)
    what = percents(has) if has else "an answer of its own"
    what += f" for requests whose {route.match}" if route.match else ""
    what += f" by the name {where}" if where in expected.outside else ""
    # A route of the Gateway API is a VirtualService to istiod, of a name that no object can have; what tells them apart
    # is the route's own name.
    made = f"route {route.name}" if "~" in route.object else route.object
    return Difference(Kind.ELSEWHERE, where, what, made)


def _seconds(limit: str) -> float:
    """Of a duration as Envoy writes it, or a rule: `1.500s`, `1500ms`."""
    decimal = limit.removesuffix("s")
    return float(decimal) if decimal.replace(".", "", 1).isdecimal() else seconds(limit)


def _leads_to(name: str, expected: Expected) -> bool:
    cluster = Cluster.parse(name)
    return cluster is not None and expected.is_host(cluster.host)
