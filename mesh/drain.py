"""Waits for what is in flight to pods that are about to go.

A pod's own proxy knows all of it: what it has passed on to its server and not seen the end of, be it a request, a
stream, an upgraded connection or one of plain TCP. So every caller counts, whatever its namespace, its route, with a
sidecar or without; a connection that is kept for the next request does not; and it takes a question for each pod that
goes, however many callers there are. Only where a pod has no proxy the proxies of all callers are asked instead.

https://www.envoyproxy.io/docs/envoy/latest/operations/admin#get--clusters
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

import names
from mesh.cluster.envoy import Host, Proxy, each, proxies, running
from mesh.cluster.kubectl import Kubectl, KubectlError
from mesh.cluster.objects import Object
from mesh.cluster.versions import has_proxy

PAUSE = 0.5
_SHOWN_EVERY = 10.0


@dataclass(frozen=True, eq=False)
class Going:
    """The pods of one version. `seconds` is how long it may take until nothing is in flight to them."""

    name: str
    seconds: int
    pods: Sequence[Object]


def going(kubectl: Kubectl, namespace: str, versions: Mapping[str, Mapping[str, str]]) -> list[Going]:
    """Those of `versions`, name → labels of their pods, that have pods of this program. Raises `KubectlError`."""
    pods = [
        pod
        for pod in kubectl.items("pods", f"--namespace={namespace}")
        # One that was told to go already cannot be held up.
        if "deletionTimestamp" not in pod["metadata"] and names.SIDECAR in pod["metadata"].get("annotations", {})
    ]
    found = []
    for name, labels in versions.items():
        own = [pod for pod in pods if labels.items() <= pod["metadata"].get("labels", {}).items()]
        found.append(Going(name, max(map(drain_seconds, own), default=0), own))
    return [version for version in found if version.seconds]


def drain_seconds(pod: Object) -> int:
    """The `drainSeconds` of its version, as the pod itself has them."""
    for container in pod["spec"]["containers"]:
        match container.get("lifecycle", {}).get("preStop", {}).get("exec", {}).get("command"):
            case ["sleep", str(seconds)] if seconds.isdecimal():
                return int(seconds)
    return 0


def drained(kubectl: Kubectl, versions: Iterable[Going]) -> None:
    """Waits until nothing is in flight to each of them, at most its seconds, and prints what it waits for.

    Raises `KubectlError`.
    """
    began, shown = time.monotonic(), dict[str, float]()
    waiting = list(versions)
    while waiting:
        found = _in_flight(kubectl, waiting)
        waited = time.monotonic() - began
        for version, flights in found.items():
            name, seconds = version.name, version.seconds
            if not flights:
                if name in shown:
                    _say(f"{name}: the last in flight has ended, after {waited:.0f} seconds")
            elif waited >= seconds:
                _say(
                    f"{name}: {flights} still, after {seconds} seconds. Pods that go now cut what does not end in time"
                )
            elif waited - shown.get(name, -_SHOWN_EVERY) >= _SHOWN_EVERY:
                shown[name] = waited
                _say(f"{name}: {flights}, with {seconds - waited:.0f} seconds left to end")
        waiting = [version for version, flights in found.items() if flights and waited < version.seconds]
        if waiting:
            time.sleep(PAUSE)


def _say(text: str) -> None:
    print(text, flush=True)  # Pulumi shows each line as it comes


@dataclass(frozen=True)
class _Flights:
    """`silent` are the proxies that could not be asked."""

    count: int
    silent: Sequence[str]

    def __bool__(self) -> bool:
        return bool(self.count or self.silent)

    def __str__(self) -> str:
        said = [f"{self.count} in flight"] if self.count else []
        return " and ".join([*said, *(f"{name} cannot be asked" for name in self.silent)])


def _in_flight(kubectl: Kubectl, versions: Sequence[Going]) -> dict[Going, _Flights]:
    own = {version: running(kubectl, version.pods) for version in versions}
    bare = {version: _addresses(pod for pod in version.pods if not has_proxy(pod)) for version in versions}
    callers = proxies(kubectl) if any(bare.values()) else []
    seen = each(list({*callers, *chain.from_iterable(own.values())}), _hosts)
    found = {}
    for version in versions:
        asked = [*own[version], *(callers if bare[version] else ())]
        count = sum(
            host.counts.get("rq_active", 0)  # a connection of plain TCP, too, is one, as long as somebody uses it
            for proxy in asked
            for cluster, host in seen[proxy] or ()
            if (_is_inbound(cluster) if proxy in own[version] else host.address.rpartition(":")[0] in bare[version])
        )
        silent = [f"{proxy.namespace}/{proxy.pod}" for proxy in asked if seen[proxy] is None]
        found[version] = _Flights(count, silent)
    return found


def _hosts(proxy: Proxy) -> list[tuple[str, Host]] | None:
    """None when it is there and cannot be asked."""
    try:
        return [*proxy.hosts()]
    except KubectlError:
        return [] if proxy.is_gone() else None


def _is_inbound(cluster: str) -> bool:
    """Whether it is the pod's own server, at a port of a service or at any other."""
    return cluster.startswith(("inbound|", "InboundPassthrough"))


def _addresses(pods: Iterable[Object]) -> set[str]:
    return {entry["ip"] for pod in pods for entry in pod.get("status", {}).get("podIPs", ())}
