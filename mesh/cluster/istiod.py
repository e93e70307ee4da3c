"""Whether the proxies have the configuration that istiod has for them, by what istiod itself keeps of each of them.

The same as `istioctl proxy-status`: https://istio.io/latest/docs/ops/diagnostic-tools/proxy-cmd/
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from mesh.cluster import versions
from mesh.cluster.kubectl import Kubectl

_ASK = ("--container=discovery", "--", "pilot-discovery", "request", "GET", "/debug/syncz")
_KINDS = ("listener", "route", "cluster", "endpoint")
_LOOKS, _PAUSE = 3, 1.0


@dataclass(frozen=True)
class Proxy:
    """A running pod with a proxy. `stale` has what it was sent and has not taken: listener, route, cluster, endpoint.

    `error` is what Envoy says against it, '' where it says nothing.
    """

    pod: str
    namespace: str
    connected: bool
    stale: tuple[str, ...] = ()
    error: str = ""

    @property
    def in_sync(self) -> bool:
        return self.connected and not self.stale


def settled(kubectl: Kubectl) -> list[Proxy]:
    """Every proxy in the cluster; those of pods that have just begun, or of a change just made, get a few seconds.

    Nothing where there is no istiod to ask. Raises `KubectlError`.
    """
    for _ in range(_LOOKS - 1):
        found = read(kubectl)
        if all(proxy.in_sync for proxy in found):
            return found
        time.sleep(_PAUSE)
    return read(kubectl)


def read(kubectl: Kubectl) -> list[Proxy]:
    """One look; each istiod knows the proxies that are connected to it."""
    pods = versions.running_pods(kubectl)
    istiods = [pod for pod in pods if pod["metadata"].get("labels", {}).get("app") == "istiod"]
    if not istiods:
        return []
    with ThreadPoolExecutor() as pool:
        answers = [entry for entries in pool.map(lambda pod: _ask(kubectl, pod), istiods) for entry in entries]
    known: dict[str, list[Mapping[str, Any]]] = {}
    for entry in answers:
        known.setdefault(entry["proxy"], []).append(entry)
    return [_proxy(pod, known) for pod in pods if versions.has_proxy(pod)]


def _ask(kubectl: Kubectl, istiod: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    name, namespace = istiod["metadata"]["name"], istiod["metadata"]["namespace"]
    said = kubectl.run("exec", f"--namespace={namespace}", name, *_ASK, timeout=20)
    # Its own log may stand before the answer, which is one line.
    entries: list[Mapping[str, Any]] = json.loads(said.splitlines()[-1])
    return entries


def _proxy(pod: Mapping[str, Any], known: Mapping[str, list[Mapping[str, Any]]]) -> Proxy:
    name, namespace = pod["metadata"]["name"], pod["metadata"]["namespace"]
    found = [
        Proxy(name, namespace, True, _stale(entry), _error(entry)) for entry in known.get(f"{name}.{namespace}", ())
    ]
    # One that has just gone to another istiod may still stand with the first.
    return min(found, key=lambda proxy: len(proxy.stale), default=Proxy(name, namespace, False))


def _stale(entry: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(kind for kind in _KINDS if entry.get(f"{kind}_sent", "") != entry.get(f"{kind}_acked", ""))


def _error(entry: Mapping[str, Any]) -> str:
    """Not every version keeps it."""
    return next((error for kind in entry.get("resources", {}).values() if (error := kind.get("lastError"))), "")
