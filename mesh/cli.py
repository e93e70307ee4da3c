"""What the commands of `mesh` share: how they are found, their common options, and their exit codes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from enum import IntEnum
from typing import TYPE_CHECKING, Any, TypeVar

import click

from config import ConfigError
from config.files import PROJECT, effective, stacks
from mesh.cluster.kubectl import Kubectl, KubectlError
from mesh.program.helm import HelmError
from mesh.program.stack import PulumiError

if TYPE_CHECKING:
    from config import Mesh
    from mesh.program.recorder import Recording

Function = TypeVar("Function", bound=Callable[..., Any])


class Exit(IntEnum):
    """The exit codes of every command; `diff` and `drift` use FAILED for «there are differences»."""

    GOOD = 0
    FAILED = 1
    USAGE = 2
    """Wrong use, a wrong configuration, or a cluster that cannot be reached."""
    INCONCLUSIVE = 3
    BUSY = 4
    INTERRUPTED = 130


class Failure(click.ClickException):
    """Ends a command with a message on stderr and one of the exit codes."""

    def __init__(self, message: str, code: Exit = Exit.FAILED) -> None:
        super().__init__(message)
        self.code = code

    def show(self, file: Any = None) -> None:
        click.echo(f"mesh: {self.message}", file=file or sys.stderr)


def stack_option(function: Function) -> Function:
    """`--stack`, by default $PULUMI_STACK or the one that `pulumi stack select` chose."""
    return click.option(
        "--stack", callback=_chosen, shell_complete=_complete_stack, help="Default: the selected stack."
    )(function)


def json_option(function: Function) -> Function:
    return click.option("--json", "as_json", is_flag=True, help="Print JSON, for machines.")(function)


def yes_option(function: Function) -> Function:
    return click.option("--yes", is_flag=True, help="Do not ask.")(function)


def confirm(yes: bool, question: str) -> None:
    """Asks, unless `--yes` was given; where nobody can be asked it is an error. Raises `click.Abort` on no."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise Failure("nothing was changed: there is nobody to ask; add --yes", Exit.USAGE)
    click.confirm(question, abort=True, err=True)


def as_json(value: object) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False)


def print_json(value: object) -> None:
    click.echo(as_json(value))


def cluster(stack: str) -> Kubectl:
    """kubectl for the cluster of a stack. Raises `ConfigError`."""
    configured = effective(stack).cluster
    return Kubectl(configured.context, configured.kubeconfig)


def declared(stack: str) -> Recording:
    """What the program declares for a stack; what the program itself refuses is a user's mistake like any other."""
    # Pulumi takes longer to import than most commands take in all.
    from pulumi import RunError

    from mesh.declared import declared

    try:
        return declared(stack)
    except RunError as error:
        raise Failure(str(error), Exit.USAGE) from None


def copy_charts(mesh: Mesh) -> None:
    """Makes the charts that are installed without their schema, and says so. Raises `Failure`."""
    from mesh.program import copies

    if text := copies.note(mesh) if mesh.mode == "managed" else "":
        click.echo(text, err=True)
        try:
            copies.make(mesh, PROJECT)
        except copies.CopyError as error:
            raise Failure(str(error), Exit.USAGE) from None


def _chosen(ctx: click.Context, _param: click.Parameter, value: str | None) -> str | None:
    return value if value or ctx.resilient_parsing else _selected()


def _complete_stack(_ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
    return [stack for stack in stacks() if stack.startswith(incomplete)]


def _selected() -> str:
    if stack := os.environ.get("PULUMI_STACK"):
        return stack
    try:
        shown = subprocess.run(
            ["pulumi", "stack", "--show-name", "--non-interactive"],
            cwd=PROJECT,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
    except FileNotFoundError:
        shown = None
    if shown is None or shown.returncode:
        raise Failure(f"no stack is selected; add --stack, with one of {', '.join(stacks())}", Exit.USAGE)
    return shown.stdout.strip()


def run(group: click.Group) -> int:
    """Runs the command line; a user's mistake becomes a message and an exit code, never a traceback."""
    try:
        code = group.main(prog_name="mesh", standalone_mode=False)
    except Failure as error:
        error.show()
        return error.code
    except click.ClickException as error:
        error.show()
        return Exit.USAGE
    except ConfigError as error:
        click.echo(str(error), err=True)
        return Exit.USAGE
    except KubectlError as error:
        click.echo(f"mesh: the cluster cannot be read: {error}", err=True)
        return Exit.USAGE
    except HelmError as error:
        click.echo(f"mesh: {error}", err=True)
        return Exit.USAGE
    except PulumiError as error:
        click.echo(f"mesh: {error}", err=True)
        return Exit.FAILED
    except (click.Abort, KeyboardInterrupt):
        return Exit.INTERRUPTED
    return code if isinstance(code, int) else Exit.GOOD
