"""The Istio control plane, its CNI node agent and its gateways, by their Helm charts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pulumi
from pulumi_kubernetes import core, helm

from components.kubernetes import InCluster, metadata
from components.purge import Purge, PurgeArgs
from config import Mesh, StackConfig
from config.mesh import ChartKey
from istio.charts import BASE, CNI, EGRESS, INGRESS, ISTIOD, Chart, charts

# What has to be there, and of the right version, first.
_NEEDS: Mapping[ChartKey, tuple[ChartKey, ...]] = {
    BASE: (),
    ISTIOD: (BASE,),
    CNI: (ISTIOD,),
    INGRESS: (ISTIOD,),
    EGRESS: (ISTIOD,),
}


@dataclass(frozen=True)
class IstioArgs:
    """`mesh` with mode `managed`; `first` when nothing of it runs yet.

    The CNI node agent works with a control plane of its own minor version or of the next, and not with an older one: so
    it waits for istiod, unless there is none that could be older. The first install is a fifth quicker for it.
    """

    mesh: Mesh
    first: bool = False


class Istio(pulumi.ComponentResource):
    """base → istiod, one for each revision → CNI ‖ gateways; at first CNI beside istiod.

    `injection` is what has to be there before a pod can start with a sidecar; the gateways are not.

    https://istio.io/latest/docs/setup/install/helm/
    """

    version: pulumi.Output[str]
    injection: list[pulumi.Resource]

    def __init__(self, name: str, args: IstioArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("istio-governance:istio:Istio", name, None, opts)
        mesh = args.mesh
        namespace = core.v1.Namespace(
            mesh.namespace, metadata=metadata(mesh.namespace), opts=pulumi.ResourceOptions(parent=self)
        )
        releases: dict[ChartKey, list[pulumi.Resource]] = {}
        needs = {**_NEEDS, CNI: _NEEDS[ISTIOD]} if args.first else _NEEDS
        for chart in charts(mesh):
            after = [namespace, *(release for key in needs[chart.key] for release in releases[key])]
            releases.setdefault(chart.key, []).append(self._release(chart, mesh.namespace, after))
        self.injection = [*releases[ISTIOD], *releases.get(CNI, [])]
        self.version = pulumi.Output.from_input(mesh.current.version)
        self.register_outputs({"version": self.version})

    def _release(self, chart: Chart, namespace: str, after: list[pulumi.Resource]) -> helm.v3.Release:
        return helm.v3.Release(
            chart.release,
            name=chart.release,
            # Without a repository it is a path or an oci:// reference.
            chart=chart.chart,
            repository_opts={"repo": chart.repository} if chart.repository else None,
            version=chart.version,
            namespace=namespace,
            values=dict(chart.values),
            timeout=300,
            max_history=5,
            # base has no pods: to wait for it is to wait for Helm's two-second poll.
            skip_await=chart.key == BASE,
            opts=pulumi.ResourceOptions(parent=self, depends_on=after),
        )


def install(
    config: StackConfig, cluster: InCluster, prepared: Sequence[pulumi.Resource], *, first: bool
) -> Sequence[pulumi.Resource]:
    """What has to be there before a pod starts with a sidecar: of the mesh of somebody else no more than the nodes."""
    if config.mesh.mode != "managed":
        return prepared
    leftovers = Purge(cluster.called("leftovers"), PurgeArgs(config.cluster, config.mesh), cluster.inside())
    after = cluster.after(leftovers, *prepared, protect=config.protect)
    return cluster.has(Istio(cluster.called("mesh"), IstioArgs(config.mesh, first), after)).injection
