"""Requests from one pod to a service, counted by who answered."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping
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
    pod = ["exec", "--namespace", namespace, "deployment/front-tomcat-v1", "--container", "front-tomcat", "--"]
    # curl's exit code is that of its last request; the count below has them all.
    printed = kubectl.run(*pod, "sh", "-c", f"{_quoted(curl)} || true", timeout=60 + requests)
    answers = re.findall(r"this is bill-service-(\S+)\n+200\n", printed)
    return Answers(requests, Counter(answers))


def _quoted(command: list[str]) -> str:
    return " ".join("'" + word.replace("'", "'\\''") + "'" for word in command)


def three_sigma(requests: int, weight: int) -> tuple[int, int]:
    """The range that holds 99.7 % of all counts when a version gets `weight` percent of `requests`."""
    share = weight / 100
    spread = 3 * math.sqrt(requests * share * (1 - share))
    return math.ceil(requests * share - spread), math.floor(requests * share + spread)
