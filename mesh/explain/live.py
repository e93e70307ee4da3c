"""Reads from the cluster all that the explanation of one path needs."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import names
from config import StackConfig
from config.files import Origin
from istio.rules import Routed, routed
from mesh.cluster import dump, envoy
from mesh.cluster.dump import Dump
from mesh.cluster.kubectl import Kubectl, KubectlError
from mesh.cluster.objects import is_ready
from mesh.explain.model import Source
from mesh.routes import callers, judge, others
from mesh.routes.model import Caller, by_rule, expected
from mesh.routes.others import Finding

_RULES = ("virtualservices.networking.istio.io", "destinationrules.networking.istio.io")

Object = Mapping[str, Any]


class UnknownNameError(Exception):
    """FROM or TO names nothing that is there."""


class NoPodError(Exception):
    """What was named has no pod that could send a request."""


@dataclass(frozen=True)
class Pod:
    """A pod that is not going already."""

    name: str
    address: str
    node: str
    labels: Mapping[str, str]
    annotations: Mapping[str, str]
    ready: bool
    containers: tuple[str, ...]
    init_containers: tuple[str, ...] = ()
    uid: str = ""
    sidecar_image: str = ""
    admin_port: int = envoy.ADMIN_PORT
    namespace: str = ""

    @property
    def sidecar(self) -> bool:
        """A native sidecar is an init container that goes on running."""
        return envoy.CONTAINER in (*self.containers, *self.init_containers)

    @property
    def programs(self) -> tuple[str, ...]:
        return tuple(name for name in self.containers if name != envoy.CONTAINER)

    @property
    def version(self) -> str:
        return self.labels.get("version", "")


@dataclass(frozen=True)
class Endpoint:
    """An address of the Service as Kubernetes has it."""

    pod: str
    address: str
    ready: bool


@dataclass(frozen=True)
class ServicePort:
    """The port of a Service that the request goes to."""

    name: str
    port: int
    target: str
    app_protocol: str = ""


@dataclass(frozen=True)
class Declared:
    """Which line of which file declares a key."""

    origins: Mapping[tuple[str, ...], Origin] = field(default_factory=dict)

    def source(self, name: str, *key: str) -> Source:
        """The object `name` with the line of `key`, or of the nearest key around it that a file sets."""
        inner = key
        while len(inner) > 1 and inner not in self.origins:
            inner = inner[:-1]
        if len(inner) < 2:
            return Source(name)
        return Source(name, ".".join(inner), str(self.origins[inner]))


@dataclass(frozen=True)
class Snapshot:
    """The cluster at one moment, as far as it concerns a request from `caller` to `service`.

    `focus` is the version or the pod that TO names beside the service, or ''. `rules` are the VirtualServices and
    DestinationRules of the namespace; `servers` maps names of pods to their proxies, one of each version;
    `balancer` is what stands behind a Service's address: iptables, nftables, ipvs, ebpf or '' for unknown.
    `workload` is the kind that makes the pods, '' when the stack does not know.
    `tables` holds what `iptables-save` prints on the `node` and in the pods, where that was allowed. `decided` is why
    the caller does not treat requests as the rule of the service says.
    """

    source: str
    target: str
    namespace: str
    stack: str
    mesh: bool
    caller: Pod
    service: str
    cluster_ip: str
    port: ServicePort
    affinity: bool
    pods: tuple[Pod, ...]
    endpoints: tuple[Endpoint, ...]
    rules: tuple[Object, ...] = ()
    proxy: Dump | None = None
    servers: Mapping[str, Dump] = field(default_factory=dict)
    focus: str = ""
    dns: str = ""
    balancer: str = ""
    istiod_ready: bool = True
    declared: Declared = Declared()
    weights: Mapping[str, int] = field(default_factory=dict)
    workload: str = ""
    tables: Mapping[str, str] = field(default_factory=dict)
    decided: tuple[Finding, ...] = ()

    @property
    def host(self) -> str:
        """How every name of the service begins; the domain of the cluster follows."""
        return f"{self.service}.{self.namespace}.svc"

    def pod_at(self, address: str) -> Pod | None:
        return next((pod for pod in self.pods if pod.address == address.rpartition(":")[0]), None)

    def rules_of(self, kind: str) -> list[Object]:
        """The rules of a kind that are about the service."""
        return [rule for rule in self.rules if rule["kind"] == kind and self.service in map(self._short, _hosts(rule))]

    def _short(self, host: str) -> str:
        """The name of a service in this namespace, '' for any other host."""
        name, _, rest = host.partition(".")
        return name if not rest or rest == self.namespace or rest.startswith(f"{self.namespace}.") else ""


def read(kubectl: Kubectl, config: StackConfig, stack: str, source: str, target: str, declared: Declared) -> Snapshot:
    """Raises `UnknownNameError`, `NoPodError` or `KubectlError`."""
    namespace = config.namespace.name
    kinds = ["pods", "services", "endpointslices.discovery.k8s.io", *(_RULES if config.mesh.on else ())]
    with ThreadPoolExecutor() as pool:
        reading_objects = pool.submit(kubectl.items, ",".join(kinds), f"--namespace={namespace}")
        dns = pool.submit(_dns, kubectl)
        balancer = pool.submit(_balancer, kubectl)
        istiod = pool.submit(istiod_ready, kubectl, config)
        objects = reading_objects.result()
        pods = [pod(item) for item in objects if item["kind"] == "Pod" and stays(item)]
        services = {item["metadata"]["name"]: item for item in objects if item["kind"] == "Service"}
        caller = caller_of(source, config, pods, services, kubectl)
        name, focus, port = _target(target, pods, services)
        spec = services[name]["spec"]
        selected = tuple(pod for pod in pods if spec.get("selector") and _selects(spec["selector"], pod))
        _check_focus(name, focus, config, selected)
        servers = {pod.version: pod for pod in reversed(selected) if pod.sidecar and pod.ready}
        reading_proxies = {
            pod.name: pool.submit(read_proxy, proxy_of(pod, kubectl, namespace)) for pod in servers.values()
        }
        if caller.sidecar and caller.name not in reading_proxies:
            reading_proxies[caller.name] = pool.submit(read_proxy, proxy_of(caller, kubectl, caller.namespace))
        proxies = {pod: reading.result() for pod, reading in reading_proxies.items()}
        rules = tuple(item for item in objects if item["kind"] in {"VirtualService", "DestinationRule"})
        decided = _decided(kubectl, config, name, spec, caller, proxies.get(caller.name), rules)
    return Snapshot(
        source=source,
        target=f"{target.partition(':')[0]}:{(chosen := _port(name, spec, port)).port}",
        namespace=namespace,
        stack=stack,
        mesh=config.mesh.on,
        caller=caller,
        service=name,
        cluster_ip=spec.get("clusterIP", ""),
        port=chosen,
        affinity=spec.get("sessionAffinity") == "ClientIP",
        pods=selected,
        endpoints=tuple(_endpoints(objects, name, chosen)),
        rules=rules,
        proxy=proxies.get(caller.name),
        servers={pod.name: proxies[pod.name] for pod in servers.values()},
        focus=focus,
        dns=dns.result(),
        balancer=balancer.result(),
        istiod_ready=istiod.result(),
        declared=declared,
        weights=config.weights.get(name, {}),
        workload=_workload(config, name),
        decided=tuple(decided),
    )


def _decided(
    kubectl: Kubectl,
    config: StackConfig,
    service: str,
    spec: Object,
    caller: Pod,
    proxy: Dump | None,
    rules: Sequence[Object],
) -> list[Finding]:
    """What the one model of routes says of this caller."""
    wanted = [one for one in routed(config) if one.name == service]
    if not wanted or proxy is None:
        return []
    found = [rule for rule in rules if (rule["kind"], rule["metadata"]["name"]) == _key(wanted[0])]
    address = spec.get("clusterIP", "")
    says = by_rule(wanted[0], found[0]["spec"], address) if found else expected(wanted[0], address=address)
    calling = Caller(caller.namespace, caller.name, caller.labels)
    if differences := judge.differences(callers.of_dump(proxy), calling, says):
        return others.findings({calling: differences}, says, others.read(kubectl, config.mesh.namespace))
    return []


def _key(service: Routed) -> tuple[str, str]:
    return service.weights.kind, service.weights.name


def proxy_of(pod: Pod, kubectl: Kubectl, namespace: str) -> envoy.Proxy:
    return envoy.Proxy(kubectl, namespace, pod.name, pod.labels, pod.admin_port)


def read_proxy(proxy: envoy.Proxy) -> Dump:
    return dump.parse(proxy.json("config_dump", include_eds="on"), proxy.json("clusters", format="json"))


def pod(item: Object) -> Pod:
    """From the object of the API."""
    metadata, spec, status = item["metadata"], item["spec"], item.get("status", {})
    init = spec.get("initContainers", [])
    return Pod(
        metadata["name"],
        status.get("podIP", ""),
        spec.get("nodeName", ""),
        metadata.get("labels", {}),
        metadata.get("annotations", {}),
        is_ready(item),
        tuple(container["name"] for container in spec["containers"]),
        tuple(container["name"] for container in init),
        metadata.get("uid", ""),
        next((c["image"] for c in (*spec["containers"], *init) if c["name"] == envoy.CONTAINER), ""),
        envoy.admin_port(item),
        metadata.get("namespace", ""),
    )


def stays(item: Object) -> bool:
    return "deletionTimestamp" not in item["metadata"] and item.get("status", {}).get("phase") not in {
        "Succeeded",
        "Failed",
    }


def _selects(selector: Mapping[str, str], pod: Pod) -> bool:
    return selector.items() <= pod.labels.items()


def caller_of(who: str, config: StackConfig, pods: list[Pod], services: Mapping[str, Object], kubectl: Kubectl) -> Pod:
    named = [pod for pod in pods if pod.name == who]
    name, _, version = who.partition("/")
    if not named and version and name not in config.services and name not in services:
        named = _elsewhere(kubectl, name, version)
    if not named:
        if name in config.services:
            selector: Mapping[str, str] = config.selector(name)
        elif name in services:
            selector = services[name]["spec"].get("selector") or {}
        else:
            raise UnknownNameError(_unknown(who, [*config.services, *services, *(pod.name for pod in pods)]))
        named = [pod for pod in pods if selector and _selects(selector, pod)]
        if version:
            versions = {pod.version for pod in named}
            named = [pod for pod in named if pod.version == version]
            if not named and versions:
                raise UnknownNameError(_unknown(who, [f"{name}/{known}" for known in sorted(versions)]))
    if not named:
        raise NoPodError(f"no pod of {who} is there to send a request; start it with `pulumi up`")
    return min(named, key=lambda pod: (not pod.ready, pod.name))


def _elsewhere(kubectl: Kubectl, namespace: str, workload: str) -> list[Pod]:
    """The pods of another namespace, by the name that Istio gives their workload, or by their own."""
    found = [pod(item) for item in kubectl.items("pods", f"--namespace={namespace}") if stays(item)]
    return [one for one in found if workload in (one.name, one.labels.get(names.INJECTED), one.labels.get("app"))]


def _target(who: str, pods: list[Pod], services: Mapping[str, Object]) -> tuple[str, str, str]:
    """Service, version or pod of it ('' for any), and port ('' for the first)."""
    who, _, port = who.partition(":")
    name, _, version = who.partition("/")
    if name in services:
        return name, version, port
    for pod in pods:
        if pod.name == who:
            for service, item in services.items():
                selector = item["spec"].get("selector")
                if selector and _selects(selector, pod):
                    return service, pod.name, port
            raise UnknownNameError(f"no Service selects the pod {who}, so no request is routed to it")
    raise UnknownNameError(_unknown(who, [*services, *(pod.name for pod in pods)]))


def _check_focus(service: str, focus: str, config: StackConfig, pods: tuple[Pod, ...]) -> None:
    """A version may be there without a pod."""
    declared = config.services[service].versions if service in config.services else ()
    versions = sorted({*declared, *(pod.version for pod in pods)} - {""})
    if focus and focus not in {*versions, *(pod.name for pod in pods)}:
        raise UnknownNameError(_unknown(f"{service}/{focus}", [f"{service}/{version}" for version in versions]))


def _unknown(name: str, known: Iterable[str]) -> str:
    names = list(dict.fromkeys(known))
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    hint = f"did you mean {close[0]}?" if close else f"there are {', '.join(names) or 'none'}"
    return f"there is no service and no pod {name}: {hint}"


def _port(service: str, spec: Object, wanted: str) -> ServicePort:
    ports = spec.get("ports") or []
    for port in ports:
        if wanted in {"", str(port["port"]), port.get("name", "")}:
            target = str(port.get("targetPort", port["port"]))
            return ServicePort(port.get("name", ""), port["port"], target, port.get("appProtocol", ""))
    known = ", ".join(f"{port['port']} ({port.get('name', '')})" for port in ports)
    raise UnknownNameError(f"{service} has no port {wanted}; it has {known or 'none'}")


def _endpoints(objects: Iterable[Object], service: str, port: ServicePort) -> Iterable[Endpoint]:
    for item in objects:
        labels = item["metadata"].get("labels", {})
        if item["kind"] != "EndpointSlice" or labels.get("kubernetes.io/service-name") != service:
            continue
        numbers = [each["port"] for each in item.get("ports") or [] if each.get("name", "") == port.name]
        for endpoint in item.get("endpoints") or []:
            for number in numbers:
                yield Endpoint(
                    endpoint.get("targetRef", {}).get("name", ""),
                    f"{endpoint['addresses'][0]}:{number}",
                    # Unset means ready. https://kubernetes.io/docs/concepts/services-networking/endpoint-slices/
                    endpoint.get("conditions", {}).get("ready") is not False,
                )


def _workload(config: StackConfig, service: str) -> str:
    kind = config.services[service].workload if service in config.services else "existing"
    return "" if kind == "existing" else kind


def _dns(kubectl: Kubectl) -> str:
    """The address of the cluster's DNS, whose Service has this name everywhere; '' where it cannot be read."""
    try:
        found = kubectl.items("service", "kube-dns", "--namespace=kube-system")
    except KubectlError:
        return ""
    return found[0]["spec"].get("clusterIP", "") if found else ""


def _balancer(kubectl: Kubectl) -> str:
    try:
        found = kubectl.items("configmaps", "--namespace=kube-system")
    except KubectlError:
        return ""
    data = {item["metadata"]["name"]: item.get("data") or {} for item in found}
    if data.get("cilium-config", {}).get("kube-proxy-replacement") in {"true", "strict"}:
        return "ebpf"
    if "kube-proxy" not in data:
        return ""
    mode = re.search(r"^\s*mode:\s*[\"']?(\w*)", "\n".join(data["kube-proxy"].values()), re.MULTILINE)
    return (mode and mode[1]) or "iptables"


def istiod_ready(kubectl: Kubectl, config: StackConfig) -> bool:
    if not config.mesh.on:
        return True
    try:
        pods = kubectl.items("pods", "--selector=app=istiod", f"--namespace={config.mesh.namespace}")
    except KubectlError:
        return True
    return any(pod(item).ready for item in pods)


def _hosts(rule: Object) -> list[str]:
    spec = rule.get("spec", {})
    return [*spec.get("hosts", []), *([spec["host"]] if "host" in spec else [])]
