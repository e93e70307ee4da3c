"""The stack's configuration: read in one place, as typed, frozen models."""

from config.load import ConfigError, load
from config.merge import merged
from config.mesh import Cluster, Mesh
from config.model import PartConfig, StackConfig
from config.nodes import Machine, NodeHost, Nodes
from config.problems import Problem
from config.routing import Egress, Gate, Rule, Shift
from config.services import EnvVarSource, Namespace, Port, SecretKeyRef, Service, Workload

__all__ = [
    "Cluster",
    "ConfigError",
    "Egress",
    "EnvVarSource",
    "Gate",
    "Machine",
    "Mesh",
    "Namespace",
    "NodeHost",
    "Nodes",
    "PartConfig",
    "Port",
    "Problem",
    "Rule",
    "SecretKeyRef",
    "Service",
    "Shift",
    "StackConfig",
    "Workload",
    "load",
    "merged",
]
