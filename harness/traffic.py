"""Requests from one pod to a service, counted by who answered."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import time
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from threading import Event, Thread

from mesh.cluster.envoy import Proxy
from mesh.cluster.kubectl import Kubectl, KubectlError


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


class Load:
    """Requests from front-tomcat to bill-service without a pause, from `with` to its end, while pods come and go.

    It asks from a pod that is ready and stays, in batches that are over before a pod that was told to go is gone. A
    batch that its pod did not survive counts as far as it came.
    """

    def __init__(self, kubectl: Kubectl, namespace: str) -> None:
        self._kubectl, self._namespace = kubectl, namespace
        self._done = Event()
        self._thread = Thread(target=self._run)
        self.requests = 0
        self.failures: list[str] = []

    def __enter__(self) -> Load:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def wait_for(self, requests: int, seconds: float = 120) -> None:
        """Waits until so many have been sent, or the time is over."""
        end = time.monotonic() + seconds
        while self.requests < requests and time.monotonic() < end:
            time.sleep(0.2)

    def _run(self) -> None:
        while not self._done.is_set():
            pod = self._pod()
            if pod is None:
                self._done.wait(0.1)
                continue
            form = "\n=%{http_code} %{errormsg}\n"
            curl = ["curl", "--silent", "--max-time", "10", "--header", "Connection: close", "--write-out", form]
            curl.append("http://bill-service:9999/?[1-50]")
            command = self._kubectl.command(*_exec(self._namespace, pod), *curl)
            done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
            answers = re.findall(r"(.*)\n=(\d{3}) (.*)", done.stdout)
            self.requests += len(answers)
            now = time.strftime("%H:%M:%S")
            self.failures += [f"{now} {pod}: {' '.join(answer)}" for answer in answers if answer[1] != "200"]

    def _pod(self) -> str | None:
        """One that is ready and was not told to go."""
        try:
            pods = self._kubectl.items("pods", f"--namespace={self._namespace}", "--selector=app=front-tomcat")
        except KubectlError:
            return None
        for pod in pods:
            conditions = {c["type"]: c["status"] for c in pod["status"].get("conditions", [])}
            if "deletionTimestamp" not in pod["metadata"] and conditions.get("Ready") == "True":
                return f"pod/{pod['metadata']['name']}"
        return None


def _caller(namespace: str) -> list[str]:
    return _exec(namespace, "deployment/front-tomcat-v1")


def _exec(namespace: str, pod: str) -> list[str]:
    return ["exec", "--namespace", namespace, pod, "--container", "front-tomcat", "--"]


def wait_until_answering(kubectl: Kubectl, namespace: str, versions: Collection[str], seconds: float = 20) -> None:
    """Waits until every version answers and no request fails: kube-proxy learns of new pods a moment after they are
    ready. Raises `TimeoutError`."""
    end = time.monotonic() + seconds
    while (answers := ask(kubectl, namespace, 40)).failed or set(answers.by_version) != set(versions):
        if time.monotonic() > end:
            raise TimeoutError(f"after {seconds:.0f} s bill-service answers {answers}")
        time.sleep(0.2)


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


def splits(proxy: Proxy, service: str, namespace: str, route: str) -> list[dict[str, int]]:
    """Subset → weight, for each port on which the route called `route` of a proxy leads to the service.

    Read apart from what the product reads, which the tests hold it to.
    """
    configs = proxy.config("dynamic_route_configs", "route_config.virtual_hosts")
    hosts = [host for config in configs for host in config["route_config"].get("virtual_hosts", [])]
    found = []
    for rule in (rule for host in hosts for rule in host.get("routes", [])):
        action = rule.get("route", {}) if rule.get("name") == route else {}
        weighted = action.get("weighted_clusters", {}).get("clusters", [])
        shares = {entry["name"]: entry["weight"] for entry in weighted}
        shares |= {action["cluster"]: 100} if "cluster" in action else {}
        if shares and all(f"|{service}.{namespace}.svc." in name for name in shares):
            found.append({_subset(name): weight for name, weight in shares.items()})
    return found


def wait_until_enforced(kubectl: Kubectl, namespace: str, weights: Mapping[str, int], seconds: float = 10) -> float:
    """Waits until the caller's Envoy has these weights and says how long it took; raises `TimeoutError`."""
    start, wanted = time.monotonic(), {version: weight for version, weight in weights.items() if weight}
    while (found := enforced_weights(kubectl, namespace)) != wanted:
        if time.monotonic() - start > seconds:
            raise TimeoutError(f"after {seconds:.0f} s the caller's proxy has the weights {found}, not {wanted}")
        time.sleep(0.1)
    return time.monotonic() - start
