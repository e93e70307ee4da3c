"""The schema of the stack configuration, whole.

Field descriptions say what is allowed: they are what a user reads when a value is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import Field

from config.mesh import Cluster, Mesh
from config.nodes import Nodes
from config.routing import Egress, Rule
from config.services import Namespace, Service, Workload
from config.types import Host, Model, SecretKey, ServiceName


class StackConfig(Model):
    """Everything that a stack file can say."""

    schema_version: Literal[1] = Field(1, description="1")
    cluster: Cluster = Cluster()
    mesh: Mesh = Mesh()
    nodes: Nodes = Nodes()
    ssh_private_key: SecretKey = Field("", description="secret: the SSH key that opens every host of nodes.hosts")
    bastion_private_key: SecretKey = Field("", description="secret: the bastion's, where it is another than the hosts'")
    namespace: Namespace = Namespace()
    template: Workload = Workload()
    services: Mapping[ServiceName, Service] = Field(min_length=1, description="at least one service, by name")
    routing: Mapping[str, Rule] = Field(default_factory=dict, description="rules by service")
    egress: Mapping[Host, Egress] = Field(
        default_factory=dict, description="hosts outside the mesh by name, such as api.example.com"
    )
    protect: bool = Field(
        False,
        description="true or false: Pulumi refuses to delete or replace namespaces, the mesh's releases and Services; "
        "mesh shift asks for --yes and a clean, current checkout, as for a stack that is called prod, prod-… or "
        "production…",
    )

    def selector(self, service: str) -> dict[str, str]:
        return dict(self.services[service].selector) or {"app": service}

    def mesh_of(self, service: str) -> Mesh:
        """The mesh as if it had the control plane of `service` alone."""
        if self.mesh.mode != "managed":
            return self.mesh.with_revision(self.services[service].revision or self.mesh.revision)
        return self.mesh.control_planes[self.services[service].revision or self.mesh.default_revision]

    @property
    def follows_one_revision(self) -> bool:
        """Whether all services have the default control plane."""
        return all(s.revision in ("", self.mesh.default_revision) for s in self.services.values())

    @property
    def weights(self) -> dict[str, dict[str, int]]:
        """Service → version → weight for every version of every service with rules; {} without a mesh."""
        if not self.mesh.on:
            return {}
        return {
            service: {version: rule.weights.get(version, 0) for version in self.services[service].versions}
            for service, rule in self.routing.items()
        }

    @property
    def outside(self) -> Mapping[str, Egress]:
        """The hosts outside the mesh; {} without a mesh."""
        return self.egress if self.mesh.on else {}


class PartConfig(StackConfig):
    """As much of it as one component needs."""

    services: Mapping[ServiceName, Service] = Field(default_factory=dict, description="services by name")
