"""What changes for all services at once, the mesh, the namespace and the ways out, and what is down meanwhile.

The order is that of the program, on which docs/architecture.md and docs/upgrade.md have more; what they say of requests
that go on is proved by tests/e2e/test_upgrade.py.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import names
from config.versions import minor
from istio.profiles import PROFILES
from mesh.program.recorder import Resource
from mesh.report import model
from mesh.report.effects import Effect
from mesh.report.model import Mesh, Service
from mesh.report.states import State
from mesh.report.values import listed

_ABOUT = {profile.name: profile.about for profile in PROFILES}


def of_states(before: State, after: State) -> Iterator[Effect]:
    if not before.resources or not after.resources:
        return  # a first install disturbs nobody, and the end is told object by object
    old, new = model.mesh(before), model.mesh(after)
    services = model.services(after)
    moves = set(model.namespaces(before)) != set(model.namespaces(after))
    yield from _namespace(before, after)
    single = list(_single_pods(model.services(before), services, moves))
    yield from single
    yield from _access(before, after)
    yield from _ways_out(before, after)
    yield from _reboots(before, after)
    if old.mode != new.mode:
        yield from _mode(old, new)
        yield from _half_meshed(old, new, model.services(before), services)
        return
    if new.mode == "off":
        return
    yield from _revisions(model.services(before), services)
    if new.mode != "managed":
        return
    yield from _mesh_namespace(old, new)
    yield from _profile(old, new)
    yield from _gateways(old, new, services)
    yield from _cni(old, new)
    yield from _planes(old, new)
    proxies, others = model.proxies(before), model.proxies(after)
    moved = old.namespace != new.namespace
    if not moved and any(proxies[name] != others[name] for name in proxies.keys() & others.keys()):
        yield Effect(
            "medium",
            f"{'nothing else' if single else 'nothing'} is down: istiod, then gateways and pods with sidecars are "
            "made anew one by one, each before the one it replaces goes; connections that stay open are cut once, "
            "and the nodes need room for both",
            "meanwhile",
        )
    yield from _encryption(old, new, services)
    if new.purge and not old.purge:
        yield Effect(
            "medium",
            "nothing goes now; from now on `pulumi destroy` and mesh.mode off remove Istio's CRDs, and with them "
            "every Istio object in the cluster; they refuse while any is not this stack's",
            "warning",
        )


def _namespace(before: State, after: State) -> Iterator[Effect]:
    old, new = (model.namespaces(state) for state in (before, after))
    gone, made = [name for name in old if name not in new], [name for name in new if name not in old]
    for name in gone:
        if made:
            yield from _move(name, made[0], _goes(old[name]), before, after)
    for name in old.keys() & new.keys():
        if (old[name].kind, new[name].kind) == ("NamespacePatch", "Namespace"):
            yield Effect(
                "medium",
                f"namespace {name} is there already and not this stack's: `pulumi up` refuses until `mesh adopt` has "
                "taken it over",
                "warning",
            )
        if _goes(old[name]) and new[name].kind == "NamespacePatch":
            yield Effect(
                "high",
                f"all requests fail at the end: namespace {name} would be deleted last, with all services of this "
                "stack in it, which are not made anew: `pulumi up` refuses until namespace.keep was true in an earlier "
                "one",
            )


def _goes(namespace: Resource) -> bool:
    """Whether it would be deleted when it is declared no more."""
    marks = namespace.inputs["metadata"].get("annotations") or {}
    return namespace.kind == "Namespace" and names.KEPT not in marks


def _move(old: str, new: str, owned: bool, before: State, after: State) -> Iterator[Effect]:
    services = model.services(before)
    called = [name for name, one in services.items() if one.ports]
    foreign = [name for name, one in services.items() if not one.workloads]
    exposed = sorted({host for one in model.services(after).values() for host in one.outside})
    yield Effect(
        "high",
        f"first come namespace {new}, all pods anew in it, their Services and their rules, each when the one before "
        f"it is ready; then goes what is in {old}, the rules first"
        + (
            f", and last namespace {old} itself, unless others have something in it, which pulumi up refuses"
            if owned
            else ""
        ),
        "meanwhile",
    )
    yield Effect(
        "high",
        f"until then the services of {old} go on, so the cluster needs room for twice the pods; what they keep in "
        "themselves does not move",
        "meanwhile",
    )
    if called:
        one = called[0]
        yield Effect(
            "high",
            f"the old names stop answering at the end of this change: {_some([f'{name}.{old}' for name in called])}; "
            f"callers in other namespaces have to call {one}.{new} instead, and cannot before it is there",
        )
    if exposed:
        yield Effect(
            "high",
            f"{listed(exposed)} has rules in both namespaces for a while, of which the older count: requests from "
            "outside may fail when these go",
        )
    if foreign:
        goes = " and are deleted with it" if owned else ""
        yield Effect(
            "high",
            f"what others make does not move: the pods and the Service of {_some(foreign)} stay in {old}{goes}, so the "
            f"rules in {new} have no Service there",
        )
    if secrets := sorted(set(_foreign_secrets(after))):
        yield Effect(
            "high",
            f"no pod starts in {new} before somebody makes {listed([f'Secret {name}' for name in secrets])} there",
            "meanwhile",
        )


def _foreign_secrets(state: State) -> Iterator[str]:
    """Those that pods take values from and the stack does not make."""
    own = {one.name for one in state.resources.values() if one.kind == "Secret"}
    for service in model.services(state).values():
        for workload in service.workloads.values():
            for container in model.template(workload).get("spec", {}).get("containers", ()):
                for variable in container.get("env", ()):
                    name = variable.get("valueFrom", {}).get("secretKeyRef", {}).get("name")
                    if name and name not in own:
                        yield name


def _single_pods(before: Mapping[str, Service], after: Mapping[str, Service], moves: bool) -> Iterator[Effect]:
    """A Deployment starts a new pod before the old one goes; the others do not.

    https://kubernetes.io/docs/concepts/workloads/controllers/statefulset/#rolling-updates
    https://kubernetes.io/docs/tasks/manage-daemon/update-daemon-set/
    """
    for name, new in after.items():
        for version, workload in new.workloads.items():
            was = before[name].workloads.get(version) if name in before else None
            if was is None or moves or was.kind != workload.kind or model.template(was) == model.template(workload):
                continue
            if workload.kind == "StatefulSet" and workload.inputs["spec"].get("replicas", 1) == 1:
                text = f"{name} {version} has one pod, which goes before the new one starts"
                yield Effect("high", f"{text}: requests to it fail meanwhile", "meanwhile")
            elif workload.kind == "DaemonSet":
                text = f"{name} {version} is down on one node after the other"
                yield Effect("medium", f"{text}, as its pod goes before the new one starts", "meanwhile")


def _some(items: Sequence[str]) -> str:
    """Up to four, and how many more."""
    return listed([*items[:4], *([f"{len(items) - 4} more"] if len(items) > 4 else [])])


def _access(before: State, after: State) -> Iterator[Effect]:
    old, new = model.denies(before), model.denies(after)
    if new and not old:
        yield Effect(
            "high",
            "from now on only pods of the namespace and the ingress gateway may call the services, at their ports, "
            "and pods may call nothing outside it but DNS, istiod and the egress gateway: all else fails",
        )
    elif old and not new:
        yield Effect("high", "anybody in the cluster may call the pods, and these may call anybody", "warning")


def _ways_out(before: State, after: State) -> Iterator[Effect]:
    old, new = model.outside_hosts(before), model.outside_hosts(after)
    addresses = [model.outside_addresses(state) for state in (before, after)]
    meshed = model.mesh(after).mode != "off"
    for host, (protocol, port) in old.items():
        if host not in new:
            where = (
                "fail: namespace.defaultDeny lets nothing out"
                if model.denies(after)
                else ("leave from the pods themselves, or fail where the network or the mesh lets out no unknown host")
            )
            yield Effect("high", f"requests to {host} no longer leave by the egress gateway: they {where}")
        elif new[host] != (protocol, port) and meshed:
            now, number = new[host]
            yield Effect(
                "high",
                f"{host} is called by {now} at port {number} (before: {protocol} at {port}): what pods send "
                "otherwise does not leave by the egress gateway any more",
            )
        elif addresses[0].get(host) != addresses[1].get(host):
            now = listed(addresses[1][host] or ["what DNS says"])
            yield Effect("medium", f"requests to {host} go to {now} from the egress gateway on")
    for host in new:
        if host not in old:
            yield Effect("medium", f"requests to {host} leave by the egress gateway from now on ({new[host][0]})")


def _reboots(before: State, after: State) -> Iterator[Effect]:
    old, new = (model.rebooted(state) for state in (before, after))
    if hosts := [host for host in new if old.get(host) != new[host]]:
        yield Effect(
            "high",
            f"{_some(hosts)}: rebooted one after the other where only that gets the modules in, each drained first, "
            "so what runs there with one pod is down",
            "meanwhile",
        )


def _mode(old: Mesh, new: Mesh) -> Iterator[Effect]:
    on = old.mode == "off"
    if new.mode == "off":
        first = "first the pods restart without sidecars, one by one, then the rules go"
        then = ", then gateways, node agent and istiod" if old.mode == "managed" else "; the Istio of others stays"
        yield Effect(
            "high",
            f"{first}{then}; requests between the services go on, balanced connection by connection",
            "meanwhile",
        )
        yield Effect(
            "high",
            "no mutual TLS any more: requests go in plain text, and services elsewhere that take mutual TLS only "
            "refuse these pods; every split, match, timeout and retry of all services ends",
        )
    if old.mode == "managed":
        yield from _istio_goes(old, new)
    if new.mode == "managed":
        first = "first comes Istio, then" if on else "Istio is installed, and"
        yield Effect(
            "high" if old.mode == "existing" else "medium",
            f"{first} the pods restart with its sidecars, one by one, then come the rules; requests between the "
            "services go on",
            "meanwhile",
        )
        if old.mode == "existing":
            yield Effect(
                "high",
                "an Istio of others is there: `pulumi up` refuses while it has what this one would make, and `mesh "
                "adopt` takes it over",
                "warning",
            )
    elif on:
        yield Effect(
            "medium",
            "the pods restart with sidecars of the Istio that is there, one by one, then come the rules; without "
            "one the pods get no sidecar, and the rules cannot be made",
            "meanwhile",
        )


def _half_meshed(old: Mesh, new: Mesh, before: Mapping[str, Service], after: Mapping[str, Service]) -> Iterator[Effect]:
    """A rule that asks for mutual TLS is there while some pods have no sidecar yet, or no longer."""
    if "off" not in (old.mode, new.mode):
        return
    strict = [name for name, one in (before if new.mode == "off" else after).items() if one.mtls == "STRICT"]
    if strict:
        yield Effect(
            "high",
            f"requests to {_some(strict)}, which takes mutual TLS only, fail while of caller and pod just one has a "
            "sidecar: set routing.<service>.mtls to PERMISSIVE in a change of its own "
            f"{'first' if new.mode == 'off' else 'and STRICT only after this one'}",
            "meanwhile",
        )


def _istio_goes(old: Mesh, new: Mesh) -> Iterator[Effect]:
    if new.mode == "existing":
        yield Effect(
            "high",
            "the pods restart first, and this stack's Istio goes last, with its gateways: unless another Istio is "
            "there by then, nobody gives sidecars certificates (they end after a day), new endpoints or rules, and "
            "new pods get no sidecar. To hand this Istio to another stack, let `mesh adopt` there take it over and "
            "take it out of this one's state, so that it is never deleted",
            "meanwhile",
        )
    yield Effect(
        "high",
        "whoever else has sidecars of this Istio, in any namespace, loses the control plane, and what comes through "
        f"the gateways in {old.namespace} is cut off",
        "warning",
    )
    if old.purge:
        yield Effect(
            "high",
            "mesh.purge is on: Istio's CRDs go with it, and every Istio object in the cluster; refused while any is "
            "not this stack's",
            "warning",
        )


def _mesh_namespace(old: Mesh, new: Mesh) -> Iterator[Effect]:
    if old.namespace != new.namespace:
        yield Effect(
            "high",
            f"Istio cannot move: Pulumi would install it in {new.namespace} before it deletes that in "
            f"{old.namespace}, and Helm refuses what belongs to the release there, the CRDs above all. Set mesh.mode "
            "to off, `pulumi up`, then change the namespace and set it back",
            "warning",
        )


def _profile(old: Mesh, new: Mesh) -> Iterator[Effect]:
    if old.profile == new.profile:
        return
    text = f"profile {old.profile} ({_ABOUT[old.profile]}) becomes {new.profile} ({_ABOUT[new.profile]})"
    if "demo" in (old.profile, new.profile):
        logs = "access logs and the trace of every request " + ("begin" if new.profile == "demo" else "end")
        size = "small and fixed" if new.profile == "demo" else "as the charts have them, larger and autoscaled"
        yield Effect(
            "medium",
            f"{text}: istiod and gateways become {size}, the sidecars "
            f"{'small' if new.profile == 'demo' else 'larger'}, {logs}",
            "warning",
        )
    else:
        yield Effect("medium", f"{text}; no pod restarts", "warning")


def _gateways(old: Mesh, new: Mesh, services: Mapping[str, Service]) -> Iterator[Effect]:
    ingress, egress = names.RELEASES["ingress"], names.RELEASES["egress"]
    hosts = sorted({host for one in services.values() if one.gateway for host in one.outside})
    if ingress in old.releases and ingress not in new.releases:
        yield Effect(
            "high",
            f"{listed(hosts) if hosts else 'none of this stack, but whatever others expose there'} is cut off from "
            "outside: the ingress gateway goes, and its address with it, which a later one need not get again",
        )
    if ingress in new.releases and ingress not in old.releases:
        yield Effect(
            "medium", "an ingress gateway comes: by its default a load balancer with an address outside", "warning"
        )
    if egress in old.releases and egress not in new.releases:
        yield Effect(
            "high",
            "whatever of others leaves by the egress gateway fails from now on; of this stack nothing does",
        )
    for name in (ingress, egress):
        kinds = [_service_type(one.releases[name]) for one in (old, new) if name in one.releases]
        if len(kinds) == 2 and kinds[0] != kinds[1]:
            yield Effect(
                "high", f"{name} becomes a {kinds[1]} (before: {kinds[0]}), so its address outside is another or none"
            )


def _service_type(release: Mapping[str, Any]) -> str:
    return str(release.get("values", {}).get("service", {}).get("type", "LoadBalancer"))


def _cni(old: Mesh, new: Mesh) -> Iterator[Effect]:
    cni = names.RELEASES["cni"]
    if cni in old.releases and cni not in new.releases:
        yield Effect(
            "high",
            "the pods restart one by one, each with an init container that needs NET_ADMIN and NET_RAW, then the "
            "node agent goes; requests go on, unless the namespace's Pod Security level refuses such pods",
            "meanwhile",
        )
    elif cni in new.releases and cni not in old.releases:
        yield Effect(
            "medium",
            "the node agent comes on every node, then the pods restart one by one without an init container; "
            "requests go on, and a pod on a node whose agent is not ready waits for it",
            "meanwhile",
        )


def _planes(old: Mesh, new: Mesh) -> Iterator[Effect]:
    if old.default_revision != new.default_revision and new.default_revision not in old.planes:
        yield Effect(
            "medium",
            "for some seconds nobody checks rules, so the API server refuses any change of them: "
            f"{new.default_revision}, which is to do it, comes in the same change; install it in one of its own first",
            "meanwhile",
        )
    for revision in old.planes.keys() - new.planes.keys():
        yield Effect(
            "high",
            f"pods elsewhere that follow the revision {revision} lose their control plane, which goes last",
            "warning",
        )
    for revision, plane in new.planes.items():
        was, now = (model.mesh_version(one) for one in (old.planes.get(revision, {}), plane))
        if was and now and minor(now) < minor(was):
            yield Effect(
                "high",
                f"Istio {was} → {now} is a way back, which `pulumi up` refuses once the upgrade is complete",
                "warning",
            )


def _revisions(before: Mapping[str, Service], after: Mapping[str, Service]) -> Iterator[Effect]:
    moved: dict[tuple[str, str], list[str]] = {}
    for name, service in after.items():
        for version, workload in service.workloads.items():
            old = before[name].workloads.get(version) if name in before else None
            was, now = _revision(old) if old else "", _revision(workload)
            if was and now and was != now:
                found = moved.setdefault((was, now), [])
                found += [name] if name not in found else []
    for (was, now), whose in moved.items():
        yield Effect(
            "medium",
            f"the pods of {listed(whose)} restart one by one to go from the control plane {was} to {now}: those of "
            "both talk to each other, and requests go on if that one is there and injects",
            "meanwhile",
        )


def _revision(workload: Resource) -> str:
    return str(model.template(workload).get("metadata", {}).get("labels", {}).get(names.REVISION, ""))


def _encryption(old: Mesh, new: Mesh, services: Mapping[str, Service]) -> Iterator[Effect]:
    if old.encrypts == new.encrypts:
        return
    strict: Sequence[str] = [name for name, one in services.items() if one.mtls == "STRICT"]
    if new.encrypts:
        yield Effect("low", "the proxies encrypt by themselves again wherever both sides have a sidecar")
        return
    kept = f"all but those to {listed(strict)}" if strict else "all of them"
    yield Effect(
        "high",
        "the proxies no longer encrypt by themselves (enableAutoMtls): requests between services go in plain text, "
        f"{kept}, and services elsewhere that take mutual TLS only refuse them",
    )
