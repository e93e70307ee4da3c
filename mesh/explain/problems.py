"""What keeps a request from its way: for each hop the problems that it has, with the fix of each."""

from __future__ import annotations

from collections.abc import Iterator

import names
from mesh.cluster import dump
from mesh.cluster.dump import Dump, Host, Json
from mesh.explain import way
from mesh.explain.live import Pod, Snapshot
from mesh.explain.model import Problem
from mesh.explain.way import Way
from mesh.routes import model as routes

_WAIT = "wait a second and explain again; if it stays, see what istiod says: istioctl proxy-status"


def no_sidecar(pod: Pod) -> Iterator[Problem]:
    """For a pod that should have one and has none."""
    if pod.labels.get("sidecar.istio.io/inject") == "false":
        fix = "take the label sidecar.istio.io/inject=false off its pod template (podTemplate)"
    else:
        fix = (
            "restart it once the namespace is labelled for injection: `pulumi up`, then kubectl delete pod " + pod.name
        )
    yield Problem(f"the pod {pod.name} has no sidecar: no rule of the mesh applies to what it sends or gets", fix)


def decided(snapshot: Snapshot, *kinds: routes.Kind) -> Iterator[Problem]:
    """What somebody else's object does to the caller's requests."""
    for one in snapshot.decided:
        if one.kind in kinds and one.object:
            yield Problem(f"{one.what}, by {one.object}{f' ({one.owner})' if one.owner else ''}", one.fix)


def listener(snapshot: Snapshot, found: Way) -> Iterator[Problem]:
    if hidden := list(decided(snapshot, routes.Kind.HIDDEN)):
        yield from hidden
        return
    if found.listener is None:
        yield Problem(
            f"the caller's proxy has no listener for port {snapshot.port.port}: it knows no such service, and passes "
            "the connection on as if there were no mesh",
            "look for a Sidecar object or an exportTo that hides the service from the caller"
            + _if_istiod_is_down(snapshot),
        )
        return
    if found.listener.error:
        yield Problem(
            f"the proxy refused the newest listener and goes on with the one before: {found.listener.error}",
            "correct what the message names, often an EnvoyFilter: kubectl get envoyfilters --all-namespaces",
        )
    wants_http = [rule for rule in snapshot.rules_of("VirtualService") if rule["spec"].get("http")]
    if not found.table and wants_http:
        port = snapshot.port
        said = f"appProtocol {port.app_protocol}" if port.app_protocol else f"the name {port.name}"
        key = f"services.{snapshot.service}.ports"
        yield Problem(
            f"the Service's port has {said}, so the proxy passes bytes on without reading HTTP, and the http routes of "
            f"{way.reference(wants_http[0])} do not apply",
            f"name the port http in {key}, or set its appProtocol to http",
        )


def route(snapshot: Snapshot, found: Way) -> Iterator[Problem]:
    if found.listener is None:
        return
    yield from decided(snapshot, routes.Kind.ELSEWHERE, routes.Kind.CHANGED)
    if found.table and not found.routes and not any(one.kind is routes.Kind.HIDDEN for one in snapshot.decided):
        yield Problem(
            f"route table {found.table} has no entry for {snapshot.service}",
            "look for a Sidecar object or an exportTo that hides the service from the caller"
            + _if_istiod_is_down(snapshot),
        )
    yield from _behind(snapshot, found)
    version = focused_version(snapshot)
    reached = {way.subset(cluster) for cluster in found.clusters}
    if version and found.routes and "" not in reached and version not in reached:
        yield Problem(
            f"no route sends requests to {version}: its weight is 0",
            f"give it a share in routing.{snapshot.service}.weights: mesh shift {snapshot.service} {version}=10",
        )


def _behind(snapshot: Snapshot, found: Way) -> Iterator[Problem]:
    """Weights that the API server has and the proxy has not."""
    for rule in snapshot.rules_of("VirtualService"):
        for http in rule["spec"].get("http", []):
            wanted = _weights(http)
            for entry in found.routes:
                if entry.object != way.reference(rule) or entry.name != http.get("name"):
                    continue
                has = {way.label(each.cluster): round(each.share * 100) for each in entry.destinations if each.share}
                if has != wanted:
                    yield Problem(
                        f"the proxy is not in sync: {way.reference(rule)} says {_shown(wanted)}, the proxy has "
                        f"{_shown(has)}",
                        _WAIT + _if_istiod_is_down(snapshot),
                    )


def ruled(snapshot: Snapshot) -> dict[str, int] | None:
    """What the service's own rule in the cluster says of ordinary requests; None where there is none."""
    for rule in snapshot.rules_of("VirtualService"):
        for http in rule["spec"].get("http", []):
            if http.get("name") == names.route(snapshot.service):
                return _weights(http)
    return None


def _weights(http: Json) -> dict[str, int]:
    routes = http.get("route", [])
    if len(routes) == 1:
        routes = [{**routes[0], "weight": 100}]
    named = ((each["destination"], each.get("weight", 0)) for each in routes)
    return {to.get("subset") or to["host"].partition(".")[0]: weight for to, weight in named if weight}


def _shown(weights: dict[str, int]) -> str:
    return ", ".join(f"{name} {weight} %" for name, weight in weights.items()) or "nothing"


def cluster(snapshot: Snapshot, found: Way) -> Iterator[Problem]:
    """Routes to what the proxy does not have: it answers these requests with 503 (flag NC)."""
    if unknown := list(decided(snapshot, routes.Kind.NO_SUBSET)):
        yield from unknown
        return
    for name in found.clusters:
        if name in found.proxy.clusters or "|" not in name:
            continue
        _, port, subset, host = name.split("|")
        hosts = {way.host(known) for known in found.proxy.clusters}
        if host not in hosts:
            yield Problem(
                f"the route sends requests to {host}, and there is no such service: they fail with 503",
                f"correct the host in {_route_object(found)}, or make the service",
            )
        elif f"outbound|{port}||{host}" not in found.proxy.clusters:
            yield Problem(
                f"the route sends requests to port {port} of {host}, which has no such port: they fail with 503",
                f"correct the port in {_route_object(found)}",
            )
        elif (rule := way.rule_of(snapshot, subset)) is None:
            yield Problem(
                f"the route sends requests to the subset {subset}, which no DestinationRule has: they fail with 503",
                f"add services.{snapshot.service}.versions.{subset} and `pulumi up`, or take {subset} out of "
                f"{_route_object(found)}",
            )
        else:
            yield Problem(
                f"the proxy is not in sync: {way.reference(rule)} has the subset {subset}, the proxy has not: requests "
                "to it fail with 503",
                _WAIT + _if_istiod_is_down(snapshot),
            )


def _route_object(found: Way) -> str:
    return found.default.object if found.default and found.default.object else "the VirtualService"


def endpoints(snapshot: Snapshot, found: Way) -> Iterator[Problem]:
    """Clusters without a healthy host: the proxy answers with 503 (flag UH)."""
    for name in found.clusters:
        if name not in found.proxy.clusters or not name.startswith("outbound|"):
            continue
        hosts = found.hosts(name)
        if any(not host.health for host in hosts):
            yield from _tls(found, name, snapshot)
            continue
        subset = way.subset(name)
        label = way.label(name)
        if ejected := [host.address for host in hosts if "outlier" in host.health]:
            yield Problem(
                f"{label} has no endpoint left: outlier detection took out {', '.join(ejected)}: its requests fail "
                "with 503",
                f"look at why they fail: kubectl logs --namespace {snapshot.namespace} {_logs(snapshot, ejected[0])}",
            )
            continue
        labels = way.subset_labels(snapshot, subset)
        pods = [pod for pod in snapshot.pods if labels.items() <= pod.labels.items()]
        key = f"services.{snapshot.service}.versions.{subset}" if subset else f"services.{snapshot.service}"
        if not pods:
            wanted = ", ".join(f"{key}={value}" for key, value in labels.items()) or "the Service's selector"
            yield Problem(
                f"{label} gets requests and has no pod ({wanted} selects none): they fail with 503",
                f"set {key}.replicas to 1 or more, or its weight in routing.{snapshot.service}.weights to 0",
            )
        else:
            names = ", ".join(pod.name for pod in pods)
            yield Problem(
                f"{label} has no ready endpoint: {names} {'is' if len(pods) == 1 else 'are'} not ready, and its "
                "requests fail with 503",
                f"look at why: kubectl describe pod --namespace {snapshot.namespace} {pods[0].name}",
            )


def _logs(snapshot: Snapshot, address: str) -> str:
    pod = snapshot.pod_at(address)
    return pod.name if pod else "<pod>"


def plain_endpoints(snapshot: Snapshot) -> Iterator[Problem]:
    """The same without a proxy: kube-proxy refuses the connections to a Service without a ready endpoint."""
    if any(endpoint.ready for endpoint in snapshot.endpoints):
        return
    if not snapshot.pods:
        yield Problem(
            f"{snapshot.service} has no pod: connections to it are refused",
            f"set services.{snapshot.service}.template.replicas to 1 or more, and check its selector",
        )
    else:
        yield Problem(
            f"{snapshot.service} has no ready endpoint: connections to it are refused",
            f"look at why: kubectl describe pod --namespace {snapshot.namespace} {snapshot.pods[0].name}",
        )


def _tls(found: Way, cluster: str, snapshot: Snapshot) -> Iterator[Problem]:
    """What the caller speaks against what the server takes."""
    body = found.proxy.clusters[cluster].body
    told: set[str] = set()
    for host in found.hosts(cluster):
        pod = snapshot.pod_at(host.address)
        if pod is None or pod.version in told or host.health:
            continue
        told.add(pod.version)
        speaks = speaks_mtls(body, host)
        takes_mtls, takes_plain = taken(snapshot.servers.get(pod.name), int(host.address.rpartition(":")[2]))
        if pod.name not in snapshot.servers and pod.sidecar:
            continue
        if speaks and not takes_mtls:
            yield Problem(
                f"mutual TLS mismatch: the caller's proxy speaks mutual TLS to {pod.name}, which takes plain text only",
                f"{_rule(found, cluster)} says so (trafficPolicy.tls): take it out, and Istio finds the right mode",
            )
        elif not speaks and not takes_plain:
            yield Problem(
                f"mutual TLS mismatch: the caller's proxy speaks plain text to {pod.name}, which takes mutual TLS "
                "only: its requests fail",
                f"set trafficPolicy.tls.mode of {_rule(found, cluster)} to ISTIO_MUTUAL or take it out; or set the "
                "PeerAuthentication to PERMISSIVE",
            )


def _rule(found: Way, cluster: str) -> str:
    return found.proxy.clusters[cluster].object or "the DestinationRule"


def speaks_mtls(cluster: Json, host: Host) -> bool:
    """Whether the caller's proxy speaks Istio's mutual TLS to a host: by rule, or because the host says it takes it."""
    if matches := cluster.get("transport_socket_matches"):
        return host.mtls and any(entry.get("match", {}).get("tlsMode") == "istio" for entry in matches)
    return "tls" in cluster.get("transport_socket", {}).get("name", "")


def taken(envoy: Dump | None, port: int) -> tuple[bool, bool]:
    """Whether a server takes mutual TLS, and whether plain text, at its port; without a proxy plain text alone."""
    if envoy is None or "virtualInbound" not in envoy.listeners:
        return False, True
    found = inbound_chains(envoy, port)
    tls = any("transport_socket" in chain for chain in found)
    plain = any(
        "transport_socket" not in chain and chain.get("filter_chain_match", {}).get("transport_protocol") != "tls"
        for chain in found
    )
    return tls, plain


def inbound_chains(envoy: Dump, port: int) -> list[Json]:
    """The filter chains for a port, or those for any port."""
    every = dump.chains(envoy.listeners["virtualInbound"].body)
    exact = [chain for chain in every if chain.get("filter_chain_match", {}).get("destination_port") == port]
    return exact or [chain for chain in every if "destination_port" not in chain.get("filter_chain_match", {})]


def server_sidecars(snapshot: Snapshot) -> Iterator[Problem]:
    """Versions whose pods should have a sidecar and have none, one problem each."""
    without = {pod.version: pod for pod in snapshot.pods if not pod.sidecar}
    for pod in without.values() if snapshot.mesh else ():
        yield from no_sidecar(pod)


def focused_version(snapshot: Snapshot) -> str:
    """The version that TO names, by itself or by one of its pods; '' for any."""
    pods = {pod.name: pod.version for pod in snapshot.pods}
    return pods.get(snapshot.focus, snapshot.focus)


def _if_istiod_is_down(snapshot: Snapshot) -> str:
    return "" if snapshot.istiod_ready else "; istiod has no ready pod, so no proxy gets any change"
