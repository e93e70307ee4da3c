"""An upgrade in place of everything: the control plane, the CNI node agent, the gateways, and every sidecar.

The older version is a stand-in (harness/standin.py). Neither contestant can have the cluster together with the other,
so each turn installs the older version, which is not timed, upgrades, and removes all again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bench.measure import Comparison, in_turn, seconds
from bench.peers import NAMESPACE, Istioctl, PeerError, Program
from config import merged
from harness.standin import CURRENT, OLDER, provide
from localcluster import EmbeddedCluster
from mesh.cluster import versions
from mesh.cluster.kubectl import Kubectl


def compared(cluster: EmbeddedCluster, ours: Program, peer: Istioctl, folder: Path, runs: int) -> Iterator[Comparison]:
    folder.mkdir()
    upgrades = _Upgrades(ours, peer, provide(cluster, dict(ours.config), folder))
    times = in_turn(runs, {"pulumi up, upgrade": upgrades.by_us, "istioctl upgrade, restarts": upgrades.by_istioctl})
    ours_took, theirs_took = times.values()
    yield Comparison("(e) an upgrade in place", "istioctl upgrade, kubectl restart", ours_took, theirs_took)


@dataclass(frozen=True)
class _Upgrades:
    ours: Program
    peer: Istioctl
    config: Mapping[str, Any]
    """The current version's, with charts of both versions."""

    def by_us(self, _turn: int) -> float:
        older = replace(self.ours, config=merged(self.config, {"mesh": {"version": OLDER}}))
        older.begin()
        older.install()
        current = replace(self.ours, config=self.config)
        current.begin()
        took = current.install()
        _require(self.ours.kubectl, CURRENT)
        current.remove()
        return took

    def by_istioctl(self, _turn: int) -> float:
        self.peer.install_version(OLDER)
        _require(self.ours.kubectl, OLDER)
        took = seconds(self._upgrade)
        _require(self.ours.kubectl, CURRENT)
        self.peer.remove()
        return took

    def _upgrade(self) -> None:
        """Neither gateways nor sidecars get the new proxy before they are restarted."""
        self.peer.upgrade()
        kubectl = self.ours.kubectl
        gateways = ("deployment/istio-ingressgateway", "deployment/istio-egressgateway")
        restarts = {"istio-system": gateways, NAMESPACE: ("deployment",)}
        for namespace, what in restarts.items():
            kubectl.run("rollout", "restart", *what, f"--namespace={namespace}")
        for namespace, what in restarts.items():
            for one in what:
                kubectl.run("rollout", "status", one, f"--namespace={namespace}", timeout=300)


def _require(kubectl: Kubectl, version: str) -> None:
    """Raises `PeerError` unless every part of the mesh has that version."""
    found = versions.read(kubectl)
    agents = [*found.gateways, *([found.cni] if found.cni else [])]
    seen = {part.version for parts in (found.control_planes, agents, found.proxies) for part in parts}
    if seen != {version}:
        raise PeerError(f"the mesh should be of {version}, but has parts of {', '.join(sorted(seen)) or 'none'}")
