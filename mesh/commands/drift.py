"""`mesh drift`: what somebody changed in the cluster behind the stack's back."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import click

from config import files
from mesh import cli
from mesh.cluster import service
from mesh.cluster.kubectl import Kubectl
from mesh.program.stack import PulumiError, Stack
from mesh.routes.look import look as look_at
from mesh.routes.model import Kind
from mesh.routes.others import Finding

if TYPE_CHECKING:
    from mesh.drift import Report


@click.command(epilog="Example: mesh drift --stack dev")
@cli.stack_option
@cli.json_option
def command(stack: str, as_json: bool) -> int:
    """Compare what is live with what is declared.

    Everything that the stack made is compared, what lies inside the Helm releases as well, whoever changed it. What
    istiod itself writes (caBundle, failurePolicy) and what is not declared (such as replicas under an autoscaler) is
    no drift; nor is what the program declares and no `pulumi up` has applied yet, which is listed apart, or what
    managed clusters are known to write (docs/operations.md), which is counted.

    Objects of others that decide over requests in the place of the stack's rules are listed by name, with the callers
    that are concerned.

    Nothing is changed. Exit codes: 0 no drift, 1 drift, or others decide, 2 the cluster or the state cannot be read.
    """
    from mesh.drift import words

    report = look(stack)
    if as_json:
        cli.print_json(words.as_data(report, stack))
    else:
        click.echo("\n".join(words.report(report, stack)))
    return cli.Exit.FAILED if report.drift or report.decided else cli.Exit.GOOD


def look(stack: str) -> Report:
    """What others decide included. Raises as `compared`."""
    return replace(compared(stack), decided=_decided(stack, cli.cluster(stack)))


def compared(stack: str) -> Report:
    """The stack's own objects alone. Raises `KubectlError`, and `cli.Failure` when the state cannot be read."""
    from mesh import drift

    kubectl, recording = cli.cluster(stack), cli.declared(stack)
    try:
        applied = drift.applied(Stack(stack), kubectl)
    except PulumiError as error:
        raise cli.Failure(f"the state cannot be read: {error}", cli.Exit.USAGE) from None
    return drift.find(recording, applied, kubectl)


def _decided(stack: str, kubectl: Kubectl) -> list[Finding]:
    config = files.effective(stack)
    if not config.weights:
        return []
    found = look_at(config, kubectl, config.weights, service.look(config, kubectl))
    return [one for live in found.values() for one in live.findings if one.kind is not Kind.LATE]
