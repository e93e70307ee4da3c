"""Timed runs in turn, and what is quoted of them."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

Contestant = Callable[[int], float]
"""Does turn number 0, 1, 2 … and says how many seconds the timed part of it took."""


def seconds(action: Callable[[], object]) -> float:
    start = time.monotonic()
    action()
    return time.monotonic() - start


def in_turn(turns: int, contestants: Mapping[str, Contestant]) -> dict[str, list[float]]:
    """A B A B …, so that whatever else the machine does befalls all of them alike."""
    times: dict[str, list[float]] = {name: [] for name in contestants}
    for turn in range(turns):
        for name, contestant in contestants.items():
            times[name].append(contestant(turn))
            print(f"{turn + 1}/{turns}  {name}  {times[name][-1]:.2f} s", file=sys.stderr, flush=True)
    return times


@dataclass(frozen=True)
class Comparison:
    """One row of the table: our times and the peer's, turn by turn."""

    what: str
    peer: str
    ours: Sequence[float]
    theirs: Sequence[float]

    @property
    def ratio(self) -> float:
        """Ours to theirs in the same turn, the median of all turns: noise that lasts longer than a turn cancels out."""
        return median(our / their for our, their in zip(self.ours, self.theirs, strict=True))
