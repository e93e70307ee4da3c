"""The Istio control plane, its CNI node agent and its gateways, by their Helm charts."""

from __future__ import annotations

from dataclasses import dataclass

import pulumi
from pulumi_kubernetes.core.v1 import Namespace
from pulumi_kubernetes.helm.v3 import Release, ReleaseArgs, RepositoryOptsArgs

from components.owned import metadata
from config import Mesh
from istio.charts import BASE, CNI, EGRESS, INGRESS, ISTIOD, Chart, charts


@dataclass(frozen=True)
class IstioArgs:
    """`mesh` with mode `managed`."""

    mesh: Mesh


class Istio(pulumi.ComponentResource):
    """base → istiod ‖ CNI → gateways; sidecars can be injected when the component is done.

    https://istio.io/latest/docs/setup/install/helm/
    """

    version: pulumi.Output[str]

    def __init__(self, name: str, args: IstioArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("istio-governance:istio:Istio", name, None, opts)
        mesh, releases = args.mesh, charts(args.mesh)
        namespace = Namespace(
            mesh.namespace, metadata=metadata(mesh.namespace), opts=pulumi.ResourceOptions(parent=self)
        )
        # base has no pods: to wait for it is to wait for Helm's two-second poll.
        base = self._release(releases[BASE], namespace, skip_await=True)
        istiod = self._release(releases[ISTIOD], namespace, after=[base])
        if CNI in releases:
            self._release(releases[CNI], namespace, after=[base])
        for gateway in (INGRESS, EGRESS):
            if gateway in releases:
                self._release(releases[gateway], namespace, after=[istiod])
        self.version = pulumi.Output.from_input(mesh.version)
        self.register_outputs({"version": self.version})

    def _release(
        self, chart: Chart, namespace: Namespace, after: list[Release] | None = None, skip_await: bool = False
    ) -> Release:
        return Release(
            chart.release,
            ReleaseArgs(
                name=chart.release,
                chart=chart.chart,
                version=chart.version,
                repository_opts=RepositoryOptsArgs(repo=chart.repository) if chart.repository else None,
                namespace=namespace.metadata.name,
                values=chart.values,
                skip_await=skip_await,
                timeout=300,
                max_history=5,
            ),
            pulumi.ResourceOptions(parent=self, depends_on=after),
        )
