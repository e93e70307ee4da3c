"""How the requests to one service are split between its versions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pulumi

import names
from components.kubernetes import KubernetesObject
from config import Service


@dataclass(frozen=True)
class RoutingArgs:
    """`weights` has a whole number from 0 to 100 for every version of `service`; they add up to 100."""

    service: Service
    weights: Mapping[str, int]
    namespace: pulumi.Input[str]


class Routing(pulumi.ComponentResource):
    """One DestinationRule per subset beside a base one, and the VirtualService with the weights.

    Istio merges the DestinationRules of one host and namespace. As each subset is a resource of its own, Pulumi makes
    a new one before the weights change and deletes an old one after: in one rule for all, a removed subset would go
    while requests are still sent to it.

    https://istio.io/latest/docs/ops/best-practices/traffic-management/#split-virtual-services
    https://istio.io/latest/docs/reference/config/networking/destination-rule/
    https://istio.io/latest/docs/reference/config/networking/virtual-service/
    """

    weights: pulumi.Output[Mapping[str, int]]

    def __init__(self, name: str, args: RoutingArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("istio-governance:routing:Routing", name, None, opts)
        self._namespace = args.namespace
        base = self._rule("DestinationRule", names.destination_rule(name), {"host": name})
        subsets = [
            self._rule(
                "DestinationRule",
                names.subset_rule(name, version),
                {
                    "host": name,
                    "subsets": [{"name": version, "labels": {"version": args.service.version_label(version)}}],
                },
            )
            for version in args.weights
        ]
        route = [
            {"destination": {"host": name, "subset": version}, "weight": weight}
            for version, weight in args.weights.items()
        ]
        self._rule(
            "VirtualService",
            names.virtual_service(name),
            {"hosts": [name], "http": [{"name": names.route(name), "route": route}]},
            after=[base, *subsets],
        )
        self.weights = pulumi.Output.from_input(dict(args.weights))
        self.register_outputs({"weights": self.weights})

    def _rule(
        self, kind: str, name: str, spec: Mapping[str, Any], after: list[KubernetesObject] | None = None
    ) -> KubernetesObject:
        return KubernetesObject(
            kind,
            name,
            namespace=self._namespace,
            spec=spec,
            opts=pulumi.ResourceOptions(parent=self, depends_on=after),
        )
