"""Which connections the pods of the namespace may have: none but those that are opened here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pulumi
from pulumi_kubernetes import meta, networking

import names
from components.kubernetes import InCluster, metadata
from components.namespace import WorkloadNamespace
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
        callers = [_peer()] + ([_gateway(config, "ingressgateway")] if config.mesh.on else [])
        opened: list[pulumi.Resource] = []
        for service, declared in config.services.items():
            if declared.ports:
                spec = networking.v1.NetworkPolicySpecArgs(
                    pod_selector=_selector(config.selector(service)),
                    policy_types=["Ingress"],
                    ingress=[
                        networking.v1.NetworkPolicyIngressRuleArgs(
                            from_=callers, ports=_ports(*declared.container_ports)
                        )
                    ],
                )
                opened.append(self._policy(names.callers(service), args.namespace, spec))
        closed = networking.v1.NetworkPolicySpecArgs(
            pod_selector=_selector({}), policy_types=["Ingress", "Egress"], egress=_exits(config)
        )
        # Last, so that on a live namespace no request fails in between.
        self._policy(names.DEFAULT_DENY, args.namespace, closed, opened)
        self.register_outputs({})

    def _policy(
        self,
        name: str,
        namespace: pulumi.Input[str],
        spec: networking.v1.NetworkPolicySpecArgs,
        after: list[pulumi.Resource] | None = None,
    ) -> networking.v1.NetworkPolicy:
        opts = pulumi.ResourceOptions(parent=self, depends_on=after)
        return networking.v1.NetworkPolicy(name, metadata=metadata(name, namespace=namespace), spec=spec, opts=opts)


def close(config: StackConfig, cluster: InCluster, namespace: WorkloadNamespace) -> None:
    """The namespace, where it is to be."""
    if config.namespace.default_deny:
        args = NetworkPoliciesArgs(config, namespace.namespace)
        cluster.has(NetworkPolicies(cluster.called("network"), args, cluster.after(namespace)))


def _exits(config: StackConfig) -> list[networking.v1.NetworkPolicyEgressRuleArgs]:
    # A DNS cache on the node has a link-local address.
    cache = networking.v1.NetworkPolicyPeerArgs(ip_block=networking.v1.IPBlockArgs(cidr="169.254.0.0/16"))
    exits = [
        networking.v1.NetworkPolicyEgressRuleArgs(
            to=[networking.v1.NetworkPolicyPeerArgs(namespace_selector=_named("kube-system")), cache],
            ports=[*_ports(53, protocol="UDP"), *_ports(53)],
        ),
        networking.v1.NetworkPolicyEgressRuleArgs(to=[_peer()]),
    ]
    if config.mesh.on:
        istiod = _peer({"app": "istiod"}, config.mesh.namespace)
        exits += [
            networking.v1.NetworkPolicyEgressRuleArgs(to=[istiod], ports=_ports(15012)),
            networking.v1.NetworkPolicyEgressRuleArgs(to=[_gateway(config, "egressgateway")]),
        ]
    return exits


def _ports(*ports: int, protocol: str = "TCP") -> list[networking.v1.NetworkPolicyPortArgs]:
    return [networking.v1.NetworkPolicyPortArgs(protocol=protocol, port=port) for port in ports]


def _gateway(config: StackConfig, istio: str) -> networking.v1.NetworkPolicyPeerArgs:
    return _peer({"istio": istio}, config.mesh.namespace)


def _peer(labels: Mapping[str, str] | None = None, namespace: str = "") -> networking.v1.NetworkPolicyPeerArgs:
    """All pods with these labels, of the policy's own namespace where none is named."""
    return networking.v1.NetworkPolicyPeerArgs(
        namespace_selector=_named(namespace) if namespace else None, pod_selector=_selector(labels or {})
    )


def _named(namespace: str) -> meta.v1.LabelSelectorArgs:
    return _selector({"kubernetes.io/metadata.name": namespace})


def _selector(labels: Mapping[str, str]) -> meta.v1.LabelSelectorArgs:
    """Everything, where there are no labels."""
    return meta.v1.LabelSelectorArgs(match_labels=labels or None)
