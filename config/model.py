"""The schema of the stack configuration.

Field descriptions say what is allowed: they are what a user reads when a value is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from pydantic.alias_generators import to_camel

from config.versions import NEWEST_MINOR, OLDEST_MINOR

DNS_LABEL = r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$"
SERVICE_NAME = r"^[a-z]([-a-z0-9]{0,61}[a-z0-9])?$"

DnsLabel = Annotated[
    str,
    Field(
        pattern=DNS_LABEL,
        description="a DNS label (RFC 1123): at most 63 of a-z, 0-9 and '-', not first or last a '-'",
    ),
]
ServiceName = Annotated[
    str,
    Field(
        pattern=SERVICE_NAME,
        description="a DNS label (RFC 1123) that starts with a letter, as Kubernetes asks of a Service's name",
    ),
]
PortNumber = Annotated[int, Field(ge=1, le=65535, description="a whole number from 1 to 65535")]
Weight = Annotated[int, Field(ge=0, le=100, description="a whole number from 0 to 100")]
Replicas = Annotated[int, Field(ge=0, description="a whole number, 0 or more")]
Seconds = Annotated[int, Field(ge=0, le=3600, description="a whole number of seconds from 0 to 3600")]
Duration = Annotated[
    str,
    Field(min_length=1, pattern=r"^([0-9]+h)?([0-9]+m)?([0-9]+s)?$", description="a duration such as 90s, 5m or 1h"),
]
PortName = Annotated[
    str,
    Field(
        pattern=r"^[a-z]([-a-z0-9]{0,13}[a-z0-9])?$",
        description="a port name (RFC 6335): at most 15 of a-z, 0-9 and '-', first a letter, last no '-'",
    ),
]
LabelValue = Annotated[
    str,
    Field(
        pattern=r"^([A-Za-z0-9]([-_.A-Za-z0-9]{0,61}[A-Za-z0-9])?)?$",
        description="a label's value: at most 63 letters, digits, '-', '_' and '.', first and last a letter or digit",
    ),
]
Labels = Mapping[str, LabelValue]
# A file knows lists only; frozen models want tuples.
Strings = Annotated[tuple[str, ...], Field(strict=False)]
ChartKey = Literal["base", "cni", "istiod", "ingress", "egress"]


def _yaml_off(value: object) -> object:
    """YAML 1.1 reads a bare `off` as false."""
    return "off" if value is False else value


class Model(BaseModel):
    """Keys are camelCase in files; unknown ones are errors; values are never coerced."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, alias_generator=to_camel, populate_by_name=True)


class Cluster(Model):
    """Which cluster. https://kubernetes.io/docs/concepts/configuration/organize-cluster-access-kubeconfig/"""

    context: str = Field("", description="the name of a context in the kubeconfig")
    kubeconfig: str = Field("", description="the path of a kubeconfig; '' is $KUBECONFIG or ~/.kube/config")


class Mesh(Model):
    """The Istio control plane. https://istio.io/latest/docs/setup/install/helm/"""

    mode: Annotated[Literal["managed", "existing", "off"], BeforeValidator(_yaml_off)] = Field(
        "managed",
        description="managed (this stack installs Istio), existing (somebody else's Istio) or off (no mesh)",
    )
    version: str = Field(
        "",
        pattern=r"^([0-9]{1,4}\.[0-9]{1,4}\.[0-9]{1,4}(-[0-9A-Za-z.-]+)?)?$",
        description=f'a quoted Istio version from {OLDEST_MINOR} to {NEWEST_MINOR}, such as "{NEWEST_MINOR}.0"',
    )
    profile: Literal["default", "minimal", "demo"] = Field("default", description="default, minimal or demo")
    cni: bool = Field(True, description="true or false: the Istio CNI node agent instead of an init container")
    purge: bool = Field(False, description="true or false: destroy also removes Istio's CRDs")
    namespace: DnsLabel = "istio-system"
    revision: str = Field(
        "", description="the revision of an existing Istio that injects the sidecars; '' is the default one"
    )
    platform: str = Field("", description="a platform that the charts know, such as openshift, gke or k3s")
    ingress: bool | None = Field(None, description="true, false or unset (as the profile says)")
    egress: bool | None = Field(None, description="true, false or unset (as the profile says)")
    values: Mapping[ChartKey, Mapping[str, Any]] = Field(
        default_factory=dict, description="Helm values by chart: base, cni, istiod, ingress, egress"
    )
    charts: str = Field(
        "", description="'' (the official place), a folder of charts or .tgz files, an https:// repository or oci://"
    )
    hub: str = Field("", description="an image hub such as registry.example.com/istio; '' is the official one")
    image_pull_secrets: Strings = Field((), description="a list of names of Secrets")

    @property
    def on(self) -> bool:
        return self.mode != "off"

    @property
    def has_ingress(self) -> bool:
        return self.profile != "minimal" if self.ingress is None else self.ingress

    @property
    def has_egress(self) -> bool:
        return self.profile == "demo" if self.egress is None else self.egress


class Nodes(Model):
    """How the kernel modules that sidecars need get onto the nodes."""

    mode: Literal["none"] = Field("none", description="none (the nodes are prepared already)")
    hosts: Mapping[str, Any] = Field(default_factory=dict, description="hosts by name")
    modules: Strings = Field((), description="a list of kernel modules; empty: the right ones")
    reboot: bool = Field(False, description="true or false")


class Namespace(Model):
    """The namespace of the workloads. https://kubernetes.io/docs/concepts/overview/working-with-objects/namespaces/"""

    name: DnsLabel = "istio-demo"
    create: bool = Field(True, description="true (this stack owns it) or false (it exists; only labels are set)")


class Port(Model):
    """One port of a Service. https://kubernetes.io/docs/concepts/services-networking/service/#multi-port-services"""

    port: PortNumber
    target_port: PortNumber | None = Field(None, description="a whole number from 1 to 65535; unset: as port")
    app_protocol: str | None = Field(None, description="a protocol that Istio knows: http, http2, grpc, tcp, …")

    @property
    def target(self) -> int:
        return self.port if self.target_port is None else self.target_port


class Workload(Model):
    """What runs as one version of a service; `template` holds what all versions of it share.

    `resources`, the probes and `securityContext` have the shape that Kubernetes gives them in a container:
    https://kubernetes.io/docs/reference/kubernetes-api/workload-resources/pod-v1/#Container
    """

    image: str | None = Field(None, min_length=1, description="an image such as nginx:alpine")
    image_pull_policy: Literal["Always", "IfNotPresent", "Never"] | None = Field(
        None, description="Always, IfNotPresent or Never"
    )
    command: Strings | None = Field(None, description="a list of strings")
    args: Strings | None = Field(None, description="a list of strings")
    env: Mapping[str, str] = Field(default_factory=dict, description="a map of names to strings")
    replicas: Replicas | None = Field(
        None, description="a whole number, 0 or more; unset: Kubernetes' default, or an autoscaler's affair"
    )
    labels: Labels = Field(default_factory=dict, description="labels for the pods, beside app and version")
    version_label: LabelValue | None = Field(
        None, description="the value of the label version, at most 63 letters, digits, '-', '_' and '.'; unset: the key"
    )
    resources: Mapping[str, Any] = Field(default_factory=dict, description="requests and limits")
    readiness_probe: Mapping[str, Any] | None = Field(
        None, description="a probe; unset: a TCP connect to the first port; {}: none"
    )
    liveness_probe: Mapping[str, Any] | None = Field(None, description="a probe")
    security_context: Mapping[str, Any] | None = Field(None, description="a container's securityContext")
    drain_seconds: Seconds = Field(
        5,
        description="a whole number of seconds from 0 to 3600 in which a stopping pod still answers, while the callers "
        "learn that it goes; 0: no drain",
    )
    pod_template: Mapping[str, Any] = Field(
        default_factory=dict, description="a piece of a pod template, {metadata, spec}, laid over the generated one"
    )


class Service(Model):
    """One microservice: a Service, a ServiceAccount and one Deployment (or another workload) for each version."""

    workload: Literal["Deployment", "StatefulSet", "DaemonSet", "existing"] = Field(
        "Deployment",
        description="Deployment, StatefulSet, DaemonSet, or existing (somebody else owns the pods and the Service; "
        "selector, ports and version labels say how to find them)",
    )
    selector: Labels = Field(
        default_factory=dict, description="the labels that select the pods; unset: {app: <name>}; cannot change"
    )
    labels: Labels = Field(default_factory=dict, description="labels for the objects themselves")
    ports: Mapping[PortName, Port] = Field(default_factory=dict, description="ports by name")
    template: Workload = Workload()
    versions: Mapping[DnsLabel, Workload] = Field(min_length=1, description="at least one version, by name")
    timeout: Duration = Field("5m", description="how long the pods may take to get ready, such as 90s or 5m")

    def version(self, name: str) -> Workload:
        """What runs as version `name`: its own fields over those of the template; maps are merged."""
        own = self.versions[name]
        fields: dict[str, Any] = {}
        for field in own.model_fields_set:
            value, inherited = getattr(own, field), getattr(self.template, field)
            merge = isinstance(value, Mapping) and isinstance(inherited, Mapping)
            fields[field] = {**inherited, **value} if merge and field in {"env", "labels"} else value
        return self.template.model_copy(update=fields)

    def version_label(self, name: str) -> str:
        return self.version(name).version_label or name


class Rule(Model):
    """How the requests to one service are split. https://istio.io/latest/docs/reference/config/networking/virtual-service/"""

    weights: Mapping[str, Weight] = Field(
        min_length=1, description="whole numbers from 0 to 100 by version that add up to 100"
    )


class StackConfig(Model):
    """Everything that a stack file can say."""

    schema_version: Literal[1] = Field(1, description="1")
    cluster: Cluster = Cluster()
    mesh: Mesh = Mesh()
    nodes: Nodes = Nodes()
    namespace: Namespace = Namespace()
    services: Mapping[ServiceName, Service] = Field(min_length=1, description="at least one service, by name")
    routing: Mapping[str, Rule] = Field(default_factory=dict, description="rules by service")

    def selector(self, service: str) -> dict[str, str]:
        return dict(self.services[service].selector) or {"app": service}

    @property
    def weights(self) -> dict[str, dict[str, int]]:
        """Service → version → weight for every version of every service with rules; {} without a mesh."""
        if not self.mesh.on:
            return {}
        return {
            service: {version: rule.weights.get(version, 0) for version in self.services[service].versions}
            for service, rule in self.routing.items()
        }
