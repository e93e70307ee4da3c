"""Waits for the proxies between two steps of a change, so that no request meets a subset that is not there.

Run by the commands in components/routing.py, which say by the environment what to wait for. The proxies themselves are
asked, by their admin interface: what istiod has sent says nothing on what they have taken over.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

from mesh.envoy import Cluster, Proxy, each, proxies
from mesh.kubectl import Kubectl, KubectlError

SECONDS = 120.0
PAUSE = 0.2

Missing = str
"""What a proxy lacks, in words; '' when it is ready."""


@dataclass(frozen=True)
class Subsets:
    """The subsets of one service: name → the labels that its pods have beside `selector`."""

    kubectl: Kubectl
    namespace: str
    service: str
    selector: Mapping[str, str]
    subsets: Mapping[str, Mapping[str, str]]

    def announced(self) -> str:
        """Waits until every proxy knows the subsets, with an endpoint for each that has a pod that is ready."""
        ready = {subset for subset, labels in self.subsets.items() if self._has_ready_pods(labels)}

        def missing(proxy: Proxy) -> Missing:
            known: dict[str, bool] = {}
            for status in proxy.json("clusters", format="json").get("cluster_statuses", []):
                cluster = Cluster.parse(status["name"])
                if cluster and cluster.leads_to(self.service, self.namespace):
                    known[cluster.subset] = known.get(cluster.subset, False) or bool(status.get("host_statuses"))
            if not known:
                return ""  # this one sees nothing of the service
            lacking = [s for s in self.subsets if s not in known or (s in ready and not known[s])]
            return f"does not know {', '.join(lacking)}" if lacking else ""

        count = self._until(missing)
        return f"{count} proxies know the subsets {', '.join(self.subsets)} of {self.service}"

    def drained(self, left: Collection[str]) -> str:
        """Waits until no proxy has a route to a subset of the service that is not `left`."""

        def missing(proxy: Proxy) -> Missing:
            used = {c.subset for c in proxy.destinations() if c.leads_to(self.service, self.namespace)}
            going = sorted(used - {"", *left})
            return f"still sends to {', '.join(going)}" if going else ""

        count = self._until(missing)
        return f"{count} proxies send to no other subset of {self.service} than {', '.join(left) or 'none'}"

    def _has_ready_pods(self, labels: Mapping[str, str]) -> bool:
        selector = ",".join(f"{key}={value}" for key, value in {**self.selector, **labels}.items())
        pods = self.kubectl.items("pods", f"--namespace={self.namespace}", f"--selector={selector}")
        conditions = [c for pod in pods for c in pod.get("status", {}).get("conditions", [])]
        return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)

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
                listed = "\n".join(f"  {proxy.namespace}/{proxy.pod} {text}" for proxy, text in lacking.items())
                raise TimeoutError(
                    f"after {SECONDS:.0f} seconds {len(lacking)} of {count} proxies are not ready for the change of "
                    f"{self.service}:\n{listed}\n"
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


def main(step: str) -> None:
    kubectl = Kubectl(os.environ["MESH_CONTEXT"], os.environ["MESH_KUBECONFIG"])
    waiting = Subsets(
        kubectl,
        os.environ["MESH_NAMESPACE"],
        os.environ["MESH_SERVICE"],
        json.loads(os.environ["MESH_SELECTOR"]),
        json.loads(os.environ["MESH_SUBSETS"]),
    )
    try:
        match step:
            case "announced":
                print(waiting.announced())
            case "drained":
                print(waiting.drained(waiting.subsets))
            case "forgotten":
                print(_leniently(lambda: waiting.drained(())))
            case _:
                raise SystemExit(f"unknown step '{step}': announced, drained or forgotten")
    except (KubectlError, TimeoutError) as error:
        raise SystemExit(str(error)) from None


def _leniently(wait: Callable[[], str]) -> str:
    """When the rules go altogether, so may the proxies: nothing may stop that."""
    try:
        return wait()
    except (KubectlError, TimeoutError) as error:
        return f"did not wait: {error}"


if __name__ == "__main__":
    main(sys.argv[1])
