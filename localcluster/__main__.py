"""The command line of the local cluster."""

import argparse
import shlex
import sys
from collections.abc import Sequence

from . import build, cluster, prerequisites
from .errors import ClusterError
from .instance import DEFAULT, NAMES


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m localcluster",
        description=__doc__,
        epilog="The variable CLUSTER chooses: embedded, kind or current.",
    )
    commands = parser.add_subparsers(dest="command", required=True)
    helps = {
        "up": "bring a cluster up; the last line printed is the path of its kubeconfig",
        "down": "take a cluster down with everything that was deployed on it",
        "env": "print the variables that make pulumi and kubectl use a cluster, for the shell to evaluate",
    }
    for name, text in helps.items():
        commands.add_parser(name, help=text).add_argument("--name", default=DEFAULT, choices=NAMES)
    builds = commands.add_parser("build", help="build what the embedded cluster is made of, and nothing else")
    builds.add_argument("groups", nargs="*", metavar="GROUP", help=", ".join(build.WEIGHTS))
    builds.add_argument("--tests", action="store_true", help="also what only the tests and people use")
    return parser


def _build(groups: Sequence[str], tests: bool) -> None:
    wanted = [build.require_group(group) for group in groups] or [*build.DEFAULT_GROUPS]
    wanted += [group for group in (*build.TOOLS, *build.HELPERS) if tests and group not in wanted]
    prerequisites.check_go()
    missing = build.missing(wanted)
    if missing:
        prerequisites.check_build(missing)
        build.build(wanted)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; 0 is good, 2 is something that the user has to put right."""
    options = _parser().parse_args(arguments)
    try:
        if options.command == "up":
            print(cluster.up(options.name).kubeconfig)
        elif options.command == "down":
            cluster.down(options.name)
        elif options.command == "env":
            for name, value in cluster.environment(options.name).items():
                print(f"export {name}={shlex.quote(value)}")
        else:
            _build(options.groups, options.tests)
    except (ClusterError, OSError) as error:
        print(f"localcluster: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
