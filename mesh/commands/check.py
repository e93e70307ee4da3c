"""`mesh check`: whether the cluster is fit for the stack, and the mesh in it well."""

from __future__ import annotations

import click

from config import files
from mesh import cli
from mesh.check import find as check
from mesh.commands.drift import compared
from mesh.program.stack import Stack

_MARKS = {"good": ("✓", "green"), "warning": ("!", "yellow"), "problem": ("✗", "red")}


@click.command(epilog="Example: mesh check --stack dev")
@cli.stack_option
@cli.json_option
def command(stack: str, as_json: bool) -> int:
    """Check the cluster before an installation, and the mesh after it; nothing is changed.

    Before: the version of Kubernetes, permissions, another Istio or what one left over, kernel modules, ports,
    unfinished operations of Pulumi and Helm. After: control plane and gateways ready, the CNI agent on every node,
    sidecars that cannot start and why, proxies in sync, sidecars of the right version, and whether anything drifted.
    Each finding comes with its fix.

    Exit codes: 0 good (warnings allowed), 1 problems, 2 the cluster cannot be reached.
    """
    kubectl = cli.cluster(stack)
    situation = check.Situation(Stack(stack), files.effective(stack), kubectl)
    found: list[check.Finding] = []
    for one in check.CHECKS:
        for finding in one(situation):
            found.append(finding)
            if not as_json:
                _show(finding)
    if situation.installed:
        drifted = len(compared(stack).drift)
        last = (
            check.Finding("problem", f"{drifted} objects are not as declared", f"mesh drift --stack {stack}")
            if drifted
            else check.Finding("good", "no drift")
        )
        found.append(last)
        if not as_json:
            _show(last)
    problems = sum(finding.level == "problem" for finding in found)
    if as_json:
        cli.print_json({"stack": stack, "findings": [vars(finding) for finding in found], "problems": problems})
    return cli.Exit.FAILED if problems else cli.Exit.GOOD


def _show(finding: check.Finding) -> None:
    mark, color = _MARKS[finding.level]
    click.echo(f"{click.style(mark, fg=color)} {finding.what}")
    if finding.fix:
        click.echo(f"  fix: {finding.fix}")
