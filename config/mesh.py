"""Which cluster, and which Istio on it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from config.types import DnsLabel, Model, ObjectName, RevisionName, Strings
from config.versions import NEWEST_MINOR, OLDEST_MINOR, order

DEFAULT_REVISION = "default"
"""Istio's own name for the control plane that was installed without one."""

ChartKey = Literal["base", "cni", "istiod", "ingress", "egress"]
ImageName = Literal["pilot", "proxyv2", "install-cni"]
ImageReference = Annotated[
    str,
    Field(
        # A name without a slash would be looked for in the hub.
        pattern=r"^[^\s/]+(/[^\s/]+)+[:@][^\s/]+$",
        description="a whole image reference with a tag or a digest, such as registry.example.com/istio/pilot@sha256:…",
    ),
]


def _yaml_off(value: object) -> object:
    """YAML 1.1 reads a bare `off` as false."""
    return "off" if value is False else value


class Cluster(Model):
    """Which cluster. https://kubernetes.io/docs/concepts/configuration/organize-cluster-access-kubeconfig/"""

    context: str = Field("", description="the name of a context in the kubeconfig")
    kubeconfig: str = Field("", description="the path of a kubeconfig; '' is $KUBECONFIG or ~/.kube/config")


class Revision(Model):
    """One control plane beside others. https://istio.io/latest/docs/setup/upgrade/canary/"""

    version: str = Field(
        pattern=r"^[0-9]{1,4}\.[0-9]{1,4}\.[0-9]{1,4}(-[0-9A-Za-z.-]+)?$",
        description=f'a quoted Istio version from {OLDEST_MINOR} to {NEWEST_MINOR}, such as "{NEWEST_MINOR}.0"',
    )


class Mesh(Model):
    """The Istio control plane. https://istio.io/latest/docs/setup/install/helm/"""

    mode: Annotated[Literal["managed", "existing", "off"], BeforeValidator(_yaml_off)] = Field(
        "managed",
        description="managed (this stack installs Istio), existing (somebody else's Istio) or off (no mesh)",
    )
    version: str = Field(
        "",
        pattern=r"^([0-9]{1,4}\.[0-9]{1,4}\.[0-9]{1,4}(-[0-9A-Za-z.-]+)?)?$",
        description=f'a quoted Istio version from {OLDEST_MINOR} to {NEWEST_MINOR}, such as "{NEWEST_MINOR}.0"',
    )
    profile: Literal["default", "minimal", "demo"] = Field("default", description="default, minimal or demo")
    cni: bool = Field(True, description="true or false: the Istio CNI node agent instead of an init container")
    purge: bool = Field(False, description="true or false: destroy also removes Istio's CRDs")
    namespace: DnsLabel = "istio-system"
    revision: str = Field(
        "",
        description="the revision that injects the sidecars: one of mesh.revisions, or one of an existing Istio, '' "
        "being its default one",
    )
    revisions: Mapping[RevisionName, Revision] = Field(
        default_factory=dict,
        description="control planes beside each other, by name, in the place of mesh.version; 'default' is the one "
        "that mesh.version would be",
    )
    platform: str = Field("", description="a platform that the charts know, such as openshift, gke or k3s; or aks")
    ingress: bool | None = Field(None, description="true, false or unset (as the profile says)")
    egress: bool | None = Field(None, description="true, false or unset (as the profile says)")
    values: Mapping[ChartKey, Mapping[str, Any]] = Field(
        default_factory=dict, description="Helm values by chart: base, cni, istiod, ingress, egress"
    )
    charts: str = Field(
        "", description="'' (the official place), a folder of charts or .tgz files, an https:// repository or oci://"
    )
    hub: str = Field("", description="an image hub such as registry.example.com/istio; '' is the official one")
    images: Mapping[ImageName, ImageReference] = Field(
        default_factory=dict,
        description="images in the place of those in the hub: pilot, proxyv2 (sidecars and gateways), install-cni",
    )
    prometheus: str = Field(
        "",
        pattern=r"^(https?://[^\s]+)?$",
        description="the URL of a Prometheus with Istio's standard metrics, for the gates of mesh shift; '' is the "
        "callers' sidecars themselves",
    )
    accept: tuple[ObjectName, ...] = Field(
        (),
        strict=False,
        description="a list of objects of others that decide over requests to this stack's services and are meant to, "
        "such as Sidecar office/default: mesh status shows them, and does not fail for them",
    )
    image_pull_secrets: Strings = Field((), description="a list of names of Secrets")

    @property
    def on(self) -> bool:
        return self.mode != "off"

    @property
    def default_revision(self) -> str:
        return self.revision or DEFAULT_REVISION

    @property
    def control_planes(self) -> dict[str, Mesh]:
        """Revision → this mesh as if it had that control plane alone, for a managed one."""
        if not self.revisions:
            return {self.default_revision: self}
        return {
            name: self.with_revision(name).model_copy(update={"version": revision.version, "revisions": {}})
            for name, revision in self.revisions.items()
        }

    @property
    def current(self) -> Mesh:
        """This mesh as if it had the default one of its control planes alone."""
        return self.control_planes[self.default_revision]

    @property
    def oldest(self) -> Mesh:
        return min(self.control_planes.values(), key=lambda plane: order(plane.version))

    @property
    def newest(self) -> Mesh:
        return max(self.control_planes.values(), key=lambda plane: order(plane.version))

    def with_revision(self, name: str) -> Mesh:
        """This mesh with another default revision."""
        return self.model_copy(update={"revision": "" if name == DEFAULT_REVISION else name})

    @property
    def has_ingress(self) -> bool:
        return self.profile != "minimal" if self.ingress is None else self.ingress

    @property
    def has_egress(self) -> bool:
        return self.profile == "demo" if self.egress is None else self.egress
