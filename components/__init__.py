"""Pulumi components: node preparation → mesh → namespace → workload → routing, and the purge around them."""

from components.istio import Istio
from components.namespace import WorkloadNamespace
from components.nodes import NodePrep
from components.purge import Purge, PurgeGuard
from components.routing import Announced, Drained, Egress, Routing
from components.workload import Workload

__all__ = [
    "Announced",
    "Drained",
    "Egress",
    "Istio",
    "NodePrep",
    "Purge",
    "PurgeGuard",
    "Routing",
    "Workload",
    "WorkloadNamespace",
]
