"""`mesh verify`: whether requests are split as declared, by sending some and counting who gets them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import click
from rich.console import Console, RenderableType
from rich.text import Text

from config import StackConfig, files
from mesh import cli, tables
from mesh.calls import caller_of, live_service, url_of
from mesh.cluster.probe import Caller
from mesh.cluster.service import LiveService, NotEnforcedError
from mesh.traffic.split import MARGIN, POWER, Share, Split, Verdict, judge
from mesh.traffic.weights import described, without_zeros

EXIT = {
    Verdict.PLAUSIBLE: cli.Exit.GOOD,
    Verdict.DIFFERENT: cli.Exit.FAILED,
    Verdict.TOO_FEW: cli.Exit.INCONCLUSIVE,
}
BAR = 30


@dataclass(frozen=True)
class Measured:
    """What was sent, who got it, and what should have been."""

    caller: str
    balanced_by: str
    failed: int
    split: Split


@click.command(epilog="Example: mesh verify bill-service -n 1000 --plot split.png")
@click.argument("service", default="")
@click.option(
    "-n", "requests", type=click.IntRange(1, 1_000_000), default=1000, show_default=True, help="How many requests."
)
@click.option("--from", "workload", default="", help="The workload that calls; default: the first one with curl.")
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
    to get as much as any other. Without SERVICE: every service with weights, one after the other. Exit code 0:
    plausible; 1: different, or requests failed; 3: too few to tell.
    """
    config = files.effective(stack)
    if plot and not service:
        raise cli.Failure("--plot draws one service: name it", cli.Exit.USAGE)
    found: dict[str, Measured] = {}
    for name in [service] if service else _weighted(config):
        live = live_service(config, name)
        if not config.services[name].ports:
            raise cli.Failure(f"{name} has no port to send requests to", cli.Exit.USAGE)
        require_declared(live)
        found[name] = measure(live, caller_of(live, workload, image), requests, path, body)
        if not as_json:
            console = Console(highlight=False)
            console.print(_table(found[name], console.width), *_words(found[name]), sep="\n", soft_wrap=True)
        if plot:
            _draw(found[name], name, plot)
    if as_json:
        cli.print_json(
            _as_json(found[service]) if service else {name: _as_json(measured) for name, measured in found.items()}
        )
    exits = [cli.Exit.FAILED if measured.failed else EXIT[measured.split.verdict] for measured in found.values()]
    return next((code for code in (cli.Exit.FAILED, cli.Exit.INCONCLUSIVE) if code in exits), cli.Exit.GOOD)


def _weighted(config: StackConfig) -> list[str]:
    """The services with weights that requests can be sent to."""
    return [name for name in config.weights if config.services[name].ports]


def require_declared(live: LiveService) -> None:
    """The declared weights are those of the VirtualService and of every client proxy, or the command ends."""
    declared = live.config.weights.get(live.name)
    if declared is None:
        return
    found = live.weights(live.look())
    if without_zeros(found) != without_zeros(declared):
        shown = described(found) if found else "no rule"
        raise cli.Failure(f"declared is {described(declared)}, but the cluster has {shown}; run `pulumi up`")
    try:
        live.wait_until_enforced(declared)
    except NotEnforcedError as error:
        raise cli.Failure(str(error)) from None


def measure(live: LiveService, caller: Caller, requests: int, path: str, body: str) -> Measured:
    meshed, url = live.config.mesh.on, url_of(live, path)
    by_body = bool(body) or not meshed
    before = Counter[str]() if by_body else live.answered(caller.proxy)
    answers = caller.send(url, requests, bodies=by_body, new_connections=not meshed)
    if by_body:
        counts = _by_body(answers.bodies, live.versions, body)
    else:
        counts = Counter(live.answered(caller.proxy))
        counts.subtract(before)
        counts = Counter({version: count for version, count in counts.items() if count})
    return Measured(caller.pod, _balancer(live), answers.failed, judge(_expected(live), counts))


def _balancer(live: LiveService) -> str:
    if live.name in live.config.weights:
        return "the declared weights"
    return "Envoy, alike for every ready pod" if live.config.mesh.on else "kube-proxy, alike for every ready pod"


def _expected(live: LiveService) -> dict[str, float]:
    if live.name in live.config.weights:
        return {version: weight / 100 for version, weight in live.config.weights[live.name].items()}
    pods = {version: len(pods.ready) for version, pods in live.pods(live.look()).items()}
    if not sum(pods.values()):
        raise cli.Failure(f"{live.name} has no ready pod")
    return {version: count / sum(pods.values()) for version, count in pods.items()}


def _by_body(bodies: tuple[str, ...], versions: Mapping[str, str], pattern: str) -> Counter[str]:
    named = re.compile(pattern or rf"\b({'|'.join(map(re.escape, versions))})\b")
    if pattern and not named.groups:
        raise cli.Failure("--body needs a group that is the version, as in 'bill-service-(v[0-9]+)'", cli.Exit.USAGE)
    counts = Counter(found[1] for text in bodies if (found := named.search(text)))
    if not counts and bodies:
        raise cli.Failure(
            f"no answer names its version; the first one is {bodies[0].strip()[:80]!r}. Say by --body where it stands",
            cli.Exit.USAGE,
        )
    return counts


_HEADINGS = ("version", "expected", "measured", "requests", "by chance")


def _table(measured: Measured, width: int) -> RenderableType:
    """With bars where there is room for them."""
    rows = [_cells(version, share) for version, share in measured.split.shares.items()]
    bars = [[*_cells(version, share), _bar(share)] for version, share in measured.split.shares.items()]
    drawn = (*_HEADINGS, "0 %" + "100 %".rjust(BAR - 3)), bars
    headings, shown = drawn if tables.fits(*drawn, width) else (_HEADINGS, rows)
    return tables.table(headings, shown, width, _HEADINGS[1:])


def _cells(version: str, share: Share) -> list[Text]:
    return [
        Text(version),
        Text(f"{share.expected:.0%}" if share.expected * 100 % 1 == 0 else f"{share.expected:.1%}"),
        Text(f"{share.measured:.1%}" + ("" if share.fits else " !"), style=_colour(share)),
        Text(str(share.count)),
        Text(f"{share.low}–{share.high}"),
    ]


def _bar(share: Share) -> Text:
    return Text("█" * round(BAR * share.measured), style=_colour(share))


def _colour(share: Share) -> str:
    return "green" if share.fits else "red"


def _words(measured: Measured) -> list[str]:
    split = measured.split
    requests = sum(share.count for share in split.shares.values())
    least = min((share.surprise for share in split.shares.values()), default=1.0)
    lines = [f"{requests} requests from {measured.caller}, split by {measured.balanced_by}"]
    if measured.failed:
        lines.append(f"! {measured.failed} of them failed")
    match split.verdict:
        case Verdict.PLAUSIBLE:
            lines.append(f"plausible: p = {least:.3g}, and a share that is wrong by {MARGIN:.0%} would have been found")
        case Verdict.DIFFERENT:
            lines.append(f"! different: p = {least:.3g}; chance alone goes this far in {split.alpha:.2%} of all runs")
        case Verdict.TOO_FEW:
            lines.append(
                f"? too few to tell: to find a share that is wrong by {MARGIN:.0%} in {POWER:.0%} of all runs takes "
                f"{split.needed} requests: -n {split.needed}"
            )
    return lines


def _as_json(measured: Measured) -> dict[str, object]:
    split = measured.split
    return {
        "verdict": split.verdict.name.lower(),
        "caller": measured.caller,
        "balancedBy": measured.balanced_by,
        "failed": measured.failed,
        "test": "exact two-sided binomial test for each version, Bonferroni",
        "falseAlarmRate": split.alpha,
        "neededRequests": split.needed,
        "versions": {
            version: {
                "expected": share.expected,
                "measured": share.measured,
                "requests": share.count,
                "low": share.low,
                "high": share.high,
                "p": share.surprise,
            }
            for version, share in split.shares.items()
        },
    }


def _draw(measured: Measured, service: str, file: Path) -> None:
    """The measured shares as bars, and what chance leaves of the expected ones as lines over them."""
    try:
        import matplotlib

        matplotlib.use("Agg")
        from matplotlib import pyplot
    except ImportError:
        raise cli.Failure(
            "--plot needs matplotlib: .venv/bin/pip install -r requirements-dev.txt", cli.Exit.USAGE
        ) from None
    shares = measured.split.shares
    figure, axes = pyplot.subplots(figsize=(7, 1.2 + 0.5 * len(shares)), layout="constrained")
    for row, share in enumerate(shares.values()):
        axes.barh(row, 100 * share.measured, color="#2e7d32" if share.fits else "#c62828", height=0.6)
        low, high = (100 * count / max(share.requests, 1) for count in (share.low, share.high))
        axes.plot([low, high], [row, row], color="black", linewidth=2, marker="|", markersize=14)
        axes.text(101, row, f"{share.measured:.1%} of {share.requests}", va="center")
        axes.plot([100 * share.expected], [row], color="black", marker="D", markersize=5)
    axes.set(xlim=(0, 100), xlabel="percent of the requests", yticks=range(len(shares)), yticklabels=list(shares))
    axes.set_title(f"{service}: {measured.split.verdict.value}", loc="left")
    axes.invert_yaxis()
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(file, dpi=150)
    pyplot.close(figure)
