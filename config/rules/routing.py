"""The rules on who gets which requests."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from ipaddress import ip_address

import names
from config.problems import MISSING, Problem, nearest
from config.rules.raw import Raw, each_of, inherited, is_whole, map_at
from config.services import traffic

_HTTP_ONLY = ("match", "timeout", "retries", "faults", "mirror", "sticky", "expose")


def _routes(raw: Raw) -> Iterator[tuple[str, str, Raw]]:
    """Key, service and values of each route: the rule of a service, and the matches before it."""
    for name in map_at(raw, "routing"):
        rule = map_at(raw, "routing", name)
        yield f"routing.{name}", name, rule
        for index, match in each_of(rule.get("match")):
            yield f"routing.{name}.match.{index}", name, match


def _ports(raw: Raw, service: str) -> dict[str, str]:
    """Port → what can be routed there."""
    found: dict[str, str] = {}
    for name, port in map_at(raw, "services", service, "ports").items():
        values, app_protocol = map_at(port), map_at(port).get("appProtocol")
        if is_whole(values.get("port")):
            found[name] = traffic(name, values["port"], app_protocol if isinstance(app_protocol, str) else None)
    return found


def rule_names_are_unique(raw: Raw) -> Iterator[Problem]:
    """`a` with `b` would make the DestinationRule dest-a-b, and so would the service `a-b`."""
    bases = {names.destination_rule(name): name for name in map_at(raw, "routing")}
    for name in map_at(raw, "routing"):
        for version in map_at(raw, "services", name, "versions"):
            rule = names.subset_rule(name, version)
            if rule in bases:
                yield Problem(
                    f"services.{name}.versions.{version}",
                    MISSING,
                    "a DestinationRule name dest-<service>-<version> that no other rule has",
                    f"rename the service or the version: '{rule}' is the rule of the service {bases[rule]}",
                )


def rules_name_a_service_with_a_port(raw: Raw) -> Iterator[Problem]:
    services = map_at(raw, "services")
    for name in map_at(raw, "routing"):
        if name not in services:
            yield Problem(f"routing.{name}", MISSING, "the name of a service", nearest(name, services))
        elif not map_at(services, name, "ports"):
            yield Problem(
                f"routing.{name}",
                MISSING,
                "a service with a port: requests to no port cannot be split",
                f"add services.{name}.ports, or take the rule out",
            )


def weights_name_versions(raw: Raw) -> Iterator[Problem]:
    for key, name, route in _routes(raw):
        known = map_at(raw, "services", name, "versions")
        for version, weight in map_at(route, "weights").items():
            if known and version not in known:
                fix = nearest(version, known)
                if weight and not fix.startswith("did you mean"):
                    fix += f"; if you remove the version: give its {weight} % to others in the same change"
                yield Problem(f"{key}.weights.{version}", weight, f"a version of {name}", fix)


def weights_add_up(raw: Raw) -> Iterator[Problem]:
    for key, _, route in _routes(raw):
        weights = map_at(route, "weights")
        if weights and all(is_whole(weight) for weight in weights.values()) and sum(weights.values()) != 100:
            yield Problem(
                f"{key}.weights",
                dict(weights),
                f"weights that add up to 100; these add up to {sum(weights.values())}",
                "set them together: pulumi config set-all --path "
                + " ".join(f"--plaintext '{_path(key)}.weights.{version}=…'" for version in weights),
            )


def _path(key: str) -> str:
    """As `pulumi config set --path` takes it: `match.0` → `match[0]`."""
    return re.sub(r"\.([0-9]+)(?=\.|$)", r"[\1]", key)


def weighted_versions_have_pods(raw: Raw) -> Iterator[Problem]:
    for key, name, route in _routes(raw):
        weights = map_at(route, "weights")
        wanted = {f"{key}.weights.{version}": (version, weights[version]) for version in weights}
        mirror = map_at(route, "mirror").get("version")
        if isinstance(mirror, str):
            wanted[f"{key}.mirror.version"] = (mirror, 1)
        for place, (version, weight) in wanted.items():
            service = map_at(raw, "services", name)
            if version not in map_at(service, "versions") or not is_whole(weight) or weight <= 0:
                continue
            if inherited(service, version, "replicas") == 0:
                yield Problem(
                    place,
                    weights.get(version, version),
                    "0, because this version has no replicas: its share of the requests would fail",
                    f"set services.{name}.versions.{version}.replicas to 1 or more, or the weight to 0",
                )


def mirrors_name_versions(raw: Raw) -> Iterator[Problem]:
    for key, name, route in _routes(raw):
        known, version = map_at(raw, "services", name, "versions"), map_at(route, "mirror").get("version")
        if known and isinstance(version, str) and version not in known:
            yield Problem(f"{key}.mirror.version", version, f"a version of {name}", nearest(version, known))


def matches_have_names_and_conditions(raw: Raw) -> Iterator[Problem]:
    for name in map_at(raw, "routing"):
        matches = list(each_of(map_at(raw, "routing", name).get("match")))
        count = Counter(str(match.get("name")) for _, match in matches)
        for index, match in matches:
            key, own = f"routing.{name}.match.{index}", match.get("name")
            if own == "route" or (isinstance(own, str) and count[own] > 1):
                yield Problem(
                    f"{key}.name", own, "a name that no other match of the service has, and not 'route'", "rename it"
                )
            if not any(match.get(condition) for condition in ("headers", "uri", "method", "query", "sourceLabels")):
                yield Problem(
                    key,
                    MISSING,
                    "at least one of headers, uri, method, query, sourceLabels",
                    "add a condition; what goes for all requests stands beside `match`",
                )


def conditions_match_in_one_way(raw: Raw) -> Iterator[Problem]:
    for name in map_at(raw, "routing"):
        for index, match in each_of(map_at(raw, "routing", name).get("match")):
            key = f"routing.{name}.match.{index}"
            for part in ("uri", "method"):
                if part in match:
                    yield from _one_way(f"{key}.{part}", match[part], optional=False)
            for part in ("headers", "query"):
                for condition, ways in map_at(match, part).items():
                    yield from _one_way(f"{key}.{part}.{condition}", ways, optional=part == "headers")


def _one_way(key: str, condition: object, optional: bool) -> Iterator[Problem]:
    ways = map_at(condition)
    if isinstance(condition, dict) and (len(ways) > 1 or (not ways and not optional)):
        yield Problem(key, dict(ways), "one of exact, prefix and regex", "keep one; a match has to hold in all it says")
    regex = ways.get("regex")
    if isinstance(regex, str) and (problem := _not_re2(regex)):
        yield Problem(f"{key}.regex", regex, "an RE2 expression (https://github.com/google/re2/wiki/Syntax)", problem)


def _not_re2(regex: str) -> str:
    """What is wrong with an expression, as far as can be said without RE2, or ''."""
    if re.search(r"\(\?(=|!|<=|<!|P=)|\\[1-9]", regex):
        return "RE2 has no look-around and no back references: write it without"
    try:
        re.compile(regex)
    except re.error as error:
        return f"correct it: {error}"
    return ""


def sticky_services_have_one_version(raw: Raw) -> Iterator[Problem]:
    """https://istio.io/latest/docs/reference/config/networking/destination-rule/#LoadBalancerSettings-ConsistentHashLB"""
    for name in map_at(raw, "routing"):
        rule = map_at(raw, "routing", name)
        sticky = rule.get("sticky")
        if isinstance(sticky, dict) and len(sticky) != 1:
            yield Problem(f"routing.{name}.sticky", dict(sticky), "either header or cookie", "keep one of them")
    for key, name, route in _routes(raw):
        weighted = [version for version, weight in map_at(route, "weights").items() if is_whole(weight) and weight > 0]
        if map_at(raw, "routing", name, "sticky") and len(weighted) > 1:
            yield Problem(
                f"{key}.weights",
                dict(map_at(route, "weights")),
                "one version with 100 where the service is sticky: Istio chooses the version of each request by weight "
                "first, and only then the pod by the hash, so that a caller would change between versions",
                "send callers to a version by a match on their cookie, such as {name: v2-users, headers: {cookie: "
                f'{{regex: "(.*; )?version=v2(;.*)?"}}}}, weights: {{v2: 100}}}}, or take routing.{name}.sticky out',
            )


def retries_that_are_off_say_nothing_more(raw: Raw) -> Iterator[Problem]:
    for key, _, route in _routes(raw):
        retries = map_at(route, "retries")
        if retries.get("attempts") == 0 and len(retries) > 1:
            yield Problem(f"{key}.retries", dict(retries), "attempts: 0 alone", "take the rest out, or set attempts")


def steps_rise_to_100(raw: Raw) -> Iterator[Problem]:
    for name in map_at(raw, "routing"):
        steps = map_at(raw, "routing", name, "shift").get("steps")
        if not isinstance(steps, list | tuple) or not steps or not all(is_whole(step) for step in steps):
            continue
        if list(steps) != sorted(set(steps)) or steps[-1] != 100:
            yield Problem(
                f"routing.{name}.shift.steps",
                list(steps),
                "rising whole numbers, the last 100",
                "put them in order, and end with 100",
            )


def ports_can_be_routed(raw: Raw) -> Iterator[Problem]:
    for name in map_at(raw, "routing"):
        ports = _ports(raw, name)
        for port, kind in ports.items():
            if not kind:
                yield Problem(
                    f"services.{name}.ports.{port}",
                    MISSING,
                    "HTTP or TCP where routing has a rule: nobody can split TLS or UDP by weight",
                    f"set services.{name}.ports.{port}.appProtocol to tcp to split connections, or take the rule out",
                )
        if ports and "http" not in ports.values():
            for key, _, route in _routes({"routing": {name: map_at(raw, "routing", name)}}):
                for field in _HTTP_ONLY:
                    if route.get(field):
                        yield Problem(
                            f"{key}.{field}",
                            MISSING,
                            "nothing: the service has TCP ports only, and this needs HTTP",
                            "take it out, or say by appProtocol which port carries HTTP",
                        )


def exposed_services_can_be_reached(raw: Raw) -> Iterator[Problem]:
    hosts = Counter(host for name in map_at(raw, "routing") for host in set(_hosts(raw, name)))
    for name in map_at(raw, "routing"):
        expose, key = map_at(raw, "routing", name, "expose"), f"routing.{name}.expose"
        if not expose:
            continue
        if len(names.gateway(name)) > 63:
            yield Problem(key, MISSING, "a service whose name has at most 60 characters", "name a Gateway of your own")
        for host in _hosts(raw, name):
            if hosts[host] > 1:
                yield Problem(f"{key}.hosts", host, "a host that no other service has", "expose it in one place")
        if expose.get("gateway") and expose.get("tlsSecret"):
            yield Problem(
                f"{key}.tlsSecret",
                MISSING,
                "nothing beside gateway, which has a Secret of its own",
                "take one of them out",
            )
        if not expose.get("gateway") and _without_gateway(raw, "ingress"):
            yield Problem(
                key,
                MISSING,
                "a mesh with an ingress gateway",
                "set mesh.ingress to true, or name another Gateway in " + f"{key}.gateway",
            )
        ports = [port for port, kind in _ports(raw, name).items() if kind == "http"]
        wanted = expose.get("port")
        if wanted is not None and wanted not in ports:
            yield Problem(f"{key}.port", wanted, "the name of an HTTP port of the service", nearest(str(wanted), ports))
        elif wanted is None and len(ports) > 1:
            yield Problem(f"{key}.port", MISSING, f"one of the service's HTTP ports: {', '.join(ports)}", "add it")


def _hosts(raw: Raw, service: str) -> list[str]:
    hosts = map_at(raw, "routing", service, "expose").get("hosts")
    return [host for host in hosts if isinstance(host, str)] if isinstance(hosts, list | tuple) else []


def _without_gateway(raw: Raw, which: str) -> bool:
    """Whether this stack makes a mesh without that gateway."""
    mesh = map_at(raw, "mesh")
    if mesh.get("mode", "managed") != "managed":
        return False
    profiles = {"ingress": ("default", "demo"), "egress": ("demo",)}[which]
    return not mesh.get(which, mesh.get("profile", "default") in profiles)


def outside_hosts_can_be_reached(raw: Raw) -> Iterator[Problem]:
    exposed = {host for name in map_at(raw, "routing") for host in _hosts(raw, name)}
    count = Counter(names.outside(host) for host in map_at(raw, "egress"))
    for host in map_at(raw, "egress"):
        if count[names.outside(host)] > 1 or len(names.outside(host)) > 63:
            yield Problem(
                f"egress.{host}",
                MISSING,
                "a host whose objects' name, of at most 63 characters, no other host has",
                f"'{names.outside(host)}' is too long or taken twice: declare the ServiceEntry apart from this stack",
            )
        if host in exposed:
            yield Problem(f"egress.{host}", MISSING, "a host that no service is exposed under", "take one of them out")
        if _without_gateway(raw, "egress"):
            yield Problem(
                f"egress.{host}",
                MISSING,
                "a mesh with an egress gateway",
                "set mesh.egress to true (profile demo has it)",
            )
        addresses = map_at(raw, "egress", host).get("addresses")
        for address in addresses if isinstance(addresses, list | tuple) else ():
            try:
                ip_address(address)
            except ValueError:
                yield Problem(f"egress.{host}.addresses", address, "IP addresses", "leave them out to ask DNS")


RULES = (
    rule_names_are_unique,
    rules_name_a_service_with_a_port,
    weights_name_versions,
    weights_add_up,
    weighted_versions_have_pods,
    mirrors_name_versions,
    matches_have_names_and_conditions,
    conditions_match_in_one_way,
    sticky_services_have_one_version,
    retries_that_are_off_say_nothing_more,
    steps_rise_to_100,
    ports_can_be_routed,
    exposed_services_can_be_reached,
    outside_hosts_can_be_reached,
)
