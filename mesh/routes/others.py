"""Objects of others that decide over requests to a service: which one it is, whose, and what would put it right.

What Envoy says is the evidence; the objects in the cluster give it a name. Before anything is there to ask, they are
also what tells that a rule would not count. Whose rules do, measured with Istio 1.31: docs/routes.md.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Final

import names
from mesh.cluster import owners
from mesh.cluster.kubectl import Kubectl, KubectlError
from mesh.cluster.objects import Object, identity
from mesh.routes.model import Caller, Difference, Expected, Kind

_KINDS: Final = {
    "networking.istio.io": ("virtualservices", "destinationrules", "sidecars", "envoyfilters"),
    "gateway.networking.k8s.io": ("httproutes", "grpcroutes", "tcproutes", "tlsroutes"),
}
_EVERYWHERE: Final = ("--all-namespaces", "--show-managed-fields")
_NO_SUCH_KIND: Final = re.compile(r'have a resource type "(\w+)" in group "([\w.]+)"')
_ROUTE_KINDS: Final = {"HTTPRoute", "GRPCRoute", "TCPRoute", "TLSRoute"}
# What an EnvoyFilter patches when it changes where requests go, or how.
_ROUTE_PATCHES: Final = {"ROUTE_CONFIGURATION", "VIRTUAL_HOST", "HTTP_ROUTE"}
_OUTBOUND: Final = {"ANY", "SIDECAR_OUTBOUND", "GATEWAY"}


@dataclass(frozen=True)
class Objects:
    """All of the mesh that have a say in routes; `root` is the namespace of Istio itself."""

    items: Sequence[Object]
    root: str

    def of(self, *kinds: str) -> Iterator[Object]:
        return (item for item in self.items if item["kind"] in kinds)

    def named(self, name: str) -> Object | None:
        """By `VirtualService office/theirs`."""
        return next((item for item in self.items if str(identity(item)) == name), None)


@dataclass(frozen=True)
class Finding:
    """One reason why callers of a service are not treated as its rule says.

    `object` is `VirtualService office/theirs`, '' where no object is to blame; `owner` is whose it is, in words.
    """

    service: str
    kind: Kind
    object: str
    owner: str
    what: str
    fix: str
    callers: tuple[Caller, ...] = field(default=())

    @property
    def workloads(self) -> dict[str, int]:
        """`office/clerk` → how many of its proxies."""
        counted: dict[str, int] = {}
        for caller in self.callers:
            counted[caller.workload] = counted.get(caller.workload, 0) + 1
        return counted

    def __str__(self) -> str:
        by = f" by {self.object}{f' ({self.owner})' if self.owner else ''}" if self.object else ""
        return f"{', '.join(self.workloads)}: {self.what}{by}"


def read(kubectl: Kubectl, root: str, *options: str, timeout: float = 60) -> Objects:
    """Of the kinds that the cluster has; none where they may not be read: then Envoy's word has to do."""

    def read_group(group: str) -> Sequence[Object]:
        kinds = [f"{kind}.{group}" for kind in _KINDS[group]]
        while kinds:
            try:
                return kubectl.items(",".join(kinds), *_EVERYWHERE, *options, timeout=timeout)
            except KubectlError as error:
                # kubectl names the first one that it does not find: without the first of all there is none.
                unknown = _NO_SUCH_KIND.search(str(error))
                if not unknown or f"{unknown[1]}.{group}" == kinds[0]:
                    break
                kinds.remove(f"{unknown[1]}.{group}")
        return []

    # Side by side: a cluster without the Gateway API costs no second question.
    with ThreadPoolExecutor() as pool:
        return Objects([item for items in pool.map(read_group, _KINDS) for item in items], root)


def findings(found: Mapping[Caller, Sequence[Difference]], expected: Expected, objects: Objects) -> list[Finding]:
    """The same reason for several callers is one finding, by all of its ports together."""
    gathered: dict[tuple[Kind, str, str], list[Caller]] = {}
    for caller, differences in found.items():
        for difference in differences:
            kind, name = _decides(difference, caller, expected, objects)
            callers = gathered.setdefault((kind, name, difference.what), [])
            if caller not in callers:
                callers.append(caller)
    return [
        Finding(
            expected.service,
            kind,
            name,
            owner_of(objects.named(name)),
            what + _delegated(objects.named(name), expected),
            _fix(kind, name, expected),
            (*callers,),
        )
        for (kind, name, what), callers in gathered.items()
    ]


def _delegated(item: Object | None, expected: Expected) -> str:
    """The routes of a delegate stand in Envoy under the name of the VirtualService that delegates to it.

    https://istio.io/latest/docs/reference/config/networking/virtual-service/#Delegate
    """
    if item is None or item["kind"] != "VirtualService" or str(identity(item)) == expected.rule:
        return ""
    namespace = item["metadata"]["namespace"]
    found = [route["delegate"] for route in item.get("spec", {}).get("http", ()) if "delegate" in route]
    leaves = dict.fromkeys(f"{one.get('namespace', namespace)}/{one['name']}" for one in found)
    return f" (delegated to VirtualService {', '.join(leaves)})" if leaves else ""


def _decides(difference: Difference, caller: Caller, expected: Expected, objects: Objects) -> tuple[Kind, str]:
    """The kind once more, as the objects may tell better, and the object."""
    kind, name = difference.kind, difference.object
    if name.startswith("route "):
        return kind, next(_routes_of(name.removeprefix("route "), expected, objects), name)
    if kind is Kind.HIDDEN:
        return kind, next((str(identity(item)) for item in hiding(caller, expected, objects)), "")
    if kind in (Kind.CHANGED, Kind.LATE):
        if filters := [str(identity(item)) for item in patching(caller, expected, objects)]:
            return Kind.CHANGED, ", ".join(filters)
        return Kind.LATE, name
    if name == f"DestinationRule {expected.namespace}/{names.destination_rule(expected.service)}":
        return Kind.LATE, name  # the service's own has all subsets
    return kind, name


def _routes_of(route: str, expected: Expected, objects: Objects) -> Iterator[str]:
    """The routes of the Gateway API that have the Service as parent: the one of this name in Envoy, then any."""
    found = [item for item in objects.of(*_ROUTE_KINDS) if is_parent(item, expected)]
    for item in found:
        metadata = item["metadata"]
        rules: Sequence[Mapping[str, Any]] = item.get("spec", {}).get("rules", ())
        by_index = route.startswith(f"{metadata['namespace']}.{metadata['name']}.")
        if by_index or route in {rule.get("name") for rule in rules}:
            yield str(identity(item))
    yield from (str(identity(item)) for item in found)


def is_parent(item: Object, expected: Expected) -> bool:
    """Whether a route of the Gateway API is one for the Service. https://gateway-api.sigs.k8s.io/mesh/"""
    return any(
        parent.get("kind") == "Service"
        and parent.get("name") == expected.service
        and parent.get("namespace", item["metadata"]["namespace"]) == expected.namespace
        for parent in item.get("spec", {}).get("parentRefs", ())
    )


def hiding(caller: Caller, expected: Expected, objects: Objects) -> Iterator[Object]:
    """The Sidecar that counts for a caller, if it leaves the service out.

    https://istio.io/latest/docs/reference/config/networking/sidecar/
    """
    own = [item for item in objects.of("Sidecar") if item["metadata"]["namespace"] == caller.namespace]
    root = [item for item in objects.of("Sidecar") if item["metadata"]["namespace"] == objects.root]
    selected = [item for item in own if _selector(item) and _selects(item, caller)]
    everywhere = [item for item in (*own, *root) if not _selector(item)]
    for item in [*selected, *everywhere][:1]:
        if not shows(item, expected):
            yield item


def shows(sidecar: Object, expected: Expected) -> bool:
    """Whether a Sidecar lets its callers know the service."""
    egress = sidecar.get("spec", {}).get("egress")
    if not egress:
        return True
    hosts = [host for listener in egress for host in listener.get("hosts", ())]
    return any(_imports(host, sidecar["metadata"]["namespace"], expected) for host in hosts)


def _imports(host: str, namespace: str, expected: Expected) -> bool:
    """`shop/*`, `./search.shop.svc.cluster.local`, `*/*.shop.svc.cluster.local`, `~/*`."""
    of, _, name = host.partition("/")
    if of not in ("*", expected.namespace) and not (of == "." and namespace == expected.namespace):
        return False
    full = f"{expected.service}.{expected.namespace}.svc.cluster.local"
    return name == "*" or name == full or (name.startswith("*.") and full.endswith(name[1:]))


def patching(caller: Caller, expected: Expected, objects: Objects) -> Iterator[Object]:
    """The EnvoyFilters that change the caller's routes to the service."""
    for item in objects.of("EnvoyFilter"):
        if item["metadata"]["namespace"] in (caller.namespace, objects.root) and _selects(item, caller):
            patches = item.get("spec", {}).get("configPatches", ())
            if any(changes_route(patch, expected) for patch in patches):
                yield item


def changes_route(patch: Mapping[str, Any], expected: Expected) -> bool:
    match = patch.get("match", {})
    if patch.get("applyTo") not in _ROUTE_PATCHES or match.get("context", "ANY") not in _OUTBOUND:
        return False
    table = match.get("routeConfiguration", {})
    name = table.get("vhost", {}).get("name", "")
    if name:
        return expected.is_host(name.partition(":")[0]) or name.partition(":")[0] in expected.outside
    port = table.get("portNumber", 0)
    return not port or port in expected.ports


def _selector(item: Object) -> Mapping[str, str]:
    labels: Mapping[str, str] = item.get("spec", {}).get("workloadSelector", {}).get("labels", {})
    return labels


def _selects(item: Object, caller: Caller) -> bool:
    return _selector(item).items() <= caller.labels.items()


def owner_of(item: Object | None) -> str:
    if item is None:
        return ""
    if found := owners.manager(item, ""):
        return f"of {found.who}"
    written = sorted(owners.writers(item) - owners.CONTROLLERS)
    return f"made with {', '.join(written)}" if written else "not made by a stack"


def _fix(kind: Kind, name: str, expected: Expected) -> str:
    host = f"{expected.service}.{expected.namespace}"
    delete = f"kubectl delete {_resource(name)}" if "/" in name and "," not in name else ""
    match kind:
        case Kind.ELSEWHERE if name:
            return f"take {host} out of {name}, with its owner: it decides in the place of {expected.rule} ({delete})"
        case Kind.ELSEWHERE:
            return f"see that {expected.rule} is there: pulumi up"
        case Kind.NO_SUBSET if name:
            return f"give {name} the subsets of {host}, or take it away, with its owner ({delete})"
        case Kind.HIDDEN:
            return (
                f"add {expected.namespace}/* to the egress hosts of {name}, with its owner; or accept it: mesh.accept"
            )
        case Kind.CHANGED:
            return f"take {host} out of {name}, with its owner; or accept it: mesh.accept"
        case Kind.SILENT:
            return "see that the right to forward to pods is there, and that the pod is well: kubectl describe pod"
    return "wait a second and look again; if it stays, see what istiod says: mesh check, istioctl proxy-status"


def _resource(name: str) -> str:
    """`VirtualService office/theirs` → what kubectl takes."""
    kind, _, where = name.partition(" ")
    namespace, _, own = where.partition("/")
    return f"{kind.lower()} {own} --namespace {namespace}"
