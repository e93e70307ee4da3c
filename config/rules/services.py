"""The rules on services and their versions."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator

import names
from config.problems import MISSING, Problem
from config.rules.raw import Raw, each_service, inherited, is_whole, map_at
from config.services import spoken


def every_version_has_an_image(raw: Raw) -> Iterator[Problem]:
    for name, service, service_versions in each_service(raw):
        for version in service_versions if service.get("workload") != "existing" else ():
            if inherited(service, version, "image") is None:
                yield Problem(
                    f"services.{name}.versions.{version}.image",
                    MISSING,
                    "an image such as nginx:alpine",
                    f"set it there, or for all versions in services.{name}.template.image",
                )


def names_are_unique(raw: Raw) -> Iterator[Problem]:
    """`a` with `b-c` and `a-b` with `c` would both make the Deployment a-b-c."""
    count = Counter(names.workload(name, version) for name, _, vs in each_service(raw) for version in vs)
    for name, _, service_versions in each_service(raw):
        for version in service_versions:
            if count[names.workload(name, version)] > 1:
                yield Problem(
                    f"services.{name}.versions.{version}",
                    MISSING,
                    "a Deployment name <service>-<version> that no other version has",
                    f"rename the service or the version: '{name}-{version}' is taken twice",
                )


def version_labels_are_unique(raw: Raw) -> Iterator[Problem]:
    """Two Deployments with one selector would fight over their pods."""
    for name, service, service_versions in each_service(raw):
        labels = {version: inherited(service, version, "versionLabel") or version for version in service_versions}
        for version, label in labels.items():
            if list(labels.values()).count(label) > 1:
                yield Problem(
                    f"services.{name}.versions.{version}",
                    MISSING,
                    f"a value of the label version that no other version of {name} has",
                    f"change services.{name}.versions.{version}.versionLabel: '{label}' is taken twice",
                )


def daemon_sets_have_no_replicas(raw: Raw) -> Iterator[Problem]:
    for name, service, service_versions in each_service(raw):
        for version in service_versions if service.get("workload") == "DaemonSet" else ():
            replicas = inherited(service, version, "replicas")
            if replicas is not None:
                yield Problem(
                    f"services.{name}.versions.{version}.replicas",
                    replicas,
                    "no number: a DaemonSet has one pod on each node",
                    f"take it out, or set services.{name}.workload to Deployment",
                )


def selectors_leave_the_version_alone(raw: Raw) -> Iterator[Problem]:
    for name, service, _ in each_service(raw):
        if "version" in map_at(service, "selector"):
            yield Problem(
                f"services.{name}.selector.version",
                map_at(service, "selector")["version"],
                "labels that all versions share",
                "take it out: the Service must reach every version, and each Deployment adds its own",
            )


def port_numbers_are_unique(raw: Raw) -> Iterator[Problem]:
    for name, service, _ in each_service(raw):
        taken: dict[int, str] = {}
        for port_name, port in map_at(service, "ports").items():
            number = map_at(port).get("port")
            if not isinstance(number, int):
                continue
            if number in taken:
                yield Problem(
                    f"services.{name}.ports.{port_name}.port",
                    number,
                    f"a port that no other of {name} has",
                    f"change it: '{taken[number]}' has the same",
                )
            taken.setdefault(number, port_name)


def ports_of_one_server_agree(raw: Raw) -> Iterator[Problem]:
    """The sidecar of a pod reads what comes in at a port as the first port of the Service says that leads there."""
    for name, service, _ in each_service(raw):
        first: dict[int, tuple[str, str]] = {}
        for port_name, port in map_at(service, "ports").items():
            number, protocol = map_at(port).get("port"), map_at(port).get("appProtocol")
            target = map_at(port).get("targetPort", number)
            if not isinstance(number, int) or not isinstance(target, int) or not isinstance(protocol, str | None):
                continue
            speaks = spoken(port_name, number, protocol)
            other, known = first.setdefault(target, (port_name, speaks))
            lost = (known, speaks) in (("http/1", "http/2"), ("http/1", "bytes"), ("http/2", "bytes"))
            if lost and map_at(raw, "mesh").get("mode") != "off":
                yield Problem(
                    f"services.{name}.ports.{port_name}",
                    dict(map_at(port)),
                    f"the protocol of '{other}', which leads to the same port of the pods: there, all is read as that",
                    f"put '{port_name}' before '{other}', or give both an appProtocol that Istio does not know, like "
                    "auto: then it looks at each connection",
                )


def selectors_differ(raw: Raw) -> Iterator[Problem]:
    """Each of two services with one selector would send requests to the pods of both."""
    taken: dict[str, str] = {}
    for name, service, _ in each_service(raw):
        selector = dict(map_at(service, "selector")) or {"app": name}
        key = json.dumps(selector, sort_keys=True, default=str)
        if key in taken:
            yield Problem(
                f"services.{name}.selector",
                selector,
                "labels that select the pods of this service alone",
                f"change it: the service {taken[key]} has the same",
            )
        taken.setdefault(key, name)


def existing_pods_have_no_revision(raw: Raw) -> Iterator[Problem]:
    for name, service, _ in each_service(raw):
        if service.get("workload") == "existing" and service.get("revision"):
            yield Problem(
                f"services.{name}.revision",
                service["revision"],
                "none: somebody else owns these pods, and with them the label that names their control plane",
                "take it out",
            )


def budgets_let_nodes_be_drained(raw: Raw) -> Iterator[Problem]:
    """A budget that no pod may leave stops every drain. https://kubernetes.io/docs/tasks/run-application/configure-pdb/"""
    for name, service, service_versions in each_service(raw):
        budget = map_at(service, "disruptionBudget")
        if not budget:
            continue
        key = f"services.{name}.disruptionBudget"
        if service.get("workload") in ("existing", "DaemonSet"):
            yield Problem(
                key,
                MISSING,
                "none: the pods of a DaemonSet are not evicted, and existing ones are somebody else's",
                "take it out",
            )
            continue
        least, most = budget.get("minAvailable"), budget.get("maxUnavailable")
        if (least is None) == (most is None):
            yield Problem(key, dict(budget), "either minAvailable or maxUnavailable", "keep one of the two")
            continue
        if most in (0, "0%") or least == "100%":
            yield Problem(key, dict(budget), "a budget that lets at least one pod go", "set maxUnavailable: 1")
        for version in service_versions if is_whole(least) else ():
            replicas = inherited(service, version, "replicas")
            if isinstance(replicas, int) and isinstance(least, int) and 0 < replicas <= least:
                yield Problem(
                    f"{key}.minAvailable",
                    least,
                    f"less than the {replicas} replicas of {version}, or its node can never be drained",
                    f"set it to {replicas - 1}, or add replicas",
                )


def only_an_own_namespace_denies_or_is_kept(raw: Raw) -> Iterator[Problem]:
    namespace = map_at(raw, "namespace")
    if namespace.get("keep") is True and namespace.get("create") is False:
        yield Problem(
            "namespace.keep",
            True,
            "false: a namespace that this stack does not make stays anyway",
            "take it out, or set namespace.create to true",
        )
    if namespace.get("defaultDeny") is True and namespace.get("create") is False:
        yield Problem(
            "namespace.defaultDeny",
            True,
            "false: in a namespace of somebody else it would cut off their pods",
            "take it out, or set namespace.create to true",
        )


RULES = (
    budgets_let_nodes_be_drained,
    only_an_own_namespace_denies_or_is_kept,
    every_version_has_an_image,
    names_are_unique,
    version_labels_are_unique,
    daemon_sets_have_no_replicas,
    selectors_leave_the_version_alone,
    existing_pods_have_no_revision,
    port_numbers_are_unique,
    ports_of_one_server_agree,
    selectors_differ,
)
