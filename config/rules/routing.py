"""The rules on who gets which requests."""

from __future__ import annotations

from collections.abc import Iterator

import names
from config.problems import MISSING, Problem, nearest
from config.rules.raw import Raw, each_service, inherited, is_whole, map_at


def rule_names_are_unique(raw: Raw) -> Iterator[Problem]:
    """`a` with `b` would make the DestinationRule dest-a-b, and so would the service `a-b`."""
    bases = {names.destination_rule(name): name for name in map_at(raw, "routing")}
    for name in map_at(raw, "routing"):
        for version in map_at(raw, "services", name, "versions"):
            rule = names.subset_rule(name, version)
            if rule in bases:
                yield Problem(
                    f"services.{name}.versions.{version}",
                    MISSING,
                    "a DestinationRule name dest-<service>-<version> that no other rule has",
                    f"rename the service or the version: '{rule}' is the rule of the service {bases[rule]}",
                )


def rules_name_a_service_with_a_port(raw: Raw) -> Iterator[Problem]:
    services = map_at(raw, "services")
    for name in map_at(raw, "routing"):
        if name not in services:
            yield Problem(f"routing.{name}", MISSING, "the name of a service", nearest(name, services))
        elif not map_at(services, name, "ports"):
            yield Problem(
                f"routing.{name}",
                MISSING,
                "a service with a port: requests to no port cannot be split",
                f"add services.{name}.ports, or take the rule out",
            )


def weights_name_versions(raw: Raw) -> Iterator[Problem]:
    for name in map_at(raw, "routing"):
        known = map_at(raw, "services", name, "versions")
        for version, weight in map_at(raw, "routing", name, "weights").items():
            if known and version not in known:
                yield Problem(
                    f"routing.{name}.weights.{version}", weight, f"a version of {name}", nearest(version, known)
                )


def weights_add_up(raw: Raw) -> Iterator[Problem]:
    for name in map_at(raw, "routing"):
        weights = map_at(raw, "routing", name, "weights")
        if weights and all(is_whole(weight) for weight in weights.values()) and sum(weights.values()) != 100:
            yield Problem(
                f"routing.{name}.weights",
                dict(weights),
                f"weights that add up to 100; these add up to {sum(weights.values())}",
                "set them together: pulumi config set-all --path "
                + " ".join(f"--plaintext 'routing.{name}.weights.{version}=…'" for version in weights),
            )


def weighted_versions_have_pods(raw: Raw) -> Iterator[Problem]:
    for name, service, service_versions in each_service(raw):
        weights = map_at(raw, "routing", name, "weights")
        for version in service_versions:
            weight = weights.get(version, 0)
            if is_whole(weight) and weight > 0 and inherited(service, version, "replicas") == 0:
                yield Problem(
                    f"routing.{name}.weights.{version}",
                    weight,
                    "0, because this version has no replicas: its share of the requests would fail",
                    f"set services.{name}.versions.{version}.replicas to 1 or more, or the weight to 0",
                )


RULES = (
    rule_names_are_unique,
    rules_name_a_service_with_a_port,
    weights_name_versions,
    weights_add_up,
    weighted_versions_have_pods,
)
