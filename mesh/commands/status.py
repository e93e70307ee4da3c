"""`mesh status`: who is declared to get how many requests, who gets them, and how they fare."""

from __future__ import annotations

import time
from dataclasses import dataclass

import click
from rich.console import Console, RenderableType
from rich.live import Live
from rich.text import Text

from config import StackConfig, files
from mesh import cli, tables
from mesh.cluster.kubectl import Kubectl
from mesh.cluster.metrics import MetricsError, metrics_of
from mesh.cluster.service import LiveService
from mesh.cluster.service import look as look_at
from mesh.program.stack import Stack
from mesh.shift.journal import Journal
from mesh.traffic.counts import Traffic
from mesh.traffic.weights import described

_WATCH_SECONDS = 5.0


@dataclass(frozen=True)
class Row:
    """One version of one service; weights are None where there are no rules."""

    service: str
    version: str
    declared: int | None
    live: int | None
    ready: int
    in_sync: int
    proxies: int
    traffic: Traffic
    share: float | None
    """Of all requests to the service that the callers' proxies have counted since they run."""

    @property
    def differs(self) -> bool:
        return self.declared != self.live or self.in_sync != self.proxies or (bool(self.declared) and not self.ready)

    @property
    def success(self) -> float | None:
        return self.traffic.succeeded / self.traffic.requests if self.traffic.requests else None


@click.command(epilog="Example: mesh status bill-service --watch")
@click.argument("services", nargs=-1, metavar="[SERVICE...]")
@click.option("--watch", is_flag=True, help="Show it again every five seconds, and count from now on.")
@cli.stack_option
@cli.json_option
def command(services: tuple[str, ...], watch: bool, stack: str, as_json: bool) -> int:
    """Show each version's declared, live and measured weight, its ready pods, success rate and times.

    The measured ones are what the sidecars of the stack's namespace have counted since each of them runs; with --watch,
    since the last look. A difference is red and marked with «!»: declared and live weights, proxies that do not have
    the live ones, versions with weight and no ready pod. Exit code 1 when there is one.
    """
    config = files.effective(stack)
    names = services or tuple(name for name, service in config.services.items() if service.ports)
    if unknown := [name for name in names if name not in config.services]:
        raise cli.Failure(f"there is no service {', '.join(unknown)}", cli.Exit.USAGE)
    try:
        rows, counted = look(config, names, {})
        if watch and not as_json:
            _watch(stack, names, rows, counted)
    except MetricsError as error:
        raise cli.Failure(str(error), cli.Exit.USAGE) from None
    if as_json:
        cli.print_json([_as_json(row) for row in rows])
    elif not watch:
        console = Console(highlight=False)
        console.print(_table(rows, console), soft_wrap=True)
    if left := Journal(Stack(stack)).left:
        shift = f"{left['service']} from {described(left['start'])} to {described(left['aim'])}"
        click.echo(
            f"a shift of {shift} is under way, or was killed (then: mesh shift {left['service']} --back)", err=True
        )
    return cli.Exit.FAILED if any(row.differs for row in rows) else cli.Exit.GOOD


Counted = dict[str, dict[str, Traffic]]


def look(config: StackConfig, names: tuple[str, ...], since: Counted) -> tuple[list[Row], Counted]:
    """The rows, and what has been counted in all; the rows have what came after `since`."""
    rows: list[Row] = []
    counted: Counted = {}
    kubectl = Kubectl(config.cluster.context, config.cluster.kubeconfig)
    seen = look_at(config, kubectl, names)
    for name in names:
        live = LiveService(config, name, kubectl)
        weights, declared, pods = live.weights(seen), config.weights.get(name), live.pods(seen)
        clients = live.clients(seen) if weights else []
        late = live.out_of_sync(weights, clients) if weights else {}
        total: dict[str, Traffic] = {}
        for versions in metrics_of(live).snapshot().values() if config.mesh.on else []:
            for version, traffic in versions.items():
                total[version] = total.get(version, Traffic()) + traffic
        counted[name] = total
        more = {version: traffic - since.get(name, {}).get(version, Traffic()) for version, traffic in total.items()}
        requests = sum(traffic.requests for traffic in more.values())
        for version in live.versions:
            traffic = more.get(version, Traffic())
            rows.append(
                Row(
                    name,
                    version,
                    declared.get(version, 0) if declared else None,
                    weights.get(version, 0) if weights else None,
                    len(pods[version].ready),
                    len(clients) - len(late),
                    len(clients),
                    traffic,
                    traffic.requests / requests if requests else None,
                )
            )
    return rows, counted


def _watch(stack: str, names: tuple[str, ...], rows: list[Row], counted: Counted) -> None:
    """Until Ctrl-C. The configuration is read again each time, as a shift changes it."""
    console = Console(highlight=False)
    with Live(_table(rows, console), auto_refresh=False, console=console) as screen:
        while True:
            time.sleep(_WATCH_SECONDS)
            rows, counted = look(files.effective(stack), names, counted)
            screen.update(_table(rows, console), refresh=True)


_HEADINGS = ("service", "version", "declared", "live", "measured", "pods", "success", "p50", "p99", "in sync")


def _table(rows: list[Row], console: Console) -> RenderableType:
    return tables.table(_HEADINGS, [_cells(row) for row in rows], console.width, right=_HEADINGS[2:], keys=2)


def _cells(row: Row) -> list[Text]:
    traffic = row.traffic
    return [
        Text(row.service),
        Text(row.version),
        Text(_percent(row.declared)),
        _marked(_percent(row.live), row.declared != row.live),
        Text("–" if row.share is None else f"{row.share:.1%}"),
        _marked(str(row.ready), bool(row.declared) and not row.ready),
        Text("–") if row.success is None else _marked(f"{row.success:.2%}", row.success < 0.99),
        Text(_milliseconds(traffic.quantile(0.5))),
        Text(_milliseconds(traffic.quantile(0.99))),
        _marked(f"{row.in_sync}/{row.proxies}", row.in_sync != row.proxies) if row.proxies else Text("–"),
    ]


def _marked(text: str, wrong: bool) -> Text:
    return Text(f"{text} !" if wrong else text, style="bold red" if wrong else "")


def _percent(weight: int | None) -> str:
    return "–" if weight is None else f"{weight} %"


def _milliseconds(time: float | None) -> str:
    return "–" if time is None else f"{time:.0f} ms"


def _as_json(row: Row) -> dict[str, object]:
    return {
        "service": row.service,
        "version": row.version,
        "declared": row.declared,
        "live": row.live,
        "measured": row.share,
        "readyPods": row.ready,
        "requests": row.traffic.requests,
        "successRate": row.success,
        "retried": row.traffic.retried,
        "p50": row.traffic.quantile(0.5),
        "p99": row.traffic.quantile(0.99),
        "proxiesInSync": row.in_sync,
        "proxies": row.proxies,
        "differs": row.differs,
    }
