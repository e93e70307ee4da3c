"""The metadata that every object of a stack carries."""

from __future__ import annotations

from collections.abc import Mapping

import pulumi
from pulumi_kubernetes.meta.v1 import ObjectMetaArgs

import names


def metadata(
    name: str,
    namespace: pulumi.Input[str] | None = None,
    labels: Mapping[str, str] | None = None,
    annotations: Mapping[str, str] | None = None,
) -> ObjectMetaArgs:
    """Metadata that names this stack as the owner, which is how the preflight tells ours from everybody else's."""
    owner = f"{pulumi.get_project()}/{pulumi.get_stack()}"
    return ObjectMetaArgs(
        name=name,
        namespace=namespace,
        labels={"app.kubernetes.io/managed-by": "pulumi", **(labels or {})},
        annotations={names.OWNER: owner, **(annotations or {})},
    )
