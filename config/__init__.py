"""The stack's configuration: read in one place, as typed, frozen models."""

from config.load import ConfigError, load, merged
from config.model import Cluster, Mesh, Namespace, Nodes, Port, Rule, Service, StackConfig, Workload
from config.problems import Problem

__all__ = [
    "Cluster",
    "ConfigError",
    "Mesh",
    "Namespace",
    "Nodes",
    "Port",
    "Problem",
    "Rule",
    "Service",
    "StackConfig",
    "Workload",
    "load",
    "merged",
]
