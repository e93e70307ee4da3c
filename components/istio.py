"""The Istio control plane, its CNI node agent and its gateways, by their Helm charts."""

from __future__ import annotations

from dataclasses import dataclass

import pulumi

from components.kubernetes import HelmRelease, KubernetesObject
from config import Mesh
from istio.charts import BASE, CNI, EGRESS, INGRESS, ISTIOD, Chart, charts


@dataclass(frozen=True)
class IstioArgs:
    """`mesh` with mode `managed`."""

    mesh: Mesh


class Istio(pulumi.ComponentResource):
    """base → istiod ‖ CNI → gateways.

    `injection` is what has to be there before a pod can start with a sidecar; the gateways are not.

    https://istio.io/latest/docs/setup/install/helm/
    """

    version: pulumi.Output[str]
    injection: list[pulumi.Resource]

    def __init__(self, name: str, args: IstioArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("istio-governance:istio:Istio", name, None, opts)
        mesh, releases = args.mesh, charts(args.mesh)
        namespace = KubernetesObject("Namespace", mesh.namespace, opts=pulumi.ResourceOptions(parent=self))
        # base has no pods: to wait for it is to wait for Helm's two-second poll.
        base = self._release(releases[BASE], mesh.namespace, after=[namespace], skip_await=True)
        istiod = self._release(releases[ISTIOD], mesh.namespace, after=[base])
        self.injection = [istiod]
        if CNI in releases:
            self.injection.append(self._release(releases[CNI], mesh.namespace, after=[base]))
        for gateway in (INGRESS, EGRESS):
            if gateway in releases:
                self._release(releases[gateway], mesh.namespace, after=[istiod])
        self.version = pulumi.Output.from_input(mesh.version)
        self.register_outputs({"version": self.version})

    def _release(
        self, chart: Chart, namespace: str, after: list[pulumi.Resource], skip_await: bool = False
    ) -> HelmRelease:
        return HelmRelease(
            chart.release,
            chart=chart.chart,
            repository=chart.repository,
            version=chart.version,
            namespace=namespace,
            values=chart.values,
            skip_await=skip_await,
            opts=pulumi.ResourceOptions(parent=self, depends_on=after),
        )
