"""What all objects of a stack have in common: the cluster that they go to, what goes first, and whose they are."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

import pulumi
import pulumi_kubernetes as kubernetes

import names
from config import StackConfig, stack

_API: Final[Mapping[str, str]] = {
    **dict.fromkeys(("DestinationRule", "VirtualService", "Gateway", "ServiceEntry"), names.ROUTING_API),
    "PeerAuthentication": names.SECURITY_API,
}


Made = TypeVar("Made", bound=pulumi.Resource)


@dataclass
class InCluster:
    """The stack's cluster, and every component that the stack, or `parent` in it, `has` there so far.

    `prefix` is for the names of resources, and `secret` has the value of a secret key.
    """

    provider: kubernetes.Provider
    parent: pulumi.ComponentResource | None = None
    prefix: str = ""
    secret: Callable[[str], pulumi.Output[str] | None] = stack.secret
    made: list[pulumi.Resource] = field(default_factory=list)

    @classmethod
    def of(
        cls,
        config: StackConfig,
        parent: pulumi.ComponentResource | None = None,
        prefix: str = "",
        secret: Callable[[str], pulumi.Output[str] | None] = stack.secret,
    ) -> InCluster:
        """https://www.pulumi.com/registry/packages/kubernetes/api-docs/provider/"""
        has_secrets = any(service.secrets for service in config.services.values())
        provider = kubernetes.Provider(
            f"{prefix}cluster",
            context=config.cluster.context or None,
            kubeconfig=config.cluster.kubeconfig or None,
            enable_server_side_apply=True,
            # Else a changed value would delete the Secret and make it anew, and a pod that starts in between has none.
            enable_secret_mutable=True if has_secrets else None,
            opts=pulumi.ResourceOptions(parent=parent),
        )
        return cls(provider, parent, prefix, secret)

    def called(self, name: str) -> str:
        """The name of a resource here, of which another component may have one, too."""
        return f"{self.prefix}{name}"

    def inside(self) -> pulumi.ResourceOptions:
        return pulumi.ResourceOptions(parent=self.parent)

    def after(self, *resources: pulumi.Resource, protect: bool = False) -> pulumi.ResourceOptions:
        """For a component that is made when `resources` are done; on destroy it goes before them. `protect` goes for
        its children, too."""
        return pulumi.ResourceOptions(
            parent=self.parent, provider=self.provider, depends_on=resources, protect=protect or None
        )

    def has(self, component: Made) -> Made:
        self.made.append(component)
        return component


def metadata(
    name: str,
    *,
    namespace: pulumi.Input[str] | None = None,
    labels: Mapping[str, pulumi.Input[str]] | None = None,
    annotations: Mapping[str, pulumi.Input[str]] | None = None,
) -> kubernetes.meta.v1.ObjectMetaArgs:
    """Of an object of this stack, which says so."""
    return kubernetes.meta.v1.ObjectMetaArgs(
        name=name,
        namespace=namespace,
        labels={names.MANAGED_BY: "pulumi", **(labels or {})},
        annotations={names.OWNER: owner(), **(annotations or {})},
    )


def istio_object(
    kind: str, name: str, namespace: str, spec: Mapping[str, Any], opts: pulumi.ResourceOptions
) -> kubernetes.apiextensions.CustomResource:
    """One object of Istio's API: a VirtualService, DestinationRule, Gateway, ServiceEntry or PeerAuthentication.

    https://istio.io/latest/docs/reference/config/networking/
    """
    return kubernetes.apiextensions.CustomResource(
        name,
        api_version=_API[kind],
        kind=kind,
        metadata=metadata(name, namespace=namespace),
        spec=dict(spec),
        opts=opts,
    )


def owner() -> str:
    return f"{pulumi.get_project()}/{pulumi.get_stack()}"
