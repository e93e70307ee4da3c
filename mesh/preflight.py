"""What is checked in the live cluster before Pulumi touches it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pulumi

import names
from config import EnvVarSource, Problem, SecretKeyRef, StackConfig
from config.problems import report
from istio import charts, rules
from mesh import purge, upgrade
from mesh.cluster import owners
from mesh.cluster.kubectl import Kubectl, KubectlError, here
from mesh.cluster.objects import identity, live, named
from mesh.program.offline import is_offline
from mesh.routes import foresee, others
from mesh.routes.model import expected

# An unreachable cluster is told within ten seconds, of which Pulumi needs two to start.
_REQUEST_TIMEOUT, _TIMEOUT = "--request-timeout=4s", 8.0

# As kubectl takes the kinds.
_RESOURCES = {
    "Namespace": "namespaces",
    "ServiceAccount": "serviceaccounts",
    "Service": "services",
    "Deployment": "deployments.apps",
    "StatefulSet": "statefulsets.apps",
    "DaemonSet": "daemonsets.apps",
    "DestinationRule": "destinationrules.networking.istio.io",
    "VirtualService": "virtualservices.networking.istio.io",
    "Gateway": "gateways.networking.istio.io",
    "ServiceEntry": "serviceentries.networking.istio.io",
    "NetworkPolicy": "networkpolicies.networking.k8s.io",
    "PodDisruptionBudget": "poddisruptionbudgets.policy",
    "PeerAuthentication": "peerauthentications.security.istio.io",
}
_NO_SUCH_KIND = ("doesn't have a resource type", "could not find the requested resource")

Found = Mapping[tuple[str, str], Mapping[str, Any]]
"""(kind, name) → the object."""


def check(config: StackConfig, owner: str, whole: bool = True) -> bool:
    """Ends the program when the cluster cannot be reached, or when an object that the stack would make is not its own.

    The Kubernetes provider would adopt such an object without a word, and a later destroy would delete it.

    Returns whether pods of the mesh may be there already, so that the program is an upgrade of it. Without `whole` it
    is a part of a stack: others may be about to make its namespace, and have made what it does not declare.
    """
    if is_offline():
        return True
    cluster = config.cluster
    if problems := list(_missing_files(config)):
        raise pulumi.RunError(report(problems))
    if any(chart.made_from for chart in (charts.charts(config.mesh) if config.mesh.mode == "managed" else ())):
        _copy_charts(config)
    kubectl, made = Kubectl(cluster.context, here(cluster.kubeconfig)), declared(config)
    try:
        with ThreadPoolExecutor() as pool:
            mesh_pods = pool.submit(_mesh_pods, kubectl, config)
            rivals = pool.submit(_decided, kubectl, config, owner)
            found = {**_found(kubectl, config, made), **_secrets(kubectl, config, made)}
            refused = list(_refusals(kubectl, config, owner, found, mesh_pods.result()))
            going = list(_going(kubectl, config, owner, found, made)) if whole else []
    except KubectlError as error:
        where = cluster.context or cluster.kubeconfig or "the current context"
        raise pulumi.RunError(
            f"the cluster cannot be read ({where}); nothing was changed\n\n"
            f"     kubectl says: {error}\n"
            "     fix:          check cluster.context and cluster.kubeconfig, and that you can reach it: "
            "kubectl get namespaces"
        ) from None
    foreign = in_the_way(config, found, made, owner)
    ours = [one for one in rivals.result() if one.is_ours]
    for one in rivals.result():
        if not one.is_ours:
            pulumi.warn(f"{one.what}\n     fix: {one.fix}")
    if whole and not config.namespace.create and ("Namespace", config.namespace.name) not in found:
        raise pulumi.RunError(
            f"the namespace {config.namespace.name} is not there; nothing was changed\n\n"
            "     fix: make it, or set namespace.create to true to let this stack make it"
        )
    if missing := list(_missing_values(config, found)):
        raise _refusal("no pod starts without the Secrets that its environment takes values from", missing)
    if foreign:
        raise _refusal(
            "the cluster has objects in the way that this stack does not own", foreign, "to take them over: mesh adopt"
        )
    if ours:
        raise _refusal(
            "rules of others would decide over requests to this stack's services",
            [f"{one.what}\n     fix: {one.fix}" for one in ours],
        )
    if going:
        raise _refusal("a namespace of this stack would be deleted, with what has to stay", going)
    if refused:
        raise _refusal("the mesh cannot become what the configuration says", refused)
    if changed := sorted(reselected(config, found)):
        raise _refusal("Kubernetes can change no workload's selector, only replace it with all its pods", changed)
    return bool(mesh_pods.result())


def _decided(kubectl: Kubectl, config: StackConfig, owner: str) -> list[foresee.Rival]:
    """What others have in the whole cluster that would count in the place of the stack's rules."""
    services = [expected(one) for one in rules.routed(config)]
    if not services:
        return []
    found = others.read(kubectl, config.mesh.namespace, _REQUEST_TIMEOUT, timeout=_TIMEOUT)
    return foresee.rivals(services, found, owner, config.mesh.accept)


def _copy_charts(config: StackConfig) -> None:
    from mesh.program import copies  # few need it, and it takes its time to import

    try:
        copies.make(config.mesh, Path())
    except copies.CopyError as error:
        raise _refusal("a chart that the stack consists of is missing", [str(error)]) from None
    pulumi.warn(copies.note(config.mesh))


def _refusal(what: str, lines: list[str], last: str = "") -> pulumi.RunError:
    listed = "\n".join(f"  {number}. {line}" for number, line in enumerate(lines, 1))
    return pulumi.RunError(f"{what}; nothing was changed\n\n{listed}" + (f"\n\n{last}" if last else ""))


def declared(config: StackConfig) -> set[tuple[str, str]]:
    """(kind, name) of every object that the stack makes itself, Helm's left out."""
    objects = {("Namespace", config.namespace.name)} if config.namespace.create else set()
    if config.mesh.mode == "managed":
        objects.add(("Namespace", config.mesh.namespace))
    if config.nodes.mode == "daemonset":
        objects.add(("Namespace", names.NODES))
    for name, service in config.services.items():
        if service.workload == "existing":
            continue
        objects.add(("ServiceAccount", name))
        if service.ports:
            objects.add(("Service", name))
        if service.secrets:
            objects.add(("Secret", names.env_secret(name)))
        objects |= {(service.workload, names.workload(name, version)) for version in service.versions}
        if service.disruption_budget:
            objects |= {("PodDisruptionBudget", names.workload(name, version)) for version in service.versions}
    if config.namespace.default_deny:
        called = (names.callers(name) for name, service in config.services.items() if service.ports)
        objects |= {("NetworkPolicy", name) for name in (names.DEFAULT_DENY, *called)}
    for routed in rules.routed(config):
        objects |= {(made.kind, made.name) for made in (*routed.before, routed.weights)}
    for host, egress in config.outside.items():
        made_for_host = rules.outside(host, egress, config.namespace.name, config.mesh.namespace)
        objects |= {(made.kind, made.name) for made in made_for_host}
    return objects


def _is_file(path: str) -> bool:
    """False also for what cannot be a path, such as the content of a kubeconfig."""
    try:
        return Path(path).expanduser().is_file()
    except (OSError, RuntimeError, ValueError):
        return False


def _missing_files(config: StackConfig) -> Iterator[Problem]:
    if config.cluster.kubeconfig and not _is_file(config.cluster.kubeconfig):
        yield Problem(
            "cluster.kubeconfig",
            config.cluster.kubeconfig,
            "the path of a kubeconfig, from the project's folder",
            "correct it, or make the cluster: `make cluster-up` for the local one",
        )
    if config.mesh.mode == "managed":
        yield from charts.problems(config.mesh, Path())


def _refusals(
    kubectl: Kubectl, config: StackConfig, owner: str, found: Found, mesh_pods: upgrade.Pods
) -> Iterator[str]:
    """Why the mesh that is there cannot be changed into the one of the configuration."""
    mesh, namespace = config.mesh, found.get(("Namespace", config.mesh.namespace))
    if mesh.mode == "managed":
        yield from upgrade.refusals(mesh, mesh_pods, lambda: _pods(kubectl, config.namespace.name, names.REVISION))
    elif mesh.purge and namespace and owners.is_of(namespace, owner):
        # The guard would say the same, but only after the workloads have lost their sidecars.
        try:
            purge.guard(kubectl, owner, mesh.namespace)
        except purge.ForeignObjectsError as refused:
            yield str(refused)


def _going(
    kubectl: Kubectl, config: StackConfig, owner: str, found: Found, made: set[tuple[str, str]]
) -> Iterator[str]:
    """What would be lost with the namespaces of this stack that it does not declare any more."""
    gone = [
        name
        for (kind, name), item in found.items()
        if kind == "Namespace" and (kind, name) not in made and owners.goes_with(item, owner)
    ]
    if config.namespace.name in gone:
        name = config.namespace.name
        yield (
            f"namespace.create is false, and the namespace {name} is one that this stack made: it would go with "
            "all that is in it\n     fix: set namespace.create to true; to give the namespace up, set namespace.keep "
            "to true with it, `pulumi up`, and only then set namespace.create to false, without namespace.keep"
        )
        gone.remove(name)
    for item in owners.strangers(kubectl, owner, config.mesh.namespace, gone):
        yield (
            f"{identity(item)} {owners.whose(item)}, and would go with its namespace\n"
            "     fix: move or delete it, or hand it to this stack: kubectl annotate -n "
            f"{item['metadata']['namespace']} {item['kind'].lower()} {item['metadata']['name']} {names.OWNER}={owner}"
        )


def _mesh_pods(kubectl: Kubectl, config: StackConfig) -> upgrade.Pods:
    return _pods(kubectl, config.mesh.namespace) if config.mesh.mode == "managed" else []


def _pods(kubectl: Kubectl, namespace: str, selector: str = "") -> upgrade.Pods:
    return kubectl.items(
        "pods", f"--namespace={namespace}", f"--selector={selector}", _REQUEST_TIMEOUT, timeout=_TIMEOUT
    )


def _found(kubectl: Kubectl, config: StackConfig, made: set[tuple[str, str]]) -> Found:
    """What is in the cluster of the kinds that the stack makes; the rules' CRDs may not be there yet."""
    resources = sorted({"namespaces", *(_RESOURCES[kind] for kind, _ in made if kind != "Secret")})
    try:
        objects = _get(kubectl, config, resources)
    except KubectlError as error:
        if not any(sign in str(error) for sign in _NO_SUCH_KIND):
            raise
        objects = _get(kubectl, config, [resource for resource in resources if not resource.endswith(".istio.io")])
    return {(item["kind"], item["metadata"]["name"]): item for item in objects}


def _secrets(kubectl: Kubectl, config: StackConfig, made: set[tuple[str, str]]) -> Found:
    """Those that the stack makes or takes values from; of the others nothing is read."""
    wanted = {name for kind, name in made if kind == "Secret"} | {one.name for _, one in _references(config)}
    found = live(kubectl, [named("Secret", name, config.namespace.name) for name in sorted(wanted)])
    return {(one.kind, one.name): item for one, item in found.items()}


def _references(config: StackConfig) -> Iterator[tuple[str, SecretKeyRef]]:
    """The key of each variable whose value is in somebody else's Secret, and which value of it."""
    for name, service in config.services.items():
        for version in service.versions if service.workload != "existing" else ():
            for variable, value in service.version(version).env.items():
                if isinstance(value, EnvVarSource) and value.secret_key_ref:
                    yield f"services.{name}.versions.{version}.env.{variable}", value.secret_key_ref


def _missing_values(config: StackConfig, found: Found) -> Iterator[str]:
    """In a namespace that is there: one that the stack is about to make gets its Secrets afterwards."""
    namespace = config.namespace.name
    if ("Namespace", namespace) not in found:
        return
    for variable, reference in _references(config):
        secret = found.get(("Secret", reference.name))
        if secret is None:
            yield (
                f"{variable}: there is no Secret {reference.name} in the namespace {namespace}\n"
                f"     fix: kubectl -n {namespace} create secret generic {reference.name} "
                f"--from-file={reference.key}=FILE"
            )
        elif reference.key not in (secret.get("data") or {}):
            there = ", ".join(sorted(secret.get("data") or {})) or "nothing"
            yield (
                f"{variable}: the Secret {reference.name} has no key {reference.key}; it has {there}\n"
                "     fix: correct secretKeyRef.key, or add the key to the Secret"
            )


def _get(kubectl: Kubectl, config: StackConfig, resources: list[str]) -> list[dict[str, Any]]:
    namespace = f"--namespace={config.namespace.name}"
    items: list[dict[str, Any]] = kubectl.json(
        "get", ",".join(resources), namespace, _REQUEST_TIMEOUT, timeout=_TIMEOUT
    )["items"]
    return items


def in_the_way(config: StackConfig, found: Found, made: set[tuple[str, str]], owner: str) -> list[str]:
    """Objects of others that have a name of those that are `made`, or rules for our hosts."""
    return sorted([*_foreign(config, found, made, owner), *_rivals(config, found, made, owner)])


def _foreign(config: StackConfig, found: Found, made: set[tuple[str, str]], owner: str) -> Iterator[str]:
    for kind, name in made:
        if (kind, name) in found and owners.stack_of(found[kind, name]) != owner:
            yield f"{kind} {name} {owners.whose(found[kind, name])}\n     fix: {_fix(config, kind, name)}"


def _rivals(config: StackConfig, found: Found, made: set[tuple[str, str]], owner: str) -> Iterator[str]:
    """Rules of others for our hosts: Istio takes one VirtualService a host, the oldest, and merges DestinationRules."""
    ours = {host: service for service in config.weights for host in _host_names(service, config.namespace.name)}
    for (kind, name), item in found.items():
        if kind not in ("DestinationRule", "VirtualService") or owners.is_of(item, owner):
            continue
        spec = item.get("spec", {})
        hosts = {str(host) for host in [*spec.get("hosts", []), spec.get("host", "")]}
        for service in sorted({ours[host] for host in hosts & ours.keys()}):
            if (kind, name) not in made:
                yield (
                    f"{kind} {name} {owners.whose(item)}, and has rules for the host {service}, as routing.{service}\n"
                    f"     fix: take the host out of it, or take out routing.{service}"
                )


def reselected(config: StackConfig, found: Found) -> Iterator[str]:
    """Versions whose pods would all go before new ones come, because their Deployment gets another selector."""
    for name, service in config.services.items():
        for version in service.versions if service.workload != "existing" else ():
            item = found.get((service.workload, names.workload(name, version)), {})
            live = item.get("spec", {}).get("selector", {}).get("matchLabels")
            wanted = {**config.selector(name), "version": service.version_label(version)}
            if live not in (None, wanted):
                yield (
                    f"services.{name}.versions.{version}: its pods are selected by {json.dumps(live)}, "
                    f"not by {json.dumps(wanted)}\n"
                    f"     fix: give the version another name beside the new label, and its weight to that name: one "
                    f"`pulumi up` then starts the new pods, moves the requests, and removes the old ones"
                )


def _host_names(service: str, namespace: str) -> set[str]:
    return {service, f"{service}.{namespace}", f"{service}.{namespace}.svc", f"{service}.{namespace}.svc.cluster.local"}


def _fix(config: StackConfig, kind: str, name: str) -> str:
    if kind == "Namespace" and name == config.mesh.namespace:
        return "set mesh.mode to existing to use the Istio that is there, or remove it first"
    if kind == "Namespace" and name == names.NODES:
        return f"remove what another stack left there (kubectl delete namespace {name}), or set nodes.mode to none"
    if kind == "Namespace":
        return "set namespace.create to false to use it as it is, or choose another namespace.name"
    return f"delete it (kubectl -n {config.namespace.name} delete {kind.lower()} {name}), or name yours differently"
