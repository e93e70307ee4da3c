"""The local cluster for development: the embedded one, one made by kind, or the one in the current kubeconfig."""

from .choice import Choice, choose
from .cluster import Cluster, EmbeddedCluster, down, environment, find, up
from .errors import ClusterError

__all__ = [
    "Choice",
    "Cluster",
    "ClusterError",
    "EmbeddedCluster",
    "choose",
    "down",
    "environment",
    "find",
    "up",
]
