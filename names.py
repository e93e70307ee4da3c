"""The names of everything that a stack makes. They are an interface: renaming one replaces a live object."""

OWNER = "istio-governance/stack"
"""The annotation that says which stack an object belongs to."""

SIDECAR = "istio-governance/sidecar"
"""The annotation of a pod template that changes whenever its pods need another sidecar."""

SUBSET_STATISTICS = (
    r"cluster\.outbound\|[0-9]+\|[^|]+\|[^;]+;?\.upstream_(rq_(time|total|retry|timeout|.xx)|cx_none_healthy)"
)
"""What a sidecar keeps of Envoy's statistics of its outbound clusters, as a regular expression for whole names.

https://www.envoyproxy.io/docs/envoy/latest/configuration/upstream/cluster_manager/cluster_stats
https://istio.io/latest/docs/ops/configuration/telemetry/envoy-stats/
"""

ROUTING_API = "networking.istio.io/v1beta1"
"""Served by every supported Istio; a change would be a new URN, and Pulumi would delete the live rule with the old."""


RELEASES = {
    "base": "istio-base",
    "istiod": "istiod",
    "cni": "istio-cni",
    "ingress": "istio-ingressgateway",
    "egress": "istio-egressgateway",
}
"""The Helm releases of a mesh by the key of their values."""


def workload(service: str, version: str) -> str:
    return f"{service}-{version}"


def destination_rule(service: str) -> str:
    return f"dest-{service}"


def subset_rule(service: str, version: str) -> str:
    return f"dest-{service}-{version}"


def virtual_service(service: str) -> str:
    return f"vs-{service}"


def route(service: str) -> str:
    return f"{service}-route"
