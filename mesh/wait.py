"""Waits for the proxies between two steps of a change, so that no request meets a subset that is not there.

Run by the command in components/routing.py, which says on stdin what to wait for: all services at once, so that a
change of many asks a proxy no more often than a change of one. The proxies themselves are asked, by their admin
interface: what istiod has sent says nothing on what they have taken over.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import names
from mesh import drain
from mesh.cluster.envoy import Cluster, Proxy, each, proxies
from mesh.cluster.kubectl import Kubectl, KubectlError
from mesh.cluster.objects import is_ready

SECONDS = 120.0
PAUSE = 0.2
_SHOWN = 20

Missing = str
"""What a proxy lacks, in words; '' when it is ready."""

Known = Mapping[str, Collection[str]]
"""Service → subsets."""


@dataclass(frozen=True)
class Service:
    """`subsets`: name → the labels that its pods have beside `selector`."""

    selector: Mapping[str, str]
    subsets: Mapping[str, Mapping[str, str]]


@dataclass(frozen=True)
class Subsets:
    """Those of all services of a stack."""

    kubectl: Kubectl
    namespace: str
    services: Mapping[str, Service]

    def announced(self) -> str:
        """Waits until every proxy knows the subsets, with an endpoint for each that has a pod that is ready."""
        ready = self._with_ready_pods()

        def missing(proxy: Proxy) -> Missing:
            known: defaultdict[str, dict[str, bool]] = defaultdict(dict)
            for status in proxy.json("clusters", format="json").get("cluster_statuses", []):
                if found := self._destination(Cluster.parse(status["name"])):
                    service, subset = found
                    known[service][subset] = known[service].get(subset, False) or bool(status.get("host_statuses"))
            lacking = {
                service: [
                    subset
                    for subset in self.services[service].subsets
                    if subset not in found or (subset in ready[service] and not found[subset])
                ]
                for service, found in known.items()  # it sees nothing of the others
            }
            return _said("does not know", lacking)

        return f"{self._until(missing)} proxies know the subsets of {', '.join(self.services)}"

    def forgotten(self, routed: Known) -> str:
        """Waits until no proxy has a route to a subset but those that are still `routed` to."""

        def missing(proxy: Proxy) -> Missing:
            going: defaultdict[str, set[str]] = defaultdict(set)
            for service, subset in filter(None, map(self._destination, proxy.destinations())):
                if subset and subset not in routed.get(service, ()):
                    going[service].add(subset)
            return _said("still sends to", going)

        return (
            f"{self._until(missing)} proxies send to no other subsets than the rules of {', '.join(routed) or 'none'}"
        )

    def drained(self, routed: Known) -> None:
        """Waits for what is in flight to the subsets that are no longer `routed` to, as their pods may go next."""
        labels = {
            f"{subset} of {name}": {**service.selector, **own}
            for name, service in self.services.items()
            for subset, own in service.subsets.items()
            if subset not in routed.get(name, ())
        }
        try:
            drain.drained(self.kubectl, drain.going(self.kubectl, self.namespace, labels))
        except KubectlError as error:
            print(f"did not wait for what is in flight: {error}")

    def routed(self) -> Known:
        """The subsets that the live rules of the services have a route to, a weight of 0 included."""
        rules = self.kubectl.items("virtualservices.networking.istio.io", f"--namespace={self.namespace}")
        specs = {rule["metadata"]["name"]: rule["spec"] for rule in rules}
        return {
            service: set(_subsets(specs[rule]))
            for service in self.services
            if (rule := names.virtual_service(service)) in specs
        }

    def _destination(self, cluster: Cluster | None) -> tuple[str, str] | None:
        """(service, subset), if it is one of ours."""
        if not cluster:
            return None
        service = cluster.host.partition(".")[0]
        ours = service in self.services and cluster.leads_to(service, self.namespace)
        return (service, cluster.subset) if ours else None

    def _with_ready_pods(self) -> Known:
        pods = self.kubectl.items("pods", f"--namespace={self.namespace}")
        ready = [pod["metadata"].get("labels", {}).items() for pod in pods if is_ready(pod)]
        return {
            name: {
                subset
                for subset, labels in service.subsets.items()
                if any({**service.selector, **labels}.items() <= has for has in ready)
            }
            for name, service in self.services.items()
        }

    def _until(self, missing: Callable[[Proxy], Missing]) -> int:
        """How many proxies were asked until none lacked anything. Raises `TimeoutError`."""
        end = time.monotonic() + SECONDS
        waiting: Sequence[Proxy] = proxies(self.kubectl)
        count = len(waiting)
        while True:
            answers = each(waiting, lambda proxy: _answer(proxy, missing))
            if not (lacking := {proxy: text for proxy, text in answers.items() if text}):
                return count
            if time.monotonic() > end:
                lines = [f"  {proxy.namespace}/{proxy.pod} {text}" for proxy, text in lacking.items()]
                more = [f"  and {len(lines) - _SHOWN} more"] if len(lines) > _SHOWN else []
                listed = "\n".join([*lines[:_SHOWN], *more])
                raise TimeoutError(
                    f"after {SECONDS:.0f} seconds {len(lacking)} of {count} proxies are not ready for the change:\n"
                    f"{listed}\n"
                    "What comes after was not done, and requests go where they went. See what holds them up "
                    "(istioctl proxy-status), then `pulumi up` again."
                )
            waiting = list(lacking)
            time.sleep(PAUSE)


def _answer(proxy: Proxy, missing: Callable[[Proxy], Missing]) -> Missing:
    try:
        return missing(proxy)
    except KubectlError as error:
        # A pod that has gone asks nobody any more.
        return "" if proxy.is_gone() else f"cannot be asked: {error}"


def _said(what: str, subsets: Known) -> Missing:
    listed = [f"{', '.join(sorted(some))} of {service}" for service, some in sorted(subsets.items()) if some]
    return f"{what} {', '.join(listed)}" if listed else ""


def _subsets(spec: Any) -> Iterator[str]:
    """Of every destination in a VirtualService, mirrors included."""
    if isinstance(spec, list):
        for value in spec:
            yield from _subsets(value)
    elif isinstance(spec, Mapping):
        for key, value in spec.items():
            if key in ("destination", "mirror"):
                yield value.get("subset", "")
            else:
                yield from _subsets(value)


def main(step: str) -> None:
    kubectl = Kubectl(os.environ["MESH_CONTEXT"], os.environ["MESH_KUBECONFIG"])
    # The states of earlier versions of this program have commands without stdin, which only have to go.
    services = {name: Service(**service) for name, service in json.loads(sys.stdin.read() or "{}").items()}
    waiting = Subsets(kubectl, os.environ["MESH_NAMESPACE"], services)
    try:
        match step:
            case "announced":
                print(waiting.announced())
            case "forgotten":
                _forgotten(waiting)
            case _:
                raise SystemExit(f"unknown step '{step}': announced or forgotten")
    except (KubectlError, TimeoutError) as error:
        raise SystemExit(str(error)) from None


def _forgotten(waiting: Subsets) -> None:
    """When the rules go altogether, so may the proxies: nothing may stop that."""
    routed: Known = {}
    try:
        routed = waiting.routed()
        print(waiting.forgotten(routed))
    except (KubectlError, TimeoutError) as error:
        if routed:
            raise
        print(f"did not wait: {error}")
    waiting.drained(routed)


if __name__ == "__main__":
    main(sys.argv[1])
