"""What a shift does to the world: the stack's file, the cluster, the proxies, and what it remembers of itself."""

from __future__ import annotations

import fcntl
import hashlib
import json
import math
import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, TextIO

import names
from config import edit, files
from config.routing import Gate
from mesh.cluster.kubectl import KubectlError
from mesh.cluster.metrics import MetricsError, metrics_of
from mesh.cluster.probe import Caller
from mesh.cluster.service import LiveService, NotEnforcedError
from mesh.program.stack import PulumiError, Stack
from mesh.shift.plan import ApplyError, InterruptedShiftError, Weights
from mesh.traffic.counts import Meter, Traffic
from mesh.traffic.gate import Finding, Verdict, decide, verdict
from mesh.traffic.weights import described, rising

LOCKED = "the stack is currently locked"
"""What Pulumi says while another update of the stack is under way."""

_LOOK_SECONDS = 2.0
_PROBES_AT_ONCE = 500
# Envoy adds up its times every five seconds.
_LAG_SECONDS = 8.0
# The kubelet looks every second, and the pod's status tells of a container that went down once it is started again.
_STATUS_SECONDS = 5.0


class BusyError(Exception):
    """Another shift of the same stack is under way."""


@dataclass(frozen=True)
class Watch:
    """How a step is judged: by the gate, for so long, with so many requests of our own.

    `restarts` are those of each version's containers before the shift.
    """

    gate: Gate
    seconds: float
    probes: int
    url: str
    caller: Caller | None
    restarts: Mapping[str, Mapping[str, int]]


@dataclass
class Step:
    """What became of one step; `seconds` are those of each part of its way to the proxies."""

    weights: Weights
    seconds: dict[str, float] = field(default_factory=dict)
    requests: dict[str, int] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)


class Journal:
    """The memory of a running shift, beside the user's other state, so that a killed one can be seen and taken back.

    Its lock is what keeps a second shift of the stack from beginning. `left` is what a killed one left behind.
    """

    def __init__(self, stack: Stack) -> None:
        state = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "istio-governance"
        key = hashlib.sha256(str(stack.file.resolve()).encode()).hexdigest()[:16]
        self.path = state / "shifts" / f"{stack.name}-{key}.json"
        self._file: TextIO | None = None

    def __enter__(self) -> Journal:
        """Raises `BusyError`."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._file = self.path.open("a+")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._file.close()
            raise BusyError("another shift of this stack is under way; wait until it has ended") from None
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file:
            self._file.close()

    @property
    def left(self) -> dict[str, Any] | None:
        """{service, start, aim, began, text}: the shift that began and never ended."""
        text = self.path.read_text() if self.path.exists() else ""
        left: dict[str, Any] | None = json.loads(text) if text else None
        return left

    def begin(self, service: str, start: Weights, aim: Weights, text: str) -> None:
        """`text` is the stack's file as it was."""
        entry = {"service": service, "start": dict(start), "aim": dict(aim), "text": text, "began": time.time()}
        self._write(json.dumps(entry))

    def end(self) -> None:
        self._write("")

    def _write(self, text: str) -> None:
        assert self._file is not None  # noqa: S101
        self._file.seek(0)
        self._file.truncate()
        self._file.write(text)
        self._file.flush()
        os.fsync(self._file.fileno())


class Interrupts:
    """Ctrl-C and SIGTERM: at once where they are `allowed`, else remembered until they are, and ignored when `over`."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say, self._open, self._seen, self._over = say, False, False, False

    def __enter__(self) -> Interrupts:
        self._old = {number: signal.signal(number, self._note) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._old.items():
            signal.signal(number, handler)

    def _note(self, _number: int, _frame: FrameType | None) -> None:
        if self._over:
            self._say("on the way back already: wait")
            return
        if not self._seen:
            self._say("interrupted: going back as soon as this step is safe to leave")
        self._seen = True
        if self._open:
            raise InterruptedShiftError

    @contextmanager
    def allowed(self) -> Iterator[None]:
        self.check()
        self._open = True
        try:
            yield
        except KubectlError:
            self.check()  # Ctrl-C reaches the kubectl that we wait for, too
            raise
        finally:
            self._open = False

    def check(self) -> None:
        if self._seen and not self._over:
            raise InterruptedShiftError

    def ignore(self) -> None:
        self._over = True


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
    steps: list[Step] = field(default_factory=list)
    error: str = ""
    busy: bool = False
    _old: dict[str, Traffic] = field(default_factory=dict)

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
                self._up(weights, f"{self.message} (taken back)", {})
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
            self._guarded(lambda: self.live.wait_until_enforced(weights))

    def _guarded(self, action: Callable[[], object]) -> None:
        try:
            action()
        except (edit.EditError, OSError, PulumiError, KubectlError, NotEnforcedError) as error:
            self.busy = LOCKED in str(error)
            self.error = str(error)
            self.say(f"! {error}")
            raise ApplyError from None

    def watch(self, weights: Weights) -> Verdict:
        if self.watching is None:
            return Verdict.PASS
        try:
            with self.interrupts.allowed():
                return self._watched(self.watching, self.steps[-1], rising(self.start, weights))
        except (KubectlError, MetricsError) as error:
            self.error = str(error)
            self.say(f"! {error}")
            raise ApplyError from None

    def _watched(self, watching: Watch, step: Step, new: list[str]) -> Verdict:
        source = metrics_of(self.live)
        meter = Meter(source.snapshot())
        sent, end, last = 0, time.monotonic() + watching.seconds, math.inf
        longest = watching.seconds + (_STATUS_SECONDS if watching.probes else 0)
        looks = max(1, math.ceil(longest / _LOOK_SECONDS) + watching.probes // _PROBES_AT_ONCE)
        while True:
            if asked := self._ask(min(watching.probes - sent, _PROBES_AT_ONCE), end):
                sent += asked
                end = max(end, time.monotonic() + _STATUS_SECONDS)
            counted = meter.update(source.snapshot())
            over = time.monotonic() >= end and sent >= watching.probes
            step.requests = {version: traffic.requests for version, traffic in counted.items()}
            step.findings = self._findings(new, counted, looks, over)
            late = any(traffic.timed < traffic.requests for traffic in counted.values())
            last = min(last, time.monotonic() + _LAG_SECONDS) if over else last
            waits = over and late and time.monotonic() < last
            result = verdict(step.findings)
            if result is Verdict.FAIL or (over and not (waits and result is Verdict.UNDECIDED)):
                break
        for version, traffic in counted.items():
            self._old[version] = self._old.get(version, Traffic()) + traffic
        for finding in step.findings:
            self.say(f"  {finding.version} {finding.criterion}: {finding.verdict.value}, {finding.text}")
        return result

    def _ask(self, requests: int, end: float) -> int:
        """Sends a part of the requests, or lets some time pass."""
        watching = self.watching
        if watching and watching.caller and requests > 0:
            watching.caller.send(watching.url, requests)
            return requests
        time.sleep(max(0.1, min(_LOOK_SECONDS, end - time.monotonic())))
        return 0

    def _findings(self, new: list[str], counted: Mapping[str, Traffic], looks: int, final: bool) -> list[Finding]:
        assert self.watching is not None  # noqa: S101
        # The old version's requests of all steps count: at the last one it may get none.
        old = sum(
            (traffic for seen in (self._old, counted) for version, traffic in seen.items() if version not in new),
            Traffic(),
        )
        seen = self.live.look()
        pods, rollouts = self.live.pods(seen), self.live.rollouts(seen)
        found: list[Finding] = []
        for version in new:
            if not pods[version].ready:
                found.append(Finding(version, "ready pods", Verdict.FAIL, "none is left"))
            before = self.watching.restarts.get(version, {})
            # One that goes down between two requests is up again before anybody notices.
            if down := [name for name, count in pods[version].restarts.items() if count > before.get(name, 0)]:
                text = f"went down and was started again: {', '.join(down)}"
                found.append(Finding(version, "restarts", Verdict.FAIL, text))
            if rollout := rollouts.get(version):
                # What was counted may be of the old pods alone.
                result = Verdict.FAIL if rollout.failed else Verdict.UNDECIDED
                found.append(Finding(version, "roll-out", result, f"not over: {rollout}"))
            found += decide(version, counted.get(version, Traffic()), old, self.watching.gate, looks, final)
        return found


def set_weights(file: Path, service: str, weights: Weights, start: Weights) -> None:
    """Writes into the stack's file what is another weight than at the `start` of the shift. Raises `EditError`."""
    edit.edit(file, edited_leaves(edit.read(file), service, weights, start))


def edited_leaves(text: str, service: str, weights: Weights, start: Weights) -> edit.Leaves:
    """A weight that the file inherits, or that no file lists, stands in it only when it changes."""
    own = _written(text, service)
    return _leaves(service, {v: weight for v, weight in weights.items() if v in own or weight != start[v]})


def take_back(file: Path, text: str, service: str, start: Weights) -> None:
    """Puts the weights back into the stack's file, whose text was `text` before the shift.

    Byte for byte, unless somebody has changed something else in the file since: then the weights alone. Raises
    `EditError`.
    """
    now = edit.read(file)
    try:
        is_ours_alone = edit.edited(text, _leaves(service, _written(now, service))) == now
    except edit.EditError:
        is_ours_alone = False
    if is_ours_alone:
        edit.write(file, text)
    else:
        edit.edit(file, edited_leaves(now, service, start, start))


def _leaves(service: str, weights: Weights) -> edit.Leaves:
    return {(*_path(service), version): weight for version, weight in weights.items()}


def _path(service: str) -> tuple[str, ...]:
    return ("config", f"{files.NAMESPACE}routing", service, "weights")


def _written(text: str, service: str) -> dict[str, Any]:
    """The weights that a stack file itself has for a service."""
    found = edit.value(text, _path(service))
    return dict(found) if isinstance(found, Mapping) else {}


def declared_weights(stack: Stack, service: str) -> dict[str, int]:
    return files.effective(stack.name, stack.folder).weights.get(service, {})


@contextmanager
def _timed(seconds: dict[str, float], part: str) -> Iterator[None]:
    start = time.monotonic()
    try:
        yield
    finally:
        seconds[part] = round(time.monotonic() - start, 3)
