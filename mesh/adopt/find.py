"""What of a stack is in the cluster already and belongs to nobody, or to a Helm release of the stack's own names."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Final

import names
from config import StackConfig
from mesh import preflight
from mesh.cluster import versions
from mesh.cluster.kubectl import Kubectl
from mesh.cluster.objects import CLUSTER_SCOPED, Identity, Object, identity, live
from mesh.cluster.owners import HELM_NAME, HELM_NAMESPACE, manager
from mesh.cluster.releases import Release, owned_by, releases
from mesh.drift import compare
from mesh.drift.compare import ABSENT, Difference
from mesh.drift.find import RELEASE, Drift, Expected, declared_body
from mesh.program.recorder import Recording, Resource

# What istioctl puts on all that it installs. https://github.com/istio/istio/tree/master/operator/pkg/helmreconciler
ISTIOCTL: Final = "install.operator.istio.io/owning-resource"
_ISTIOCTL_KINDS = (
    "deployments,daemonsets,services,serviceaccounts,configmaps,roles,rolebindings,clusterroles,clusterrolebindings,"
    "poddisruptionbudgets,horizontalpodautoscalers,mutatingwebhookconfigurations,validatingwebhookconfigurations"
)
_PODS = ("Deployment", "StatefulSet", "DaemonSet")


@dataclass(frozen=True)
class Candidate:
    """An object to be taken over; the differences of `drift` are what the next `pulumi up` changes in it.

    `made_by` is the tool that it comes from, as far as the cluster knows.
    """

    drift: Drift
    made_by: str

    @property
    def body(self) -> Object:
        return self.drift.expected.body

    @property
    def release(self) -> str:
        return self.drift.expected.release

    @property
    def changes(self) -> list[Difference]:
        """What is not declared stays, so that it is no change."""
        return [difference for difference in self.drift.differences if difference.declared is not ABSENT]

    @property
    def stays(self) -> list[Difference]:
        return [difference for difference in self.drift.differences if difference.declared is ABSENT]

    @property
    def restarts(self) -> bool:
        return self.body["kind"] in _PODS and any(
            difference.path[:2] == ("spec", "template") for difference in self.changes
        )


@dataclass(frozen=True)
class Refusal:
    """Why some objects cannot be taken over, and what to do."""

    what: str
    fix: str
    objects: tuple[Identity, ...] = ()


@dataclass(frozen=True)
class Plan:
    """`records` are those of Helm that give way, `leftovers` what istioctl or Helm made and no chart of the stack
    has, and `inhabitants` what else is in the namespaces that the stack would own."""

    candidates: list[Candidate] = field(default_factory=list)
    records: list[Release] = field(default_factory=list)
    leftovers: list[Object] = field(default_factory=list)
    inhabitants: list[Identity] = field(default_factory=list)
    refusals: list[Refusal] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.candidates or self.records)


@dataclass(frozen=True)
class Search:
    """One look at the cluster. `known` are the URNs in the state, and `rendered` gives the objects of a release."""

    config: StackConfig
    owner: str
    kubectl: Kubectl
    known: frozenset[str]
    rendered: Callable[[Resource], Iterable[Object]]


def find(recording: Recording, search: Search) -> Plan:
    """Reads only. Raises `KubectlError` and `HelmError`."""
    new = [resource for resource in recording if resource.urn not in search.known and _is_object(resource)]
    charts = [resource for resource in new if resource.kind == RELEASE]
    with ThreadPoolExecutor() as pool:
        inside = [*pool.map(lambda chart: _of_release(chart, search), charts)]
    expected = [_own(resource) for resource in new if resource.kind != RELEASE]
    expected += [one for some in inside for one in some]
    there = live(search.kubectl, [one.body for one in expected])
    found = [(one, there[one.identity]) for one in expected if one.identity in there]
    records = _records(search, charts) if charts else []
    refusals = [*_foreign(search, found), *_broken(records), *_other_versions(search, charts, found)]
    refusals += [*_immutable(search, found), *_other_containers(found)]
    refused = {name for refusal in refusals for name in refusal.objects}
    candidates = [
        Candidate(Drift(one, item, compare.differences(one.body, item)), _made_by(item))
        for one, item in found
        if one.identity not in refused and not _is_taken(one, item, search.owner, records)
    ]
    leftovers = {
        identity(item): item for item in (*_leftovers(search, charts, there), *_dropped(search, records, expected))
    }
    return Plan(candidates, records, [*leftovers.values()], _inhabitants(search, found, there), refusals)


def _is_object(resource: Resource) -> bool:
    return resource.type.startswith("kubernetes:") and not resource.kind.endswith("Patch")


def _own(resource: Resource) -> Expected:
    return Expected(declared_body(resource), {}, resource.urn, "")


def _of_release(release: Resource, search: Search) -> list[Expected]:
    name, namespace = release.inputs["name"], release.inputs["namespace"]
    return [
        Expected(_with_owner(item, name, namespace), {}, release.urn, "", name) for item in search.rendered(release)
    ]


def _with_owner(item: Object, name: str, namespace: str) -> Object:
    metadata = item["metadata"]
    return {**item, "metadata": {**metadata, **owned_by(name, namespace, metadata)}}


def _release_of(one: Expected) -> tuple[str, str] | None:
    annotations = one.body["metadata"].get("annotations", {})
    return (annotations[HELM_NAMESPACE], annotations[HELM_NAME]) if one.release else None


def _is_taken(one: Expected, item: Object, owner: str, records: Iterable[Release]) -> bool:
    """Whether an earlier run got this far. What Helm itself installed is marked as well; its record says so."""
    annotations = item["metadata"].get("annotations") or {}
    if not one.release:
        return bool(annotations.get(names.OWNER) == owner)
    marked = annotations.get(HELM_NAMESPACE, ""), annotations.get(HELM_NAME, "")
    return marked == _release_of(one) and one.release not in {record.name for record in records}


def _records(search: Search, charts: Iterable[Resource]) -> list[Release]:
    """All revisions of the releases that the stack declares and has not in its state."""
    wanted = {chart.inputs["name"] for chart in charts}
    return [found for found in releases(search.kubectl, search.config.mesh.namespace) if found.name in wanted]


def _broken(records: Iterable[Release]) -> Iterator[Refusal]:
    for release in {record.name: record for record in records}.values():  # the newest revision of each
        if release.status != "deployed":
            yield Refusal(
                f"the Helm release {release.namespace}/{release.name} is {release.status}",
                f"let Helm finish first: helm rollback {release.name} -n {release.namespace}",
            )


def _foreign(search: Search, found: Iterable[tuple[Expected, Object]]) -> Iterator[Refusal]:
    managed: dict[Any, list[Identity]] = {}
    for one, item in found:
        if other := manager(item, search.owner, _release_of(one)):
            managed.setdefault(other, []).append(one.identity)
    for other, objects in managed.items():
        marks = [f"kubectl {mark.replace(' ', ' <kind> <name> ', 1)}" for mark in other.marks]
        then = f"\n          then take its marks away from each object: {'; '.join(marks)}" if marks else ""
        yield Refusal(f"managed by {other.who}", f"{other.stop}{then}", tuple(objects))


def _other_versions(
    search: Search, charts: Iterable[Resource], found: Iterable[tuple[Expected, Object]]
) -> Iterator[Refusal]:
    """One step at a time: what is taken over stays as it is, and an upgrade is another `pulumi up`."""
    if not [*charts] or not any(one.release for one, _ in found):
        return
    mesh = search.config.mesh
    for running in versions.read(search.kubectl).control_planes:
        if running.namespace != mesh.namespace:
            continue
        plane = mesh.control_planes.get(running.revision)
        if plane is None:
            yield Refusal(
                f"the istiod of revision {running.revision} in {running.namespace} is not in the configuration",
                f'set mesh.revision to "{running.revision}", or mesh.revisions for several',
            )
        elif plane.version != running.version:
            yield Refusal(
                f"Istio {running.version} runs in {running.namespace}, and the configuration has {plane.version}",
                f'set mesh.version to "{running.version}", take it over, `pulumi up`, and then upgrade',
            )


def _immutable(search: Search, found: Iterable[tuple[Expected, Object]]) -> Iterator[Refusal]:
    own = {(one.body["kind"], one.identity.name): item for one, item in found if not one.release}
    for line in sorted(preflight.reselected(search.config, own)):
        what, _, fix = line.partition("\n")
        yield Refusal(what, fix.strip().removeprefix("fix: "))


def _other_containers(found: Iterable[tuple[Expected, Object]]) -> Iterator[Refusal]:
    """What is not declared stays, and a container that stays would run beside the one that is declared."""
    for one, item in found:
        if one.release or one.body["kind"] not in _PODS:
            continue
        declared, there = _containers(one.body), _containers(item)
        if strange := there - declared:
            yield Refusal(
                f"has the containers {', '.join(sorted(there))}, and {', '.join(sorted(declared))} is declared",
                f"give {', '.join(sorted(strange))} the declared name where it is made, or declare the container by "
                "podTemplate",
                (one.identity,),
            )


def _containers(item: Object) -> set[str]:
    spec = item["spec"]["template"]["spec"]
    return {one["name"] for kind in ("containers", "initContainers") for one in spec.get(kind) or ()}


def _leftovers(search: Search, charts: Iterable[Resource], there: Mapping[Identity, Object]) -> Iterator[Object]:
    if not [*charts]:
        return
    for item in search.kubectl.items(_ISTIOCTL_KINDS, f"--selector={ISTIOCTL}", "--all-namespaces"):
        namespace = item["metadata"].get("namespace", search.config.mesh.namespace)
        if namespace == search.config.mesh.namespace and identity(item) not in there:
            yield item


def _dropped(search: Search, records: Iterable[Release], expected: Iterable[Expected]) -> Iterator[Object]:
    """What Helm would have deleted at an upgrade to the declared release, and forgets with the record."""
    wanted = {one.identity for one in expected}
    installed = [item for record in records if record.status == "deployed" for item in record.objects]
    gone = [item for item in installed if identity(item) not in wanted]
    yield from live(search.kubectl, gone).values()


def _inhabitants(
    search: Search, found: Iterable[tuple[Expected, Object]], there: Mapping[Identity, Object]
) -> list[Identity]:
    """What runs in a namespace that is to be taken over, which a destroy deletes with all that is in it."""
    namespaces = [one.identity.name for one, _ in found if one.body["kind"] == "Namespace"]
    items = [
        item
        for namespace in namespaces
        for item in search.kubectl.items("deployments,statefulsets,daemonsets,services", f"--namespace={namespace}")
    ]
    return [
        identity(item)
        for item in items
        if identity(item) not in there and ISTIOCTL not in (item["metadata"].get("labels") or {})
    ]


def _made_by(item: Object) -> str:
    metadata = item["metadata"]
    if HELM_NAME in (metadata.get("annotations") or {}):
        return "Helm"
    if ISTIOCTL in (metadata.get("labels") or {}):
        return "istioctl"
    managers = [entry["manager"] for entry in metadata.get("managedFields") or () if "subresource" not in entry]
    return managers[0] if managers else "unknown"


def is_of_the_cluster(item: Object) -> bool:
    return item["kind"] in CLUSTER_SCOPED
