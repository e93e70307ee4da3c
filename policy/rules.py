"""The rules, as functions of proposed resources.

A rule of a resource runs before that resource changes, so it can stop an `up` in time; a rule of the whole stack needs
all resources and runs after the preview.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from names import is_production

SUBSET_RULE, ROUTE_RULE = "DestinationRule", "VirtualService"
PREPARATION = "istio-governance:nodes:NodePrep"
"""The one component whose pods may change the node."""


@dataclass(frozen=True)
class Proposed:
    """One resource as the engine would make it; `properties` are its inputs."""

    urn: str
    type: str
    name: str
    properties: Mapping[str, Any]

    @property
    def kind(self) -> str:
        return self.type.rpartition(":")[2] if self.type.startswith("kubernetes:") else ""

    @property
    def stack(self) -> str:
        """`urn:pulumi:<stack>::<project>::<types>::<name>`"""
        return self.urn.split(":")[2]

    @property
    def namespace(self) -> str:
        return str(_at(self.properties, "metadata", "namespace") or "default")

    @property
    def spec(self) -> Mapping[str, Any]:
        return _map(self.properties, "spec")

    @property
    def pod(self) -> Mapping[str, Any]:
        """The pod template of a workload, {} of anything else."""
        return _map(self.spec, "template")


@dataclass(frozen=True)
class Finding:
    """What is wrong with `resource`, and the fix."""

    resource: Proposed
    message: str


@dataclass(frozen=True)
class Rule:
    """`everywhere`: mandatory in every environment; else in production alone, and advice elsewhere."""

    name: str
    description: str
    check: Callable[[Sequence[Proposed]], Iterator[Finding]]
    everywhere: bool = True
    needs_stack: bool = False

    def is_mandatory(self, stack: str) -> bool:
        return self.everywhere or is_production(stack)


@dataclass(frozen=True)
class Verdict:
    """A finding of `rule`; `mandatory` ones stop a deployment."""

    rule: str
    mandatory: bool
    finding: Finding


def verdicts(resources: Sequence[Proposed], rules: Iterable[Rule] | None = None) -> list[Verdict]:
    """What all rules find, mandatory findings first."""
    found = [
        Verdict(rule.name, rule.is_mandatory(finding.resource.stack), finding)
        for rule in (RULES if rules is None else rules)
        for finding in rule.check(resources)
    ]
    return sorted(found, key=lambda verdict: not verdict.mandatory)


def weights_add_up(resources: Sequence[Proposed]) -> Iterator[Finding]:
    """https://istio.io/latest/docs/reference/config/networking/virtual-service/#HTTPRouteDestination"""
    for rule in _of_kind(resources, ROUTE_RULE):
        for route in _routes(rule):
            weights = [destination.get("weight", 0) for destination in route]
            if len(route) > 1 and (sum(weights) != 100 or min(weights) < 0):
                yield Finding(
                    rule,
                    f"the weights {weights} of a route do not add up to 100: set them together in routing.*.weights",
                )


def subsets_have_pods(resources: Sequence[Proposed]) -> Iterator[Finding]:
    """Requests to a subset that no rule declares, or that selects no pod, fail with 503."""
    workloads = [resource for resource in resources if resource.pod]
    for rule in _of_kind(resources, ROUTE_RULE):
        for destination in (destination for route in _routes(rule) for destination in route):
            host, subset = _at(destination, "destination", "host"), _at(destination, "destination", "subset")
            if subset is None or destination.get("weight", 100) == 0:
                continue
            labels = _subset_labels(resources, rule.namespace, host, subset)
            if labels is None:
                yield Finding(rule, f"no DestinationRule declares the subset {subset} of {host}: add the version")
                continue
            service = [r for r in _of_kind(resources, "Service") if (r.name, r.namespace) == (host, rule.namespace)]
            if not service:
                continue  # somebody else's pods, which are not among the proposed resources
            wanted = {**_map(service[0].spec, "selector"), **labels}
            pods = [w for w in workloads if wanted.items() <= _map(w.pod, "metadata", "labels").items()]
            if not any(workload.spec.get("replicas") != 0 for workload in pods):
                yield Finding(rule, f"the subset {subset} of {host} gets requests but has no pods: give it replicas")


def images_are_pinned(resources: Sequence[Proposed]) -> Iterator[Finding]:
    """https://kubernetes.io/docs/concepts/containers/images/#image-names"""
    for workload, container in _containers(resources):
        image = str(container.get("image", ""))
        tag = image.rpartition("/")[2].partition(":")[2]
        if "@" not in image and tag in ("", "latest"):
            yield Finding(workload, f"the image {image} may be another one tomorrow: give it a tag or a digest")


def resources_are_set(resources: Sequence[Proposed]) -> Iterator[Finding]:
    """https://kubernetes.io/docs/concepts/configuration/manage-resources-containers/"""
    for workload, container in _containers(resources):
        missing = [key for key in ("requests", "limits") if not _map(container, "resources", key)]
        if missing:
            yield Finding(
                workload,
                f"the container {container.get('name')} has no {' and no '.join(missing)}: set template.resources",
            )


def pods_are_not_privileged(resources: Sequence[Proposed]) -> Iterator[Finding]:
    """https://kubernetes.io/docs/concepts/security/pod-security-standards/#baseline"""
    for workload in resources:
        if PREPARATION in workload.urn:
            continue
        pod = _map(workload.pod, "spec")
        rights = [key for key in ("hostNetwork", "hostPID", "hostIPC") if pod.get(key)]
        rights += [f"hostPath {_at(v, 'hostPath', 'path')}" for v in pod.get("volumes") or () if v.get("hostPath")]
        for container in [*(pod.get("containers") or ()), *(pod.get("initContainers") or ())]:
            context = _map(container, "securityContext")
            rights += ["privileged"] if context.get("privileged") else []
            rights += [f"capability {name}" for name in _at(context, "capabilities", "add") or ()]
        if rights:
            yield Finding(
                workload, f"its pods would have rights on the node ({', '.join(rights)}): only node preparation may"
            )


def containers_are_hardened(resources: Sequence[Proposed]) -> Iterator[Finding]:
    """https://kubernetes.io/docs/concepts/security/pod-security-standards/#restricted"""
    for workload, container in _containers(resources):
        if PREPARATION in workload.urn:
            continue
        own, pod = _map(container, "securityContext"), _map(workload.pod, "spec", "securityContext")
        wanted = {
            "runAsNonRoot: true": own.get("runAsNonRoot", pod.get("runAsNonRoot")) is True,
            "allowPrivilegeEscalation: false": own.get("allowPrivilegeEscalation") is False,
        }
        if missing := [key for key, holds in wanted.items() if not holds]:
            yield Finding(
                workload,
                f"the container {container.get('name')} could become root: "
                f"set {', '.join(missing)} in template.securityContext",
            )


def replicas_have_a_budget(resources: Sequence[Proposed]) -> Iterator[Finding]:
    """https://kubernetes.io/docs/tasks/run-application/configure-pdb/"""
    budgets = [
        (budget.namespace, _map(budget.spec, "selector", "matchLabels"))
        for budget in _of_kind(resources, "PodDisruptionBudget")
    ]
    for workload in resources:
        if workload.kind not in ("Deployment", "StatefulSet") or (workload.spec.get("replicas") or 1) < 2:
            continue
        labels = _map(workload.pod, "metadata", "labels")
        if not any(
            namespace == workload.namespace and selector.items() <= labels.items() for namespace, selector in budgets
        ):
            yield Finding(workload, "a drain of nodes may take all its pods at once: set services.*.disruptionBudget")


def mutual_tls_is_on(resources: Sequence[Proposed]) -> Iterator[Finding]:
    """https://istio.io/latest/docs/reference/config/security/peer_authentication/"""
    for peer in _of_kind(resources, "PeerAuthentication"):
        modes = [
            _at(peer.spec, "mtls", "mode"),
            *(_at(port, "mode") for port in _map(peer.spec, "portLevelMtls").values()),
        ]
        for mode in modes:
            if mode in ("DISABLE", "PERMISSIVE"):
                yield Finding(peer, f"it takes plain text (mTLS {mode}): set routing.*.mtls to STRICT")
    for rule in _of_kind(resources, SUBSET_RULE):
        if _at(rule.spec, "trafficPolicy", "tls", "mode") == "DISABLE":
            yield Finding(rule, f"requests to {rule.spec.get('host')} go in plain text: take tls DISABLE out")


def hosts_are_unique(resources: Sequence[Proposed]) -> Iterator[Finding]:
    """In the mesh Istio takes one VirtualService a host, the oldest.

    https://istio.io/latest/docs/ops/best-practices/traffic-management/#split-virtual-services
    """
    in_mesh = [r for r in _of_kind(resources, ROUTE_RULE) if "mesh" in r.spec.get("gateways", ["mesh"])]
    count = Counter((r.namespace, host) for r in in_mesh for host in r.spec.get("hosts", ()))
    for rule in in_mesh:
        for host in rule.spec.get("hosts", ()):
            if count[rule.namespace, host] > 1:
                yield Finding(rule, f"another VirtualService has the host {host}, too: keep one of them")


RULES = (
    Rule("weights-add-up", "The weights of a route add up to 100.", weights_add_up),
    Rule("subsets-have-pods", "Every subset that gets requests has pods.", subsets_have_pods, needs_stack=True),
    Rule("images-are-pinned", "No image without a tag, and none with :latest.", images_are_pinned, everywhere=False),
    Rule("resources-are-set", "Every container has requests and limits.", resources_are_set, everywhere=False),
    Rule("pods-are-not-privileged", "Only node preparation has rights on the node.", pods_are_not_privileged),
    Rule("containers-are-hardened", "No container can become root.", containers_are_hardened, everywhere=False),
    Rule(
        "replicas-have-a-budget",
        "Pods with replicas have a PodDisruptionBudget.",
        replicas_have_a_budget,
        everywhere=False,
        needs_stack=True,
    ),
    Rule("mutual-tls-is-on", "No service takes or gets plain text.", mutual_tls_is_on, everywhere=False),
    Rule("hosts-are-unique", "A host has one VirtualService.", hosts_are_unique, needs_stack=True),
)


def _at(value: Any, *path: str) -> Any:
    for key in path:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


def _map(value: Any, *path: str) -> Mapping[str, Any]:
    found = _at(value, *path)
    return found if isinstance(found, Mapping) else {}


def _of_kind(resources: Iterable[Proposed], kind: str) -> Iterator[Proposed]:
    return (resource for resource in resources if resource.kind == kind)


def _routes(rule: Proposed) -> Iterator[Collection[Mapping[str, Any]]]:
    for protocol in ("http", "tcp", "tls"):
        for route in rule.spec.get(protocol) or ():
            yield route.get("route") or ()


def _subset_labels(resources: Sequence[Proposed], namespace: str, host: str, subset: str) -> Mapping[str, Any] | None:
    """Those of the DestinationRule in `namespace` that declares the subset, None where none does."""
    for rule in _of_kind(resources, SUBSET_RULE):
        if rule.namespace == namespace and rule.spec.get("host") == host:
            for declared in rule.spec.get("subsets") or ():
                if declared["name"] == subset:
                    return _map(declared, "labels")
    return None


def _containers(resources: Iterable[Proposed]) -> Iterator[tuple[Proposed, Mapping[str, Any]]]:
    for workload in resources:
        pod = _map(workload.pod, "spec")
        for container in [*(pod.get("containers") or ()), *(pod.get("initContainers") or ())]:
            yield workload, container
