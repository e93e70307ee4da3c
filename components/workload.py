"""One microservice: a Service, a ServiceAccount, and a Deployment (or another workload) for each version."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pulumi
from pulumi_kubernetes import apps, core, meta, policy

import names
from components.kubernetes import InCluster, metadata
from components.secret import EnvSecret, EnvSecretArgs
from config import EnvVarSource, Mesh, Port, StackConfig
from config import Service as ServiceConfig
from config import Workload as VersionConfig
from config.merge import patched, settled
from config.types import seconds
from istio.values import sidecar

# Seconds, by default: how long a sidecar that is a container like the others outlives the word to stop (a native one
# ends after all of them), and how long any keeps the connections that it has made to a TCP port whose routes change.
# https://istio.io/latest/docs/reference/config/istio.mesh.v1alpha1/#ProxyConfig
_DRAINS = {"terminationDrainDuration": 5, "drainDuration": 45}


@dataclass(frozen=True)
class WorkloadArgs:
    """`selector` selects the pods of all versions of `service`; `mesh` has the control plane of these pods alone;
    `protect` is for the Service, and `secrets` has a value for each of `service.secrets`."""

    service: ServiceConfig
    selector: Mapping[str, str]
    namespace: pulumi.Input[str]
    mesh: Mesh
    protect: bool = False
    secrets: Mapping[str, pulumi.Output[str]] = field(default_factory=dict)


class Workload(pulumi.ComponentResource):
    """What runs as the service `name`, without any rule on who gets how many of its requests.

    A rule may send requests to what there is at first. The versions that are to have no pods come `rest`, when it sends
    them none any more.

    https://kubernetes.io/docs/concepts/workloads/controllers/
    """

    url: pulumi.Output[str]
    serving: list[pulumi.Resource]

    def __init__(self, name: str, args: WorkloadArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("istio-governance:workload:Workload", name, None, opts)
        self._name, self._args = name, args
        self.serving = []
        if args.service.workload != "existing":
            self._account = core.v1.ServiceAccount(name, metadata=self._metadata(name), opts=self._opts())
            self._secret = self._env_secret() if args.secrets else None
            self.serving += [self._account, *([self._secret] if self._secret else [])]
            for version in args.service.versions:
                if version not in args.service.idle:
                    self.serving += self._pods(version)
            if args.service.ports:
                self.serving.append(self._service())
        self.url = _url(name, args)

    def rest(self, *after: pulumi.Resource) -> None:
        for version in self._args.service.idle:
            self._pods(version, *after)
        self.register_outputs({"url": self.url})

    def _env_secret(self) -> EnvSecret:
        args = EnvSecretArgs(self._args.secrets, self._args.namespace, self._labels)
        return EnvSecret(self._name, args, pulumi.ResourceOptions(parent=self))

    @property
    def _labels(self) -> dict[str, str]:
        """Of the service's objects themselves."""
        return {"app": self._name, **self._args.service.labels}

    def _metadata(
        self, name: str, labels: Mapping[str, str] | None = None, annotations: Mapping[str, str] | None = None
    ) -> meta.v1.ObjectMetaArgs:
        labels = {**self._labels, **(labels or {})}
        return metadata(name, namespace=self._args.namespace, labels=labels, annotations=annotations)

    def _opts(self, **opts: Any) -> pulumi.ResourceOptions:
        return pulumi.ResourceOptions(parent=self, **opts)

    def _service(self) -> core.v1.Service:
        ports = [_service_port(name, port) for name, port in self._args.service.ports.items()]
        # The workloads wait for their pods already; the provider's own wait here adds ten seconds of quiet.
        marks = {"pulumi.com/skipAwait": "true"}
        return core.v1.Service(
            self._name,
            metadata=self._metadata(self._name, annotations=marks),
            spec=core.v1.ServiceSpecArgs(
                type=core.v1.ServiceSpecType.CLUSTER_IP, selector=dict(self._args.selector), ports=ports
            ),
            opts=self._opts(protect=self._args.protect),
        )

    def _pods(self, version: str, *after: pulumi.Resource) -> list[pulumi.Resource]:
        workload, service = self._args.service.version(version), self._args.service
        selector = {**self._args.selector, "version": service.version_label(version)}
        grace = workload.drain_seconds + 30
        template = core.v1.PodTemplateSpecArgs(
            metadata=meta.v1.ObjectMetaArgs(
                labels={"app": self._name, **_revision_label(self._args.mesh), **workload.labels, **selector},
                annotations=self._sidecar(workload),
            ),
            spec=core.v1.PodSpecArgs(
                service_account_name=self._name,
                termination_grace_period_seconds=grace,
                containers=[_container(self._name, workload, service)],
                topology_spread_constraints=_spread(workload, selector) or None,
                volumes=_volumes(workload) or None,
            ),
        )
        matched = meta.v1.LabelSelectorArgs(match_labels=selector)
        # Pods that go take as long as they drain, however soon they are to be ready.
        gone = service.timeout if seconds(service.timeout) > grace else f"{grace + 60}s"
        timeouts = pulumi.CustomTimeouts(create=service.timeout, update=service.timeout, delete=gone)
        secret = [self._secret.secret] if self._secret and workload.secrets else []
        called = names.workload(self._name, version)
        own = self._metadata(called, labels=selector)
        opts = self._opts(depends_on=[self._account, *secret, *after], custom_timeouts=timeouts)
        laid: Any = self._laid_over(template, workload)
        made: pulumi.Resource
        match service.workload:
            case "Deployment":
                deployed = apps.v1.DeploymentSpecArgs(selector=matched, template=laid, replicas=workload.replicas)
                made = apps.v1.Deployment(called, metadata=own, spec=deployed, opts=opts)
            case "StatefulSet":
                stateful = apps.v1.StatefulSetSpecArgs(
                    selector=matched, template=laid, replicas=workload.replicas, service_name=self._name
                )
                made = apps.v1.StatefulSet(called, metadata=own, spec=stateful, opts=opts)
            case "DaemonSet":
                on_each = apps.v1.DaemonSetSpecArgs(selector=matched, template=laid)
                made = apps.v1.DaemonSet(called, metadata=own, spec=on_each, opts=opts)
        if not service.disruption_budget:
            return [made]
        # One for each version: one for all of them would let every pod of a version go while another has enough.
        budget = policy.v1.PodDisruptionBudgetSpecArgs(
            **service.disruption_budget.model_dump(exclude_none=True), selector=matched
        )
        return [made, policy.v1.PodDisruptionBudget(called, metadata=own, spec=budget, opts=self._opts())]

    def _laid_over(self, template: core.v1.PodTemplateSpecArgs, workload: VersionConfig) -> dict[str, Any]:
        """With the pieces of a template that the configuration has, which are in Kubernetes' own shape."""
        laid: dict[str, Any] = settled(patched(json.loads(pulumi.runtime.to_json(template)), workload.pod_template))
        if checksum := self._checksum(workload):
            laid["metadata"]["annotations"] = {**checksum, **laid["metadata"]["annotations"]}
        return laid

    def _sidecar(self, workload: VersionConfig) -> dict[str, str]:
        """`names.SIDECAR` makes the pods roll when it changes, and only a new pod gets another sidecar."""
        if not self._args.mesh.on:
            return {}
        # Istio drops every statistic of the requests that a sidecar sends. Those by subset are few, and tell versions
        # apart: without them nobody knows how long the requests to each of them took.
        config: dict[str, Any] = {"proxyStatsMatcher": {"inclusionRegexps": [names.SUBSET_STATISTICS]}}
        # Given where Istio's own is not long enough: each change rolls the pods.
        longer = (key for key, seconds in _DRAINS.items() if workload.drain_seconds > seconds)
        config |= dict.fromkeys(longer, f"{workload.drain_seconds}s")
        return {names.SIDECAR: sidecar(self._args.mesh), "proxy.istio.io/config": json.dumps(config)}

    def _checksum(self, workload: VersionConfig) -> dict[str, pulumi.Output[str]]:
        """A running pod does not see that a value of its environment has changed."""
        return {names.SECRETS: self._secret.checksum(workload.secrets)} if self._secret and workload.secrets else {}


def deploy(
    config: StackConfig, cluster: InCluster, namespace: pulumi.Input[str], *after: pulumi.Resource
) -> dict[str, Workload]:
    """All services of the stack, by name."""
    return {
        name: cluster.has(
            Workload(
                name,
                WorkloadArgs(
                    service,
                    config.selector(name),
                    namespace,
                    config.mesh_of(name),
                    config.protect,
                    {key: value for key in service.secrets if (value := cluster.secret(key))},
                ),
                cluster.after(*after),
            )
        )
        for name, service in config.services.items()
    }


def _url(name: str, args: WorkloadArgs) -> pulumi.Output[str]:
    """'' for a service that nobody can call."""
    if not args.service.ports:
        return pulumi.Output.from_input("")
    port = next(iter(args.service.ports.values())).port
    return pulumi.Output.concat("http://", name, ".", args.namespace, ":", str(port))


def _revision_label(mesh: Mesh) -> dict[str, str]:
    """Always there: it counts as soon as the namespace's label goes, because services differ in it."""
    return {names.REVISION: mesh.default_revision} if mesh.on else {}


def _service_port(name: str, port: Port) -> core.v1.ServicePortArgs:
    return core.v1.ServicePortArgs(
        name=name, port=port.port, target_port=port.target, app_protocol=port.app_protocol or None
    )


def _spread(workload: VersionConfig, selector: Mapping[str, str]) -> list[core.v1.TopologySpreadConstraintArgs]:
    matched = meta.v1.LabelSelectorArgs(match_labels=selector)
    return [core.v1.TopologySpreadConstraintArgs(**one.model_dump(), label_selector=matched) for one in workload.spread]


def _volumes(workload: VersionConfig) -> list[core.v1.VolumeArgs]:
    return [
        core.v1.VolumeArgs(name=names.writable(number), empty_dir=core.v1.EmptyDirVolumeSourceArgs())
        for number in range(len(workload.writable_paths))
    ]


def _variable(own_secret: str, name: str, value: str | EnvVarSource) -> core.v1.EnvVarArgs:
    if isinstance(value, str):
        return core.v1.EnvVarArgs(name=name, value=value)
    other = value.secret_key_ref
    key, secret = (other.key, other.name) if other else (str(value.secret), own_secret)
    reference = core.v1.SecretKeySelectorArgs(name=secret, key=key)
    return core.v1.EnvVarArgs(name=name, value_from=core.v1.EnvVarSourceArgs(secret_key_ref=reference))


def _container(name: str, workload: VersionConfig, service: ServiceConfig) -> core.v1.ContainerArgs:
    ports = service.container_ports
    # Of probes, resources and the security context the configuration has Kubernetes' own shape.
    probe: Any = workload.readiness_probe
    if probe is None and ports:
        # Without a probe a pod counts as ready before its server listens, and the first requests are refused.
        first = core.v1.TCPSocketActionArgs(port=next(iter(ports)))
        probe = core.v1.ProbeArgs(tcp_socket=first, period_seconds=1)
    liveness: Any = workload.liveness_probe
    security: Any = workload.security_context
    resources: Any = workload.resources
    drain = None
    if workload.drain_seconds:
        # The pod goes on answering until every proxy has learned that it is going.
        sleep = core.v1.ExecActionArgs(command=["sleep", str(workload.drain_seconds)])
        drain = core.v1.LifecycleArgs(pre_stop=core.v1.LifecycleHandlerArgs(exec_=sleep))
    return core.v1.ContainerArgs(
        name=name,
        image=workload.image,
        image_pull_policy=workload.image_pull_policy,
        command=workload.command or None,
        args=workload.args or None,
        env=[_variable(names.env_secret(name), key, value) for key, value in workload.env.items()] or None,
        ports=[core.v1.ContainerPortArgs(name=called, container_port=port) for port, called in ports.items()] or None,
        lifecycle=drain,
        volume_mounts=[
            core.v1.VolumeMountArgs(name=names.writable(number), mount_path=path)
            for number, path in enumerate(workload.writable_paths)
        ]
        or None,
        readiness_probe=probe or None,
        liveness_probe=liveness or None,
        security_context=security or None,
        resources=resources or None,
    )
