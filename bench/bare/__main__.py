"""Reads its weights where our program does, so that one stack file serves both."""

import pulumi
from pulumi_kubernetes.apiextensions import CustomResource

weights = pulumi.Config("istio-governance").require_object("routing")["bill-service"]["weights"]

CustomResource(
    "bare",
    api_version="networking.istio.io/v1beta1",
    kind="VirtualService",
    metadata={"name": "bare", "namespace": "istio-demo"},
    spec={
        "hosts": ["bare"],
        "http": [
            {
                "name": "bare",
                "route": [
                    {"destination": {"host": "bill-service", "subset": version}, "weight": weight}
                    for version, weight in weights.items()
                ],
            }
        ],
    },
)
