"""From the command to every client proxy that has the new weights, and where that time goes."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

import names
from bench.measure import Comparison, in_turn
from bench.peers import NAMESPACE, SHIFTS, Applied, PeerError, Program
from harness.traffic import splits
from mesh.cluster.envoy import Proxy, proxies
from mesh.cluster.kubectl import Kubectl
from mesh.program.recorder import PROJECT

PAIRS = 7
_SECONDS = 30.0

OURS, BARE, APPLIED = names.route("bill-service"), "bare", "applied"
"""The names of the routes."""


@dataclass(frozen=True)
class Share:
    """What one part of the way takes, in seconds, turn by turn."""

    part: str
    ours: Sequence[float]
    bare: Sequence[float]


def comparisons(ours: Program, bare: Program, applied: Applied) -> Iterator[Comparison | Share]:
    """The rows of the table, and the shares of a `pulumi up` by Pulumi's own log in turns of their own."""
    kubectl = ours.kubectl
    _apply_services(kubectl, ours)

    def changing(program: Program, turn: int) -> Mapping[str, int]:
        program.weigh(turn)
        return SHIFTS[turn % 2]

    def begin() -> None:
        for program in (ours, bare):
            changing(program, 1)
            program.stack.up()
        applied.shift(1)

    def timed(route: str, change: Callable[[], object], weights: Mapping[str, int]) -> float:
        began = time.time()
        change()
        return enforced_at(kubectl, route, weights) - began

    def our_up(_turn: int) -> float:
        weights = changing(ours, 0)
        return timed(OURS, lambda: ours.stack.pulumi("up", "--yes", "--skip-preview"), weights)

    def our_shift(_turn: int) -> float:
        """The way back of `our_up`."""
        return timed(OURS, lambda: _shifted(ours, SHIFTS[1]), SHIFTS[1])

    def bare_up(turn: int) -> float:
        weights = changing(bare, turn)
        return timed(BARE, lambda: bare.stack.pulumi("up", "--yes", "--skip-preview"), weights)

    def apply(turn: int) -> float:
        return timed(APPLIED, lambda: applied.shift(turn), SHIFTS[turn % 2])

    begin()
    contestants = {
        "enforced, pulumi up": our_up,
        "enforced, mesh shift": our_shift,
        "enforced, bare": bare_up,
        "enforced, kubectl": apply,
    }
    up, shift, their, floor = in_turn(PAIRS, contestants).values()
    yield Comparison("(f) every proxy has new weights", "bare Pulumi program", up, their)
    yield Comparison("    the same by mesh shift", "bare Pulumi program", shift, their)
    yield Comparison("    pulumi up", "kubectl apply (the floor)", up, floor)
    yield Comparison("    mesh shift", "kubectl apply (the floor)", shift, floor)

    def shares(program: Program, route: str, turn: int) -> Mapping[str, float]:
        weights = changing(program, turn)
        return _parts(program, lambda: enforced_at(kubectl, route, weights))

    begin()
    parts = [(shares(ours, OURS, turn), shares(bare, BARE, turn)) for turn in range(PAIRS)]
    for part in parts[0][0]:
        yield Share(part, [our[part] for our, _ in parts], [their[part] for _, their in parts])


def enforced_at(kubectl: Kubectl, route: str, weights: Mapping[str, int]) -> float:
    """When the last client of the namespace took over the weights, by its own clock, which is this machine's: seconds
    since 1970. Raises `TimeoutError`."""
    end = time.monotonic() + _SECONDS
    clients = proxies(kubectl, NAMESPACE)
    while True:
        found = [_taken_over(proxy, route, weights) for proxy in clients]
        if clients and None not in found:
            return max(when for when in found if when)
        if time.monotonic() > end:
            raise TimeoutError(f"after {_SECONDS:.0f} s not every proxy has the weights {weights} of {route}")
        time.sleep(0.1)


def _taken_over(proxy: Proxy, route: str, weights: Mapping[str, int]) -> float | None:
    """The `last_updated` of the proxy's routes, of the last one of its ports; None while it has other weights."""
    found = splits(proxy, "bill-service", NAMESPACE, route)
    if not found or any(split != weights for split in found):
        return None
    return max(
        datetime.fromisoformat(entry["last_updated"]).timestamp()
        for entry in proxy.config("dynamic_route_configs")
        for host in entry["route_config"].get("virtual_hosts", [])
        if any(rule.get("name") == route for rule in host.get("routes", []))
    )


def _shifted(ours: Program, weights: Mapping[str, int]) -> None:
    done = ours.stack.mesh("shift", "bill-service", *(f"{v}={w}" for v, w in weights.items()), "--now")
    if done.returncode:
        raise PeerError(f"mesh shift failed:\n{done.stdout}{done.stderr}")


def _apply_services(kubectl: Kubectl, ours: Program) -> None:
    """So that the proxies know the peers' hosts, which are those of their routes; they go with the namespace."""
    marks = {names.OWNER: f"{PROJECT}/{ours.stack.name}"}
    for name in (BARE, APPLIED):
        service = {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": name, "namespace": NAMESPACE, "annotations": marks},
            "spec": {"ports": [{"name": "http", "port": 9999, "targetPort": 80}]},
        }
        kubectl.run("apply", "--filename=-", stdin=json.dumps(service))


def _parts(program: Program, enforced: Callable[[], float]) -> dict[str, float]:
    """The parts of one `pulumi up`, by the times in Pulumi's log; the log itself makes it a little slower."""
    command = [*program.stack.command("up", "--yes", "--skip-preview"), "--logtostderr", "--verbose=7"]
    began = time.time()
    done = subprocess.run(
        command, cwd=program.stack.folder, env=program.stack.variables, capture_output=True, text=True, check=False
    )
    ended = time.time()
    if done.returncode:
        raise PeerError(f"`{' '.join(command)}` failed:\n{done.stdout}")
    lines = [json.loads(line) for line in done.stderr.splitlines() if line.startswith("{")]

    def first(*words: str) -> float:
        return _when(next(line for line in lines if all(word in line["msg"] for word in words)))

    asked = first("langhost[python].GetRequired", "executing")
    runs = first("langhost[python].Run(", "executing")
    registers = first("ResourceMonitor.RegisterResource received")
    updates = first("Provider[", ".Update(", "executing")
    updated = first("Provider[", ".Update(", "success")
    return {
        "Pulumi starts": asked - began,
        "its language host looks for plugins": runs - asked,
        "Python starts, the configuration is read": registers - runs,
        "resources, until the rule's turn": updates - registers,
        "the provider updates the rule": updated - updates,
        "istiod to every proxy": max(0.0, enforced() - updated),
        "after it: the other resources, the state": ended - updated,
        "the whole command": ended - began,
    }


def _when(line: Mapping[str, str]) -> float:
    return datetime.fromisoformat(line["time"]).timestamp()
