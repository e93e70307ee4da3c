"""`mesh status`: who is declared to get how many requests, who gets them, and how they fare."""

from __future__ import annotations

import time

import click
from rich.console import Console
from rich.live import Live

from config import files
from mesh import cli
from mesh.cluster.kubectl import Kubectl
from mesh.cluster.metrics import MetricsError
from mesh.program.stack import Stack
from mesh.shift.journal import Journal
from mesh.status import words
from mesh.status.find import Service, Status
from mesh.status.since import Memory
from mesh.traffic.weights import described

_WATCH_SECONDS = 5.0


@click.command(epilog="Example: mesh status bill-service --watch")
@click.argument("services", nargs=-1, metavar="[SERVICE...]")
@click.option("--watch", is_flag=True, help="Show it again every five seconds, and count from now on.")
@cli.stack_option
@cli.json_option
def command(services: tuple[str, ...], watch: bool, stack: str, as_json: bool) -> int:
    """Show each version's declared, live and measured weight, its ready pods, success rate and times.

    The live weight is what the proxies of all callers have, of every namespace of the mesh, and of the gateways where
    the service is exposed. Whoever treats requests in another way is named, with the object that decides in the place
    of the rule. The measured one is what the callers have counted since the rule is as it is now, as far as this
    machine has seen it; with --watch, since the last look. A difference is red and marked with «!». Exit code 1 when
    there is one.
    """
    config = files.effective(stack)
    names = services or tuple(name for name, service in config.services.items() if service.ports)
    if unknown := [name for name in names if name not in config.services]:
        raise cli.Failure(f"there is no service {', '.join(unknown)}", cli.Exit.USAGE)
    driver, kubectl = Stack(stack), Kubectl(config.cluster.context, config.cluster.kubeconfig)
    status, console = Status(kubectl, Memory(driver), watch and not as_json), Console(highlight=False)
    try:
        found = status.look(config, names)
        if watch and not as_json:
            _watch(stack, names, status, found, console)
    except MetricsError as error:
        raise cli.Failure(str(error), cli.Exit.USAGE) from None
    if as_json:
        cli.print_json([entry for service in found for entry in words.as_data(service)])
    elif not watch:
        console.print(words.shown(found, console.width), soft_wrap=True)
    if left := Journal(driver).left:
        shift = f"{left['service']} from {described(left['start'])} to {described(left['aim'])}"
        click.echo(
            f"a shift of {shift} is under way, or was killed (then: mesh shift {left['service']} --back)", err=True
        )
    return cli.Exit.FAILED if any(service.differs for service in found) else cli.Exit.GOOD


def _watch(stack: str, names: tuple[str, ...], status: Status, found: list[Service], console: Console) -> None:
    """Until Ctrl-C. The configuration is read again each time, as a shift changes it."""
    with Live(words.shown(found, console.width), auto_refresh=False, console=console) as screen:
        while True:
            time.sleep(_WATCH_SECONDS)
            found = status.look(files.effective(stack), names)
            screen.update(words.shown(found, console.width), refresh=True)
