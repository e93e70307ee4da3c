"""The hops in the server's pod: its redirect, its Envoy, its program."""

from __future__ import annotations

from mesh.cluster.dump import Delivery, Dump
from mesh.explain import problems, redirect, sources
from mesh.explain.live import Pod, Snapshot
from mesh.explain.model import Hop, Kind


def no_inbound(snapshot: Snapshot) -> Hop:
    return Hop(
        Kind.INBOUND,
        "pods of the server",
        "none",
        "The connection goes straight to the program: no Envoy there ends mutual TLS, checks who calls, or counts.",
        problems=tuple(problems.server_sidecars(snapshot)),
    )


def inbound(snapshot: Snapshot) -> Hop:
    port = _port(snapshot)
    rows, delivery, fields = [], Delivery("LDS"), {}
    for pod, envoy in _proxies(snapshot):
        tls, plain = problems.taken(envoy, port)
        takes = "mutual TLS and plain text" if tls and plain else "mutual TLS only" if tls else "plain text only"
        names = sorted({chain.get("name", "") for chain in problems.inbound_chains(envoy, port)})
        rows.append((pod.version, pod.name, f"filter chain {', '.join(names)}", takes))
        delivery = envoy.listeners["virtualInbound"].delivery
        rules, derived = redirect.inbound(snapshot, pod)
        fields = {"rules" + (" (derived)" if derived else ""): "\n".join(rules)}
    return Hop(
        Kind.INBOUND,
        "Envoy of the server",
        "virtualInbound, 0.0.0.0:15006",
        "Like rules lead to this pod's Envoy. Its filter chain for the port ends mutual TLS: it knows who calls.",
        rows=tuple(rows),
        sources=sources.of_service(snapshot),
        delivery=delivery,
        fields=fields,
        problems=tuple(problems.server_sidecars(snapshot)),
    )


def inbound_cluster(snapshot: Snapshot) -> Hop:
    port = _port(snapshot)
    name = f"inbound|{port}||"
    found = [envoy.clusters[name] for _, envoy in _proxies(snapshot) if name in envoy.clusters]
    return Hop(
        Kind.INBOUND_CLUSTER,
        "Envoy of the server",
        name,
        f"The request goes on inside the pod, to port {port} of the container.",
        sources=sources.of_service(snapshot, "ports", snapshot.port.name, "targetPort"),
        delivery=found[0].delivery if found else None,
        fields={"kind": found[0].body.get("type", "")} if found else {},
    )


def container(snapshot: Snapshot) -> Hop:
    version = problems.focused_version(snapshot)
    pods = [pod for pod in snapshot.pods if version in {"", pod.version}]
    return Hop(
        Kind.CONTAINER,
        "pods of the server",
        f"{snapshot.service}, port {_port(snapshot) or snapshot.port.target}",
        "The program gets an ordinary request; its answer goes back on the same connections.",
        rows=tuple(
            (pod.version, pod.name, ", ".join(pod.programs), "ready" if pod.ready else "not ready") for pod in pods
        ),
        sources=sources.of_versions(snapshot, sorted(pod.version for pod in pods)),
    )


def _proxies(snapshot: Snapshot) -> list[tuple[Pod, Dump]]:
    """One of each version, or of the version that TO names."""
    version = problems.focused_version(snapshot)
    pods = [pod for pod in snapshot.pods if pod.name in snapshot.servers]
    return [(pod, snapshot.servers[pod.name]) for pod in pods if version in {"", pod.version}]


def _port(snapshot: Snapshot) -> int:
    """The number behind targetPort, which may be a name; 0 when there is no endpoint to tell."""
    return next((int(endpoint.address.rpartition(":")[2]) for endpoint in snapshot.endpoints), 0)
