"""`mesh verify`: whether requests are split as declared, by sending some and counting who gets them."""

from __future__ import annotations

from pathlib import Path

import click
from rich.console import Console

from config import files
from mesh import cli
from mesh.calls import caller_of, live_service, url_of
from mesh.traffic.split import Verdict
from mesh.verify import words
from mesh.verify.measure import Measured, NotMeasurableError, measure

EXIT = {
    Verdict.PLAUSIBLE: cli.Exit.GOOD,
    Verdict.DIFFERENT: cli.Exit.FAILED,
    Verdict.TOO_FEW: cli.Exit.INCONCLUSIVE,
}


@click.command(epilog="Example: mesh verify bill-service -n 1000 --plot split.png")
@click.argument("service", default="")
@click.option(
    "-n", "requests", type=click.IntRange(1, 1_000_000), default=1000, show_default=True, help="How many requests."
)
@click.option(
    "--from",
    "workload",
    default="",
    help="The workload that calls, office/clerk in another namespace; default: the first one with curl.",
)
@click.option("--image", default="", help="An image with curl, for an ephemeral container in the caller's pod.")
@click.option("--path", default="/", show_default=True, help="The path that is asked for.")
@click.option(
    "--body",
    default="",
    help="A regular expression whose first group is the version in an answer's body. It counts by the answers; "
    "otherwise the caller's proxy counts. Without a mesh the default is any version's name as a word.",
)
@click.option("--plot", type=click.Path(dir_okay=False, path_type=Path), help="Also draw it, as PNG, SVG or PDF.")
@cli.stack_option
@cli.json_option
def command(
    service: str,
    requests: int,
    workload: str,
    image: str,
    path: str,
    body: str,
    plot: Path | None,
    stack: str,
    as_json: bool,
) -> int:
    """Send requests to SERVICE from a pod, count them by version, and test the split against the declared weights.

    An exact binomial test for each version, with a false-alarm rate of 0.27 % (3 standard deviations) for all
    together; weights of 0 and 100 are exact. Without the mesh, and in a mesh without rules, every ready pod is expected
    to get as much as any other. Of a port that is not read as HTTP connections are counted, and of a mirrored service
    only what is no copy. Where another object decides for the caller it is named. Without SERVICE: every service with
    weights, one after the other. Exit code 0: plausible; 1: different, or requests failed; 3: too few to tell.
    """
    config = files.effective(stack)
    if plot and not service:
        raise cli.Failure("--plot draws one service: name it", cli.Exit.USAGE)
    found: dict[str, Measured] = {}
    for name in [service] if service else [name for name in config.weights if config.services[name].ports]:
        live = live_service(config, name)
        if not config.services[name].ports:
            raise cli.Failure(f"{name} has no port to send requests to", cli.Exit.USAGE)
        try:
            found[name] = measure(live, caller_of(live, workload, image), requests, url_of(live, path), body)
            if not as_json:
                console = Console(highlight=False)
                console.print(
                    words.table(found[name], console.width), *words.lines(found[name]), sep="\n", soft_wrap=True
                )
            if plot:
                words.draw(found[name], name, plot)
        except NotMeasurableError as error:
            raise cli.Failure(str(error), cli.Exit.USAGE if error.usage else cli.Exit.FAILED) from None
        except words.NoMatplotlibError as error:
            raise cli.Failure(str(error), cli.Exit.USAGE) from None
    if as_json:
        data = {name: words.as_data(measured) for name, measured in found.items()}
        cli.print_json(data[service] if service else data)
    exits = [_exit(measured) for measured in found.values()]
    return next((code for code in (cli.Exit.FAILED, cli.Exit.INCONCLUSIVE) if code in exits), cli.Exit.GOOD)


def _exit(measured: Measured) -> cli.Exit:
    return cli.Exit.FAILED if measured.failed or measured.findings else EXIT[measured.split.verdict]
