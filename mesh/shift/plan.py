"""The order of a shift: what is applied, watched and taken back, whatever happens on the way."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from mesh.traffic.gate import Verdict
from mesh.traffic.weights import on_the_way

Weights = Mapping[str, int]


class Outcome(Enum):
    DONE = "done"
    HELD = "held"
    """A gate could not decide: the weights stay at its step."""
    ROLLED_BACK = "rolled back"
    INTERRUPTED = "interrupted, and rolled back"
    LOST = "rolling back failed"
    """The file has the old weights; what the cluster has is not known."""


class ApplyError(Exception):
    """The weights could not be applied, or not every proxy took them."""


class InterruptedShiftError(Exception):
    """Somebody wants the shift to end."""


@dataclass(frozen=True)
class Plan:
    """From `start` to `aim` over weights in between; the last of `steps` is `aim`."""

    start: Weights
    aim: Weights
    steps: Sequence[Weights]

    @classmethod
    def of(cls, start: Weights, aim: Weights, percents: Sequence[int]) -> Plan:
        """`percents` of the way, rising; steps that rounding makes equal are one."""
        steps: list[Weights] = []
        for weights in (on_the_way(start, aim, percent) for percent in (*percents, 100)):
            if weights != (steps[-1] if steps else start):
                steps.append(weights)
        return cls(start, aim, steps)


class World(Protocol):
    """What a shift does to the world. Every method may raise `InterruptedShiftError` but `restore`."""

    def apply(self, weights: Weights) -> None:
        """Into the file, to the cluster, and until every proxy has them. Raises `ApplyError`."""

    def watch(self, weights: Weights) -> Verdict:
        """What the gate says after the step's time; without a gate it passes."""

    def restore(self, weights: Weights) -> None:
        """As `apply`, for the way back: nothing interrupts it. Raises `ApplyError`."""


def run(plan: Plan, world: World) -> Outcome:
    """Step by step to the aim; back to the start when a gate or an apply fails, or when somebody interrupts."""
    try:
        for weights in plan.steps:
            world.apply(weights)
            match world.watch(weights):
                case Verdict.FAIL:
                    return _back(plan, world, Outcome.ROLLED_BACK)
                case Verdict.UNDECIDED:
                    return Outcome.HELD
    except InterruptedShiftError:
        return _back(plan, world, Outcome.INTERRUPTED)
    except ApplyError:
        return _back(plan, world, Outcome.ROLLED_BACK)
    except BaseException:
        _back(plan, world, Outcome.ROLLED_BACK)
        raise
    return Outcome.DONE


def _back(plan: Plan, world: World, outcome: Outcome) -> Outcome:
    try:
        world.restore(plan.start)
    except ApplyError:
        return Outcome.LOST
    return outcome
