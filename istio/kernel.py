"""Which kernel modules Istio's sidecars need. https://istio.io/latest/docs/ops/deployment/platform-requirements/"""

from __future__ import annotations

from collections.abc import Mapping

from config import StackConfig

_EITHER = ("br_netfilter", "nf_nat")
_IPTABLES = ("xt_REDIRECT", "xt_owner")
_TABLES = {
    "IPv4": ("iptable_nat", "iptable_mangle", "iptable_filter"),
    "IPv6": ("ip6table_nat", "ip6table_mangle", "ip6table_filter"),
}
# Istio's own rules are in tables of the family inet there, which serve both families.
_NFTABLES = ("nf_tables", "nft_chain_nat", "nft_redir", "nft_ct")


def modules(config: StackConfig) -> tuple[str, ...]:
    """`nodes.modules`, or those for the backend that the mesh's values choose and the pods' IP families."""
    if config.nodes.modules:
        return config.nodes.modules
    if _native_nftables(config):
        return (*_EITHER, *_NFTABLES)
    return (*_EITHER, *_IPTABLES, *(module for family in config.nodes.ip_families for module in _TABLES[family]))


def _native_nftables(config: StackConfig) -> bool:
    """https://istio.io/latest/docs/reference/config/ has it as the Helm value `global.nativeNftables`."""
    charts = [config.mesh.values.get(chart, {}).get("global") for chart in ("istiod", "cni")]
    return any(isinstance(values, Mapping) and values.get("nativeNftables") is True for values in charts)
