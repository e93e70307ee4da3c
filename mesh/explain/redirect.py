"""The iptables rules of a pod with a sidecar, as they are or as Istio makes them.

https://istio.io/latest/docs/ops/deployment/application-requirements/#ports-used-by-istio
https://istio.io/latest/docs/reference/config/annotations/
"""

from __future__ import annotations

from collections.abc import Mapping

from mesh.explain.live import Pod, Snapshot

Rules = tuple[tuple[str, ...], str]
"""The rules, and what they are derived from: '' when they were read."""

_OWN_PORTS = (15008, 15020, 15021, 15090)


def outbound(snapshot: Snapshot, pod: Pod) -> Rules:
    return _read(snapshot, pod, "ISTIO_OUTPUT", "ISTIO_REDIRECT") or (
        (
            *(f"-A ISTIO_OUTPUT -p tcp --dport {port} -j RETURN" for port in _excluded(pod, "Outbound")),
            "-A ISTIO_OUTPUT -m owner --uid-owner 1337 -j RETURN",
            "-A ISTIO_OUTPUT -d 127.0.0.1/32 -j RETURN",
            "-A ISTIO_OUTPUT -j ISTIO_REDIRECT",
            "-A ISTIO_REDIRECT -p tcp -j REDIRECT --to-ports 15001",
        ),
        _derived(pod),
    )


def inbound(snapshot: Snapshot, pod: Pod) -> Rules:
    ports = dict.fromkeys([*map(str, _OWN_PORTS), *_excluded(pod, "Inbound")])
    return _read(snapshot, pod, "ISTIO_INBOUND", "ISTIO_IN_REDIRECT") or (
        (
            *(f"-A ISTIO_INBOUND -p tcp --dport {port} -j RETURN" for port in ports),
            "-A ISTIO_INBOUND -p tcp -j ISTIO_IN_REDIRECT",
            "-A ISTIO_IN_REDIRECT -p tcp -j REDIRECT --to-ports 15006",
        ),
        _derived(pod),
    )


def settings(pod: Pod) -> Mapping[str, str]:
    """Those that the rules depend on."""
    wanted = ("traffic.sidecar.istio.io/", "sidecar.istio.io/interceptionMode")
    return {key: value for key, value in pod.annotations.items() if key.startswith(wanted)}


def _read(snapshot: Snapshot, pod: Pod, *chains: str) -> Rules | None:
    wanted = tuple(f"-A {chain} " for chain in chains)
    rules = tuple(line for line in snapshot.tables.get(pod.name, "").splitlines() if line.startswith(wanted))
    return (rules, "") if rules else None


def _derived(pod: Pod) -> str:
    maker = "istio-init" if "istio-init" in pod.init_containers else "istio-cni"
    return f"the annotations of the pod, as {maker} makes the rules from them; --debug reads the rules"


def _excluded(pod: Pod, direction: str) -> list[str]:
    return list(filter(None, pod.annotations.get(f"traffic.sidecar.istio.io/exclude{direction}Ports", "").split(",")))
