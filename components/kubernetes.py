"""Kubernetes objects as Pulumi resources."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pulumi

import names


class KubernetesObject(pulumi.CustomResource):
    """One object of the Kubernetes API, with this stack as its owner.

    It has the types, and so the URNs and the provider's behaviour, of the classes in pulumi-kubernetes. Those of the
    core group alone take most of a second to import, more than a change of weights takes in all.
    """

    def __init__(
        self,
        kind: str,
        name: str,
        *,
        namespace: pulumi.Input[str] | None = None,
        labels: Mapping[str, str] | None = None,
        annotations: Mapping[str, str] | None = None,
        spec: Mapping[str, Any] | None = None,
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        """`kind` is one of KINDS."""
        api_version = KINDS[kind]
        if not kind.endswith("Patch"):  # somebody else's object must not say that it is ours
            labels = {"app.kubernetes.io/managed-by": "pulumi", **(labels or {})}
            annotations = {names.OWNER: _owner(), **(annotations or {})}
        metadata = {"name": name, "namespace": namespace, "labels": labels, "annotations": annotations}
        body = {"apiVersion": api_version, "kind": kind.removesuffix("Patch"), "metadata": metadata}
        group = api_version if "/" in api_version else f"core/{api_version}"
        super().__init__(
            f"kubernetes:{group}:{kind}", name, {**body, "spec": dict(spec)} if spec is not None else body, opts
        )


KINDS: Mapping[str, str] = {
    "Namespace": "v1",
    "NamespacePatch": "v1",
    "Service": "v1",
    "ServiceAccount": "v1",
    "Deployment": "apps/v1",
    "DestinationRule": names.ROUTING_API,
    "VirtualService": names.ROUTING_API,
}
"""The API version of each kind that the components make."""


def _owner() -> str:
    return f"{pulumi.get_project()}/{pulumi.get_stack()}"
