"""`mesh adopt`: takes over an Istio, workloads and rules that somebody else installed."""

from __future__ import annotations

import click

from config import ConfigError, files
from istio import charts
from mesh import cli
from mesh.program.recorder import PROJECT
from mesh.program.stack import PulumiError, Stack


@click.command(epilog="Example: mesh adopt --stack dev --dry-run")
@click.option("--dry-run", is_flag=True, help="Show what would be taken over, and change nothing.")
@cli.yes_option
@cli.stack_option
@cli.json_option
def command(dry_run: bool, yes: bool, stack: str, as_json: bool) -> int:
    """Take over what is in the cluster already of what the stack declares, instead of making it anew.

    An Istio that Helm or istioctl installed, namespaces, workloads and rules: each object is listed with what the next
    `pulumi up` would change in it. Then they are marked as this stack's; nothing else of them is touched, and no pod
    restarts. `pulumi up` does the rest, and from then on `pulumi destroy` deletes them.

    What somebody else still manages (Argo CD, Flux, another stack, a Helm release of another name) is refused with the
    way to release it. When it was killed, run it again. It needs helm for a managed mesh.

    Exit codes: 0 taken over, or nothing to take over; 1 refused, and nothing was changed; 2 the cluster or the state
    cannot be read.
    """
    from mesh import adopt
    from mesh.adopt import words
    from mesh.program import render

    config, recording, kubectl = files.effective(stack), cli.declared(stack), cli.cluster(stack)
    if config.mesh.mode == "managed" and (problems := list(charts.problems(config.mesh, files.PROJECT))):
        raise ConfigError(problems)
    cli.copy_charts(config.mesh)
    try:
        known = frozenset(entry["urn"] for entry in Stack(stack).resources())
    except PulumiError as error:
        raise cli.Failure(f"the state cannot be read: {error}", cli.Exit.USAGE) from None
    owner = f"{PROJECT}/{stack}"
    found = adopt.find(recording, adopt.Search(config, owner, kubectl, known, render.of_release))
    if as_json:
        cli.print_json(words.as_data(found, stack))
    else:
        for line in words.plan(found, stack):
            click.echo(line)
    if found.refusals:
        raise cli.Failure("nothing was changed")
    if not found:
        click.echo("Nothing to take over: what the stack declares is its own, or not there.", err=as_json)
        return cli.Exit.GOOD
    if dry_run:
        return cli.Exit.GOOD
    cli.confirm(yes, f"\nTake over {len(found.candidates)} objects?")
    adopt.take(found, owner, kubectl)
    click.echo(f"Done. Now: pulumi up --stack {stack}", err=as_json)
    return cli.Exit.GOOD
