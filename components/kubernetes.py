"""Kubernetes objects and Helm releases as Pulumi resources.

These have the types, and so the URNs and the provider's behaviour, of the classes in pulumi-kubernetes. They stand
here because those take up to half a second to import, half as long as a change of weights takes in all.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

import pulumi

import names
from config import Cluster


class KubernetesProvider(pulumi.ProviderResource):
    """The way to one cluster. https://www.pulumi.com/registry/packages/kubernetes/api-docs/provider/"""

    def __init__(self, name: str, cluster: Cluster, *, has_secrets: bool = False) -> None:
        settings = {
            "context": cluster.context or None,
            "kubeconfig": cluster.kubeconfig or os.environ.get("KUBECONFIG"),
            "enableServerSideApply": "true",
            # Else a changed value would delete the Secret and make it anew, and a pod that starts in between has none.
            "enableSecretMutable": "true" if has_secrets else None,
        }
        opts = pulumi.ResourceOptions(version=version("pulumi-kubernetes"))
        super().__init__("kubernetes", name, settings, opts)


class KubernetesObject(pulumi.CustomResource):
    """One object of the Kubernetes API, with this stack as its owner."""

    def __init__(
        self,
        kind: str,
        name: str,
        *,
        namespace: pulumi.Input[str] | None = None,
        labels: Mapping[str, str] | None = None,
        annotations: Mapping[str, str] | None = None,
        spec: Mapping[str, Any] | None = None,
        data: Mapping[str, pulumi.Input[str]] | None = None,
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        """`kind` is one of KINDS; `data` is that of a Secret, in Base64."""
        api_version = KINDS[kind]
        if not kind.endswith("Patch"):  # somebody else's object must not say that it is ours
            labels = {names.MANAGED_BY: "pulumi", **(labels or {})}
            annotations = {names.OWNER: _owner(), **(annotations or {})}
        metadata = {"name": name, "namespace": namespace, "labels": labels, "annotations": annotations}
        body = {"apiVersion": api_version, "kind": kind.removesuffix("Patch"), "metadata": metadata}
        content = {part: dict(value) for part, value in (("spec", spec), ("data", data)) if value is not None}
        group = api_version if "/" in api_version else f"core/{api_version}"
        super().__init__(f"kubernetes:{group}:{kind}", name, {**body, **content}, opts)


class HelmRelease(pulumi.CustomResource):
    """A Helm release. https://www.pulumi.com/registry/packages/kubernetes/api-docs/helm/v3/release/"""

    def __init__(
        self,
        name: str,
        *,
        chart: str,
        repository: str | None,
        version: str | None,
        namespace: str,
        values: Mapping[str, Any],
        skip_await: bool,
        opts: pulumi.ResourceOptions,
    ) -> None:
        """`repository` is that of `chart` and its `version`; without one `chart` is a path or an oci:// reference."""
        arguments = {
            "name": name,
            "chart": chart,
            "version": version,
            "repositoryOpts": {"repo": repository} if repository else None,
            "namespace": namespace,
            "values": dict(values),
            "skipAwait": skip_await,
            "timeout": 300,
            "maxHistory": 5,
            # What the SDK's own class sends, too.
            "compat": "true",
        }
        super().__init__("kubernetes:helm.sh/v3:Release", name, arguments, opts)


KINDS: Mapping[str, str] = {
    "Namespace": "v1",
    "NamespacePatch": "v1",
    "Service": "v1",
    "ServiceAccount": "v1",
    "Secret": "v1",
    "Deployment": "apps/v1",
    "StatefulSet": "apps/v1",
    "DaemonSet": "apps/v1",
    "NetworkPolicy": "networking.k8s.io/v1",
    "PodDisruptionBudget": "policy/v1",
    "DestinationRule": names.ROUTING_API,
    "VirtualService": names.ROUTING_API,
    "Gateway": names.ROUTING_API,
    "ServiceEntry": names.ROUTING_API,
    "PeerAuthentication": names.SECURITY_API,
}
"""The API version of each kind that the components make."""


def _owner() -> str:
    return f"{pulumi.get_project()}/{pulumi.get_stack()}"
