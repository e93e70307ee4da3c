"""The status as people and machines read it."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from mesh import tables
from mesh.routes.look import Live
from mesh.routes.model import Caller
from mesh.status.find import Row, Service

_HEADINGS = ("service", "version", "declared", "live", "measured", "pods", "success", "p50", "p99")
_LISTED = 6


def shown(services: Sequence[Service], width: int) -> RenderableType:
    """The table, and under it what the callers of each service do."""
    rows = [_cells(service.name, row) for service in services for row in service.rows]
    table = tables.table(_HEADINGS, rows, width, right=_HEADINGS[2:], keys=2)
    lines = [line for service in services if service.live for line in _lines(service, service.live)]
    return Group(table, *lines) if lines else table


def as_data(service: Service) -> Iterator[dict[str, Any]]:
    """One entry a version."""
    live = service.live
    for row in service.rows:
        yield {
            "service": service.name,
            "version": row.version,
            "declared": row.declared,
            # None where the callers do not agree.
            "live": round(100 * row.live[0], 3) if row.live and row.live[0] == row.live[1] else None,
            "measured": row.measured,
            "measuredSince": _time(service.since) if service.since else None,
            "readyPods": row.ready,
            "requests": row.traffic.requests,
            "successRate": row.success,
            "retried": row.traffic.retried,
            "p50": row.traffic.quantile(0.5),
            "p99": row.traffic.quantile(0.99),
            "proxies": len(live.callers) if live else 0,
            "proxiesInSync": len(live.right) if live else 0,
            "hiddenFrom": [str(caller) for caller in live.hidden] if live else [],
            "disconnected": [str(caller) for caller in live.disconnected] if live else [],
            "silence": live.silence if live else "",
            "findings": [
                {
                    "kind": one.kind.name.lower(),
                    "object": one.object,
                    "owner": one.owner,
                    "what": one.what,
                    "callers": [str(caller) for caller in one.callers],
                    "fix": one.fix,
                }
                for one in (live.findings if live else ())
            ],
            "differs": service.differs,
        }


def _cells(service: str, row: Row) -> list[Text]:
    traffic = row.traffic
    return [
        Text(service),
        Text(row.version),
        Text("–" if row.declared is None else f"{row.declared} %"),
        _marked("–" if row.live is None else _range(row.live), row.is_elsewhere),
        Text("–" if row.measured is None else f"{row.measured:.1%}"),
        _marked(str(row.ready), row.is_unanswered),
        Text("–") if row.success is None else _marked(f"{row.success:.2%}", row.success < 0.99),
        Text(_milliseconds(traffic.quantile(0.5))),
        Text(_milliseconds(traffic.quantile(0.99))),
    ]


def _lines(service: Service, live: Live) -> Iterator[Text]:
    right, callers = len(live.right), len(live.callers)
    by = f"live by all {callers} proxies that call it" if right == callers else f"live by {right} of {callers} proxies"
    since = f"; measured since {_time(service.since)}" if service.since else ""
    yield Text(f"{service.name}: {by}{since}", style="bold red" if service.differs else "")
    for one in live.findings:
        yield Text(f"  ! {one}", style="red")
        yield Text(f"    fix: {one.fix}")
    for one in live.accepted:
        yield Text(f"  accepted (mesh.accept): {one}")
    if live.disconnected:
        yield Text(f"  ! {_listed(live.disconnected)}: connected to no istiod, keeps what it has", style="red")
        yield Text("    fix: mesh check says what holds it up")
    if live.silence:
        yield Text(f"  {live.silence}: who of them gets the next change is not known")
    if service.mirrored and any(row.traffic.requests for row in service.rows):
        yield Text(f"  success and times of {service.mirrored} are those of its copies, too; measured leaves them out")
    if live.hidden:
        yield Text(f"  hidden from {_listed(live.hidden)}, which count as no callers")


def _listed(callers: Sequence[Caller]) -> str:
    names = list(dict.fromkeys(caller.workload for caller in callers))
    return ", ".join(names[:_LISTED]) + (f" and {len(names) - _LISTED} more" if len(names) > _LISTED else "")


def _range(shares: tuple[float, float]) -> str:
    low, high = (f"{100 * share:.3g}" for share in shares)
    return f"{low} %" if low == high else f"{low}–{high} %"


def _time(at: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(at))


def _marked(text: str, wrong: bool) -> Text:
    return Text(f"{text} !" if wrong else text, style="bold red" if wrong else "")


def _milliseconds(time: float | None) -> str:
    return "–" if time is None else f"{time:.0f} ms"
