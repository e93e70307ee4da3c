"""What was measured, as people and machines read it, and as a drawing."""

from __future__ import annotations

from pathlib import Path

from rich.console import RenderableType
from rich.text import Text

from mesh import tables
from mesh.traffic.split import MARGIN, POWER, Share, Verdict
from mesh.verify.measure import Measured

BAR = 30


class NoMatplotlibError(Exception):
    """Nothing can be drawn."""


_HEADINGS = ("version", "expected", "measured", "requests", "by chance")


def table(measured: Measured, width: int) -> RenderableType:
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


def lines(measured: Measured) -> list[str]:
    split = measured.split
    requests = sum(share.count for share in split.shares.values())
    least = min((share.surprise for share in split.shares.values()), default=1.0)
    what = "connections" if measured.by_connection else "requests"
    lines = [f"{requests} {what} from {measured.caller}, split by {measured.balanced_by}"]
    for one in measured.findings:
        lines += [f"! {one}", f"  fix: {one.fix}"]
    if measured.mirrored:
        lines.append(f"{measured.mirrored[1]} copies that were mirrored to {measured.mirrored[0]} are not counted")
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


def as_data(measured: Measured) -> dict[str, object]:
    split = measured.split
    return {
        "verdict": split.verdict.name.lower(),
        "caller": measured.caller,
        "balancedBy": measured.balanced_by,
        "findings": [{"object": one.object, "what": one.what, "fix": one.fix} for one in measured.findings],
        "mirrored": measured.mirrored[1] if measured.mirrored else 0,
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


def draw(measured: Measured, service: str, file: Path) -> None:
    """The measured shares as bars, and what chance leaves of the expected ones as lines over them."""
    try:
        import matplotlib

        matplotlib.use("Agg")
        from matplotlib import pyplot
    except ImportError:
        raise NoMatplotlibError("--plot needs matplotlib: .venv/bin/pip install -r requirements-dev.txt") from None
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
