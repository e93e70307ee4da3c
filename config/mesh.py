"""Which cluster, and which Istio on it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from config.types import DnsLabel, Model, Strings
from config.versions import NEWEST_MINOR, OLDEST_MINOR

ChartKey = Literal["base", "cni", "istiod", "ingress", "egress"]


def _yaml_off(value: object) -> object:
    """YAML 1.1 reads a bare `off` as false."""
    return "off" if value is False else value


class Cluster(Model):
    """Which cluster. https://kubernetes.io/docs/concepts/configuration/organize-cluster-access-kubeconfig/"""

    context: str = Field("", description="the name of a context in the kubeconfig")
    kubeconfig: str = Field("", description="the path of a kubeconfig; '' is $KUBECONFIG or ~/.kube/config")


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
        "", description="the revision of an existing Istio that injects the sidecars; '' is the default one"
    )
    platform: str = Field("", description="a platform that the charts know, such as openshift, gke or k3s")
    ingress: bool | None = Field(None, description="true, false or unset (as the profile says)")
    egress: bool | None = Field(None, description="true, false or unset (as the profile says)")
    values: Mapping[ChartKey, Mapping[str, Any]] = Field(
        default_factory=dict, description="Helm values by chart: base, cni, istiod, ingress, egress"
    )
    charts: str = Field(
        "", description="'' (the official place), a folder of charts or .tgz files, an https:// repository or oci://"
    )
    hub: str = Field("", description="an image hub such as registry.example.com/istio; '' is the official one")
    image_pull_secrets: Strings = Field((), description="a list of names of Secrets")

    @property
    def on(self) -> bool:
        return self.mode != "off"

    @property
    def has_ingress(self) -> bool:
        return self.profile != "minimal" if self.ingress is None else self.ingress

    @property
    def has_egress(self) -> bool:
        return self.profile == "demo" if self.egress is None else self.egress
