"""One shift with a thousand proxies connected to istiod: simulated ones, which acknowledge what they are sent."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Self

import names
from bench.callers import Commands, growth
from bench.measure import Comparison
from bench.peers import SHIFTS, PeerError, Program
from bench.scale import descendants, resident
from config import load
from localcluster import EmbeddedCluster, build, node
from mesh.cluster.envoy import proxies

PROXIES = 1000
TURNS = 6  # an even number, after which the weights are again those of the beginning
NAMESPACE = "simulated-callers"
MIB = 250
"""What the command may take."""
SECONDS = 3.0
"""How long after the last acknowledgement it may end."""
_PLAIN_PORT = 15010
_CONNECT_SECONDS = 300.0
_REPORT_SECONDS = 30.0


class Simulated:
    """The proxies in their process, on the node, and what that tells of them."""

    def __init__(self, cluster: EmbeddedCluster, program: Sequence[object]) -> None:
        self.acknowledged: list[Mapping[str, Any]] = []
        self._lost: list[str] = []
        self._connected = threading.Event()
        enter = ["nsenter", f"--target={node.init_pid(cluster.instance)}", "--net"]
        self._process = subprocess.Popen(
            [*enter, *map(str, program)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._listener = threading.Thread(target=self._listen)
        self._listener.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.stdin:
            self._process.stdin.close()  # which ends it
        self._listener.join()
        self._process.wait()

    def _listen(self) -> None:
        for event in map(json.loads, self._process.stdout or ()):
            if "weights" in event:
                self.acknowledged.append(event)
            elif "lost" in event:
                self._lost.append(f"{event['lost']}: {event['why']}")
            else:
                self._connected.set()

    def connect(self) -> None:
        """Waits until all have their routes. Raises `PeerError`."""
        if not self._connected.wait(_CONNECT_SECONDS):
            raise PeerError(f"after {_CONNECT_SECONDS:.0f} s not all {PROXIES} simulated proxies have their routes")

    def last(self, weights: Mapping[str, int], since: float) -> float:
        """When the last of them acknowledged these weights, in seconds since 1970. Raises `PeerError`."""
        if self._lost:
            raise PeerError(f"{len(self._lost)} simulated proxies lost their connection: {self._lost[0]}")
        end = time.monotonic() + _REPORT_SECONDS
        while True:
            seen = [one for one in [*self.acknowledged] if one["at"] > since and one["weights"] == weights]
            found: dict[str, float] = {one["proxy"]: one["at"] for one in seen}
            if len(found) == PROXIES:
                return max(found.values())
            if time.monotonic() > end:
                raise PeerError(f"{len(found)} of {PROXIES} simulated proxies acknowledged {dict(weights)}")
            time.sleep(0.1)


@dataclass
class Footprint:
    """The most that a command takes, looked at twenty times a second: its own memory and that of all its processes, in
    MiB, and how many processes those are."""

    own: float = 0
    everything: float = 0
    processes: int = 0

    def __str__(self) -> str:
        return f"{self.own:.0f} MiB, {self.everything:.0f} MiB and {self.processes} processes with Pulumi's"

    def watch(self, command: subprocess.Popen[str]) -> None:
        while command.poll() is None:
            below = list(descendants(command.pid))
            self.own = max(self.own, resident(command.pid) / 2**20)
            self.everything = max(self.everything, sum(map(resident, (command.pid, *below))) / 2**20)
            self.processes = max(self.processes, len(below))
            time.sleep(0.05)


def comparisons(cluster: EmbeddedCluster, ours: Program) -> Iterator[Comparison]:
    """The rows of the table; `ours` is installed already."""
    few = len(proxies(ours.kubectl))
    alone = [_shifted(ours, turn)[0] for turn in range(TURNS)]
    status = Commands(ours, 1).status
    looked_alone = [status(turn) for turn in range(TURNS)]
    took, after, memory, processes = [], [], [], []
    with simulated(cluster, ours) as many:
        for turn in range(TURNS):
            many.acknowledged.clear()
            began = time.time()
            seconds, footprint = _shifted(ours, turn)
            took.append(seconds)
            after.append(began + seconds - many.last(SHIFTS[turn % 2], began))
            if after[-1] < 0:
                raise PeerError("mesh shift ended before every proxy had acknowledged the weights")
            memory.append(footprint.own)
            processes.append(float(footprint.processes))
            print(
                f"{turn + 1}/{TURNS}  mesh shift --now, {PROXIES} more proxies  {seconds:.2f} s, of which "
                f"{after[-1]:.2f} s after the last acknowledgement; {footprint}",
                file=sys.stderr,
                flush=True,
            )
        looked = [status(turn) for turn in range(TURNS)]
    times = (PROXIES + few) / few
    yield growth(f"(k) mesh shift --now, {PROXIES} more proxies", took, alone, times, f"{few} proxies")
    yield Comparison("    after the last acknowledgement", "the limit", after, [SECONDS] * TURNS)
    yield Comparison("    the command's memory, MiB", "the limit", memory, [float(MIB)] * TURNS)
    yield Comparison("    its processes, Pulumi's too", "one a proxy", processes, [float(PROXIES)] * TURNS)
    yield growth(f"    mesh status, {PROXIES} more proxies", looked, looked_alone, times, f"{few} proxies")


@contextmanager
def simulated(cluster: EmbeddedCluster, ours: Program) -> Iterator[Simulated]:
    """Connected to istiod, from the node, where they have no pods: to istiod they are proxies of machines outside."""
    build.build(["simulated-proxies"])
    kubectl, mesh = ours.kubectl, load(ours.config).mesh
    [istiod] = kubectl.items("pods", f"--namespace={mesh.namespace}", "--selector=app=istiod")
    arguments = {
        "istiod": f"{istiod['status']['podIP']}:{_PLAIN_PORT}",
        "namespace": NAMESPACE,
        "count": PROXIES,
        "version": build.ISTIO,
        "route": names.route("bill-service"),
    }
    program = [build.node_binaries() / "simulated-proxies", *(f"-{key}={value}" for key, value in arguments.items())]
    kubectl.run("create", "namespace", NAMESPACE)
    try:
        with Simulated(cluster, program) as many:
            many.connect()
            yield many
    finally:
        kubectl.run("delete", "namespace", NAMESPACE, timeout=120)


def _shifted(ours: Program, turn: int) -> tuple[float, Footprint]:
    ours.weigh(turn + 1)
    weights = SHIFTS[turn % 2].items()
    began, footprint = time.time(), Footprint()
    with ours.stack.begin("shift", "bill-service", *(f"{v}={weight}" for v, weight in weights), "--now") as command:
        footprint.watch(command)
        said, _ = command.communicate()
    took = time.time() - began
    if command.returncode:
        raise PeerError(f"mesh shift failed:\n{said}")
    return took, footprint
