"""What the control plane keeps of each proxy that is connected to it: what it was sent, and what it has acknowledged.

The same as `istioctl proxy-status`: https://istio.io/latest/docs/ops/diagnostic-tools/proxy-cmd/
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mesh.cluster import api, versions
from mesh.cluster.api import Question
from mesh.cluster.kubectl import Kubectl, KubectlError

_PORT = 8080
"""Where istiod answers whoever asks from its own pod, which is where a port-forward comes from."""
_SENT = "/debug/config_dump?types=rds,lds,cds"
_KINDS = ("listener", "route", "cluster", "endpoint")
_LOOKS, _PAUSE = 3, 1.0
# A nonce is the version of the push, time and number, and a UUID: 2026-11-27T23:59:28Z/31e71eb7e8-7762-…
_NONCE = re.compile(r"/(\d+)[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$")


@dataclass(frozen=True)
class Connection:
    """A proxy, as the `istiod` knows it that it is connected to.

    `stale` has what it was sent and has not taken: listener, route, cluster, endpoint; `error` is what Envoy says
    against it, '' where it says nothing. `pushes`: kind → the number of the push that it has acknowledged last. Each
    istiod counts its own pushes, and a proxy gets those that concern it.
    """

    pod: str
    namespace: str
    istiod: str
    stale: tuple[str, ...] = ()
    error: str = ""
    pushes: Mapping[str, int] = field(default_factory=dict, hash=False)

    def is_as_new_as(self, other: Connection) -> bool:
        """Whether it has acknowledged every push that the other one has, of the same istiod."""
        return self.istiod == other.istiod and all(
            self.pushes.get(kind, 0) >= other.pushes.get(kind, 0) for kind in ("listener", "route", "cluster")
        )


@dataclass(frozen=True)
class Proxy:
    """A running pod with a proxy. `stale` and `error` as those of its connection."""

    pod: str
    namespace: str
    connected: bool
    stale: tuple[str, ...] = ()
    error: str = ""

    @property
    def in_sync(self) -> bool:
        return self.connected and not self.stale


@dataclass(frozen=True)
class Istiods:
    """The running pods of all control planes in the cluster, by name and namespace."""

    kubectl: Kubectl
    pods: Sequence[tuple[str, str]]

    @classmethod
    def find(cls, kubectl: Kubectl) -> Istiods:
        """Raises `KubectlError`."""
        return cls.among(kubectl, api.pods(kubectl).labelled("app=istiod"))

    @classmethod
    def among(cls, kubectl: Kubectl, pods: Iterable[Mapping[str, Any]]) -> Istiods:
        running = [
            (pod["metadata"]["name"], pod["metadata"]["namespace"])
            for pod in pods
            if pod["metadata"].get("labels", {}).get("app") == "istiod"
            and "deletionTimestamp" not in pod["metadata"]
            and pod.get("status", {}).get("phase", "Running") == "Running"
        ]
        return cls(kubectl, running)

    def connections(self) -> list[Connection]:
        """By one question to each istiod. Raises `KubectlError` and `ValueError`."""
        return [_connection(istiod, entry) for istiod, entries in self._each("/debug/syncz") for entry in entries]

    def clients(self) -> dict[str, Mapping[str, str]]:
        """`<pod>.<namespace>` → labels, of every proxy, those without a pod as well. Raises as `connections`."""
        # The connection's number stands behind the proxy's name.
        return {
            client["connectionId"].rpartition("-")[0]: client.get("labels") or {}
            for _, answer in self._each("/debug/adsz")
            for client in answer.get("clients") or ()
        }

    def sent(self, connections: Sequence[Connection]) -> list[Sequence[Mapping[str, Any]] | KubectlError]:
        """The routes, listeners and clusters that each proxy was sent, as Envoy has them, or why nobody says so."""
        where = dict(self.pods)
        questions = [
            Question(where[one.istiod], one.istiod, _PORT, f"{_SENT}&proxyID={one.pod}.{one.namespace}")
            for one in connections
        ]
        return [_resources(answer) for answer in api.pods(self.kubectl).get(questions)]

    def _each(self, path: str) -> list[tuple[str, Any]]:
        """Name → answer."""
        answers = api.pods(self.kubectl).get([Question(namespace, name, _PORT, path) for name, namespace in self.pods])
        return [(name, json.loads(api.said(answer))) for (name, _), answer in zip(self.pods, answers, strict=True)]


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
    istiods = Istiods.among(kubectl, pods)
    if not istiods.pods:
        return []
    known = latest(istiods.connections())
    return [_proxy(pod, known) for pod in pods if versions.has_proxy(pod)]


def latest(connections: Sequence[Connection]) -> dict[tuple[str, str], Connection]:
    """By pod and namespace. One that has just gone to another istiod may still stand with the first."""
    found: dict[tuple[str, str], Connection] = {}
    for one in connections:
        key = one.pod, one.namespace
        if key not in found or len(one.stale) < len(found[key].stale):
            found[key] = one
    return found


def _proxy(pod: Mapping[str, Any], known: Mapping[tuple[str, str], Connection]) -> Proxy:
    name, namespace = pod["metadata"]["name"], pod["metadata"]["namespace"]
    found = known.get((name, namespace))
    return Proxy(name, namespace, True, found.stale, found.error) if found else Proxy(name, namespace, False)


def _connection(istiod: str, entry: Mapping[str, Any]) -> Connection:
    pod, _, namespace = entry["proxy"].rpartition(".")
    stale = tuple(kind for kind in _KINDS if entry.get(f"{kind}_sent", "") != entry.get(f"{kind}_acked", ""))
    # Not every version keeps it.
    error = next((error for kind in (entry.get("resources") or {}).values() if (error := kind.get("lastError"))), "")
    pushes = {kind: int(found[1]) for kind in _KINDS if (found := _NONCE.search(entry.get(f"{kind}_acked", "")))}
    return Connection(pod, namespace, istiod, stale, error, pushes)


def _resources(answer: bytes | KubectlError) -> Sequence[Mapping[str, Any]] | KubectlError:
    try:
        return [_in_snake_case(entry) for entry in json.loads(api.said(answer)).get("configs", ())]
    except KubectlError as error:
        return error
    except ValueError as error:
        return KubectlError(f"istiod's answer cannot be read: {error}")


def _in_snake_case(value: Any) -> Any:
    """istiod writes the names of fields in camelCase, Envoy as they are in its API."""
    if isinstance(value, Mapping):
        return {re.sub(r"(?<=[a-z0-9])([A-Z])", r"_\1", key).lower(): _in_snake_case(one) for key, one in value.items()}
    return [_in_snake_case(one) for one in value] if isinstance(value, list) else value
