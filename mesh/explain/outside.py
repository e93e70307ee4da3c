"""The hops outside of any proxy: the name, and what Kubernetes itself does with a connection."""

from __future__ import annotations

from mesh.explain import kubeproxy, problems, sources
from mesh.explain.live import Snapshot
from mesh.explain.model import Hop, Kind

_REPLACES = {
    "iptables": "The kernel replaces the Service's address by a pod's. Each rule takes its share by lot, the last one "
    "all the rest:",
    "ipvs": "The kernel's IPVS replaces the Service's address by a pod's, in turn:",
    "nftables": "A map in the nftables table kube-proxy replaces the Service's address by a pod's, by lot:",
    "ebpf": "An eBPF program replaces the Service's address by a pod's while the program connects:",
}


def name(snapshot: Snapshot) -> Hop:
    headless = snapshot.cluster_ip in {"", "None"}
    answer = (
        "The Service is headless, so the cluster's DNS answers with the addresses of its pods."
        if headless
        else "The cluster's DNS answers with the Service's address. No machine has it: it is replaced on the way."
    )
    return Hop(
        Kind.NAME,
        f"pod {snapshot.caller.name}",
        f"{snapshot.service} is {'each of its pods' if headless else snapshot.cluster_ip}",
        answer,
        sources=sources.of_service(snapshot),
        derived="the Service, from which the DNS answers",
        fields={
            "asked": f"kube-system/kube-dns (CoreDNS), {snapshot.dns}" if snapshot.dns else "the cluster's DNS",
            "full name": f"{snapshot.host}.<cluster domain>",
        },
    )


def no_redirect(snapshot: Snapshot) -> Hop:
    return Hop(
        Kind.REDIRECT,
        f"pod {snapshot.caller.name}",
        "none",
        "Nothing in this pod turns connections around to an Envoy: the request leaves it as if there were no mesh.",
        sources=sources.of_pod(snapshot, snapshot.caller),
        problems=tuple(problems.no_sidecar(snapshot.caller)),
    )


def kube_proxy(snapshot: Snapshot) -> Hop:
    """Other ways than iptables are named; what they hold is not shown."""
    ready = [endpoint.address for endpoint in snapshot.endpoints if endpoint.ready]
    service_port = f"{snapshot.namespace}/{snapshot.service}:{snapshot.port.name}".removesuffix(":")
    rows = kubeproxy.found_chain(snapshot.tables.get("node", ""), service_port)
    mode = "iptables" if rows else snapshot.balancer or "iptables"
    derived = "" if rows else "the EndpointSlices, from which kube-proxy makes its rules"
    if not rows and mode == "iptables":
        rows = kubeproxy.chain(service_port, snapshot.cluster_ip, snapshot.port.port, ready)
        derived += "" if snapshot.balancer else "; that it uses iptables is assumed"
    shares = "a caller stays with its pod (sessionAffinity)." if snapshot.affinity else "each pod gets the same."
    return Hop(
        Kind.KUBE_PROXY,
        f"kernel of the node {snapshot.caller.node}",
        kubeproxy.MODES[mode],
        f"{_REPLACES[mode]} {shares} It counts connections, not requests.",
        rows=rows,
        sources=sources.of_service(snapshot),
        derived=derived,
        fields={"mode": mode, "Service port": service_port},
        problems=tuple(problems.plain_endpoints(snapshot)),
    )


def endpoints(snapshot: Snapshot) -> Hop:
    versions = {pod.name: pod.version for pod in snapshot.pods}
    return Hop(
        Kind.ENDPOINT,
        "network of the pods",
        f"{sum(endpoint.ready for endpoint in snapshot.endpoints)} ready of {len(snapshot.endpoints)}",
        "An endpoint is the address of a pod that the Service selects; only those that are ready get connections.",
        rows=tuple(
            (
                versions.get(endpoint.pod, ""),
                endpoint.pod,
                endpoint.address,
                "ready" if endpoint.ready else "not ready",
            )
            for endpoint in snapshot.endpoints
        ),
        sources=sources.of_versions(snapshot, sorted(versions.values())),
    )
