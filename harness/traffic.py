"""Requests from one pod to a service, counted by who answered."""

from __future__ import annotations

import json
import math
import re
import shlex
import time
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from mesh.kubectl import Kubectl


@dataclass(frozen=True)
class Answers:
    """`by_version` counts the good answers; every other request failed."""

    requests: int
    by_version: Mapping[str, int]

    @property
    def failed(self) -> int:
        return self.requests - sum(self.by_version.values())


def ask(kubectl: Kubectl, namespace: str, requests: int) -> Answers:
    """Sends `requests` requests from the front-tomcat pod to bill-service, each on a connection of its own.

    kube-proxy balances connections and Envoy requests: this way both split every single one.
    """
    url = f"http://bill-service:9999/?[1-{requests}]"
    curl = ["curl", "--silent", "--header", "Connection: close", "--write-out", "\n%{http_code}\n", url]
    # curl's exit code is that of its last request; the count below has them all.
    printed = kubectl.run(*_caller(namespace), "sh", "-c", f"{shlex.join(curl)} || true", timeout=60 + requests)
    answers = re.findall(r"this is bill-service-(\S+)\n+200\n", printed)
    return Answers(requests, Counter(answers))


def _caller(namespace: str) -> list[str]:
    return ["exec", "--namespace", namespace, "deployment/front-tomcat-v1", "--container", "front-tomcat", "--"]


def wait_until_answering(kubectl: Kubectl, namespace: str, versions: Collection[str], seconds: float = 20) -> None:
    """Waits until every version answers and no request fails: kube-proxy learns of new pods a moment after they are
    ready. Raises `TimeoutError`."""
    end = time.monotonic() + seconds
    while (answers := ask(kubectl, namespace, 40)).failed or set(answers.by_version) != set(versions):
        if time.monotonic() > end:
            raise TimeoutError(f"after {seconds:.0f} s bill-service answers {answers}")
        time.sleep(0.2)


def three_sigma(requests: int, weight: int) -> tuple[int, int]:
    """The range that holds 99.7 % of all counts when a version gets `weight` percent of `requests`."""
    share = weight / 100
    spread = 3 * math.sqrt(requests * share * (1 - share))
    return math.ceil(requests * share - spread), math.floor(requests * share + spread)


def enforced_weights(kubectl: Kubectl, namespace: str) -> dict[str, int]:
    """Version → weight for bill-service as the front-tomcat's own Envoy has it; {} when it has no such route."""
    dump = "http://127.0.0.1:15000/config_dump?resource=dynamic_route_configs&mask=route_config.virtual_hosts"
    configs = json.loads(kubectl.run(*_caller(namespace), "curl", "--silent", dump)).get("configs", [])
    for host in (host for config in configs for host in config["route_config"].get("virtual_hosts", [])):
        if host["name"].startswith("bill-service.") and host["name"].endswith(":9999"):
            route = host["routes"][0]["route"]
            if "cluster" in route:
                return {_subset(route["cluster"]): 100}
            clusters = route["weighted_clusters"]["clusters"]
            return {_subset(cluster["name"]): cluster["weight"] for cluster in clusters}
    return {}


def _subset(cluster: str) -> str:
    """`outbound|9999|v1|bill-service.istio-demo.svc.cluster.local` → v1."""
    return cluster.split("|")[2]


def wait_until_enforced(kubectl: Kubectl, namespace: str, weights: Mapping[str, int], seconds: float = 10) -> float:
    """Waits until the caller's Envoy has these weights and says how long it took; raises `TimeoutError`."""
    start, wanted = time.monotonic(), {version: weight for version, weight in weights.items() if weight}
    while (found := enforced_weights(kubectl, namespace)) != wanted:
        if time.monotonic() - start > seconds:
            raise TimeoutError(f"after {seconds:.0f} s the caller's proxy has the weights {found}, not {wanted}")
        time.sleep(0.1)
    return time.monotonic() - start
