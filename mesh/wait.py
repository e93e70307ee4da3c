"""Waits for the proxies between two steps of a change, so that no request meets a subset that is not there.

Run by the command in components/routing.py, which says on stdin what to wait for: all services at once, so that a
change of many asks a proxy no more often than a change of one.
"""

from __future__ import annotations

import json
import os
import sys
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import names
from mesh import drain
from mesh.cluster.dump import Cluster
from mesh.cluster.kubectl import Kubectl, KubectlError, here
from mesh.cluster.objects import is_ready
from mesh.routes.model import Caller, Config
from mesh.routes.wait import LateError, until

SECONDS = 120.0

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
        elsewhere: set[str] = set()

        def missing(caller: Caller, config: Config) -> str:
            lacking: defaultdict[str, set[str]] = defaultdict(set)
            for service, subsets, known in self._known(config):
                rule = config.clusters[known[""]] if "" in known else ""
                if rule and not rule.startswith(f"DestinationRule {self.namespace}/"):
                    elsewhere.add(f"{caller}, for whom {rule} counts")
                    continue
                for subset in subsets:
                    has_pod = subset in ready[service] and config.reached is not None
                    if subset not in known or (has_pod and known[subset] not in (config.reached or ())):
                        lacking[service].add(subset)
            return _said("does not know", lacking)

        count = self._until(missing, endpoints=True)
        for one in sorted(elsewhere):
            print(f"not waited for {one}")
        return f"{count} proxies know the subsets of {', '.join(self.services)}"

    def forgotten(self, routed: Known) -> str:
        """Waits until no proxy has a route to a subset but those that are still `routed` to."""

        def missing(_: Caller, config: Config) -> str:
            going: defaultdict[str, set[str]] = defaultdict(set)
            for service, subset in filter(None, map(self._destination, map(Cluster.parse, config.destinations))):
                if subset and subset not in routed.get(service, ()):
                    going[service].add(subset)
            return _said("still sends to", going)

        count = self._until(missing, tcp=None)
        return f"{count} proxies send to no other subsets than the rules of {', '.join(routed) or 'none'}"

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

    def _known(self, config: Config) -> Iterator[tuple[str, Collection[str], dict[str, str]]]:
        """Service, its subsets, and for each port those that a proxy knows → their cluster; '' is the whole."""
        found: defaultdict[tuple[str, int], dict[str, str]] = defaultdict(dict)
        for name in config.clusters:
            cluster = Cluster.parse(name)
            if cluster and (ours := self._destination(cluster)):
                service, subset = ours
                found[service, cluster.port][subset] = name
        for (service, _), known in found.items():
            yield service, self.services[service].subsets, known

    def _until(
        self, missing: Callable[[Caller, Config], str], tcp: Collection[int] | None = (), *, endpoints: bool = False
    ) -> int:
        """How many proxies were waited for until none lacked anything. Raises `TimeoutError`."""
        try:
            return until(self.kubectl, missing, SECONDS, tcp=tcp, endpoints=endpoints).callers
        except LateError as late:
            raise TimeoutError(
                f"{late}\nWhat comes after was not done, and requests go where they went. See what holds them up "
                "(istioctl proxy-status), then `pulumi up` again."
            ) from None


def _said(what: str, subsets: Known) -> str:
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
    kubectl = Kubectl(os.environ["MESH_CONTEXT"], here(os.environ["MESH_KUBECONFIG"]))
    # The states of earlier versions of this program have commands without stdin, which only have to go.
    services = {name: Service(**service) for name, service in json.loads(sys.stdin.read() or "{}").items()}
    waiting = Subsets(kubectl, os.environ["MESH_NAMESPACE"], services)
    try:
        match step:
            case "announced":
                print(waiting.announced())
            case "forgotten":
                _forgotten(waiting)
            case "drained":
                _drained(waiting)
            case _:
                raise SystemExit(f"unknown step '{step}': announced, forgotten or drained")
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


def _drained(waiting: Subsets) -> None:
    """The subsets stay, and so do their places in the rules, with a weight of 0."""
    routed = {service: set(of) - set(waiting.services[service].subsets) for service, of in waiting.routed().items()}
    print(waiting.forgotten(routed))
    waiting.drained(routed)


if __name__ == "__main__":
    main(sys.argv[1])
