"""`mesh render`: every object that a stack would install."""

from __future__ import annotations

from pathlib import Path

import click

from config import ConfigError, files
from istio import charts
from mesh import cli
from mesh.program import render


@click.command(epilog="Example: mesh render --stack prod --output prod.yaml")
@click.option("--output", default="-", show_default=True, help="A file to write; - is stdout.")
@cli.stack_option
@cli.json_option
def command(output: str, stack: str, as_json: bool) -> None:
    """Write every object that the stack would install: charts, workloads and rules.

    It needs helm and no cluster. The objects come as YAML that can be applied in this order, the same bytes each time
    for the same configuration; secrets are not shown. The counterpart of `istioctl manifest generate`.
    """
    recording = cli.declared(stack)
    mesh = files.effective(stack).mesh
    if mesh.mode == "managed" and (problems := list(charts.problems(mesh, files.PROJECT))):
        raise ConfigError(problems)
    cli.copy_charts(mesh)
    objects = render.rendered(recording)
    text = f"{cli.as_json(objects)}\n" if as_json else render.as_yaml(objects)
    if output == "-":
        click.echo(text, nl=False)
        return
    try:
        Path(output).write_text(text)
    except OSError as error:
        raise cli.Failure(f"{output} cannot be written: {error.strerror}", cli.Exit.USAGE) from None
    click.echo(f"{len(objects)} objects of the stack {stack} are in {output}", err=True)
