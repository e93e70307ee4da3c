"""How Kubernetes itself balances the connections to a Service.

https://kubernetes.io/docs/reference/networking/virtual-ips/
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Sequence

MODES = {
    "iptables": "iptables",
    "nftables": "nftables",
    "ipvs": "IPVS",
    "ebpf": "eBPF (Cilium instead of kube-proxy)",
}


def service_chain(service_port: str) -> str:
    """The chain of a Service's TCP port, named `<namespace>/<service>:<port name>`."""
    return f"KUBE-SVC-{_hash(service_port, 'tcp')}"


def endpoint_chain(service_port: str, address: str) -> str:
    """The chain of one endpoint, `<address>:<port>`."""
    return f"KUBE-SEP-{_hash(service_port, 'tcp', address)}"


def probabilities(endpoints: int) -> list[float]:
    """What each rule takes of what the rules before it let through: an equal share of the whole for each."""
    return [1 / (endpoints - number) for number in range(endpoints)]


def chain(service_port: str, cluster_ip: str, port: int, endpoints: Sequence[str]) -> tuple[tuple[str, ...], ...]:
    """The rules that kube-proxy makes for a Service, in short."""
    service = service_chain(service_port)
    rules: list[tuple[str, ...]] = [("KUBE-SERVICES", f"to {cluster_ip}:{port}", f"→ {service}")]
    for address, probability in zip(endpoints, probabilities(len(endpoints)), strict=True):
        lot = f"statistic random probability {probability:.11f}" if probability < 1 else "all the rest"
        rules.append((service, lot, f"→ {endpoint_chain(service_port, address)} → {address}"))
    return tuple(rules)


def found_chain(table: str, service_port: str) -> tuple[tuple[str, ...], ...]:
    """The same from what `iptables-save` prints; nothing where the Service has no chain."""
    rules: list[tuple[str, ...]] = []
    addresses = dict(re.findall(r"^-A (KUBE-SEP-\S+) .*--to-destination (\S+)", table, re.MULTILINE))
    for line in table.splitlines():
        if f"{service_port} " not in line:
            continue
        target = line.rpartition(" -j ")[2]
        if line.startswith("-A KUBE-SERVICES") and target.startswith("KUBE-SVC-"):
            found = re.search(r"-d ([^\s/]+).* --dport (\d+)", line)
            rules.append(("KUBE-SERVICES", f"to {found[1]}:{found[2]}" if found else "", f"→ {target}"))
        elif line.startswith("-A KUBE-SVC-") and target in addresses:
            lot = re.search(r"--probability (\S+)", line)
            words = f"statistic random probability {lot[1]}" if lot else "all the rest"
            rules.append((line.split()[1], words, f"→ {target} → {addresses[target]}"))
    return tuple(rules)


def _hash(*parts: str) -> str:
    return base64.b32encode(hashlib.sha256("".join(parts).encode()).digest()).decode()[:16]
