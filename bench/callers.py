"""How `mesh shift --now` and `mesh status` grow with the callers: ours, and those of an earlier build, on one stack."""

from __future__ import annotations

import copy
import io
import math
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bench.measure import Comparison, in_turn
from bench.peers import SHIFTS, PeerError, Program
from harness.stack import PROJECT, Stack

EARLIER = "7c06b86"
"""The last build that asked each proxy by a `kubectl exec` of its own."""
CALLERS = (3, 41)
"""The second is as many as fit on a node whose limits nobody raised."""
TURNS = 5
_SHIFT, _STATUS = "mesh shift --now", "mesh status"
# Each version of the service called has a proxy, too.
_OTHERS = 2


class EarlierStack(Stack):
    """The same stack by the program of an earlier commit, with the checkout's Python packages."""

    def __post_init__(self) -> None:
        checkout = self.folder.with_name(EARLIER)
        if not checkout.exists():
            archived = subprocess.run(["git", "archive", EARLIER], cwd=PROJECT, capture_output=True, check=False)
            if archived.returncode:
                raise PeerError(f"the earlier build {EARLIER} is not in this clone: {archived.stderr.decode().strip()}")
            with tarfile.open(fileobj=io.BytesIO(archived.stdout)) as content:
                content.extractall(checkout, filter="data")
        self.folder.mkdir(parents=True, exist_ok=True)
        for entry in (*checkout.iterdir(), PROJECT / ".venv"):
            if not (entry.name.startswith("Pulumi.") and entry.name != "Pulumi.yaml"):
                (self.folder / entry.name).symlink_to(entry)


@dataclass(frozen=True)
class Commands:
    """`mesh` by one of the builds. Each of its shifts begins with the weights `start`, by number."""

    program: Program
    start: int

    def shift(self, _turn: int) -> float:
        self.program.weigh(self.start)
        aim = SHIFTS[1 - self.start].items()
        return self._timed("shift", "bill-service", *(f"{version}={weight}" for version, weight in aim), "--now")

    def status(self, _turn: int) -> float:
        self.program.weigh(1)
        return self._timed("status")

    def _timed(self, *args: str) -> float:
        began = time.monotonic()
        done = self.program.stack.mesh(*args)
        took = time.monotonic() - began
        if done.returncode:
            raise PeerError(f"mesh {args[0]} failed:\n{done.stdout}{done.stderr}")
        return took


def comparisons(ours: Program, folder: Path) -> Iterator[Comparison]:
    """The rows of the table; `ours` is installed already."""
    earlier = EarlierStack(ours.stack.name, folder / "earlier", ours.stack.environment)
    took: dict[tuple[str, int], list[float]] = {}
    for callers in CALLERS:
        config = with_callers(ours.config, callers)
        program, peer = (replace(ours, stack=stack, config=config) for stack in (ours.stack, earlier))
        program.begin()
        print(f"{callers} callers, untimed: {program.install():.0f} s", file=sys.stderr, flush=True)
        # One shifts, the other one shifts back.
        mine, its = Commands(program, 1), Commands(peer, 0)
        for what, do, other in ((_SHIFT, mine.shift, its.shift), (_STATUS, mine.status, its.status)):
            our, their = in_turn(
                TURNS, {f"{what}, {callers} callers": do, f"{what}, {callers} callers, {EARLIER}": other}
            ).values()
            took[what, callers] = our
            yield Comparison(f"(j) {what}, {callers} callers", EARLIER, our, their)
    few, many = CALLERS
    for what in (_SHIFT, _STATUS):
        yield growth(f"    {what}, {many} callers", took[what, many], took[what, few], many / few, f"{few} callers")
    ours.begin()
    ours.install()


def growth(what: str, more: Sequence[float], less: Sequence[float], times: float, than: str) -> Comparison:
    """How much longer it takes with so many `times` the callers, and the exponent of that: 1 is in proportion."""
    grown = Comparison(what, "", more, less)
    exponent = math.log(grown.ratio) / math.log(times)
    return replace(grown, peer=f"with {than}: exponent {exponent:.2f}")


def with_callers(config: Mapping[str, Any], callers: int) -> dict[str, Any]:
    """As many sidecars in the stack's namespace."""
    grown = copy.deepcopy(dict(config))
    grown["services"]["front-tomcat"]["versions"]["v1"]["replicas"] = callers - _OTHERS
    return grown
