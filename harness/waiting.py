"""Waits for what takes a moment to reach the proxies."""

from __future__ import annotations

import time
from collections.abc import Callable


def eventually(check: Callable[[], None], seconds: float = 40) -> None:
    """Until the assertions in `check` hold."""
    end = time.monotonic() + seconds
    while True:
        try:
            check()
        except AssertionError:
            if time.monotonic() > end:
                raise
            time.sleep(0.5)
        else:
            return
