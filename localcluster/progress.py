"""Says on stderr which steps run, for how long, and about how long it will take still."""

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Self

_PLAIN_INTERVAL = 15.0
_LINE_INTERVAL = 0.5


def clock(seconds: float) -> str:
    """Minutes and seconds, as on a stop watch."""
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes}:{rest:02d}"


class Step:
    """One running step; whoever runs it sets how far it is."""

    def __init__(self, name: str, weight: float) -> None:
        self.name = name
        self.weight = weight
        self.started = time.monotonic()
        self.detail = ""
        self.fraction = 0.0

    def done(self) -> float:
        """How much of the step is done: as counted, else as its usual time says."""
        return self.fraction or min((time.monotonic() - self.started) / self.weight, 0.9)

    def count(self, done: int, total: int, what: str) -> None:
        """Notes that ``done`` of about ``total`` things are finished."""
        self.fraction = min(done / total, 0.99)
        self.detail = f"{done} of about {max(done, total)} {what}"


class Progress:
    """Counts steps by their weights, which are seconds on a small cold machine."""

    def __init__(self, weights: dict[str, float]) -> None:
        self._weights = weights
        self._running: list[Step] = []
        self._finished: list[str] = []
        self._started = time.monotonic()
        self._terminal = sys.stderr.isatty()
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._ticker = threading.Thread(target=self._tick, daemon=True)

    def __enter__(self) -> Self:
        self._ticker.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._ticker.join()

    @contextmanager
    def step(self, name: str, weight: float) -> Iterator[Step]:
        """Runs the body as the named step."""
        step = Step(name, weight)
        with self._lock:
            self._weights.setdefault(name, weight)
            self._running.append(step)
        if not self._terminal:
            self._say(f"{name} ...")
        try:
            yield step
            with self._lock:
                self._finished.append(name)
            self._say(f"{name} done in {clock(time.monotonic() - step.started)}")
        finally:
            with self._lock:
                self._running.remove(step)

    def summary(self) -> str:
        """The line that is shown while steps run."""
        with self._lock:
            running, finished = list(self._running), list(self._finished)
        total = sum(self._weights.values())
        done = sum(self._weights[name] for name in finished)
        fraction = (done + sum(step.weight * step.done() for step in running)) / total if total else 1.0
        elapsed = time.monotonic() - self._started
        rest = elapsed * (1 - fraction) / fraction if fraction > 0.05 else 0
        left = f", about {clock(rest)} left" if rest >= 1 else ""
        parts = [f"{step.name} ({step.detail})" if step.detail else step.name for step in running]
        return f"[{len(finished)}/{len(self._weights)}] {clock(elapsed)}{left}: {', '.join(parts)}"

    def _say(self, text: str) -> None:
        erase = "\r\x1b[K" if self._terminal else ""
        print(f"{erase}[{len(self._finished)}/{len(self._weights)}] {text}", file=sys.stderr, flush=True)

    def _tick(self) -> None:
        while not self._over.wait(_LINE_INTERVAL if self._terminal else _PLAIN_INTERVAL):
            if not self._running:
                continue
            if self._terminal:
                print(f"\r\x1b[K{self.summary()}", end="", file=sys.stderr, flush=True)
            else:
                print(self.summary(), file=sys.stderr, flush=True)
        if self._terminal:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)
