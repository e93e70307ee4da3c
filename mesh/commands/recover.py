"""`mesh recover`: clears what a killed command left behind."""

from __future__ import annotations

import time

import click

from config import files
from mesh import cli, recover
from mesh.program.stack import Stack


@click.command(epilog="Example: mesh recover --stack dev && pulumi up --stack dev")
@click.option(
    "--wait",
    default=5.0,
    show_default=True,
    type=click.FloatRange(min=0),
    help="Seconds to wait for whoever works on the stack; the plugins of a killed command end after a while.",
)
@cli.yes_option
@cli.stack_option
@cli.json_option
def command(wait: float, yes: bool, stack: str, as_json: bool) -> int:
    """Make a stack usable again after its `pulumi up` or `destroy` was killed.

    It takes away the stack's lock, the unfinished operations in its state, and the records of Helm releases that are
    still under way or that the state does not know; of the cluster's objects it touches only a CRD of Istio that a dead
    API server left accepted and not served. It shows what it found and asks first. Then run the command again that was
    killed: it takes over what is there already.

    Exit codes: 0 done, or nothing to do; 2 the cluster or the state cannot be read; 4 somebody is at work on the stack.
    """
    driven, kubectl = Stack(stack), cli.cluster(stack)
    mesh = files.effective(stack).mesh
    _refuse_while_at_work(driven, wait)
    found = recover.look(driven, kubectl, mesh)
    done: list[str] = []
    for other in found.others:
        click.echo(f"Not this stack's, and left alone: {other}", err=True)
    if found or found.locks is None:
        click.echo(f"Left behind by a command on the stack {stack} that did not end:", err=as_json)
        for line in found:
            click.echo(f"  {line}", err=as_json)
        if found.locks is None:
            click.echo("  the stack's lock, if there is one: this backend does not show it", err=as_json)
        if found.locks is None or not all(lock.is_seen for lock in found.locks):
            click.echo("Make sure that nobody works on the stack from another machine.", err=True)
        cli.confirm(yes, "Take all that away?")
        _refuse_while_at_work(driven, 0)
        done = recover.recover(driven, kubectl, mesh)
    if as_json:
        cli.print_json({"stack": stack, "removed": done})
    else:
        click.echo(
            f"Done. Now run the command again: pulumi up --stack {stack}" if done else "Nothing was left behind."
        )
    return cli.Exit.GOOD


def _refuse_while_at_work(stack: Stack, patience: float) -> None:
    end = time.monotonic() + patience
    while workers := recover.workers(stack):
        if time.monotonic() > end:
            who = ", ".join(f"{name} (process {pid})" for pid, name in sorted(workers.items()))
            raise cli.Failure(
                f"somebody is at work on the stack {stack.name}; nothing was changed: {who}\n"
                "fix: wait until it has ended; if pulumi was killed, its plugins may hang on: "
                f"kill {' '.join(str(pid) for pid in sorted(workers))}",
                cli.Exit.BUSY,
            )
        time.sleep(1)
