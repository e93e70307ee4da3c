"""What rules of others would make of a service's, told by the objects alone, before anything changes.

Whose rule counts for whom was measured with Istio 1.31 (docs/routes.md). Where the objects cannot tell, as for a
younger VirtualService, nothing is said: `mesh status` asks the proxies.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mesh.cluster import owners
from mesh.cluster.objects import Object, identity
from mesh.routes import others
from mesh.routes.model import Expected
from mesh.routes.others import Objects


@dataclass(frozen=True)
class Rival:
    """An object because of which the rules of `services` do not count for `whom`, in words.

    `is_ours`: these are callers of the services' own namespace.
    """

    object: str
    owner: str
    services: tuple[str, ...]
    whom: str
    is_ours: bool

    @property
    def what(self) -> str:
        owner = f" ({self.owner})" if self.owner else ""
        rules = ", ".join(f"routing.{service}" for service in self.services)
        return f"{self.object}{owner} decides over requests of {self.whom}, in the place of {rules}"

    @property
    def fix(self) -> str:
        return "take these services out of it, with its owner; or accept it as it is: mesh.accept"


def rivals(services: Sequence[Expected], objects: Objects, owner: str, accepted: Sequence[str]) -> list[Rival]:
    """Of objects that are not of the stack `owner`, and not `accepted`."""
    found: list[Rival] = []
    rules = {str(identity(item)): item for item in objects.of("VirtualService")}
    for item in objects.items:
        name = str(identity(item))
        if owners.is_of(item, owner) or name in accepted:
            continue
        concerned: dict[str, list[str]] = {}
        for service in services:
            if whom := _concerned(item, service, objects, rules.get(service.rule)):
                concerned.setdefault(whom, []).append(service.service)
        found += [
            Rival(
                name, others.owner_of(item), tuple(named), whom, whom in (_ALL, f"callers in {services[0].namespace}")
            )
            for whom, named in concerned.items()
        ]
    return found


_ALL = "all callers"


def _concerned(item: Object, service: Expected, objects: Objects, rule: Object | None) -> str:
    """Whose requests it decides over: `callers in office`, '' for nobody's."""
    namespace = item["metadata"]["namespace"]
    own = f"callers in {namespace}"
    match item["kind"]:
        case "HTTPRoute" | "GRPCRoute" | "TCPRoute" | "TLSRoute":
            return own if others.is_parent(item, service) else ""
        case "VirtualService":
            return _by_virtual_service(item, service, rule)
        case "DestinationRule" if namespace not in (service.namespace, objects.root):
            spec = item.get("spec", {})
            lacks = {*service.default} - {subset.get("name") for subset in spec.get("subsets", ())}
            return own if _names(spec.get("host", ""), namespace, service) and lacks else ""
        case "Sidecar":
            everybody = "all callers without a Sidecar of their own" if namespace == objects.root else own
            return "" if others.shows(item, service) else everybody
        case "EnvoyFilter" if any(
            others.changes_route(patch, service) for patch in item["spec"].get("configPatches", ())
        ):
            return _ALL if namespace == objects.root else own
    return ""


def _by_virtual_service(item: Object, service: Expected, rule: Object | None) -> str:
    """Those of the service's own namespace are refused by the names that they have there."""
    namespace, spec = item["metadata"]["namespace"], item.get("spec", {})
    if namespace == service.namespace or "mesh" not in spec.get("gateways", ["mesh"]):
        return ""
    if not any(_names(host, namespace, service) for host in spec.get("hosts", ())):
        return ""
    to: Sequence[str] = spec.get("exportTo") or ["*"]
    if to == ["."]:
        return f"callers in {namespace}"
    return _ALL if rule is None or _made(item) < _made(rule) else ""


def _names(host: str, namespace: str, service: Expected) -> bool:
    """Whether `host`, as written in an object of `namespace`, is the service. A short name is one of that namespace."""
    name, _, rest = host.partition(".")
    of = rest.partition(".")[0] or namespace
    return name in (service.service, "*") and of == service.namespace


def _made(item: Object) -> str:
    return str(item["metadata"].get("creationTimestamp", ""))
