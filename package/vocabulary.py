"""What each component of the package takes and gives, as pieces of the configuration's model.

`python -m package.generate` makes all else from it: the types by which Pulumi knows the inputs, the schema and
the page.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, get_args

from pydantic import Field

from config import Cluster, Egress, Mesh, Namespace, Nodes, Port, Rule, Service, Workload
from config.types import ConfigKey, DnsLabel, Host, Labels, LabelValue, Model, PortName, ServiceName

INPUT = "an input"
"""Marks what may come from another resource, or be a secret; all else has to be known at each preview, to be judged."""


def is_input(annotation: object) -> bool:
    return any(INPUT in getattr(one, "__metadata__", ()) for one in (annotation, *get_args(annotation)))


Secret = Annotated[str, INPUT]
Secrets = Annotated[Mapping[ConfigKey, Secret], INPUT]

_CLUSTER = Field(description="which cluster: a context, or a kubeconfig seen from the folder of the program")
_MESH = Field(Mesh(mode="existing"), description="the Istio that the sidecars belong to; unset: mode existing")
_SECRETS: Any = Field(
    default_factory=dict,
    alias="secrets",
    description="secret values by key, of those that variables of pods name: env: {NAME: {secret: key}}",
)
_PROTECT = Field(
    False, description="true or false: Pulumi refuses to delete or replace namespaces, the mesh's releases and Services"
)


class IstioInputs(Model):
    cluster: Cluster = _CLUSTER
    mesh: Mesh = Field(description="which Istio, and how")
    protect: bool = _PROTECT


class NodePrepInputs(Model):
    cluster: Cluster = _CLUSTER
    nodes: Nodes = Field(description="how the nodes are reached, and what they need")
    mesh: Mesh = _MESH
    ssh_private_key: Secret | None = Field(None, description="secret: the SSH key that opens every host of nodes.hosts")
    bastion_private_key: Secret | None = Field(None, description="secret: the bastion's, where it is another one")


class WorkloadNamespaceInputs(Model):
    cluster: Cluster = _CLUSTER
    namespace: Namespace = Field(description="the namespace, and whether it is this program's own")
    mesh: Mesh = _MESH
    protect: bool = _PROTECT


class WorkloadInputs(Service):
    cluster: Cluster = _CLUSTER
    namespace: DnsLabel = Field(description="the namespace of the pods, which is there")
    mesh: Mesh = _MESH
    secret_values: Secrets = _SECRETS
    protect: bool = _PROTECT


class RoutedVersion(Model):
    """What tells the pods of one version from those of the others."""

    version_label: LabelValue | None = Field(None, description="the value of their label version; unset: the key")


class RoutingInputs(Rule):
    cluster: Cluster = _CLUSTER
    namespace: DnsLabel = Field(description="the namespace of the Service")
    ports: Mapping[PortName, Port] = Field(min_length=1, description="the ports of the Service, by name")
    selector: Labels = Field(
        default_factory=dict, description="the labels that select the pods of all versions; unset: {app: <name>}"
    )
    versions: Mapping[DnsLabel, RoutedVersion] = Field(
        default_factory=dict, description="versions by name; unset: those that have weights"
    )
    mesh: Mesh = _MESH


class ApplicationInputs(Model):
    cluster: Cluster = _CLUSTER
    namespace: Namespace = Namespace()
    mesh: Mesh = _MESH
    template: Workload = Workload()
    services: Mapping[ServiceName, Service] = Field(min_length=1, description="at least one service, by name")
    routing: Mapping[str, Rule] = Field(default_factory=dict, description="rules by service")
    egress: Mapping[Host, Egress] = Field(
        default_factory=dict, description="hosts outside the mesh by name, such as api.example.com"
    )
    secret_values: Secrets = _SECRETS
    protect: bool = _PROTECT


class GuardInputs(Model):
    cluster: Cluster = _CLUSTER
    mesh: Mesh = _MESH
    protect: bool = _PROTECT


INPUTS: Mapping[str, type[Model]] = {
    "NodePrep": NodePrepInputs,
    "Istio": IstioInputs,
    "WorkloadNamespace": WorkloadNamespaceInputs,
    "Workload": WorkloadInputs,
    "Routing": RoutingInputs,
    "Application": ApplicationInputs,
    "Guard": GuardInputs,
}
"""Component → its inputs."""
