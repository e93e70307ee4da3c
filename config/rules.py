"""The rules between keys, which no single field can check.

They look at the raw values and step over whatever has the wrong shape (the model reports that), so that a typing
mistake in one place does not hide a wrong weight in another.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import names
from config import versions
from config.problems import MISSING, Problem, nearest

Raw = Mapping[str, Any]


def check(raw: Raw, needs_cluster: bool) -> list[Problem]:
    """Every broken rule of the merged configuration `raw`."""
    rules = (*RULES, names_a_cluster) if needs_cluster else RULES
    return [problem for rule in rules for problem in rule(raw)]


def _map(raw: object, *path: str) -> Raw:
    """The map at `path`, or {} where there is none."""
    for key in path:
        raw = raw.get(key) if isinstance(raw, Mapping) else None
    return raw if isinstance(raw, Mapping) else {}


def _services(raw: Raw) -> Iterator[tuple[str, Raw, Raw]]:
    """Name, service and versions."""
    for name, service in _map(raw, "services").items():
        yield name, _map(service), _map(service, "versions")


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _inherited(service: Raw, version: str, key: str) -> object:
    own = _map(service, "versions", version)
    return own[key] if key in own else _map(service, "template").get(key)


def names_a_cluster(raw: Raw) -> Iterator[Problem]:
    cluster = _map(raw, "cluster")
    if not cluster.get("context") and not cluster.get("kubeconfig"):
        yield Problem(
            "cluster",
            MISSING,
            "a context or a kubeconfig: a stack never goes to whatever context is current",
            "pulumi config set --path cluster.context <name>; kubectl config get-contexts lists them",
        )


def supported_version(raw: Raw) -> Iterator[Problem]:
    mesh = _map(raw, "mesh")
    version = mesh.get("version", "")
    allowed = f"a version from {versions.OLDEST_MINOR} to {versions.NEWEST_MINOR}"
    if mesh.get("mode", "managed") == "managed" and version == "":
        yield Problem("mesh.version", MISSING, allowed, "say which Istio to install, or set mesh.mode")
    elif isinstance(version, str) and version[:1].isdigit() and version.count(".") >= 2:
        try:
            supported = versions.is_supported(version)
        except ValueError:
            return  # the model says so
        if not supported:
            yield Problem(
                "mesh.version", version, allowed, f"take a supported one, {versions.NEWEST_MINOR}.0 for instance"
            )


def every_version_has_an_image(raw: Raw) -> Iterator[Problem]:
    for name, service, service_versions in _services(raw):
        for version in service_versions if service.get("workload") != "existing" else ():
            if _inherited(service, version, "image") is None:
                yield Problem(
                    f"services.{name}.versions.{version}.image",
                    MISSING,
                    "an image such as nginx:alpine",
                    f"set it there, or for all versions in services.{name}.template.image",
                )


def names_are_unique(raw: Raw) -> Iterator[Problem]:
    """`a` with `b-c` and `a-b` with `c` would both make the Deployment a-b-c."""
    count = Counter(names.workload(name, version) for name, _, vs in _services(raw) for version in vs)
    for name, _, service_versions in _services(raw):
        for version in service_versions:
            if count[names.workload(name, version)] > 1:
                yield Problem(
                    f"services.{name}.versions.{version}",
                    MISSING,
                    "a Deployment name <service>-<version> that no other version has",
                    f"rename the service or the version: '{name}-{version}' is taken twice",
                )


def rule_names_are_unique(raw: Raw) -> Iterator[Problem]:
    """`a` with `b` would make the DestinationRule dest-a-b, and so would the service `a-b`."""
    bases = {names.destination_rule(name): name for name in _map(raw, "routing")}
    for name in _map(raw, "routing"):
        for version in _map(raw, "services", name, "versions"):
            rule = names.subset_rule(name, version)
            if rule in bases:
                yield Problem(
                    f"services.{name}.versions.{version}",
                    MISSING,
                    "a DestinationRule name dest-<service>-<version> that no other rule has",
                    f"rename the service or the version: '{rule}' is the rule of the service {bases[rule]}",
                )


def version_labels_are_unique(raw: Raw) -> Iterator[Problem]:
    """Two Deployments with one selector would fight over their pods."""
    for name, service, service_versions in _services(raw):
        labels = {version: _inherited(service, version, "versionLabel") or version for version in service_versions}
        for version, label in labels.items():
            if list(labels.values()).count(label) > 1:
                yield Problem(
                    f"services.{name}.versions.{version}",
                    MISSING,
                    f"a value of the label version that no other version of {name} has",
                    f"change services.{name}.versions.{version}.versionLabel: '{label}' is taken twice",
                )


def namespaces_differ(raw: Raw) -> Iterator[Problem]:
    mesh, namespace = _map(raw, "mesh"), _map(raw, "namespace")
    workloads = namespace.get("name", "istio-demo")
    if (
        mesh.get("mode", "managed") == "managed"
        and namespace.get("create", True)
        and workloads == mesh.get("namespace", "istio-system")
    ):
        yield Problem(
            "namespace.name",
            workloads,
            "another namespace than the mesh's, which this stack makes too",
            "choose another namespace.name or another mesh.namespace",
        )


def rules_name_a_service_with_a_port(raw: Raw) -> Iterator[Problem]:
    services = _map(raw, "services")
    for name in _map(raw, "routing"):
        if name not in services:
            yield Problem(f"routing.{name}", MISSING, "the name of a service", nearest(name, services))
        elif not _map(services, name, "ports"):
            yield Problem(
                f"routing.{name}",
                MISSING,
                "a service with a port: requests to no port cannot be split",
                f"add services.{name}.ports, or take the rule out",
            )


def weights_name_versions(raw: Raw) -> Iterator[Problem]:
    for name in _map(raw, "routing"):
        known = _map(raw, "services", name, "versions")
        for version, weight in _map(raw, "routing", name, "weights").items():
            if known and version not in known:
                yield Problem(
                    f"routing.{name}.weights.{version}", weight, f"a version of {name}", nearest(version, known)
                )


def weights_add_up(raw: Raw) -> Iterator[Problem]:
    for name in _map(raw, "routing"):
        weights = _map(raw, "routing", name, "weights")
        if weights and all(_is_whole(weight) for weight in weights.values()) and sum(weights.values()) != 100:
            yield Problem(
                f"routing.{name}.weights",
                dict(weights),
                f"weights that add up to 100; these add up to {sum(weights.values())}",
                "set them together: pulumi config set-all --path "
                + " ".join(f"--plaintext 'routing.{name}.weights.{version}=…'" for version in weights),
            )


def weighted_versions_have_pods(raw: Raw) -> Iterator[Problem]:
    for name, service, service_versions in _services(raw):
        weights = _map(raw, "routing", name, "weights")
        for version in service_versions:
            weight = weights.get(version, 0)
            if _is_whole(weight) and weight > 0 and _inherited(service, version, "replicas") == 0:
                yield Problem(
                    f"routing.{name}.weights.{version}",
                    weight,
                    "0, because this version has no replicas: its share of the requests would fail",
                    f"set services.{name}.versions.{version}.replicas to 1 or more, or the weight to 0",
                )


def daemon_sets_have_no_replicas(raw: Raw) -> Iterator[Problem]:
    for name, service, service_versions in _services(raw):
        for version in service_versions if service.get("workload") == "DaemonSet" else ():
            replicas = _inherited(service, version, "replicas")
            if replicas is not None:
                yield Problem(
                    f"services.{name}.versions.{version}.replicas",
                    replicas,
                    "no number: a DaemonSet has one pod on each node",
                    f"take it out, or set services.{name}.workload to Deployment",
                )


def selectors_leave_the_version_alone(raw: Raw) -> Iterator[Problem]:
    for name, service, _ in _services(raw):
        if "version" in _map(service, "selector"):
            yield Problem(
                f"services.{name}.selector.version",
                _map(service, "selector")["version"],
                "labels that all versions share",
                "take it out: the Service must reach every version, and each Deployment adds its own",
            )


RULES: tuple[Callable[[Raw], Iterator[Problem]], ...] = (
    supported_version,
    every_version_has_an_image,
    names_are_unique,
    rule_names_are_unique,
    version_labels_are_unique,
    namespaces_differ,
    rules_name_a_service_with_a_port,
    weights_name_versions,
    weights_add_up,
    weighted_versions_have_pods,
    daemon_sets_have_no_replicas,
    selectors_leave_the_version_alone,
)
