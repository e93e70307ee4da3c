"""What the callers of a stack's services do at one moment, against what is declared and what the rules there say."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from config import StackConfig
from istio.rules import Routed, routed
from mesh.cluster.kubectl import Kubectl, KubectlError
from mesh.cluster.objects import Object
from mesh.routes import callers, judge, others
from mesh.routes.callers import Callers
from mesh.routes.model import Caller, Config, Difference, Expected, Kind, Shares, by_rule, by_version, expected
from mesh.routes.others import Finding, Objects


@dataclass(frozen=True)
class Live:
    """One service. `rule` is what the VirtualService in the cluster says, None where there is none.

    `callers` are all that know the service, `hidden` those that cannot see it, with nobody's object to blame: they
    count as none. `shares`: caller → those of its default route. `findings` has what is not as it should be, and
    `accepted` what is not and is meant to be so (`mesh.accept`). `disconnected` are those that no istiod knows.
    """

    declared: Expected
    rule: Expected | None
    callers: Sequence[Caller]
    hidden: Sequence[Caller]
    shares: Mapping[Caller, Shares]
    findings: Sequence[Finding]
    accepted: Sequence[Finding] = ()
    disconnected: Sequence[Caller] = field(default=())
    silence: str = ""
    """Why no istiod could be asked, '' where one could."""

    @property
    def right(self) -> list[Caller]:
        """The callers whose requests all go as the rule says."""
        wrong = {caller for one in (*self.findings, *self.accepted) for caller in one.callers}
        return [caller for caller in self.callers if caller not in wrong]


def look(
    config: StackConfig,
    kubectl: Kubectl,
    services: Collection[str],
    found: Sequence[Object],
    known: Callers | None = None,
) -> dict[str, Live]:
    """Of those `services` that have weights; `found` has the rules in the stack's namespace, and the callers may be
    `known` already. Raises `KubectlError`."""
    wanted = [one for one in routed(config) if one.name in services]
    if not wanted:
        return {}
    with ThreadPoolExecutor() as pool:
        addresses = pool.submit(_addresses, kubectl, config, wanted)
        known = known or callers.read(kubectl)
        configs = known.configs(tcp={port for one in wanted for port in one.service.tcp_ports})
        there = [_service(one, found, addresses.result()) for one in wanted]
    differing = {declared.service: _differences(known, configs, rule or declared) for declared, rule in there}
    objects = Objects((), config.mesh.namespace)
    if any(differences for by_caller in differing.values() for differences in by_caller.values()):
        objects = others.read(kubectl, config.mesh.namespace)
    return {
        declared.service: _live(
            declared, rule, known, configs, differing[declared.service], objects, config.mesh.accept
        )
        for declared, rule in there
    }


def service(config: StackConfig, kubectl: Kubectl, name: str, weights: Mapping[str, int]) -> Expected:
    """What the rule of one service says with other `weights`. Raises `KubectlError`."""
    [wanted] = [one for one in routed(config) if one.name == name]
    return expected(wanted, weights, _addresses(kubectl, config, [wanted]).get(name, ""))


def counts(caller: Caller, config: Config | KubectlError, service: Expected) -> bool:
    """Whether a caller could be one of the service's: a gateway only where the service is exposed by it."""
    if not caller.is_gateway or not service.outside:
        return not caller.is_gateway
    if service.gateway:
        return service.gateway.items() <= caller.labels.items()
    return isinstance(config, Config) and any({*service.outside} & {*host.domains} for host in config.virtual_hosts)


def _service(one: Routed, found: Sequence[Object], addresses: Mapping[str, str]) -> tuple[Expected, Expected | None]:
    address = addresses.get(one.name, "")
    rules = [
        item
        for item in found
        if (item["kind"], item["metadata"]["name"]) == (one.weights.kind, one.weights.name)
        and item["metadata"]["namespace"] == one.namespace
    ]
    return expected(one, address=address), by_rule(one, rules[0]["spec"], address) if rules else None


def _addresses(kubectl: Kubectl, config: StackConfig, wanted: Sequence[Routed]) -> dict[str, str]:
    """Service → cluster IP, where a port needs it: Envoy's listeners for connections have no other name."""
    if not any(one.service.tcp_ports for one in wanted):
        return {}
    items = kubectl.items("services", f"--namespace={config.namespace.name}")
    return {item["metadata"]["name"]: item["spec"].get("clusterIP", "") for item in items}


def _differences(
    known: Callers, configs: Mapping[Caller, Config | KubectlError], service: Expected
) -> dict[Caller, list[Difference]]:
    found: dict[Caller, list[Difference]] = {}
    for one in known.known:
        answer = configs[one.caller]
        if not counts(one.caller, answer, service):
            continue
        if isinstance(answer, KubectlError):
            said = str(answer).splitlines()[-1] if str(answer) else "no answer"
            found[one.caller] = [Difference(Kind.SILENT, "all ports", f"its proxy cannot be asked: {said}")]
            continue
        found[one.caller] = judge.differences(answer, one.caller, service)
        if one.connection and one.connection.error:
            # Also where it is right by chance: the next change will not reach it either.
            refused = f"its proxy refuses what istiod sends, and keeps what it has: {one.connection.error}"
            found[one.caller] = [Difference(Kind.LATE, "all ports", refused)]
    return found


def _live(
    declared: Expected,
    rule: Expected | None,
    known: Callers,
    configs: Mapping[Caller, Config | KubectlError],
    differing: Mapping[Caller, list[Difference]],
    objects: Objects,
    accept: Sequence[str],
) -> Live:
    findings = others.findings(differing, rule or declared, objects)
    # Nobody's object hides it: the caller is of another mesh, or the service is not meant for it.
    hidden = [caller for one in findings if one.kind is Kind.HIDDEN and not one.object for caller in one.callers]
    findings = [one for one in findings if not (one.kind is Kind.HIDDEN and not one.object)]
    if difference := _not_applied(declared, rule):
        findings.insert(0, difference)
    accepted = [one for one in findings if one.object and one.object in accept]
    shares = {
        caller: default
        for caller in differing
        if isinstance(answer := configs[caller], Config)
        and (default := _default(answer, caller, rule or declared)) is not None
    }
    connected = {one.caller for one in known.known if one.connection is not None}
    counted = [caller for caller in differing if caller not in hidden]
    return Live(
        declared,
        rule,
        counted,
        hidden,
        shares,
        [one for one in findings if one not in accepted],
        accepted,
        [] if known.silence else [caller for caller in counted if caller not in connected],
        known.silence,
    )


def _not_applied(declared: Expected, rule: Expected | None) -> Finding | None:
    name = declared.rule
    if rule is None:
        return Finding(declared.service, Kind.LATE, name, "", f"{name} is not there", "pulumi up")
    if rule.http != declared.http or rule.tcp != declared.tcp:
        fix = "`pulumi up`; mesh drift says whether somebody changed it in the cluster"
        return Finding(declared.service, Kind.LATE, name, "", f"{name} is not as declared", fix)
    return None


def _default(config: Config, caller: Caller, service: Expected) -> Shares | None:
    """What becomes of a request that no match describes, at the first port that the caller has routes for."""
    for host in config.virtual_hosts:
        ours = service.is_host(host.name.partition(":")[0]) and host.port in service.ports
        if (ours or (caller.is_gateway and {*service.outside} & {*host.domains})) and host.routes:
            default = next((route for route in host.routes if not route.match), host.routes[-1])
            return by_version(default, service)
    for one in config.connections:
        if one.port in service.tcp and (one.address == service.address or one.route.object == service.rule):
            return by_version(one.route, service)
    return None
