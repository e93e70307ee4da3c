"""What runs: services, their versions, and the namespace that they are in."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, WrapValidator

from config.merge import patched
from config.types import (
    AbsolutePath,
    ConfigKey,
    Count,
    DnsLabel,
    Duration,
    EnvName,
    Labels,
    LabelValue,
    Model,
    PodCount,
    PortName,
    PortNumber,
    Replicas,
    Seconds,
    SecretDataKey,
    SecretName,
    Strings,
)


class Namespace(Model):
    """The namespace of the workloads. https://kubernetes.io/docs/concepts/overview/working-with-objects/namespaces/"""

    name: DnsLabel = "istio-demo"
    create: bool = Field(True, description="true (this stack owns it) or false (it exists; only labels are set)")
    keep: bool = Field(
        False,
        description="true or false: the namespace and what others made in it stay when the stack goes; needs create",
    )
    default_deny: bool = Field(
        False,
        description="true or false: NetworkPolicies let through only what the services and the mesh need; needs create",
    )


class Port(Model):
    """One port of a Service. https://kubernetes.io/docs/concepts/services-networking/service/#multi-port-services"""

    port: PortNumber
    target_port: PortNumber | None = Field(None, description="a whole number from 1 to 65535; unset: as port")
    app_protocol: str | None = Field(None, description="a protocol that Istio knows: http, http2, grpc, tcp, …")

    def traffic(self, name: str) -> Literal["http", "tcp", ""]:
        """What Istio routes at this port when it is called `name`."""
        return traffic(name, self.port, self.app_protocol)

    @property
    def target(self) -> int:
        return self.port if self.target_port is None else self.target_port


def traffic(port_name: str, port: int, app_protocol: str | None) -> Literal["http", "tcp", ""]:
    """What Istio routes at a port: `http`, also where it has to look at each connection first; `tcp`; '' for nothing.

    https://istio.io/latest/docs/ops/configuration/traffic-management/protocol-selection/
    """
    protocol = _protocol(port_name, app_protocol)
    if protocol in ("https", "tls", "wss", "udp"):
        return ""
    if protocol in ("tcp", "mongo", "mysql", "redis"):
        return "tcp"
    never_looked_at = (25, 53, 3306, 27017)
    return "tcp" if port in never_looked_at and protocol not in ("http", "http2", "grpc", "ws", "h2c") else "http"


def spoken(port_name: str, port: int, app_protocol: str | None) -> Literal["http/1", "http/2", "bytes", ""]:
    """What a pod's sidecar takes for granted at a port; '' where it looks at each connection."""
    protocol = _protocol(port_name, app_protocol)
    if protocol in ("grpc", "http2", "h2c"):
        return "http/2"
    if protocol in ("http", "ws"):
        return "http/1"
    return "" if traffic(port_name, port, app_protocol) == "http" else "bytes"


def _protocol(port_name: str, app_protocol: str | None) -> str:
    return (app_protocol or port_name).lower().removeprefix("kubernetes.io/").split("-")[0]


class Spread(Model):
    """One topologySpreadConstraint over the pods of a version.

    https://kubernetes.io/docs/concepts/scheduling-eviction/topology-spread-constraints/
    """

    topology_key: str = Field(min_length=1, description="a label of the nodes, such as kubernetes.io/hostname")
    max_skew: Count = 1
    when_unsatisfiable: Literal["ScheduleAnyway", "DoNotSchedule"] = Field(
        "ScheduleAnyway", description="ScheduleAnyway or DoNotSchedule"
    )


class DisruptionBudget(Model):
    """How many pods of each version have to stay while nodes are drained; one of the two.

    https://kubernetes.io/docs/concepts/workloads/pods/disruptions/#pod-disruption-budgets
    """

    min_available: PodCount | None = Field(None, description="a whole number of pods, or a percentage such as 50%")
    max_unavailable: PodCount | None = Field(None, description="a whole number of pods, or a percentage such as 50%")


class SecretKeyRef(Model):
    """One value of a Secret that somebody else makes in the namespace of the workloads."""

    name: SecretName
    key: SecretDataKey


class EnvVarSource(Model):
    """The value of an environment variable that no model holds; one of the two.

    https://kubernetes.io/docs/concepts/configuration/secret/#using-secrets-as-environment-variables
    """

    secret: ConfigKey | None = None
    secret_key_ref: SecretKeyRef | None = Field(None, description="a map with the keys name, key")


def _env_value(value: object, _union: object) -> EnvVarSource | str:
    if isinstance(value, str | EnvVarSource):
        return value
    if isinstance(value, Mapping):
        return EnvVarSource.model_validate(value, by_alias=True, by_name=False)
    raise ValueError("neither a text nor a map")


EnvValue = Annotated[
    EnvVarSource | str,
    # One check for both, as a union would tell of one wrong value twice.
    WrapValidator(_env_value),
    Field(description="a text, {secret: <top-level secret key>} or {secretKeyRef: {name: …, key: …}}"),
]


class Workload(Model):
    """What runs as one version of a service; a service's `template` holds what all versions of it share, and the
    top-level one what all services do.

    `resources`, the probes and `securityContext` have the shape that Kubernetes gives them in a container:
    https://kubernetes.io/docs/reference/kubernetes-api/workload-resources/pod-v1/#Container
    """

    image: str | None = Field(None, min_length=1, description="an image such as nginx:alpine")
    image_pull_policy: Literal["Always", "IfNotPresent", "Never"] | None = Field(
        None, description="Always, IfNotPresent or Never"
    )
    command: Strings | None = Field(None, description="a list of strings")
    args: Strings | None = Field(None, description="a list of strings")
    env: Mapping[EnvName, EnvValue] = Field(default_factory=dict, description="a map of names to values")
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
    writable_paths: tuple[AbsolutePath, ...] = Field(
        (),
        strict=False,
        description="a list of folders that stay writable with readOnlyRootFilesystem; they are empty in a new pod",
    )
    spread: tuple[Spread, ...] = Field((), strict=False, description="a list of ways to spread the pods over the nodes")
    drain_seconds: Seconds = Field(
        5,
        description="a whole number of seconds from 0 to 3600 in which a stopping pod still answers, while the callers "
        "learn that it goes, and for which a version that goes waits for what is in flight; 0: no drain",
    )
    pod_template: Mapping[str, Any] = Field(
        default_factory=dict,
        description="a piece of a pod template, {metadata, spec}, laid over the generated one as Kubernetes does it: "
        "containers, volumes, env and the like are merged by their names, `null` and `$patch: delete` remove",
    )

    @property
    def secrets(self) -> tuple[str, ...]:
        """The top-level secret keys that `env` takes values from."""
        return tuple(sorted({v.secret for v in self.env.values() if isinstance(v, EnvVarSource) and v.secret}))


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
    revision: str = Field("", description="one of mesh.revisions, in the place of mesh.revision")
    template: Workload = Workload()
    disruption_budget: DisruptionBudget | None = Field(None, description="unset: a drain may take all pods at once")
    versions: Mapping[DnsLabel, Workload] = Field(min_length=1, description="at least one version, by name")
    timeout: Duration = Field("5m", description="how long the pods may take to get ready, or to go, such as 90s or 5m")

    def version(self, name: str) -> Workload:
        """What runs as version `name`: its own fields over those of the template; `env`, `labels` and `podTemplate` are
        merged."""
        own = self.versions[name]
        fields: dict[str, Any] = {}
        for field in own.model_fields_set:
            value, inherited = getattr(own, field), getattr(self.template, field)
            match field:
                case "env" | "labels":
                    fields[field] = {**inherited, **value}
                case "pod_template":
                    fields[field] = patched(inherited, value)
                case _:
                    fields[field] = value
        return self.template.model_copy(update=fields)

    @property
    def idle(self) -> tuple[str, ...]:
        """The versions that are to have no pods; none where somebody else owns them."""
        if self.workload == "existing":
            return ()
        return tuple(name for name in self.versions if self.version(name).replicas == 0)

    @property
    def tcp_ports(self) -> set[int]:
        """The ports at which connections are split, not requests."""
        return {port.port for name, port in self.ports.items() if port.traffic(name) == "tcp"}

    @property
    def container_ports(self) -> dict[int, str]:
        """The ports at which the pods listen, by number. Several ports of the service may lead to one, and the first
        gives it its name."""
        found: dict[int, str] = {}
        for name, port in self.ports.items():
            found.setdefault(port.target, name)
        return found

    @property
    def secrets(self) -> tuple[str, ...]:
        """The top-level secret keys that any version takes values from."""
        return tuple(sorted({key for name in self.versions for key in self.version(name).secrets}))

    def version_label(self, name: str) -> str:
        return self.version(name).version_label or name
