"""How time and memory grow from a few services to hundreds: ours, and those of a bare program with the same rules."""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import names
from bench.measure import Comparison, Contestant, in_turn
from bench.peers import SHIFTS, BareStack, Program
from mesh.declared import declared_by

SIZES = (10, 100, 300)
TURNS = 3
_BARE_NAMESPACE = "bare"
_SKIP_CHECKPOINTS = "PULUMI_SKIP_CHECKPOINTS"
_PAGE = os.sysconf("SC_PAGE_SIZE")


def grow(ours: Program, bare: Program) -> Iterator[Comparison]:
    """Adds services to both until each size is reached, and times a preview of no change and a change of weights."""
    bare.kubectl.run("create", "namespace", _BARE_NAMESPACE)
    for size in SIZES:
        config = _with_services(ours.config, size)
        larger, its_peer = Program(ours.stack, ours.kubectl, config), Program(bare.stack, bare.kubectl, config)
        for program in (larger, its_peer):
            program.begin()
            with _one_save():
                print(f"{size} services, untimed: {program.up():.0f} s", file=sys.stderr, flush=True)
        for what, act, other in (
            ("a preview of no change", larger.preview, its_peer.preview),
            ("a change of weights", larger.shift, its_peer.shift),
        ):
            memory: dict[str, list[float]] = {"ours": [], "bare": []}
            contestants = {"ours": _watched(act, memory["ours"]), "bare": _watched(other, memory["bare"])}
            our, their = in_turn(
                TURNS, {f"{size} services, {what}, {who}": do for who, do in contestants.items()}
            ).values()
            yield Comparison(f"{size} services: {what}", "bare Pulumi program, same rules", our, their)
            yield Comparison("    its memory, MiB", "bare Pulumi program, same rules", memory["ours"], memory["bare"])


@contextmanager
def _one_save() -> Iterator[None]:
    """Pulumi saves the state at the end alone. Else it saves all of it at each step, which grows with the square."""
    os.environ[_SKIP_CHECKPOINTS] = "true"
    try:
        yield
    finally:
        del os.environ[_SKIP_CHECKPOINTS]


class BareObjects(BareStack):
    """The rules that our program declares, as a plain list in a namespace of their own."""

    program = "bare_objects"

    def configure(self, config: Mapping[str, Any]) -> None:
        super().configure({})
        rules = [made.inputs for made in declared_by(dict(config), self.name) if _is_rule(made.inputs)]
        for rule in rules:
            rule["metadata"]["namespace"] = _BARE_NAMESPACE
        (self.folder / "objects.json").write_text(json.dumps(rules))


def _is_rule(inputs: Mapping[str, Any]) -> bool:
    return inputs.get("apiVersion") == names.ROUTING_API


def _with_services(config: Mapping[str, Any], count: int) -> dict[str, Any]:
    """The rules for two versions of each, whose pods belong to somebody else and need not be there.

    Without any proxy, as the waiting for proxies is measured elsewhere: what grows is the stack alone.
    """
    service = {"workload": "existing", "ports": {"http": {"port": 80}}, "versions": {"v1": {}, "v2": {}}}
    shifted = {**service, "template": None, "versions": {"v1": {"command": None}, "v2": {"command": None}}}
    added = [f"service-{number:03}" for number in range(1, count)]
    return {
        **config,
        "mesh": {**config["mesh"], "profile": "minimal"},
        "services": {"front-tomcat": None, "bill-service": shifted, **dict.fromkeys(added, service)},
        "routing": {name: {"weights": SHIFTS[1]} for name in ("bill-service", *added)},
    }


def _watched(contestant: Contestant, peaks: list[float]) -> Contestant:
    def run(turn: int) -> float:
        memory = Memory()
        took = memory.during(partial(contestant, turn))
        peaks.append(memory.peak / 2**20)
        return took

    return run


@dataclass
class Memory:
    """The most that this process's descendants had in memory at once, in bytes, looked at ten times a second."""

    peak: int = 0
    _over: threading.Event = field(default_factory=threading.Event)

    def during(self, action: Callable[[], float]) -> float:
        watch = threading.Thread(target=self._watch)
        watch.start()
        try:
            return action()
        finally:
            self._over.set()
            watch.join()

    def _watch(self) -> None:
        while not self._over.wait(0.1):
            self.peak = max(self.peak, sum(map(resident, descendants(os.getpid()))))


def descendants(process: int) -> Iterator[int]:
    for task in Path(f"/proc/{process}/task").glob("*/children"):
        try:
            children = [int(child) for child in task.read_text().split()]
        except OSError:
            continue
        for child in children:
            yield child
            yield from descendants(child)


def resident(process: int) -> int:
    try:
        return int(Path(f"/proc/{process}/statm").read_text().split()[1]) * _PAGE
    except OSError:
        return 0
