"""Whether a cluster is fit for a stack, and whether the mesh in it is well: read-only, each finding with its fix.

A check is a function of a `Situation` that yields findings; CHECKS lists them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from typing import Any, Final, Literal

import names
from config import StackConfig
from config.versions import minor
from istio import kernel
from istio.charts import Chart, charts
from mesh import nodes, recover
from mesh.check import sidecars
from mesh.cluster import owners, service, versions
from mesh.cluster.istiod import Proxy, settled
from mesh.cluster.kubectl import Kubectl, KubectlError
from mesh.cluster.objects import identity, is_ready
from mesh.cluster.releases import Release, releases
from mesh.program.stack import PulumiError, Stack
from mesh.routes.look import look

Level = Literal["good", "warning", "problem"]

# Istio's minor → the oldest and the newest minor of Kubernetes that it is tested with, by each release's announcement.
# https://istio.io/latest/docs/releases/supported-releases/#support-status-of-istio-releases
KUBERNETES: Final[Mapping[int, tuple[int, int]]] = {
    17: (23, 26),
    18: (24, 27),
    19: (25, 28),
    20: (25, 29),
    21: (26, 29),
    22: (27, 30),
    23: (27, 30),
    24: (28, 31),
    25: (29, 32),
    26: (29, 33),
    27: (29, 33),
    28: (29, 34),
    29: (31, 35),
    30: (32, 36),
    31: (32, 36),
}

_SHOWN: Final = 5

# What `pulumi up` needs to make, as `kubectl auth can-i` takes it.
_NEEDED: Final = (
    "namespaces",
    "serviceaccounts",
    "secrets",
    "services",
    "deployments.apps",
)
_NEEDED_FOR_ISTIO: Final = (
    "configmaps",
    "daemonsets.apps",
    "customresourcedefinitions.apiextensions.k8s.io",
    "clusterroles.rbac.authorization.k8s.io",
    "clusterrolebindings.rbac.authorization.k8s.io",
    "mutatingwebhookconfigurations.admissionregistration.k8s.io",
    "validatingwebhookconfigurations.admissionregistration.k8s.io",
)


@dataclass(frozen=True)
class Finding:
    """`fix` is '' where there is nothing to do."""

    level: Level
    what: str
    fix: str = ""


@dataclass(frozen=True)
class Situation:
    """The stack and its cluster, with what several checks read, each read once."""

    stack: Stack
    config: StackConfig
    kubectl: Kubectl

    @property
    def managed(self) -> bool:
        return self.config.mesh.mode == "managed"

    @cached_property
    def releases(self) -> list[Release]:
        return releases(self.kubectl, self.config.mesh.namespace)

    @cached_property
    def versions(self) -> versions.Versions:
        return versions.read(self.kubectl)

    @cached_property
    def known(self) -> Collection[tuple[str, str]] | None:
        """Namespace and name of the Helm releases in the stack's state; None when that cannot be read."""
        try:
            return recover.installed(self.state).keys()
        except PulumiError:
            return None

    @cached_property
    def state(self) -> Mapping[str, Any]:
        """Raises `PulumiError`."""
        return recover.export(self.stack)

    @cached_property
    def installed(self) -> bool:
        """Whether a release of ours has an istiod in the cluster."""
        return any(
            names.is_release(release.name)
            and release.status == "deployed"
            and self._knows(release.namespace, release.name)
            for release in self.releases
        )

    def ours(self, item: Mapping[str, Any]) -> bool:
        """Whether an object belongs to one of this mesh's Helm releases."""
        return owners.is_in_mesh(item, self.config.mesh.namespace) and self._knows(*owners.release_of(item))

    def _knows(self, namespace: str, name: str) -> bool:
        return self.known is None or (namespace, name) in self.known


Check = Callable[[Situation], Iterator[Finding]]


def kubernetes_version(situation: Situation) -> Iterator[Finding]:
    """The only check that must succeed: it raises `KubectlError` when the cluster cannot be reached."""
    server = situation.kubectl.json("version", "--request-timeout=5s", timeout=10)["serverVersion"]
    yield Finding("good", f"the cluster can be reached; it is Kubernetes {server['gitVersion']}")
    if not situation.managed:
        return
    has = int("".join(filter(str.isdigit, server["minor"])))
    for plane in situation.config.mesh.control_planes.values():
        _, wanted = minor(plane.version)
        oldest, newest = KUBERNETES[wanted]
        tested = f"Istio {plane.version} is tested with Kubernetes 1.{oldest} to 1.{newest}"
        if has < oldest:
            yield Finding("problem", f"{tested}, and this is older", "upgrade the cluster, or choose an older Istio")
        elif has > newest:
            yield Finding("warning", f"{tested}, and this is newer", "choose a newer mesh.version")


def permissions(situation: Situation) -> Iterator[Finding]:
    allowed = situation.kubectl.run("auth", "can-i", "--list", "--no-headers", timeout=20)
    if any(line.split()[0] == "*.*" and "*" in line for line in allowed.splitlines() if line.strip()):
        yield Finding("good", "you may make everything that the stack consists of")
        return
    needed = (*_NEEDED, *(_NEEDED_FOR_ISTIO if situation.managed else ()))
    denied = [kind for kind in needed if not _can_create(situation.kubectl, kind)]
    for kind in denied:
        yield Finding("problem", f"you may not create {kind}", "ask the cluster's owner for it (kubectl auth can-i)")
    if not denied:
        yield Finding("good", "you may make everything that the stack consists of")


def another_istio(situation: Situation) -> Iterator[Finding]:
    """Control planes, webhooks and CRDs that no release of this mesh made."""
    if not situation.managed:
        return
    kinds = "deployments.apps,mutatingwebhookconfigurations,validatingwebhookconfigurations,customresourcedefinitions"
    foreign: dict[str, list[str]] = {}
    for item in situation.kubectl.items(kinds, "--all-namespaces", timeout=60):
        if owners.is_istio(item) and not situation.ours(item):
            foreign.setdefault(item["kind"], []).append(item["metadata"]["name"])
    for istiod in foreign.get("Deployment", ()):
        yield Finding(
            "problem",
            f"another Istio is there: {istiod}",
            "set mesh.mode to existing to use it, or uninstall it first (istioctl uninstall --purge)",
        )
    for kind in ("MutatingWebhookConfiguration", "ValidatingWebhookConfiguration"):
        for name in foreign.get(kind, ()) if "Deployment" not in foreign else ():
            yield Finding("problem", f"{kind} {name} is left over from another Istio", f"kubectl delete {kind} {name}")
    if (crds := foreign.get("CustomResourceDefinition")) and "Deployment" not in foreign:
        yield Finding(
            "problem" if situation.config.mesh.purge else "warning",
            f"{len(crds)} CRDs of Istio are there that no release of this stack made, such as {crds[0]}",
            f"if nothing needs them: kubectl delete crd {' '.join(crds)}",
        )
    if not foreign:
        yield Finding("good", "no other Istio in the cluster, and nothing left over from one")


def interrupted(situation: Situation) -> Iterator[Finding]:
    """Pending operations of Helm and Pulumi, and the lock."""
    try:
        workers = recover.workers(situation.stack)
        found = recover.look(situation.stack, situation.kubectl, situation.config.mesh, situation.state)
    except PulumiError as error:
        yield Finding("warning", f"the stack's state cannot be read: {str(error).splitlines()[-1]}", "pulumi login")
        return
    if workers:
        yield Finding("warning", f"somebody is at work on the stack: {', '.join(workers.values())}", "wait until done")
        return
    for left in found:
        yield Finding("problem", f"a killed command left behind {left}", f"mesh recover --stack {situation.stack.name}")
    for other in found.others:
        yield Finding(
            "problem",
            f"{other} has the name of one of this stack's, and is not this stack's",
            "mesh adopt takes over what nobody manages; or choose another mesh.namespace, or set mesh.mode to existing",
        )
    if not found:
        yield Finding("good", "no unfinished operation of Pulumi or Helm")


def node_modules(situation: Situation) -> Iterator[Finding]:
    missing, _ = nodes.missing_modules(situation.kubectl, kernel.modules(situation.config))
    for node in missing:
        yield Finding(
            "problem" if node.certain else "warning",
            f"node {node.node} lacks the kernel modules {', '.join(node.modules)}",
            sidecars.PREPARE,
        )
    if not missing:
        yield Finding("good", "no sign of a node that lacks kernel modules")


def sidecars_start(situation: Situation) -> Iterator[Finding]:
    """Pods of the mesh whose sidecar or init container does not start, and nodes that have too many proxies."""
    if not situation.config.mesh.on:
        return
    kubectl, namespace = situation.kubectl, situation.config.namespace.name
    everywhere = kubectl.items("pods", "--all-namespaces", timeout=60)
    pods = [pod for pod in everywhere if situation.managed or pod["metadata"]["namespace"] == namespace]
    where = "--all-namespaces" if situation.managed else f"--namespace={namespace}"
    events = kubectl.items("events", where, "--field-selector=type=Warning")
    found = [
        *sidecars.troubles(kubectl, pods, events, datetime.now(UTC)),
        *(node.trouble for node in sidecars.crowded(kubectl, everywhere)),
    ]
    for trouble in found:
        yield Finding(trouble.level, trouble.what, trouble.fix)
    if not found:
        yield Finding("good", "no sidecar or init container that cannot start")


def ports(situation: Situation) -> Iterator[Finding]:
    """Ports of the nodes that the gateways ask for and somebody else has."""
    if not situation.managed:
        return
    gateways = [chart for chart in charts(situation.config.mesh) if chart.key in ("ingress", "egress")]
    yield from _node_ports(situation, gateways)
    yield from _host_ports(situation, gateways)


def _node_ports(situation: Situation, gateways: Sequence[Chart]) -> Iterator[Finding]:
    wanted = [(number, chart) for chart in gateways for number in _node_ports_of(chart.values.get("service", {}))]
    taken = {
        number: f"the Service {_named(service)}"
        for service in (situation.kubectl.items("services", "--all-namespaces") if wanted else ())
        for number in (() if situation.ours(service) else _node_ports_of(service["spec"]))
    }
    for number, chart in wanted:
        if number in taken:
            what = f"node port {number} of mesh.values.{chart.key} is taken by {taken[number]}"
            yield Finding("problem", what, "choose another one, or none")
        taken[number] = f"mesh.values.{chart.key}, too"


def _node_ports_of(service: Mapping[str, Any]) -> list[int]:
    """Those of a Service's spec, or of a chart's values for one."""
    asked = [*(port.get("nodePort") for port in service.get("ports", ())), service.get("healthCheckNodePort")]
    return [number for number in asked if number]


def _host_ports(situation: Situation, gateways: Sequence[Chart]) -> Iterator[Finding]:
    """k3s opens each port of a Service of type LoadBalancer on its nodes, and each such port only once.

    https://docs.k3s.io/networking/networking-services#how-servicelb-works
    """
    nodes = situation.kubectl.items("nodes")
    balanced = any("+k3s" in node["status"].get("nodeInfo", {}).get("kubeletVersion", "") for node in nodes)
    wanted = [
        (port["port"], chart)
        for chart in gateways
        for port in chart.values.get("service", {}).get("ports", ())
        if balanced and chart.values["service"].get("type") == "LoadBalancer"
    ]
    taken: dict[int, dict[str, str]] = {}
    for pod in situation.kubectl.items("pods", "--all-namespaces") if wanted else ():
        if names.is_release(pod["metadata"].get("labels", {}).get("svccontroller.k3s.cattle.io/svcname", "")):
            continue
        for container in pod["spec"]["containers"]:
            for port in container.get("ports", ()):
                if number := port.get("hostPort"):
                    taken.setdefault(number, {})[pod["spec"].get("nodeName", "")] = _named(pod)
    for number, chart in wanted:
        if on := taken.get(number):
            everywhere = {node["metadata"]["name"] for node in nodes} <= on.keys()
            yield Finding(
                "problem" if everywhere else "warning",
                f"port {number} of {chart.release} is taken on {', '.join(sorted(on))} by the pod {min(on.values())}",
                f"another port in mesh.values.{chart.key}.service.ports, or take the other one away "
                "(k3s's own Traefik: k3s server --disable=traefik)",
            )


def cni_agents(situation: Situation) -> Iterator[Finding]:
    """Where no agent is ready no pod with a sidecar starts: the agent sets up its network.

    https://istio.io/latest/docs/setup/additional-setup/cni/#race-condition--mitigation
    """
    agent = situation.versions.cni
    if agent is None or not situation.config.mesh.on or not situation.config.mesh.cni:
        return
    where = f"--namespace={agent.namespace}"
    pods = {
        pod["spec"].get("nodeName", ""): pod
        for pod in situation.kubectl.items("pods", where, "--selector=k8s-app=istio-cni-node")
        if "deletionTimestamp" not in pod["metadata"]
    }
    lacking = 0
    for node in situation.kubectl.items("nodes"):
        name, pod = node["metadata"]["name"], pods.get(node["metadata"]["name"])
        if not _runs_daemons(node) or (pod and is_ready(pod)):
            continue
        lacking += 1
        what = f"{agent.name} is not ready on the node {name}" if pod else f"{agent.name} has no pod on the node {name}"
        object_ = f"pod {pod['metadata']['name']}" if pod else f"daemonset {agent.name}"
        fix = f"kubectl -n {agent.namespace} describe {object_}; until then no pod with a sidecar starts there"
        yield Finding("problem", what, fix)
    if not lacking:
        yield Finding("good", f"{agent.name} is ready on every node")


def _runs_daemons(node: Mapping[str, Any]) -> bool:
    """Neither Windows nor one that is no machine, such as Fargate's."""
    labels = node["metadata"].get("labels", {})
    return bool(
        labels.get("kubernetes.io/os", "linux") == "linux"
        and labels.get("type") != "virtual-kubelet"
        and labels.get("eks.amazonaws.com/compute-type") != "fargate"
    )


def proxies(situation: Situation) -> Iterator[Finding]:
    """Whether each proxy is connected to an istiod, and has taken what that sent it."""
    if not situation.config.mesh.on:
        return
    try:
        found = settled(situation.kubectl)
    except (KubectlError, ValueError) as error:
        what = f"istiod cannot be asked which proxies are in sync: {str(error).splitlines()[-1]}"
        yield Finding("warning", what, "it takes the right to create pods/portforward in istiod's namespace")
        return
    if not situation.managed:  # the others are not this stack's
        found = [proxy for proxy in found if proxy.namespace == situation.config.namespace.name]
    absent = [proxy for proxy in found if not proxy.connected]
    if absent:
        first = absent[0]
        yield Finding(
            "problem",
            f"{_counted(absent)} not connected to istiod: {_listed(absent)}",
            f"kubectl -n {first.namespace} logs {first.pod} -c istio-proxy says why; a new pod connects anew: "
            f"kubectl -n {first.namespace} delete pod {first.pod}",
        )
    for proxy in (proxy for proxy in found if proxy.stale):
        said = f" Envoy says: {' '.join(proxy.error.split())[:300]}" if proxy.error else ""
        yield Finding(
            "problem",
            f"{proxy.namespace}/{proxy.pod} has not taken istiod's latest {', '.join(proxy.stale)}.{said}",
            "take back the rule that Envoy refuses: istioctl analyze --all-namespaces"
            if proxy.error
            else f"mesh check again; if it stays, a new pod: kubectl -n {proxy.namespace} delete pod {proxy.pod}",
        )
    if found and all(proxy.in_sync for proxy in found):
        yield Finding("good", f"{_counted(found)} in sync with istiod")


def callers(situation: Situation) -> Iterator[Finding]:
    """Whether every caller treats requests to the stack's services as their rules say."""
    if not situation.config.weights:
        return
    try:
        rules = service.look(situation.config, situation.kubectl)
        found = look(situation.config, situation.kubectl, situation.config.weights, rules)
    except KubectlError as error:
        said = str(error).splitlines()[-1]
        yield Finding("warning", f"what the callers' proxies do cannot be read: {said}", "mesh status says it, too")
        return
    if not any(one.rule for one in found.values()):
        return  # nothing is applied yet
    for name, one in found.items():
        yield from (Finding("problem", f"{name}: {finding}", finding.fix) for finding in one.findings)
    if not any(one.findings for one in found.values()):
        proxies = {caller for one in found.values() for caller in one.callers}
        names = ", ".join(found)
        yield Finding("good", f"{len(proxies)} callers treat requests to {names} as declared")


def statistics(situation: Situation) -> Iterator[Finding]:
    """Whether a gate that asks Prometheus would be told of requests at all.

    https://istio.io/latest/docs/reference/config/telemetry/#MetricsOverrides
    """
    if not situation.config.mesh.prometheus or not situation.config.weights:
        return
    try:
        found = situation.kubectl.items("telemetries.telemetry.istio.io", "--all-namespaces")
    except KubectlError:
        return  # then Prometheus itself has to tell
    for item in found:
        taken = [
            override.get("match", {}).get("metric", "ALL_METRICS")
            for metrics in item.get("spec", {}).get("metrics", ())
            for override in metrics.get("overrides", ())
            if override.get("disabled") and override.get("match", {}).get("mode") != "SERVER"
        ]
        if {"ALL_METRICS", "REQUEST_COUNT", "REQUEST_DURATION"} & {*taken}:
            where = item["metadata"]["namespace"]
            whom = "all callers" if where == situation.config.mesh.namespace else f"callers in {where}"
            yield Finding(
                "problem",
                f"{identity(item)} takes {', '.join(taken)} away from {whom}: a gate with mesh.prometheus does not see "
                "their requests",
                "take the override out of it, with its owner; or unset mesh.prometheus, and the proxies are asked",
            )


def _counted(found: Sequence[Proxy]) -> str:
    return "1 proxy is" if len(found) == 1 else f"{len(found)} proxies are"


def _listed(found: Sequence[Proxy]) -> str:
    shown = ", ".join(f"{proxy.namespace}/{proxy.pod}" for proxy in found[:_SHOWN])
    return shown + (f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else "")


def control_plane(situation: Situation) -> Iterator[Finding]:
    """After the installation: whether everything is ready and of the declared version."""
    if not situation.managed or not situation.installed:
        return
    found, namespace = situation.versions, situation.config.mesh.namespace
    declared = {revision: plane.version for revision, plane in situation.config.mesh.control_planes.items()}
    described = f"kubectl -n {namespace} describe deployment"
    for plane in found.control_planes:
        if plane.ready < max(plane.replicas, 1):
            what = f"istiod of revision {plane.revision}: {plane.ready} of {plane.replicas} ready"
            yield Finding("problem", what, f"mesh drift; {described} -l app=istiod")
    for agent in found.gateways:
        if agent.ready < agent.wanted:
            what = f"{agent.name}: {agent.ready} of {agent.wanted} ready"
            yield Finding("problem", what, f"kubectl -n {agent.namespace} get pods, and look at the one not ready")
    for group in found.proxies:
        if group.version != declared.get(group.revision, group.version):
            where = ", ".join(group.namespaces)
            yield Finding(
                "warning",
                f"{group.count} sidecars of revision {group.revision} are {group.version} ({where})",
                f"restart their pods: kubectl -n {next(iter(group.namespaces))} rollout restart deployment",
            )
    for plane in found.control_planes:
        if plane.version != declared.get(plane.revision, plane.version):
            what = f"istiod of revision {plane.revision} is {plane.version}, declared is {declared[plane.revision]}"
            yield Finding("warning", what, "pulumi up")


CHECKS: Final[Sequence[Check]] = (
    kubernetes_version,
    permissions,
    interrupted,
    another_istio,
    node_modules,
    sidecars_start,
    ports,
    control_plane,
    cni_agents,
    proxies,
    callers,
    statistics,
)


def _can_create(kubectl: Kubectl, kind: str) -> bool:
    try:
        kubectl.run("auth", "can-i", "create", kind, "--all-namespaces", "--quiet", timeout=20)
    except KubectlError:  # as kubectl says no
        return False
    return True


def _named(item: Mapping[str, Any]) -> str:
    return f"{item['metadata']['namespace']}/{item['metadata']['name']}"
