"""`make bench`: our times and those of our peers, side by side in one run on an embedded cluster of its own."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import cast

from rich.console import Console
from rich.table import Table

import localcluster
from bench import callers, connected, enforced, nodes, reported, scale, upgrade
from bench.enforced import Share
from bench.measure import Comparison, in_turn
from bench.peers import (
    Applied,
    BareStack,
    Istioctl,
    PeerError,
    Program,
    rendered_by_istioctl,
    rendered_by_us,
    require_empty,
)
from harness.stack import PulumiError, Stack, stack_file
from localcluster import build
from mesh.cluster.kubectl import Kubectl, KubectlError

INSTANCE = "bench"
PAIRS = 7
PARTS = {
    "a": "the mesh and the workloads from nothing",
    "b": "a change of weights",
    "c": "a preview of no change",
    "d": "the manifests, without a cluster",
    "e": "an upgrade in place",
    "f": "from the command to every proxy that has new weights, and the share of each part",
    "g": "the preparation of nodes that are prepared already",
    "h": "from a changed weight to the comment on the pull request",
    "i": "how it grows from 10 to 300 services",
    "j": "a shift and a look at 3 and at 41 callers, side by side with an earlier build",
    "k": "a shift with 1,000 more proxies connected, which are simulated",
}


@dataclass(frozen=True)
class Bench:
    """The parts of the benchmark, on a cluster that is empty at first."""

    cluster: localcluster.EmbeddedCluster
    folder: Path

    def run(self, parts: str, runs: int) -> Iterator[Comparison | Share]:
        kubectl = Kubectl(self.cluster.context, str(self.cluster.kubeconfig))
        environment = self.cluster.environment
        config = {
            **stack_file("local"),
            "cluster": {"context": self.cluster.context, "kubeconfig": str(self.cluster.kubeconfig)},
        }
        ours = Program(Stack(INSTANCE, self.folder / "ours", environment), kubectl, config)
        ours.begin()
        if set("ae") & set(parts):
            require_empty(kubectl)
            istioctl = Istioctl(environment, kubectl, ours.manifests())
            if "a" in parts:
                yield from _from_nothing(ours, istioctl, runs)
            if "e" in parts:
                yield from upgrade.compared(self.cluster, ours, istioctl, self.folder / "charts", runs)
                ours.begin()
        if not set("bcfghijk") & set(parts):
            return
        bare = Program(BareStack(INSTANCE, self.folder / "bare", environment), kubectl, config)
        bare.begin()
        _say("installing, untimed, what the other parts change")
        ours.install()
        bare.install()
        if "b" in parts:
            yield from _shift(ours, bare, Applied(kubectl))
        if "c" in parts:
            yield from _preview(ours, bare)
        if "f" in parts:
            yield from enforced.comparisons(ours, bare, Applied(kubectl))
        if "g" in parts:
            yield from nodes.comparisons(ours, self.folder)
        if "h" in parts:
            yield from reported.compared(ours)
        if "j" in parts:
            yield from callers.comparisons(ours, self.folder)
        if "k" in parts:
            yield from connected.comparisons(self.cluster, ours)
        if "i" in parts:
            objects = Program(scale.BareObjects(INSTANCE, self.folder / "objects", environment), kubectl, config)
            yield from scale.grow(ours, objects)


def _from_nothing(ours: Program, peer: Istioctl, runs: int) -> Iterator[Comparison]:
    times = in_turn(
        runs,
        {
            "pulumi up, from nothing": ours.install,
            "pulumi destroy": ours.remove,
            "istioctl install, kubectl apply": peer.install,
            "istioctl uninstall, kubectl delete": peer.remove,
        },
    )
    up, destroy, install, uninstall = times.values()
    yield Comparison("(a) empty → all pods ready", "istioctl install, kubectl apply", up, install)
    yield Comparison("    and back", "istioctl uninstall, kubectl delete", destroy, uninstall)


def _shift(ours: Program, bare: Program, applied: Applied) -> Iterator[Comparison]:
    applied.shift(1)
    shifts = {"weights, ours": ours.shift, "weights, bare": bare.shift, "weights, kubectl": applied.shift}
    our, their, floor = in_turn(PAIRS, shifts).values()
    yield Comparison("(b) a change of weights", "bare Pulumi program", our, their)
    yield Comparison("    the same", "kubectl apply (the floor)", our, floor)


def _preview(ours: Program, bare: Program) -> Iterator[Comparison]:
    our, their = in_turn(PAIRS, {"preview, ours": ours.preview, "preview, bare": bare.preview}).values()
    yield Comparison("(c) a preview of no change", "bare Pulumi program", our, their)


def _render(folder: Path) -> Iterator[Comparison]:
    stack = Stack(INSTANCE, folder / "render")
    config = stack_file("local")
    stack.configure({**config, "mesh": {**config["mesh"], "charts": str(build.charts())}})
    our, their = in_turn(
        PAIRS,
        {
            "mesh render": lambda _turn: rendered_by_us(stack),
            "istioctl manifest generate": lambda _turn: rendered_by_istioctl(),
        },
    ).values()
    yield Comparison("(d) the manifests of demo", "istioctl manifest generate", our, their)


@contextmanager
def _cluster() -> Iterator[localcluster.EmbeddedCluster]:
    """A fresh one, which is taken down however this ends."""
    embedded = localcluster.Choice.EMBEDDED
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with build.locked("benchmark"):  # a second run waits, or each would take the other's cluster down
        localcluster.down(INSTANCE, embedded)
        try:
            yield cast(localcluster.EmbeddedCluster, localcluster.up(INSTANCE, embedded))
        finally:
            localcluster.down(INSTANCE, embedded)


def _table(rows: Sequence[Comparison]) -> Table:
    table = Table(title=f"Seconds, median (min–max), on {os.cpu_count()} cores", title_justify="left", box=None)
    for heading in ("", "ours", "peer", "ratio", "runs"):
        table.add_column(heading, justify="right" if heading else "left", no_wrap=True)
    table.add_column("the peer")
    for row in rows:
        numbers = (_quoted(row.ours), _quoted(row.theirs), f"{row.ratio:.2f}", str(len(row.ours)))
        table.add_row(row.what, *numbers, row.peer)
    return table


def _shares(rows: Sequence[Share]) -> Table:
    table = Table(title="\nSeconds of one pulumi up by its log, median", title_justify="left", box=None)
    for heading in ("the share of each part", "ours", "bare"):
        table.add_column(heading, justify="left" if heading not in ("ours", "bare") else "right", no_wrap=True)
    for row in rows:
        table.add_row(row.part, f"{median(row.ours):.2f}", f"{median(row.bare):.2f}")
    return table


def _quoted(times: Sequence[float]) -> str:
    """Seconds, or MiB, which need no fractions."""
    digits = 2 if median(times) < 100 else 0
    return f"{median(times):.{digits}f} ({min(times):.{digits}f}–{max(times):.{digits}f})"


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument(
        "--runs", type=int, default=3, metavar="N", help="how many turns the parts a and e get (default: 3)"
    )
    listed = "; ".join(f"{part}: {text}" for part, text in PARTS.items())
    parser.add_argument("--only", choices=PARTS, help=f"one part alone ({listed})")
    options = parser.parse_args()
    if options.runs < 1:
        parser.error("--runs must be 1 or more")
    return options


def main() -> int:
    options = _options()
    parts = options.only or "".join(PARTS)
    try:
        with TemporaryDirectory() as folder:
            rows: list[Comparison | Share] = []
            if parts != "d":
                with _cluster() as cluster:
                    if set("ae") & set(parts):
                        build.build(["tools"])
                    rows += Bench(cluster, Path(folder)).run(parts, options.runs)
            if "d" in parts:
                build.build(["charts", *build.TOOLS])
                rows += _render(Path(folder))
    except (localcluster.ClusterError, PulumiError, KubectlError, PeerError, TimeoutError) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    console = Console(highlight=False, width=120)
    if compared := [row for row in rows if isinstance(row, Comparison)]:
        console.print(_table(compared))
    if shares := [row for row in rows if isinstance(row, Share)]:
        console.print(_shares(shares))
    return 0


if __name__ == "__main__":
    sys.exit(main())
