"""Requests from a pod inside the mesh, through that pod's own sidecar, by the curl in one of its containers."""

from __future__ import annotations

import re
import secrets
import shlex
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import names
from config import StackConfig
from mesh.cluster.envoy import CONTAINER, Proxy
from mesh.cluster.kubectl import Kubectl, KubectlError

_MARK = "mesh-probe-answer"
_ANSWER = re.compile(rf"\n?{_MARK} (\d+)\n")


class NoCallerError(Exception):
    """No pod can send requests; the message says what would help."""


@dataclass(frozen=True)
class Answers:
    """What the caller got; a `status` of 0 is no answer at all."""

    statuses: Counter[int]
    bodies: tuple[str, ...] = ()

    @property
    def failed(self) -> int:
        return sum(count for status, count in self.statuses.items() if not 0 < status < 500)

    @property
    def requests(self) -> int:
        return sum(self.statuses.values())


@dataclass(frozen=True)
class Caller:
    """A container with curl, beside this proxy."""

    proxy: Proxy
    container: str

    @property
    def pod(self) -> str:
        return self.proxy.pod

    @property
    def key(self) -> tuple[str, str]:
        return self.proxy.namespace, self.proxy.pod

    def can(self) -> bool:
        try:
            self._exec("curl", "--version")
        except KubectlError:
            return False
        return True

    def send(self, url: str, requests: int, *, bodies: bool = False, new_connections: bool = False) -> Answers:
        """GETs `url` `requests` times, one after the other, in at most a tenth of a second each plus a minute.

        `new_connections` makes one for each request, as kube-proxy balances connections and not requests.
        """
        curl = ["curl", "--silent", "--max-time", "30", "--write-out", rf"\n{_MARK} %{{http_code}}\n"]
        curl += [] if bodies else ["--output", "/dev/null"]
        curl += ["--header", "Connection: close"] if new_connections else []
        # A range makes curl ask again and again; in the fragment, which is never sent, it changes no request.
        curl.append(f"{url}#[1-{requests}]")
        # curl's exit code is that of its last request alone.
        printed = self._exec("sh", "-c", f"{shlex.join(curl)} || true", timeout=60 + requests / 10)
        parts = _ANSWER.split(f"\n{printed}")
        return Answers(Counter(int(status) for status in parts[1::2]), tuple(parts[0:-1:2]) if bodies else ())

    def _exec(self, *command: str, timeout: float = 20) -> str:
        where = ["exec", self.pod, f"--namespace={self.proxy.namespace}", f"--container={self.container}", "--"]
        return self.proxy.kubectl.run(*where, *command, timeout=timeout)


def find_caller(kubectl: Kubectl, config: StackConfig, service: str, workload: str = "", image: str = "") -> Caller:
    """A pod of `workload` (a service of the stack, one of its versions such as front-tomcat-v1, or office/clerk in
    another namespace) that can send requests; '' takes the first one, and those of `service` itself last. With an
    `image` that has curl the pod gets an ephemeral container, which uses the pod's network and so its sidecar. Raises
    `NoCallerError`."""
    candidates = list(_pods(kubectl, config, service, workload))
    if not candidates:
        raise NoCallerError(f"no running pod of {workload or 'this stack'} can send requests")
    if image:
        return _with_ephemeral_container(candidates[0], image)
    for caller in candidates:
        if caller.can():
            return caller
    raise NoCallerError(
        f"no container of {workload or 'this stack'} has curl: name another workload by --from, or an image that has "
        "curl by --image, for an ephemeral container in a caller's pod"
    )


def _pods(kubectl: Kubectl, config: StackConfig, service: str, workload: str) -> Iterator[Caller]:
    """One pod for each version of each workload that fits."""
    namespace, _, name = workload.rpartition("/")
    if namespace:
        yield from _elsewhere(kubectl, namespace, name)
        return
    pods = kubectl.items("pods", f"--namespace={config.namespace.name}")
    others = [name for name in config.services if name != service]
    for name in (*others, service):
        for version in config.services[name].versions:
            if workload not in ("", name, f"{name}-{version}"):
                continue
            labels = {**config.selector(name), "version": config.services[name].version_label(version)}
            for pod in pods:
                metadata = pod["metadata"]
                if labels.items() <= metadata.get("labels", {}).items() and _runs(pod):
                    yield _caller(kubectl, pod)
                    break


def _elsewhere(kubectl: Kubectl, namespace: str, workload: str) -> Iterator[Caller]:
    """By the name of the workload as Istio's metrics have it, or by that of a pod."""
    for pod in kubectl.items("pods", f"--namespace={namespace}"):
        metadata = pod["metadata"]
        called = {metadata["name"], metadata.get("labels", {}).get(names.INJECTED)}
        if workload in called and _runs(pod):
            yield _caller(kubectl, pod)


def _caller(kubectl: Kubectl, pod: dict[str, Any]) -> Caller:
    containers = [container["name"] for container in pod["spec"]["containers"] if container["name"] != CONTAINER]
    return Caller(Proxy.of(kubectl, pod), containers[0])


def _runs(pod: dict[str, Any]) -> bool:
    return pod.get("status", {}).get("phase") == "Running" and "deletionTimestamp" not in pod["metadata"]


def _with_ephemeral_container(caller: Caller, image: str) -> Caller:
    """https://kubernetes.io/docs/concepts/workloads/pods/ephemeral-containers/; it ends by itself, and stays listed in
    the pod until the pod goes."""
    name = f"mesh-probe-{secrets.token_hex(3)}"
    kubectl, where = caller.proxy.kubectl, [caller.pod, f"--namespace={caller.proxy.namespace}"]
    kubectl.run(
        "debug", *where, f"--image={image}", f"--container={name}", "--profile=general", "--attach=false", "--quiet",
        "--", "sleep", "900",
    )  # fmt: skip
    kubectl.run(
        "wait", f"pod/{caller.pod}", f"--namespace={caller.proxy.namespace}", "--timeout=60s",
        f"--for=jsonpath={{.status.ephemeralContainerStatuses[?(@.name==\"{name}\")].state.running}}",
        timeout=70,
    )  # fmt: skip
    found = Caller(caller.proxy, name)
    if not found.can():
        raise NoCallerError(f"the image {image} has no curl")
    return found
