"""The command line `mesh`."""

import importlib
import pkgutil
import sys

import click

from mesh import cli, commands


class Commands(click.Group):
    """Each module in `mesh/commands` is one command, imported when it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        del ctx
        return sorted(module.name for module in pkgutil.iter_modules(commands.__path__))

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self.list_commands(ctx):
            return None
        command: click.Command = importlib.import_module(f"mesh.commands.{cmd_name}").command
        return command


@click.command(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
def mesh() -> None:
    """Shift traffic, see the truth about it, and keep the mesh as it is declared.

    Exit codes: 0 good, 1 failed or different, 2 wrong use or cluster unreachable, 3 inconclusive, 4 busy,
    130 interrupted.
    """


def main() -> int:
    return cli.run(mesh)


if __name__ == "__main__":
    sys.exit(main())
