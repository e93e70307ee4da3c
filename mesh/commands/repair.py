"""`mesh repair`: puts right what somebody changed in the cluster behind the stack's back."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from mesh import cli
from mesh.commands.drift import compared, look
from mesh.program.stack import Stack

if TYPE_CHECKING:
    from mesh.drift import Drift


@click.command(epilog="Example: mesh repair --stack dev")
@cli.yes_option
@cli.stack_option
@cli.json_option
def command(yes: bool, stack: str, as_json: bool) -> int:
    """Put right exactly what `mesh drift` finds: fields go back to what is declared, missing objects are made again.

    It shows each change and asks before it makes any. Afterwards `mesh drift` is empty and `pulumi up` has nothing to
    do. What is declared and not applied yet stays as it is, and so does what is left to known writers.

    Exit codes: 0 nothing differs any more, 1 something could not be put right, 2 the cluster or the state cannot be
    read.
    """
    from mesh.drift import repair, words

    report = look(stack)
    able = [drift for drift in report.drift if not repair.hindrance(drift)]
    hindered = [(drift, repair.hindrance(drift)) for drift in report.drift if repair.hindrance(drift)]
    for drift in able:
        _say(as_json, "", words.title(drift), *(f"  {line}" for line in words.changes(drift)))
    for drift, why in hindered:
        _say(as_json, "", f"{words.title(drift)}: cannot be put right here", f"  {why}")
    failed: list[tuple[Drift, str]] = []
    if able:
        cli.confirm(yes, f"\nPut {len(able)} of {report.compared} objects right?")
        failed = repair.Repair(cli.cluster(stack), lambda drift: _say(as_json, f"✓ {words.title(drift)}")).run(able)
        for drift, why in failed:
            _say(as_json, f"✗ {words.title(drift)}: {why}")
        repair.refresh(Stack(stack), able)
    after = compared(stack) if able else report
    left = after.drift
    if as_json:
        problems = {str(drift.expected.identity): why for drift, why in (*hindered, *failed)}
        cli.print_json({**words.as_data(report, stack), "problems": problems, "left": len(left)})
    elif not left:
        click.echo(f"No drift: all {report.compared} objects are as declared.")
    else:
        click.echo(f"{len(left)} of {report.compared} objects are still not as declared.")
    _say(as_json, *words.allowed(after))
    return cli.Exit.FAILED if left else cli.Exit.GOOD


def _say(as_json: bool, *lines: str) -> None:
    """Progress, which goes to stderr when stdout is for machines."""
    for line in lines:
        click.echo(line, err=as_json)
