"""Since when the counts of requests belong to the rule that is in force: proxies only count on.

What they had counted when a rule was first seen as it is now is remembered, beside the memory of shifts.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from typing import Any

from mesh.cluster.objects import Object
from mesh.program.memory import file_of
from mesh.program.stack import Stack
from mesh.traffic.counts import Traffic

Counted = Mapping[str, Traffic]
"""Version → what all callers have counted since their proxies run."""


@dataclass(frozen=True)
class Since:
    """`at` is the time (seconds since 1970) from which `counted` is, 0.0 for since each proxy runs."""

    at: float
    counted: Counted


class Memory:
    """That of one stack, on this machine."""

    def __init__(self, stack: Stack) -> None:
        self._path = file_of(stack, "measured")

    def since(self, service: str, rule: Object | None, counted: Counted) -> Since:
        """What was counted under the `rule` as it is now. Under the first that is seen here all of it may be, under a
        later one only what comes from then on."""
        known, key = self._read(), _key(rule)
        entry = known.get(service)
        if entry is None or entry["rule"] != key:
            before = {version: asdict(traffic) for version, traffic in counted.items()} if entry else {}
            entry = {"rule": key, "at": time.time() if entry else 0.0, "counted": before}
            self._write({**known, service: entry})
        more = {version: traffic - _traffic(entry["counted"].get(version, {})) for version, traffic in counted.items()}
        if any(traffic.is_negative for traffic in more.values()):
            return Since(0.0, counted)  # proxies that had counted are gone
        return Since(entry["at"], more)

    def _read(self) -> dict[str, Any]:
        with suppress(OSError, ValueError):
            known: dict[str, Any] = json.loads(self._path.read_text())
            return known
        return {}

    def _write(self, known: Mapping[str, Any]) -> None:
        with suppress(OSError):  # where nothing can be remembered, all counts since the proxies run are shown
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._path.write_text(json.dumps(known))


def _key(rule: Object | None) -> str:
    """Another one for each change of its spec, and of what is counted."""
    made = f"{rule['metadata'].get('uid', '')} {rule['metadata'].get('generation', 0)}" if rule else ""
    return " ".join([made, *(one.name for one in fields(Traffic))])


def _traffic(data: Mapping[str, Any]) -> Traffic:
    slower = {float(bound): count for bound, count in data.get("slower", {}).items()}
    return Traffic(**{**data, "slower": slower}) if data else Traffic()
