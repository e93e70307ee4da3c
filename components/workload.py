"""One microservice: a Service, a ServiceAccount, and a Deployment (or another workload) for each version."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pulumi

import names
from components.kubernetes import KubernetesObject
from components.secret import EnvSecret, EnvSecretArgs
from config import EnvVarSource, Mesh
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
            self._account = self._object("ServiceAccount", name)
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

    def _object(
        self,
        kind: str,
        name: str,
        spec: Mapping[str, Any] | None = None,
        annotations: Mapping[str, str] | None = None,
        labels: Mapping[str, str] | None = None,
        **opts: Any,
    ) -> KubernetesObject:
        return KubernetesObject(
            kind,
            name,
            namespace=self._args.namespace,
            labels={**self._labels, **(labels or {})},
            annotations=annotations,
            spec=spec,
            opts=pulumi.ResourceOptions(parent=self, **opts),
        )

    def _service(self) -> KubernetesObject:
        ports = [
            {
                "name": port_name,
                "port": port.port,
                "targetPort": port.target,
                **({"appProtocol": port.app_protocol} if port.app_protocol else {}),
            }
            for port_name, port in self._args.service.ports.items()
        ]
        return self._object(
            "Service",
            self._name,
            {"type": "ClusterIP", "selector": dict(self._args.selector), "ports": ports},
            # The workloads wait for their pods already; the provider's own wait here adds ten seconds of quiet.
            {"pulumi.com/skipAwait": "true"},
            protect=self._args.protect,
        )

    def _pods(self, version: str, *after: pulumi.Resource) -> list[pulumi.Resource]:
        workload, service = self._args.service.version(version), self._args.service
        selector = {**self._args.selector, "version": service.version_label(version)}
        grace = workload.drain_seconds + 30
        template: Mapping[str, Any] = {
            "metadata": {
                "labels": {"app": self._name, **_revision_label(self._args.mesh), **workload.labels, **selector},
                "annotations": {**self._sidecar(workload), **self._checksum(workload)},
            },
            "spec": {
                "serviceAccountName": self._name,
                "terminationGracePeriodSeconds": grace,
                "containers": [_container(self._name, workload, service)],
                **_spread(workload, selector),
                **_volumes(workload),
            },
        }
        spec: dict[str, Any] = {
            "selector": {"matchLabels": selector},
            "template": settled(patched(template, workload.pod_template)),
        }
        if workload.replicas is not None:
            spec["replicas"] = workload.replicas
        if service.workload == "StatefulSet":
            spec["serviceName"] = self._name
        # Pods that go take as long as they drain, however soon they are to be ready.
        gone = service.timeout if seconds(service.timeout) > grace else f"{grace + 60}s"
        timeouts = pulumi.CustomTimeouts(create=service.timeout, update=service.timeout, delete=gone)
        secret = [self._secret.secret] if self._secret and workload.secrets else []
        made = self._object(
            service.workload,
            names.workload(self._name, version),
            spec,
            labels=selector,
            depends_on=[self._account, *secret, *after],
            custom_timeouts=timeouts,
        )
        if not service.disruption_budget:
            return [made]
        # One for each version: one for all of them would let every pod of a version go while another has enough.
        budget = service.disruption_budget.model_dump(by_alias=True, exclude_none=True)
        return [
            made,
            self._object(
                "PodDisruptionBudget",
                names.workload(self._name, version),
                {**budget, "selector": {"matchLabels": selector}},
                labels=selector,
            ),
        ]

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


def _url(name: str, args: WorkloadArgs) -> pulumi.Output[str]:
    """'' for a service that nobody can call."""
    if not args.service.ports:
        return pulumi.Output.from_input("")
    port = next(iter(args.service.ports.values())).port
    return pulumi.Output.concat("http://", name, ".", args.namespace, ":", str(port))


def _revision_label(mesh: Mesh) -> dict[str, str]:
    """Always there: it counts as soon as the namespace's label goes, because services differ in it."""
    return {names.REVISION: mesh.default_revision} if mesh.on else {}


def _spread(workload: VersionConfig, selector: Mapping[str, str]) -> dict[str, Any]:
    constraints = [
        {**one.model_dump(by_alias=True), "labelSelector": {"matchLabels": selector}} for one in workload.spread
    ]
    return {"topologySpreadConstraints": constraints} if constraints else {}


def _volumes(workload: VersionConfig) -> dict[str, Any]:
    volumes = [{"name": names.writable(number), "emptyDir": {}} for number in range(len(workload.writable_paths))]
    return {"volumes": volumes} if volumes else {}


def _variable(own_secret: str, name: str, value: str | EnvVarSource) -> dict[str, Any]:
    if isinstance(value, str):
        return {"name": name, "value": value}
    other = value.secret_key_ref
    reference = {"name": other.name, "key": other.key} if other else {"name": own_secret, "key": value.secret}
    return {"name": name, "valueFrom": {"secretKeyRef": reference}}


def _container(name: str, workload: VersionConfig, service: ServiceConfig) -> dict[str, Any]:
    ports = [{"name": port_name, "containerPort": port} for port, port_name in service.container_ports.items()]
    probe = workload.readiness_probe
    if probe is None and ports:
        # Without a probe a pod counts as ready before its server listens, and the first requests are refused.
        probe = {"tcpSocket": {"port": ports[0]["containerPort"]}, "periodSeconds": 1}
    container: dict[str, Any] = {
        "name": name,
        "image": workload.image,
        "imagePullPolicy": workload.image_pull_policy,
        "command": list(workload.command) if workload.command else None,
        "args": list(workload.args) if workload.args else None,
        "env": [_variable(names.env_secret(name), key, value) for key, value in workload.env.items()],
        "ports": ports,
        "readinessProbe": probe,
        "livenessProbe": workload.liveness_probe,
        "securityContext": workload.security_context,
        "volumeMounts": [
            {"name": names.writable(number), "mountPath": path} for number, path in enumerate(workload.writable_paths)
        ],
        "resources": workload.resources,
    }
    if workload.drain_seconds:
        # The pod goes on answering until every proxy has learned that it is going.
        container["lifecycle"] = {"preStop": {"exec": {"command": ["sleep", str(workload.drain_seconds)]}}}
    return {key: value for key, value in container.items() if value}
