"""Which connections the pods of the namespace may have: none but those that are opened here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pulumi

import names
from components.kubernetes import KubernetesObject
from config import StackConfig


@dataclass(frozen=True)
class NetworkPoliciesArgs:
    """`config` says who is called at which ports, and where the mesh is."""

    config: StackConfig
    namespace: pulumi.Input[str]


class NetworkPolicies(pulumi.ComponentResource):
    """Callers in the namespace and the ingress gateway → the ports of a service; all pods → DNS, each other, istiod
    and the egress gateway; nothing else. Several policies on a pod add up, so a team opens more with its own.

    Probes need no rule: a node may always reach its own pods. Whether anything is enforced is up to the cluster's
    network plugin.

    https://kubernetes.io/docs/concepts/services-networking/network-policies/
    https://istio.io/latest/docs/ops/deployment/application-requirements/#ports-used-by-istio
    """

    def __init__(self, name: str, args: NetworkPoliciesArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("istio-governance:network:NetworkPolicies", name, None, opts)
        config = args.config
        callers = [_peer({})] + ([_gateway(config, "ingressgateway")] if config.mesh.on else [])
        opened: list[pulumi.Resource] = []
        for service, declared in config.services.items():
            if declared.ports:
                ports = [{"protocol": "TCP", "port": port} for port in declared.container_ports]
                spec = {
                    "podSelector": {"matchLabels": config.selector(service)},
                    "policyTypes": ["Ingress"],
                    "ingress": [{"from": callers, "ports": ports}],
                }
                opened.append(self._policy(names.callers(service), args.namespace, spec))
        closed = {"podSelector": {}, "policyTypes": ["Ingress", "Egress"], "egress": _exits(config)}
        # Last, so that on a live namespace no request fails in between.
        self._policy(names.DEFAULT_DENY, args.namespace, closed, opened)
        self.register_outputs({})

    def _policy(
        self,
        name: str,
        namespace: pulumi.Input[str],
        spec: Mapping[str, Any],
        after: list[pulumi.Resource] | None = None,
    ) -> KubernetesObject:
        opts = pulumi.ResourceOptions(parent=self, depends_on=after)
        return KubernetesObject("NetworkPolicy", name, namespace=namespace, spec=spec, opts=opts)


def _exits(config: StackConfig) -> list[dict[str, Any]]:
    # A DNS cache on the node has a link-local address.
    dns = [_namespace("kube-system"), {"ipBlock": {"cidr": "169.254.0.0/16"}}]
    exits: list[dict[str, Any]] = [
        {"to": dns, "ports": [{"protocol": protocol, "port": 53} for protocol in ("UDP", "TCP")]},
        {"to": [_peer({})]},
    ]
    if config.mesh.on:
        istiod = {**_namespace(config.mesh.namespace), **_peer({"app": "istiod"})}
        exits += [
            {"to": [istiod], "ports": [{"protocol": "TCP", "port": 15012}]},
            {"to": [_gateway(config, "egressgateway")]},
        ]
    return exits


def _gateway(config: StackConfig, istio: str) -> dict[str, Any]:
    return {**_namespace(config.mesh.namespace), **_peer({"istio": istio})}


def _namespace(name: str) -> dict[str, Any]:
    return {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": name}}}


def _peer(labels: Mapping[str, str]) -> dict[str, Any]:
    return {"podSelector": {"matchLabels": dict(labels)} if labels else {}}
