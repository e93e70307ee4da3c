"""`mesh diff`: what a change means, in words first."""

from __future__ import annotations

from dataclasses import asdict

import click

from config import files
from mesh import cli
from mesh.program.stack import Stack
from mesh.report import markdown, states, text
from mesh.report.report import Report, report


@click.command(epilog="Example: mesh diff --stack dev --against origin/main")
@click.option(
    "--against",
    metavar="REV",
    help="Compare with this commit, each with its own code and without a cluster. "
    "Default: with the live stack, by `pulumi preview`.",
)
@click.option("--markdown", "as_markdown", is_flag=True, help="Print Markdown, for a comment on a pull request.")
@cli.stack_option
@cli.json_option
def command(against: str | None, as_markdown: bool, stack: str, as_json: bool) -> int:
    """Say what `pulumi up` would change: in words, then the risk, the resources, and the mesh's rendered objects.

    Secrets are not shown. Exit codes: 0 no changes, 1 changes, 2 refused, or nothing to compare, as when the
    configuration is wrong: then the report says why.
    """
    files.stack_file(stack)
    try:
        found = report(stack, states.offline(stack, against) if against else states.live(Stack(stack)))
    except states.StateError as error:
        found = Report(stack, against or f"the live stack {stack}", "the working tree", problems=str(error))
    if as_json:
        cli.print_json({"verdict": found.verdict, **asdict(found)})
    else:
        click.echo(markdown.write(found) if as_markdown else text.write(found), nl=False)
    return _exit(found)


def _exit(found: Report) -> cli.Exit:
    return {"none": cli.Exit.GOOD, "changes": cli.Exit.FAILED}.get(found.verdict, cli.Exit.USAGE)
