"""The command line `mesh`."""

import sys

import click

from mesh import cli


@click.command(cls=cli.Commands, context_settings={"help_option_names": ["-h", "--help"]})
def mesh() -> None:
    """Shift traffic, see the truth about it, and keep the mesh as it is declared.

    Exit codes: 0 good, 1 failed or different, 2 wrong use or cluster unreachable, 3 inconclusive, 4 busy,
    130 interrupted.
    """


def main() -> int:
    return cli.run(mesh)


if __name__ == "__main__":
    sys.exit(main())
