"""Whether a cluster is fit for a stack, and whether the mesh in it is well: read-only, each finding with its fix.

A check is a function of a `Situation` that yields findings; CHECKS lists them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final, Literal

import names
from config import StackConfig
from config.versions import minor
from istio import kernel
from mesh import nodes, recover, versions
from mesh.kubectl import Kubectl, KubectlError
from mesh.pulumi import PulumiError, Stack
from mesh.releases import Release, releases

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
    28: (30, 34),
    29: (31, 35),
    30: (32, 36),
    31: (32, 36),
}

# What `pulumi up` needs to make, as `kubectl auth can-i` takes it.
_NEEDED: Final = (
    "namespaces",
    "serviceaccounts",
    "configmaps",
    "secrets",
    "services",
    "deployments.apps",
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
    def installed(self) -> bool:
        """Whether a release of ours has an istiod in the cluster."""
        return any(names.is_release(release.name) and release.status == "deployed" for release in self.releases)

    def ours(self, item: Mapping[str, Any]) -> bool:
        """Whether an object belongs to one of this mesh's Helm releases."""
        annotations = item["metadata"].get("annotations", {})
        return names.is_release(annotations.get("meta.helm.sh/release-name", "")) and (
            annotations.get("meta.helm.sh/release-namespace") == self.config.mesh.namespace
        )


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
    denied = [kind for kind in _NEEDED if not _can_create(situation.kubectl, kind)]
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
        if _is_istio(item) and not situation.ours(item):
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
        found = recover.look(situation.stack, situation.kubectl, situation.config.mesh.namespace)
    except PulumiError as error:
        yield Finding("warning", f"the stack's state cannot be read: {str(error).splitlines()[-1]}", "pulumi login")
        return
    if workers:
        yield Finding("warning", f"somebody is at work on the stack: {', '.join(workers.values())}", "wait until done")
        return
    for left in found:
        yield Finding("problem", f"a killed command left behind {left}", f"mesh recover --stack {situation.stack.name}")
    if not found:
        yield Finding("good", "no unfinished operation of Pulumi or Helm")


def node_modules(situation: Situation) -> Iterator[Finding]:
    """What a sidecar's init container or the CNI plugin says on a node without the modules."""
    events = situation.kubectl.items("events", "--all-namespaces", "--field-selector=type=Warning")
    signs = ("unable to initialize table", "can't initialize iptables table", "iptables-restore")
    pods = {
        f"{event['involvedObject'].get('namespace')}/{event['involvedObject'].get('name')}"
        for event in events
        if any(sign in event.get("message", "") for sign in signs)
    }
    for pod in sorted(pods):
        yield Finding(
            "problem",
            f"pod {pod} does not start, because its node lacks kernel modules for iptables",
            "prepare the nodes: set nodes.mode to ssh or daemonset",
        )
    missing, _ = nodes.missing_modules(situation.kubectl, kernel.modules(situation.config))
    for node in missing:
        yield Finding(
            "problem" if node.certain else "warning",
            f"node {node.node} lacks the kernel modules {', '.join(node.modules)}",
            "prepare the nodes: set nodes.mode to ssh or daemonset",
        )
    if not pods and not missing:
        yield Finding("good", "no sign of a node that lacks kernel modules")


def ports(situation: Situation) -> Iterator[Finding]:
    """Node ports that the gateways ask for and somebody else has."""
    wanted = {
        port["nodePort"]: key
        for key in ("ingress", "egress")
        for port in _gateway_ports(situation.config.mesh.values.get(key, {}))
        if port.get("nodePort")
    }
    for service in situation.kubectl.items("services", "--all-namespaces") if wanted else ():
        for port in service["spec"].get("ports", ()):
            if port.get("nodePort") in wanted and not situation.ours(service):
                where = f"{service['metadata']['namespace']}/{service['metadata']['name']}"
                key = wanted[port["nodePort"]]
                yield Finding(
                    "problem",
                    f"node port {port['nodePort']} of mesh.values.{key} is taken by the Service {where}",
                    "choose another one, or none",
                )


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
    for agent in (*found.gateways, *([found.cni] if found.cni else [])):
        if agent.ready < agent.wanted:
            what = f"{agent.name}: {agent.ready} of {agent.wanted} ready"
            yield Finding("problem", what, f"kubectl -n {agent.namespace} get pods, and look at the one not ready")
    for proxies in found.proxies:
        if proxies.version != declared.get(proxies.revision, proxies.version):
            where = ", ".join(proxies.namespaces)
            yield Finding(
                "warning",
                f"{proxies.count} sidecars of revision {proxies.revision} are {proxies.version} ({where})",
                f"restart their pods: kubectl -n {next(iter(proxies.namespaces))} rollout restart deployment",
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
    ports,
    control_plane,
)


def _can_create(kubectl: Kubectl, kind: str) -> bool:
    try:
        kubectl.run("auth", "can-i", "create", kind, "--all-namespaces", "--quiet", timeout=20)
    except KubectlError:  # as kubectl says no
        return False
    return True


def _is_istio(item: Mapping[str, Any]) -> bool:
    if item["kind"] == "CustomResourceDefinition":
        return str(item["spec"]["group"]).endswith(".istio.io")
    if item["kind"] == "Deployment":
        return bool(item["metadata"].get("labels", {}).get("app") == "istiod")
    return any(
        webhook["name"].endswith(".istio.io") and "istiod" in str(webhook.get("clientConfig"))
        for webhook in item.get("webhooks", ())
    )


def _gateway_ports(values: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    found: Sequence[Mapping[str, Any]] = values.get("service", {}).get("ports", ())
    return found
