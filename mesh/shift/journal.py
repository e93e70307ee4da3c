"""What a running shift remembers of itself, so that a killed one can be seen and taken back."""

from __future__ import annotations

import fcntl
import json
import os
import time
from types import TracebackType
from typing import Any, TextIO

from mesh.program.memory import file_of
from mesh.program.stack import Stack
from mesh.shift.plan import Weights


class BusyError(Exception):
    """Another shift of the same stack is under way."""


class Journal:
    """The memory of a running shift, beside the user's other state, so that a killed one can be seen and taken back.

    Its lock is what keeps a second shift of the stack from beginning. `left` is what a killed one left behind.
    """

    def __init__(self, stack: Stack) -> None:
        self.path = file_of(stack, "shifts")
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
