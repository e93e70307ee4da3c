"""From what was read of the cluster to the path of a request."""

from __future__ import annotations

from collections.abc import Iterator

from mesh.explain import caller, outside, problems, server, way
from mesh.explain.live import Snapshot
from mesh.explain.model import Branch, Hop, Path, Server, Step
from mesh.explain.way import Way

_CONTROL = (
    ("Pulumi.{stack}.yaml", "The rules are lines in this file and in defaults.yaml: what a team reviews and changes."),
    ("pulumi up", "Makes Kubernetes objects of them: VirtualService, DestinationRule, Service, Deployment."),
    ("API server", "Checks them, keeps them in etcd, and tells everybody who watches."),
    ("istiod", "Watches rules, Services and pods, and computes what each single proxy has to know."),
    ("xDS", "An open gRPC stream to each proxy: LDS brings listeners, RDS routes, CDS clusters, EDS endpoints."),
    ("Envoy", "Takes the new configuration at once: no restart, no connection closed."),
)


def explain(snapshot: Snapshot) -> Path:
    """The whole path, with the problems of each hop."""
    found = way.find(snapshot, snapshot.proxy) if snapshot.proxy else None
    return Path(
        source=snapshot.source,
        target=snapshot.target,
        namespace=snapshot.namespace,
        stack=snapshot.stack,
        caller=snapshot.caller.name,
        service=snapshot.service,
        port=snapshot.port.port,
        proxied=found is not None,
        hops=tuple(_hops(snapshot, found)),
        branches=tuple(_by_weight(snapshot, found) if found else _by_endpoint(snapshot)),
        control=control(snapshot.stack) if snapshot.mesh else (),
        notes=tuple(_notes(snapshot, found)),
    )


def control(stack: str) -> tuple[Step, ...]:
    """The way of a stack's rules to the proxies."""
    return tuple(Step(name.format(stack=stack), why) for name, why in _CONTROL)


def _hops(snapshot: Snapshot, found: Way | None) -> Iterator[Hop]:
    yield outside.name(snapshot)
    if found:
        yield caller.redirected(snapshot)
        yield caller.virtual_listener(found)
        yield caller.listener(snapshot, found)
        if found.listener:
            yield caller.route(snapshot, found)
            yield caller.clusters(snapshot, found)
            yield caller.endpoints(snapshot, found)
    else:
        if snapshot.mesh:
            yield outside.no_redirect(snapshot)
        yield outside.kube_proxy(snapshot)
        yield outside.endpoints(snapshot)
    if snapshot.servers:
        yield server.inbound(snapshot)
        yield server.inbound_cluster(snapshot)
    elif snapshot.mesh and snapshot.pods:
        yield server.no_inbound(snapshot)
    yield server.container(snapshot)


def _by_weight(snapshot: Snapshot, found: Way) -> Iterator[Branch]:
    """As the route of an ordinary request splits."""
    for destination in found.default.destinations if found.default else ():
        servers = tuple(_server(snapshot, host.address, host.health) for host in found.hosts(destination.cluster))
        yield Branch(way.label(destination.cluster), destination.share, servers)


def _by_endpoint(snapshot: Snapshot) -> Iterator[Branch]:
    """As kube-proxy splits: each ready endpoint gets the same."""
    versions: dict[str, list[Server]] = {}
    for endpoint in snapshot.endpoints:
        each = _server(snapshot, endpoint.address, "" if endpoint.ready else "not ready")
        versions.setdefault(each.version or snapshot.service, []).append(each)
    ready = sum(endpoint.ready for endpoint in snapshot.endpoints) or 1
    for version, servers in sorted(versions.items()):
        yield Branch(version, sum(not each.health for each in servers) / ready, tuple(servers))


def _server(snapshot: Snapshot, address: str, health: str) -> Server:
    pod = snapshot.pod_at(address)
    return Server(pod.name, pod.version, address, health, pod.sidecar) if pod else Server("", "", address, health)


def _notes(snapshot: Snapshot, found: Way | None) -> Iterator[str]:
    if found and found.table and found.default:
        has = {way.label(each.cluster): round(each.share * 100) for each in found.default.destinations if each.share}
        wanted = {version: weight for version, weight in snapshot.weights.items() if weight}
        # No `pulumi up` mends what another object decides, or a proxy that is late.
        if wanted and has != wanted and problems.ruled(snapshot) != wanted:
            told = ", ".join(f"{version} {weight} %" for version, weight in wanted.items())
            yield f"the stack {snapshot.stack} declares {told}, the proxy has another split: `pulumi up` mends it"
    if snapshot.mesh and not snapshot.istiod_ready:
        yield "istiod has no ready pod: the proxies go on with what they have, and get no change"
