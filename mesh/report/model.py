"""What a state declares, service by service, and of the mesh: what the report compares to say what a change means."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import names
from config.services import traffic
from mesh.program.recorder import Resource
from mesh.report.changes import component, subject
from mesh.report.states import State

WORKLOADS = ("Deployment", "StatefulSet", "DaemonSet")

Protocol = Literal["HTTP", "HTTP/1.1", "HTTP/2", "TCP", "TLS", "UDP"]
"""What the proxies take a port for; `HTTP`: they look at each connection first."""


@dataclass(frozen=True)
class Port:
    """One port of a Service."""

    name: str
    number: int
    target: Any
    app_protocol: str | None

    @property
    def protocol(self) -> Protocol:
        """https://istio.io/latest/docs/ops/configuration/traffic-management/protocol-selection/"""
        called = (self.app_protocol or self.name).lower().removeprefix("kubernetes.io/")
        word = "grpc-web" if called.startswith("grpc-web") else called.split("-")[0]
        match traffic(self.name, self.number, self.app_protocol):
            case "tcp":
                return "TCP"
            case "":
                return "UDP" if word == "udp" else "TLS"
        if word in ("http2", "grpc", "h2c"):
            return "HTTP/2"
        return "HTTP/1.1" if word in ("http", "grpc-web", "ws") else "HTTP"


@dataclass(frozen=True)
class Route:
    """One rule of a VirtualService: `what` is split by `shares` (version → percent), `whose` says which of them."""

    name: str
    what: Literal["requests", "connections"]
    whose: str
    shares: Mapping[str, int]
    spec: Mapping[str, Any]


@dataclass(frozen=True)
class Service:
    """One service; `mtls` is '' where the mesh decides. `rules` is the spec of its VirtualService, `policy` the traffic
    policy of its base DestinationRule, `gateway` the spec of its own Gateway; {} where there is none."""

    name: str
    ports: Mapping[str, Port] = field(default_factory=dict)
    workloads: Mapping[str, Resource] = field(default_factory=dict)
    rules: Mapping[str, Any] = field(default_factory=dict)
    policy: Mapping[str, Any] = field(default_factory=dict)
    gateway: Mapping[str, Any] = field(default_factory=dict)
    mtls: str = ""

    @property
    def routes(self) -> list[Route]:
        return routes(self.name, self.rules)

    @property
    def outside(self) -> tuple[str, ...]:
        """The names that it is called by from outside the cluster."""
        return tuple(host for host in self.rules.get("hosts", ()) if host != self.name)

    @property
    def has_sidecars(self) -> bool:
        return all(has_sidecar(one.inputs) for one in self.workloads.values())


@dataclass(frozen=True)
class Mesh:
    """`releases` are the inputs of the Helm releases by name; `purge`: with the mesh go the CRDs."""

    mode: Literal["managed", "existing", "off"]
    releases: Mapping[str, Mapping[str, Any]]
    namespace: str
    purge: bool

    @property
    def planes(self) -> dict[str, Mapping[str, Any]]:
        """Revision → the inputs of its istiod."""
        istiod = names.RELEASES["istiod"]
        return {
            name.removeprefix(istiod).removeprefix("-") or "default": inputs
            for name, inputs in self.releases.items()
            if name == istiod or name.startswith(f"{istiod}-")
        }

    @property
    def default_revision(self) -> str:
        """The one that checks the rules."""
        values = self.releases.get(names.RELEASES["base"], {}).get("values", {})
        return str(values.get("defaultRevision", "default"))

    @property
    def profile(self) -> str:
        """As the charts see it: what is not demo is told apart by its gateway alone."""
        values: Mapping[str, Any] = next(iter(self.planes.values()), {}).get("values", {})
        small = values.get("traceSampling", values.get("pilot", {}).get("traceSampling")) == 100
        if values.get("profile") == "demo" or (small and "autoscaleEnabled" in {**values, **values.get("pilot", {})}):
            return "demo"
        return "default" if names.RELEASES["ingress"] in self.releases else "minimal"

    @property
    def encrypts(self) -> bool:
        """Whether proxies use mutual TLS where both sides can, without being told."""
        return all(
            plane.get("values", {}).get("meshConfig", {}).get("enableAutoMtls", True) for plane in self.planes.values()
        )


def services(state: State) -> dict[str, Service]:
    """Those that have pods, ports or rules in it, by name."""
    found: dict[str, dict[str, Any]] = {}
    for one in _of(state, "Workload", "Routing"):
        fields = found.setdefault(subject(one), {"workloads": {}})
        spec = one.inputs.get("spec", {})
        match one.kind:
            case "Service":
                fields["ports"] = {port["name"]: _port(port) for port in spec.get("ports", ())}
            case "VirtualService":
                fields["rules"] = spec
            case "DestinationRule" if "subsets" not in spec:
                fields["policy"] = spec.get("trafficPolicy", {})
            case "PeerAuthentication":
                fields["mtls"] = spec.get("mtls", {}).get("mode", "")
            case "Gateway":
                fields["gateway"] = spec
            case kind if kind in WORKLOADS:
                fields["workloads"][version(one.inputs)] = one
    return {name: Service(name, **fields) for name, fields in found.items()}


def mesh(state: State) -> Mesh:
    releases = {one.name: one.inputs for one in _of(state, "Istio") if one.kind == "Release"}
    meshed = any(
        one.rules or any(has_sidecar(pods.inputs) for pods in one.workloads.values())
        for one in services(state).values()
    )
    purge = any(one.inputs.get("environment", {}).get("MESH_PURGE") == "true" for one in _of(state, "Purge"))
    namespace = next((str(inputs.get("namespace", "")) for inputs in releases.values()), "istio-system")
    return Mesh("managed" if releases else "existing" if meshed else "off", releases, namespace, purge)


def routes(service: str, rules: Mapping[str, Any]) -> list[Route]:
    """Those of a VirtualService of ours that split anything, in their order."""
    found = []
    for number, route in enumerate(rules.get("http", ())):
        if route.get("route"):
            name = str(route.get("name", number))
            found.append(Route(name, "requests", _whose(service, name), _shares(route), route))
    for route in rules.get("tcp", ()):
        ports = [str(match["port"]) for match in route.get("match", ()) if "port" in match]
        name = f"port {', '.join(ports)}" if ports else "tcp"
        found.append(Route(name, "connections", f" to {name}" if ports else "", _shares(route), route))
    return found


def match_name(service: str, route: str) -> str:
    """What the configuration calls the match of a route; '' is the rule for all others."""
    match = route.removesuffix("-ingress").removeprefix(f"{service}-")
    return "" if match == "route" else match


def _whose(service: str, route: str) -> str:
    match = match_name(service, route)
    return (" from outside" if route.endswith("-ingress") else "") + (f" that match {match}" if match else "")


def _shares(route: Mapping[str, Any]) -> dict[str, int]:
    destinations = route["route"]
    return {
        str(one["destination"].get("subset") or one["destination"]["host"]): one.get(
            "weight", 100 if len(destinations) == 1 else 0
        )
        for one in destinations
    }


def _port(port: Mapping[str, Any]) -> Port:
    return Port(port["name"], port["port"], port.get("targetPort", port["port"]), port.get("appProtocol"))


def version(inputs: Mapping[str, Any]) -> str:
    """The version that a workload runs, by its pods' label."""
    labels = inputs.get("spec", {}).get("template", {}).get("metadata", {}).get("labels", {})
    return str(labels.get("version", inputs.get("metadata", {}).get("name", "")))


def template(workload: Resource) -> Mapping[str, Any]:
    """That of its pods."""
    found: Mapping[str, Any] = workload.inputs.get("spec", {}).get("template", {})
    return found


def has_sidecar(workload: Mapping[str, Any]) -> bool:
    """https://istio.io/latest/docs/setup/additional-setup/sidecar-injection/#controlling-the-injection-policy"""
    pod = workload.get("spec", {}).get("template", {}).get("metadata", {})
    said = {**pod.get("annotations", {}), **pod.get("labels", {})}.get("sidecar.istio.io/inject", "true")
    return names.SIDECAR in pod.get("annotations", {}) and str(said).lower() != "false"


def mesh_version(inputs: Mapping[str, Any]) -> str:
    """A chart in a folder has no version; the images have one in any case, where the chart has images."""
    return str(inputs.get("version") or inputs.get("values", {}).get("global", {}).get("tag", ""))


def namespaces(state: State) -> dict[str, Resource]:
    """Those of the workloads: what this stack makes or labels, by name."""
    return {one.name: one for one in _of(state, "WorkloadNamespace")}


def denies(state: State) -> bool:
    """Whether its NetworkPolicies let nothing through but what is declared."""
    return any(one.name == names.DEFAULT_DENY for one in _of(state, "NetworkPolicies"))


def outside_hosts(state: State) -> dict[str, tuple[str, int]]:
    """Host outside the mesh → protocol and port by which it is called."""
    entries = [one for one in _of(state, "Egress") if one.kind == "ServiceEntry"]
    found = ((subject(one), one.inputs["spec"].get("ports", ())) for one in entries)
    return {host: (ports[0]["protocol"], ports[0]["number"]) for host, ports in found if ports}


def proxies(state: State) -> dict[str, str]:
    """Workload or gateway → what its proxies are like."""
    pods = {
        f"{name} {version}": template(one).get("metadata", {}).get("annotations", {})
        for name, service in services(state).items()
        for version, one in service.workloads.items()
    }
    gateways = {name: one.get("values", {}).get("podAnnotations", {}) for name, one in mesh(state).releases.items()}
    found = {**pods, **gateways}
    return {
        name: str(annotations[names.SIDECAR]) for name, annotations in found.items() if names.SIDECAR in annotations
    }


def outside_addresses(state: State) -> dict[str, tuple[str, ...]]:
    """Host outside the mesh → its addresses, () where DNS is asked."""
    entries = [one for one in _of(state, "Egress") if one.kind == "ServiceEntry"]
    return {subject(one): tuple(end["address"] for end in one.inputs["spec"].get("endpoints", ())) for one in entries}


def rebooted(state: State) -> dict[str, Any]:
    """Host that may be rebooted → what for."""
    prefix = "restart-"
    return {one.name.removeprefix(prefix): one.inputs for one in _of(state, "NodePrep") if one.name.startswith(prefix)}


def _of(state: State, *components: str) -> Iterator[Resource]:
    return (one for one in state.resources.values() if component(one) in components)
