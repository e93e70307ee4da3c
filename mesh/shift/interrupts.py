"""Ctrl-C and SIGTERM while a shift is under way."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType

from mesh.cluster.kubectl import KubectlError
from mesh.shift.plan import InterruptedShiftError


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
