"""The path of a request to a host outside the mesh: by the caller's Envoy to the egress gateway, and from there out.

https://istio.io/latest/docs/tasks/traffic-management/egress/egress-gateway/
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import names
from config import Egress, StackConfig
from config.problems import nearest
from istio.rules import EGRESS_SELECTOR
from mesh.cluster import dump
from mesh.cluster.dump import Delivery, Destination, Dump, Host, Resource
from mesh.cluster.kubectl import Kubectl
from mesh.explain import caller, live, outside
from mesh.explain.hops import control
from mesh.explain.live import Declared, Pod, ServicePort, Snapshot, UnknownNameError
from mesh.explain.model import Branch, Hop, Kind, Path, Problem, Server, Source
from mesh.explain.way import Way

_APPLY = "`pulumi up`, if egress.{host} is new; else mesh check says which proxy is not in sync"


@dataclass(frozen=True)
class Exit:
    """The cluster at one moment, as far as it concerns a request from `at.caller` to the outside `host`.

    `gateways` are the pods of the egress gateway, `gateway` the Envoy of the first that is ready.
    """

    at: Snapshot
    host: str
    egress: Egress
    mesh_namespace: str
    gateways: tuple[Pod, ...]
    gateway: Dump | None

    @property
    def is_http(self) -> bool:
        return self.egress.protocol == "HTTP"

    @property
    def exit_port(self) -> int:
        """Of the egress gateway's Service."""
        return 80 if self.is_http else 443

    @property
    def rule(self) -> str:
        return f"{self.at.namespace}/{names.outside(self.host)}"

    def source(self, kind: str) -> tuple[Source, ...]:
        return (self.at.declared.source(f"{kind} {self.rule}", "egress", self.host),)


@dataclass(frozen=True)
class Turn:
    """What one Envoy does with the request: the listener that takes it, the route, and where that leads."""

    listener_name: str
    listener: Resource | None
    table: str
    routes: Resource | None
    virtual_host: str
    destinations: tuple[Destination, ...]


def is_outside(config: StackConfig, target: str) -> bool:
    """Whether `target` is a host of `egress`, with a port or without."""
    return target.partition(":")[0] in config.outside


def unknown(config: StackConfig, target: str) -> str:
    """What to say of a host that is not declared; '' where `target` looks like none."""
    host = target.partition(":")[0]
    if "." not in host or host in config.outside:
        return ""
    if host in config.egress:
        return f"egress.{host} has no effect: the mesh is off, and requests leave by the network alone"
    meant = nearest(host, config.outside) if config.outside else "the stack declares no host outside the mesh"
    return f"{host} is no service here, and no host of egress: {meant}"


def read(kubectl: Kubectl, config: StackConfig, stack: str, source: str, target: str, declared: Declared) -> Exit:
    """Raises `UnknownNameError`, `NoPodError` or `KubectlError`."""
    host, _, port = target.partition(":")
    egress, namespace, mesh_namespace = config.outside[host], config.namespace.name, config.mesh.namespace
    if port not in ("", str(egress.target)):
        raise UnknownNameError(f"egress.{host} is declared for port {egress.target}, not for {port}")
    selector = ",".join(f"{key}={value}" for key, value in EGRESS_SELECTOR.items())
    with ThreadPoolExecutor() as pool:
        reading = pool.submit(kubectl.items, "pods", f"--namespace={mesh_namespace}", f"--selector={selector}")
        istiod = pool.submit(live.istiod_ready, kubectl, config)
        found = kubectl.items("pods,services", f"--namespace={namespace}")
        services = {item["metadata"]["name"]: item for item in found if item["kind"] == "Service"}
        pods = [live.pod(item) for item in found if item["kind"] == "Pod" and live.stays(item)]
        calling = live.caller_of(source, config, pods, services, kubectl)
        gateways = tuple(live.pod(item) for item in reading.result() if live.stays(item))
        first = next((one for one in gateways if one.ready), None)
        of_gateway = pool.submit(live.read_proxy, live.proxy_of(first, kubectl, mesh_namespace)) if first else None
        proxy = live.read_proxy(live.proxy_of(calling, kubectl, calling.namespace)) if calling.sidecar else None
        at = Snapshot(
            source=source,
            target=f"{host}:{egress.target}",
            namespace=namespace,
            stack=stack,
            mesh=True,
            caller=calling,
            service=host,
            cluster_ip="",
            port=ServicePort("http" if egress.protocol == "HTTP" else "tls", egress.target, ""),
            affinity=False,
            pods=(),
            endpoints=(),
            proxy=proxy,
            istiod_ready=istiod.result(),
            declared=declared,
        )
        return Exit(at, host, egress, mesh_namespace, gateways, of_gateway.result() if of_gateway else None)


def explain(found: Exit) -> Path:
    """The whole path, with the problems of each hop."""
    at = found.at
    turn = _turn(found, at.proxy, found.egress.target) if at.proxy else None
    return Path(
        source=at.source,
        target=at.target,
        namespace=at.namespace,
        stack=at.stack,
        caller=at.caller.name,
        service=found.host,
        port=at.port.port,
        proxied=turn is not None,
        hops=tuple(_hops(found, turn)),
        branches=tuple(_branches(found, turn)),
        control=control(at.stack),
        notes=() if at.istiod_ready else ("istiod has no ready pod: the proxies go on with what they have",),
    )


def _hops(found: Exit, turn: Turn | None) -> Iterator[Hop]:
    at = found.at
    yield _name(found)
    if turn is None or at.proxy is None:
        yield outside.no_redirect(at)
        yield _directly(found)
        return
    yield caller.redirected(at)
    yield caller.virtual_listener(Way(at.proxy, turn.listener_name, turn.listener, turn.table, turn.routes, "", ()))
    yield _listener(found, turn, Kind.LISTENER, "Envoy of the caller", f"port {found.egress.target}")
    yield _route(found, turn, Kind.ROUTE, "Envoy of the caller", found.source("VirtualService"))
    yield _cluster(found, turn)
    yield _endpoints(found, at.proxy, turn)
    ports = [int(host.address.rpartition(":")[2]) for host in _to(at.proxy, turn)]
    if found.gateway is None or not ports:
        return
    place, second = "Envoy of the egress gateway", _turn(found, found.gateway, ports[0])
    yield _listener(found, second, Kind.EXIT_LISTENER, place, f"port {found.exit_port} of the gateway's Service")
    yield _route(found, second, Kind.EXIT_ROUTE, place, found.source("VirtualService"))
    yield _exit_cluster(found, found.gateway, second)
    yield _outside(found, found.gateway, second)


def _name(found: Exit) -> Hop:
    by = "the Host header" if found.is_http else "the name in the TLS greeting (SNI)"
    return Hop(
        Kind.NAME,
        f"pod {found.at.caller.name}",
        f"{found.host} is outside the mesh",
        f"The cluster's DNS asks for its address outside. From here on {by} decides, whatever address comes back.",
        sources=found.source("ServiceEntry"),
        derived="the ServiceEntry",
    )


def _directly(found: Exit) -> Hop:
    return Hop(
        Kind.OUTSIDE,
        f"node {found.at.caller.node}",
        f"{found.host}, port {found.egress.target}",
        "The connection leaves from the node, as the network allows it: not by the egress gateway.",
        derived="that the pod has no sidecar",
    )


def _turn(found: Exit, proxy: Dump, port: int) -> Turn:
    name = f"0.0.0.0_{port}"
    listener = proxy.listeners.get(name)
    if listener is None:
        return Turn("", None, "", None, "", ())
    if not found.is_http:
        return Turn(name, listener, "", None, "", _by_greeting(listener, found.host))
    table = dump.route_table(listener.body)
    routes = proxy.routes.get(table)
    for host in routes.body.get("virtual_hosts", []) if routes else []:
        if found.host in host["domains"]:
            return Turn(name, listener, table, routes, host["name"], _destinations(host))
    return Turn(name, listener, table, routes, "", ())


def _by_greeting(listener: Resource, host: str) -> tuple[Destination, ...]:
    for chain in dump.chains(listener.body):
        if host in chain.get("filter_chain_match", {}).get("server_names", ()):
            return tuple(each for tcp in dump.filters(chain, dump.TCP) for each in dump.destinations(tcp))
    return ()


def _destinations(virtual_host: Mapping[str, object]) -> tuple[Destination, ...]:
    return tuple(each for route in dump.routed(virtual_host) for each in route.destinations)


def _listener(found: Exit, turn: Turn, kind: Kind, place: str, port: str) -> Hop:
    why = (
        f"It reads HTTP, and looks each request up in route table {turn.table}."
        if found.is_http
        else "It reads the name in the TLS greeting, and nothing of what is inside, which stays encrypted."
    )
    problems = []
    if turn.listener is None:
        problems.append(Problem(f"there is no listener for {port}", _APPLY.format(host=found.host)))
    return Hop(
        kind,
        place,
        turn.listener_name or "none",
        why if turn.listener else "Nothing takes the connection here.",
        sources=found.source("ServiceEntry" if kind is Kind.LISTENER else "Gateway"),
        delivery=turn.listener.delivery if turn.listener else None,
        problems=tuple(problems),
    )


def _route(found: Exit, turn: Turn, kind: Kind, place: str, source: tuple[Source, ...]) -> Hop:
    by = "Host header" if found.is_http else "TLS greeting"
    problems = []
    if turn.listener and not turn.destinations:
        what = f"{found.host} has no route here: what the mesh does with hosts that it does not know decides"
        problems.append(Problem(what, _APPLY.format(host=found.host)))
    delivery = turn.routes.delivery if turn.routes else turn.listener.delivery if turn.listener else None
    return Hop(
        kind,
        place,
        " / ".join(filter(None, (turn.table, turn.virtual_host))) or f"filter chain of {found.host}",
        f"The {by} says that it is for {found.host}.",
        rows=tuple((f"{each.share * 100:.10g} % → {_host(each)}",) for each in turn.destinations),
        sources=source,
        delivery=delivery,
        problems=tuple(problems),
    )


def _host(destination: Destination) -> str:
    return destination.cluster.rpartition("|")[2]


def _cluster(found: Exit, turn: Turn) -> Hop:
    to_gateway = any(_host(each).startswith(f"{names.RELEASES['egress']}.") for each in turn.destinations)
    problem = Problem("it leads past the egress gateway", _APPLY.format(host=found.host))
    return Hop(
        Kind.CLUSTER,
        "Envoy of the caller",
        ", ".join(_host(each) for each in turn.destinations) or "none",
        "A cluster is a group of servers that are alike: here the pods of the egress gateway.",
        rows=tuple((_label(each), each.cluster) for each in turn.destinations),
        sources=(Source(f"Service {found.mesh_namespace}/{names.RELEASES['egress']}"),),
        problems=(problem,) if turn.destinations and not to_gateway else (),
    )


def _label(destination: Destination) -> str:
    return _host(destination).partition(".")[0]


def _to(proxy: Dump, turn: Turn) -> list[Host]:
    return [host for each in turn.destinations for host in proxy.hosts.get(each.cluster, ())]


def _endpoints(found: Exit, proxy: Dump, turn: Turn) -> Hop:
    hosts = _to(proxy, turn)
    problems = []
    if turn.destinations and not any(not host.health for host in hosts):
        state = "no pod that is ready" if found.gateways else "no pod"
        fix = f"kubectl -n {found.mesh_namespace} describe deployment {names.RELEASES['egress']}; mesh check"
        problems.append(Problem(f"the egress gateway has {state}: every request fails", fix))
    return Hop(
        Kind.ENDPOINT,
        "Envoy of the caller",
        f"{sum(not host.health for host in hosts)} healthy of {len(hosts)}",
        "One healthy pod of the egress gateway is called at its own address, by mutual TLS where it takes that.",
        rows=tuple((_pod_at(found, host), host.address, host.health or "healthy") for host in hosts),
        delivery=Delivery("EDS"),
        problems=tuple(problems),
    )


def _pod_at(found: Exit, host: Host) -> str:
    address = host.address.rpartition(":")[0]
    return next((pod.name for pod in found.gateways if pod.address == address), "")


def _exit_cluster(found: Exit, proxy: Dump, turn: Turn) -> Hop:
    known = [proxy.clusters[each.cluster] for each in turn.destinations if each.cluster in proxy.clusters]
    resolves = "the addresses are those of the configuration" if found.egress.addresses else "Envoy asks DNS for them"
    return Hop(
        Kind.EXIT_CLUSTER,
        "Envoy of the egress gateway",
        ", ".join(each.cluster for each in turn.destinations) or "none",
        f"The addresses of the host outside: {resolves}.",
        sources=found.source("ServiceEntry"),
        delivery=known[0].delivery if known else None,
        fields={"kind": str(known[0].body.get("type", "EDS"))} if known else {},
    )


def _outside(found: Exit, proxy: Dump, turn: Turn) -> Hop:
    hosts = _to(proxy, turn)
    problems = []
    if turn.destinations and not hosts:
        problems.append(
            Problem(
                f"the gateway knows no address of {found.host}",
                "see whether the cluster's DNS knows the name, or give them as egress."
                f"{found.host}.addresses if it is not in DNS",
            )
        )
    elif bad := [f"{host.address} {host.health}" for host in hosts if host.health]:
        problems.append(Problem(f"addresses of the host do not answer: {', '.join(bad)}", "see whether the host is up"))
    return Hop(
        Kind.OUTSIDE,
        "outside the cluster",
        f"{found.host}, port {found.egress.target}",
        "The connection leaves from the gateway: a firewall sees its address, whichever pod has asked.",
        rows=tuple((host.address, host.health or "in use") for host in hosts),
        problems=tuple(problems),
    )


def _branches(found: Exit, turn: Turn | None) -> Sequence[Branch]:
    if turn is None or found.at.proxy is None:
        return (Branch(found.host, 1, (Server("", "", found.at.target),)),)
    servers = [Server(_pod_at(found, host), "", host.address, host.health) for host in _to(found.at.proxy, turn)]
    label = _label(turn.destinations[0]) if turn.destinations else names.RELEASES["egress"]
    return (Branch(label, 1, tuple(servers)),)
