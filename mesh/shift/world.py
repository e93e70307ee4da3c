"""What a shift does to the world: the stack's file, the cluster, the proxies."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import names
from config import edit
from mesh.cluster.kubectl import KubectlError
from mesh.cluster.metrics import MetricsError
from mesh.cluster.service import LiveService
from mesh.program.stack import PulumiError, Stack
from mesh.routes.look import service
from mesh.routes.model import Caller
from mesh.routes.wait import LateError, until_enforced
from mesh.shift.file import set_weights, take_back
from mesh.shift.interrupts import Interrupts
from mesh.shift.plan import ApplyError, Weights
from mesh.shift.watch import Step, Watch, Watcher
from mesh.traffic.gate import Verdict
from mesh.traffic.weights import described, rising

LOCKED = "the stack is currently locked"
"""What Pulumi says while another update of the stack is under way."""
_SECONDS = 30.0
"""How long the callers may take to have new weights."""


@dataclass
class LiveWorld:
    """The world of `mesh.traffic.shift.run`: the file first, then the cluster, then the proxies."""

    stack: Stack
    live: LiveService
    start: Weights
    text: str
    """The stack's file as it was."""
    message: str
    watching: Watch | None
    interrupts: Interrupts
    say: Callable[[str], None]
    excepted: Collection[Caller] = ()
    """Those for whom somebody else's rule decides: they get what they got."""
    steps: list[Step] = field(default_factory=list)
    back: dict[str, float] = field(default_factory=dict)
    """The seconds of each part of the way back."""
    error: str = ""
    busy: bool = False

    def __post_init__(self) -> None:
        self._watcher = Watcher(self.live, self.watching, self.say) if self.watching else None

    def apply(self, weights: Weights) -> None:
        self.interrupts.check()
        step = Step(weights)
        self.steps.append(step)
        self._guarded(lambda: set_weights(self.stack.file, self.live.name, weights, self.start))
        self._up(weights, self.message, step.seconds)
        self.interrupts.check()

    def restore(self, weights: Weights) -> None:
        self.interrupts.ignore()
        self.say(f"going back to {described(weights)}")
        self._guarded(lambda: take_back(self.stack.file, self.text, self.live.name, weights))
        for attempt in range(3):
            try:
                self._up(weights, f"{self.message} (taken back)", self.back)
            except ApplyError:
                if attempt == 2:
                    raise
                time.sleep(3)
            else:
                return

    def _up(self, weights: Weights, message: str, seconds: dict[str, float]) -> None:
        # Nothing else that the file may ask for goes along with a shift.
        rule = f"--target=**::{names.virtual_service(self.live.name)}"
        with _timed(seconds, "pulumi"):
            from mesh.program import inline  # Pulumi's SDK takes longer to import than most commands take in all

            up = ("up", "--yes", "--skip-preview", rule, f"--message={message}")
            self._guarded(lambda: inline.pulumi(self.stack, *up))
        with _timed(seconds, "proxies"):
            self._guarded(lambda: self._wait(weights))

    def _wait(self, weights: Weights) -> None:
        wanted = service(self.live.config, self.live.kubectl, self.live.name, weights)
        until_enforced(self.live.kubectl, [wanted], _SECONDS, self.excepted)

    def _guarded(self, action: Callable[[], object]) -> None:
        try:
            action()
        except (edit.EditError, OSError, PulumiError, KubectlError, LateError) as error:
            self.busy = LOCKED in str(error)
            self.error = str(error)
            self.say(f"! {error}")
            raise ApplyError from None

    def watch(self, weights: Weights) -> Verdict:
        if self._watcher is None:
            return Verdict.PASS
        try:
            with self.interrupts.allowed(), _timed(self.steps[-1].seconds, "watched"):
                return self._watcher.judge(self.steps[-1], rising(self.start, weights))
        except (KubectlError, MetricsError) as error:
            self.error = str(error)
            self.say(f"! {error}")
            raise ApplyError from None


@contextmanager
def _timed(seconds: dict[str, float], part: str) -> Iterator[None]:
    start = time.monotonic()
    try:
        yield
    finally:
        seconds[part] = round(time.monotonic() - start, 3)
