"""What a change does to requests, access and the mesh: each effect a sentence with its level.

The table of levels is in docs/pull-requests.md. What a state alone does not say, such as who calls from elsewhere or
how many requests a match describes, is said to be unknown: an effect is never `low` for want of evidence.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from mesh.report.model import Port, Protocol, Route, Service, match_name
from mesh.report.values import listed, shown

Level = Literal["none", "low", "medium", "high"]
LEVELS: tuple[Level, ...] = ("none", "low", "medium", "high")
Area = Literal["traffic", "meanwhile", "warning"]

_MUCH = 50
"""From this percentage of a service's requests on, a move in one step is worth a second look."""


@dataclass(frozen=True)
class Effect:
    """`area` is where it is told: traffic is about requests, meanwhile about the time of the change, and warning about
    all else."""

    level: Level
    text: str
    area: Area = "traffic"


def of_services(before: Mapping[str, Service], after: Mapping[str, Service], meshed: bool) -> Iterator[Effect]:
    """For each service that is there before or after, in that order; `meshed`: the mesh itself is there in both."""
    gone = [name for name, old in before.items() if old.routes and name in after and not after[name].routes]
    gone += [name for name, old in before.items() if old.routes and name not in after and not old.workloads]
    if gone:
        yield Effect("high", f"the split of {listed(gone)} ends")
    for name in [*before, *(name for name in after if name not in before)]:
        old, new = before.get(name), after.get(name)
        if not (old and old.workloads) and not (new and new.workloads):
            # Somebody else's, which is there before and after whatever the stack says of it.
            old, new = old or Service(name), new or Service(name)
        if old and new:
            yield from _of_service(old, new)
            if meshed:
                yield from _mtls(old, new, after)
                yield from _sidecars(old, new)
        elif old and old.ports:
            yield Effect("high", f"requests to {name} fail from now on: the service goes")
        elif new:
            yield from _exposed(Service(name), new)


def _of_service(old: Service, new: Service) -> Iterator[Effect]:
    if old.ports and not new.ports:
        yield Effect("high", f"requests to {new.name} fail from now on, unless somebody else makes its Service")
    elif old.ports or new.ports:
        yield from _ports(old, new)
    elif _carried(old) != _carried(new) and old.rules and new.rules:
        # Somebody else's Service: only the rules say what its ports are taken for.
        yield Effect("high", _protocol_text(f"the port of {new.name}", _carried(old), _carried(new), old, new))
    yield from _splits(old, new)
    yield from _matches(old, new)
    yield from _actions(old, new)
    yield from _limits(old, new)
    yield from _exposed(old, new)


def _ports(old: Service, new: Service) -> Iterator[Effect]:
    for was, now in _paired(old, new):
        if was and now:
            yield from _changed_port(was, now, old, new)
        elif was:
            text = f"whoever calls {new.name}:{was.number} ({was.name}) fails from now on: the port is removed"
            yield Effect("high", text)


def _paired(old: Service, new: Service) -> list[tuple[Port | None, Port | None]]:
    """Ports of one name, and what is left by the number or as the only one: a port that has a new name."""
    pairs: list[tuple[Port | None, Port | None]] = [
        (port, new.ports[name]) for name, port in old.ports.items() if name in new.ports
    ]
    gone = [port for name, port in old.ports.items() if name not in new.ports]
    made = [port for name, port in new.ports.items() if name not in old.ports]
    for was in list(gone):
        alike = [port for port in made if port.number == was.number] or (made if len(gone) == len(made) == 1 else [])
        if alike:
            pairs.append((was, alike[0]))
            gone.remove(was)
            made.remove(alike[0])
    return [*pairs, *((was, None) for was in gone), *((None, now) for now in made)]


def _changed_port(was: Port, now: Port, old: Service, new: Service) -> Iterator[Effect]:
    name = new.name
    if was.number != now.number:
        yield Effect(
            "high",
            f"whoever calls {name}:{was.number} fails from now on: the port is {now.number}; with both as two ports "
            "of the Service nobody does, until all call the new one",
        )
    elif was.name != now.name:
        yield Effect(
            "medium",
            f"port {was.name} of {name} is called {now.name}: requests by its number go on, whoever names it (an "
            "Ingress, a monitor) has to follow",
        )
    if was.target != now.target:
        yield Effect(
            "high",
            f"requests to {name}:{now.number} fail until its Service and all its pods have changed from {was.target} "
            f"to {now.target}, which is not one moment, unless the pods answer on both",
        )
    if was.protocol != now.protocol:
        text = _protocol_text(f"port {now.name} of {name}", was.protocol, now.protocol, old, new, was.number)
        yield Effect(_protocol_level(was.protocol, now.protocol), text)


def _protocol_level(was: Protocol, now: Protocol) -> Level:
    """High where requests fail or rules are lost; medium where that depends on what the pods speak."""
    if _is_http(was) != _is_http(now) or now in ("HTTP/2", "UDP") or (was, now) == ("HTTP/2", "HTTP/1.1"):
        return "high"
    return "medium"


def _is_http(protocol: Protocol) -> bool:
    return protocol.startswith("HTTP")


def _carried(service: Service) -> Protocol:
    """By its rules alone."""
    return "HTTP" if service.rules.get("http") else "TCP" if service.rules.get("tcp") else "TLS"


_CALLED: Mapping[Protocol, str] = {"HTTP": "whatever each connection shows"}


def _protocol_text(
    port: str, was: Protocol, now: Protocol, old: Service, new: Service, number: int | None = None
) -> str:
    """What it means that the proxies take a port for something else."""
    begin = f"{port} is taken for {_CALLED.get(now, now)} and no longer for {_CALLED.get(was, was)}: "
    if _is_http(was) and _is_http(now):
        return begin + _other_http(was, now)
    if not _is_http(was) and _is_http(now):
        split = f" ({_split(new, 'requests')})" if _split(new, "requests") else ""
        return begin + (
            f"connections were passed whole, each request is split now{split}; what is no plain HTTP fails there, TLS "
            "of the callers' own, too"
        )
    if not _is_http(was):
        return begin + _other_tcp(now)
    lost = _lost(old, number)
    before = f"requests were split ({_split(old, 'requests')})" if _split(old, "requests") else "requests were balanced"
    split = f" ({_split(new, 'connections')})" if now == "TCP" and _split(new, "connections") else ""
    after = f"whole connections are now{split}, so a caller that keeps its connection stays where it is"
    if now == "TLS":
        after += "; callers and pods have to speak TLS themselves"
    if now == "UDP":
        after = "the mesh does not carry UDP: kube-proxy balances now"
    rules = (
        f"of this stack's rules {listed(lost)} {'is' if len(lost) == 1 else 'are'} lost"
        if lost
        else "no other rule of this stack is lost"
    )
    return begin + f"{before}, {after}; {rules}; Istio's own retries and its numbers by request end"


def _other_http(was: Protocol, now: Protocol) -> str:
    if now == "HTTP/2":
        return "the proxies speak HTTP/2 to its pods now; pods that know HTTP/1.1 alone fail every request"
    if was == "HTTP/2" and now == "HTTP/1.1":
        return "the proxies speak HTTP/1.1 to its pods now; every call of gRPC fails"
    if now == "HTTP":
        return "a connection that does not look like HTTP is passed whole, past all rules"
    return "a connection that is no HTTP fails now"


def _other_tcp(now: Protocol) -> str:
    if now == "UDP":
        return "the mesh does not carry UDP: kube-proxy balances now, and no rule counts"
    if now == "TLS":
        return "connections are passed by the name in their TLS, and not split by weight; callers have to speak TLS"
    return "connections are passed whole, whatever is in them"


def _split(service: Service, what: Literal["requests", "connections"]) -> str:
    """The shares of its rule for all that no match describes; '' without one."""
    for route in service.routes:
        if route.what == what and not match_name(service.name, route.name if what == "requests" else "route"):
            return shares(route.shares)
    return ""


def shares(found: Mapping[str, int]) -> str:
    return ", ".join(f"{version} {share} %" for version, share in found.items())


def _lost(service: Service, number: int | None) -> list[str]:
    """What of its rules needs HTTP at the port `number`, each once; None: at any."""
    found: dict[str, None] = {}
    for route in service.routes:
        if route.what == "requests":
            if match := match_name(service.name, route.name):
                found[f"match {match} ({conditions(route)})"] = None
            found.update(dict.fromkeys(actions(route)))
    policy = service.policy
    if sticky := sticky_by(policy):
        found[f"the stickiness by {sticky}"] = None
    if policy.get("connectionPool", {}).get("http"):
        found["the limits of connectionPool.http"] = None
    # Only the routes for outside names say which port they lead to.
    exposed = {
        one["destination"]["port"]["number"]
        for route in service.routes
        if route.what == "requests"
        for one in route.spec["route"]
        if "port" in one["destination"]
    }
    if service.outside and (number is None or not exposed or number in exposed):
        found[f"the way in from outside as {listed(service.outside)}"] = None
    return list(found)


def conditions(route: Route) -> str:
    """What a match asks of a request, in words."""
    # The names that a service is called by make several of one.
    ways = dict.fromkeys(" and ".join(_condition(one)) for one in route.spec.get("match", ()))
    return " or ".join(filter(None, ways)) or "all requests"


_WAYS = {"exact": "is", "prefix": "begins with", "regex": "fits"}


def _condition(match: Mapping[str, Any]) -> Iterator[str]:
    for field, what in (("headers", "header"), ("queryParams", "parameter")):
        for name, how in match.get(field, {}).items():
            yield f"{what} {name} {_how(how)}"
    for field, what in (("uri", "path"), ("method", "method")):
        if field in match:
            yield f"{what} {_how(match[field])}"
    if labels := match.get("sourceLabels"):
        yield "from pods with " + listed([f"{key}={shown(value)}" for key, value in labels.items()])


def _how(match: Mapping[str, Any]) -> str:
    return next((f"{word} {shown(match[way])}" for way, word in _WAYS.items() if way in match), "is there")


def actions(route: Route) -> list[str]:
    """What happens to the requests of a route beside that they go somewhere."""
    spec, found = route.spec, []
    if "timeout" in spec:
        found.append(f"timeout {spec['timeout']}")
    if "retries" in spec:
        found.append(retries(spec["retries"]))
    if played := list(faults(spec.get("fault", {}))):
        found.append(f"the faults ({listed(played)})")
    if "mirror" in spec:
        found.append(mirror(spec))
    if "headers" in spec:
        found.append("the changes of headers")
    return found


def retries(found: Mapping[str, Any]) -> str:
    if not found.get("attempts"):
        return "no retries"
    each = f" of {found['perTryTimeout']}" if "perTryTimeout" in found else ""
    when = f" on {found['retryOn'].replace(',', ', ')}" if "retryOn" in found else ""
    return f"{found['attempts']} {'retry' if found['attempts'] == 1 else 'retries'}{each}{when}"


def faults(found: Mapping[str, Any]) -> Iterator[str]:
    if delay := found.get("delay"):
        yield f"{_percent(delay)} % are delayed by {delay['fixedDelay']} on purpose"
    if abort := found.get("abort"):
        yield f"{_percent(abort)} % are answered with {abort['httpStatus']} on purpose"


def mirror(route: Mapping[str, Any]) -> str:
    share = route.get("mirrorPercentage", {}).get("value", 100)
    return f"a copy of {share:g} % to {route['mirror'].get('subset', route['mirror']['host'])}"


def _percent(fault: Mapping[str, Any]) -> str:
    return f"{fault.get('percentage', {}).get('value', 100):g}"


def sticky_by(policy: Mapping[str, Any]) -> str:
    """What keeps a caller at one pod, '' for nothing."""
    by = policy.get("loadBalancer", {}).get("consistentHash", {})
    if "httpHeaderName" in by:
        return f"header {by['httpHeaderName']}"
    if not (cookie := by.get("httpCookie")):
        return ""
    lives = f" for {cookie['ttl']}" if cookie.get("ttl", "0s") != "0s" else ""
    return f"cookie {cookie['name']}{lives}" + (f" below {cookie['path']}" if "path" in cookie else "")


def _splits(old: Service, new: Service) -> Iterator[Effect]:
    if new.routes and not old.routes:
        yield Effect("medium", f"the split of {new.name} begins ({shares(new.routes[-1].shares)})")
        return
    before = {route.name: route for route in old.routes}
    for route in new.routes:
        if route.name not in before:
            continue
        was = before[route.name].shares
        gains = {version: route.shares.get(version, 0) - was.get(version, 0) for version in {**was, **route.shares}}
        moved = sum(gain for gain in gains.values() if gain > 0)
        if moved:
            source = listed([version for version, gain in gains.items() if gain < 0])
            target = listed([version for version, gain in gains.items() if gain > 0])
            what = "requests" if route.what == "requests" else "new connections"
            text = f"{moved} % of the {what} to {_to(new, route)} move from {source} to {target}"
            yield Effect("medium" if moved >= _MUCH else "low", text)


def _to(service: Service, route: Route) -> str:
    if route.what == "connections" and len(service.routes) == 1:
        return service.name
    return service.name + (route.whose.replace(" to port ", ":") if route.what == "connections" else route.whose)


def _matches(old: Service, new: Service) -> Iterator[Effect]:
    """Which requests another rule decides over; how many these are nobody knows from here."""
    before, after = (_by_match(service) for service in (old, new))
    if not before or not after:
        return  # told as the split that begins or ends
    for name in [*before, *(name for name in after if name not in before)]:
        was, now = before.get(name), after.get(name)
        if was and not now and name:
            text = f"requests to {new.name} that match {name} ({conditions(was)}) are decided by the rules after it"
            yield Effect("medium", f"{text}; how many these are is not known here")
        elif now and not was and name:
            text = f"requests to {new.name} that match {name} ({conditions(now)}) go to {_goes(now)}"
            yield Effect("medium", f"{text}; how many these are is not known here")
        elif was and now and conditions(was) != conditions(now):
            yield Effect(
                "medium",
                f"match {name} of {new.name} asks for {conditions(now)} in place of {conditions(was)}: how many "
                "requests these are is not known here",
            )
    both = [name for name in before if name in after]
    if both != [name for name in after if name in before]:
        order = listed([name for name in after if name])
        text = f"the matches of {new.name} are tried in another order: {order}; the first that fits decides"
        yield Effect("medium", f"{text}, and for how many requests that is another one is not known here")


def _by_match(service: Service) -> dict[str, Route]:
    """Those from inside, which those from outside are alike."""
    return {
        match_name(service.name, route.name): route
        for route in service.routes
        if route.what == "requests" and not route.name.endswith("-ingress")
    }


def _goes(route: Route) -> str:
    return listed([f"{version} ({share} %)" for version, share in route.shares.items() if share])


def _actions(old: Service, new: Service) -> Iterator[Effect]:
    before, after = (
        {route.name: route for route in service.routes if route.what == "requests"} for service in (old, new)
    )
    told: dict[Effect, None] = {}
    for name, route in after.items():
        was = before[name].spec if name in before else {}
        told.update(dict.fromkeys(_changed_actions(f"requests to {new.name}{route.whose}", was, route.spec)))
    yield from told


def _changed_actions(whose: str, was: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[Effect]:
    old_faults, new_faults = (list(faults(spec.get("fault", {}))) for spec in (was, now))
    if new_faults != old_faults and new_faults:
        yield Effect("high", f"of the {whose} {listed(new_faults)}")
    copied = now.get("mirror"), now.get("mirrorPercentage")
    if "mirror" in now and copied != (was.get("mirror"), was.get("mirrorPercentage")):
        yield Effect("medium", f"{mirror(now)} of the {whose}: it does each of these again, writes too")
    if not was:
        return
    if was.get("timeout") != now.get("timeout"):
        limit = now.get("timeout")
        text = f"that take longer than {limit} fail from now on" if limit else "may take as long as they want"
        yield Effect("medium", f"{whose} {text} (before: {was.get('timeout', 'no limit')})")
    if was.get("retries") != now.get("retries"):
        usual = "as Istio does it by itself"
        before, after = (retries(spec["retries"]) if "retries" in spec else usual for spec in (was, now))
        yield Effect("medium", f"{whose} that fail are tried again: {before} → {after}; each try does a write again")


def _limits(old: Service, new: Service) -> Iterator[Effect]:
    """What the base DestinationRule says beside encryption, for services whose rules stay."""
    if not old.rules or not new.rules:
        return
    pools = old.policy.get("connectionPool"), new.policy.get("connectionPool")
    if pools[0] != pools[1]:
        text = (
            "above the new limits of connectionPool fail at once"
            if pools[1]
            else "have no limits of their own any more"
        )
        yield Effect("medium", f"requests to {new.name} {text}; how many there are at once is not known here")
    outliers = old.policy.get("outlierDetection"), new.policy.get("outlierDetection")
    if outliers[0] != outliers[1]:
        text = "get none for a while, by the new limits" if outliers[1] else "go on getting requests"
        yield Effect("medium", f"pods of {new.name} that fail {text}; where all do, this is about all requests")
    sticks = sticky_by(old.policy), sticky_by(new.policy)
    if sticks[0] != sticks[1]:
        text = f"stay with one pod by {sticks[1]}" if sticks[1] else "are no longer kept at one pod"
        yield Effect("medium", f"callers of {new.name} {text}, which for most is another than before")


_MODES = {
    "STRICT": "mutual TLS only",
    "PERMISSIVE": "mutual TLS and plain text",
    "DISABLE": "plain text only",
    "": "what the mesh says, which is mutual TLS and plain text unless somebody set it otherwise",
}


def _mtls(old: Service, new: Service, after: Mapping[str, Service]) -> Iterator[Effect]:
    was, now = old.mtls, new.mtls
    if was == now:
        return
    begin = f"{new.name} takes {_MODES[now]} (before: {_MODES[was].partition(',')[0]})"
    hop = f"; set PERMISSIVE first, `pulumi up`, then {now}: in one step requests fail until every proxy knows"
    if now == "DISABLE":
        text = "requests to it go in plain text, so the network can read and change them, and no caller is known"
        yield Effect("high", f"{begin}: {text}{hop if was == 'STRICT' else ''}")
    elif now == "STRICT":
        text = f"callers without a sidecar are refused: {_without_sidecar(after)}"
        yield Effect("high", f"{begin}: {text}{hop if was == 'DISABLE' else ''}")
    elif was == "STRICT":
        text = "callers without a sidecar get in, unencrypted and unknown; those with one stay encrypted"
        yield Effect("high", f"{begin}: {text}")
    elif was == "DISABLE":
        yield Effect("low", f"{begin}: callers with a sidecar are encrypted again, nobody is refused")
    else:
        text = "that is the same unless somebody set a policy for the mesh or the namespace"
        yield Effect("medium", f"{begin}: {text}")


def _without_sidecar(services: Mapping[str, Service]) -> str:
    """Whom a service that takes mutual TLS only refuses."""
    plain = sorted(name for name, one in services.items() if one.workloads and not one.has_sidecars)
    of_stack = f"{listed(plain)} of this stack" if plain else "none of this stack"
    return f"{of_stack}; outside it, namespaces without injection and monitoring that asks the port are not known here"


def _sidecars(old: Service, new: Service) -> Iterator[Effect]:
    """Where some versions lose or get one; the mesh as a whole is told apart."""
    if not old.workloads or not new.workloads or old.has_sidecars == new.has_sidecars:
        return
    if new.has_sidecars:
        yield Effect("medium", f"the pods of {new.name} get sidecars: the rules count for their requests from then on")
    else:
        text = f"the pods of {new.name} have no sidecar any more: no mutual TLS to them or from them"
        yield Effect("high", f"{text}, and no rule counts for their requests")


def _exposed(old: Service, new: Service) -> Iterator[Effect]:
    added = [host for host in new.outside if host not in old.outside]
    gone = [host for host in old.outside if host not in new.outside]
    if added:
        way = _way(new)
        yield Effect("high", f"{new.name} is called from outside the cluster as {listed(added)}, {way}")
    if gone:
        yield Effect("high", f"{new.name} cannot be called from outside any more as {listed(gone)}")
    kept = [host for host in new.outside if host in old.outside]
    if kept and _way(old) != _way(new):
        yield Effect("high", f"{new.name} is called as {listed(kept)} {_way(new)} (before: {_way(old)})")


def _way(service: Service) -> str:
    gateways = [gateway for gateway in service.rules.get("gateways", ()) if gateway != "mesh"]
    if not service.gateway:
        return f"by the Gateway {listed(gateways)}"
    certificates = [
        server["tls"]["credentialName"]
        for server in service.gateway.get("servers", ())
        if "credentialName" in server.get("tls", {})
    ]
    return f"by https with the Secret {listed(certificates)}" if certificates else "by http, unencrypted"
