"""The story: one service in two versions, split by kube-proxy, then by the mesh, then shifted by a config change."""

from __future__ import annotations

import copy
import json
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

import localcluster
from harness.stack import PulumiError, Stack, stack_file
from harness.traffic import Answers, ask, wait_until_answering, wait_until_enforced
from localcluster.instance import cache
from mesh.cluster.kubectl import Kubectl, KubectlError
from mesh.traffic.split import Split, Verdict, judge
from mesh.traffic.statistics import THREE_SIGMA

REQUESTS = 400
CONSOLE = Console(highlight=False, width=80)

Config = dict[str, Any]


@dataclass(frozen=True)
class Act:
    """One configuration of the stack and the split that it should give."""

    title: str
    change: Callable[[Config], None]
    weights: Mapping[str, int]


def _mesh_off(config: Config) -> None:
    config["mesh"]["mode"] = "off"


def _as_committed(config: Config) -> None:
    del config


def _shifted(config: Config) -> None:
    config["routing"]["bill-service"]["weights"] = {"v1": 30, "v2": 70}


ACTS = (
    Act("without the mesh (kube-proxy)", _mesh_off, {"v1": 50, "v2": 50}),
    Act("with the mesh, weights 90/10", _as_committed, {"v1": 90, "v2": 10}),
    Act("after the shift to 30/70", _shifted, {"v1": 30, "v2": 70}),
)
LAST = Act("now, as the stack file says", _as_committed, {"v1": 90, "v2": 10})


@dataclass(frozen=True)
class Demo:
    """The stack `local` on `cluster`; `base` is its configuration, `seen` the splits that were measured before."""

    stack: Stack
    kubectl: Kubectl
    base: Config
    seen: Path

    def play(self) -> int:
        """All acts that were not seen yet, and the last one; 1 if a request failed or a split was far off."""
        self.stack.configure(self.base)
        self.stack.select()
        for recovered in self.stack.recover(self.kubectl):
            CONSOLE.print(f"  an earlier run was interrupted: {recovered}")
        seen = self._recall()
        for act in ACTS:
            if act.title not in seen:
                seen[act.title] = self._act(act)
            good = {act.title: dict(seen[act.title].by_version) for act in ACTS if _plausible(act, seen.get(act.title))}
            self.seen.write_text(json.dumps(good))
        seen[LAST.title] = self._act(LAST)
        CONSOLE.print(_table([(act, seen[act.title]) for act in (*ACTS, LAST)]))
        return 0 if all(_plausible(act, seen[act.title]) for act in (*ACTS, LAST)) else 1

    def _recall(self) -> dict[str, Answers]:
        if not self.seen.exists() or not self.stack.resources():
            return {}
        recalled: dict[str, dict[str, int]] = json.loads(self.seen.read_text())
        return {title: Answers(REQUESTS, counts) for title, counts in recalled.items()}

    def _act(self, act: Act) -> Answers:
        config = copy.deepcopy(self.base)
        act.change(config)
        self.stack.configure(config)
        namespace = "istio-demo"
        with _Step(f"pulumi up: {act.title}") as step:
            step.result = _counted(self.stack.up())
        if config["mesh"].get("mode") != "off":
            wait_until_enforced(self.kubectl, namespace, act.weights)
        wait_until_answering(self.kubectl, namespace, act.weights)
        with _Step(f"{REQUESTS} requests from front-tomcat to bill-service") as step:
            answers = ask(self.kubectl, namespace, REQUESTS)
            step.result = f"{answers.failed} failed"
        return answers


class _Step:
    """Says what is done while it is done, and how long it took."""

    def __init__(self, title: str) -> None:
        self.title, self.result = title, ""

    def __enter__(self) -> _Step:
        self._start = time.monotonic()
        self._status = CONSOLE.status(self.title)
        self._status.start()
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        self._status.stop()
        mark = "[green]✓[/]" if kind is None else "[red]✗[/]"
        CONSOLE.print(f"{mark} {self.title:52} {time.monotonic() - self._start:5.1f} s  {self.result}")


def _counted(changes: Mapping[str, int]) -> str:
    words = {"create": "created", "update": "updated", "delete": "deleted", "replace": "replaced"}
    return ", ".join(f"{changes[kind]} {word}" for kind, word in words.items() if kind in changes) or "no change"


def _split(act: Act, answers: Answers, alpha: float) -> Split:
    """As `mesh verify` judges it."""
    return judge({version: weight / 100 for version, weight in act.weights.items()}, answers.by_version, alpha)


def _plausible(act: Act, answers: Answers | None) -> bool:
    """No failed request, and no count that chance would give less than once in a million times."""
    if answers is None or answers.failed:
        return False
    return _split(act, answers, 1e-6).verdict is not Verdict.DIFFERENT


def _table(rows: list[tuple[Act, Answers]]) -> Table:
    """With a false-alarm rate of 0.27 % (3 standard deviations) for all rows together."""
    table = Table(title=f"Who answered {REQUESTS} requests to bill-service", title_justify="left", box=None)
    for heading in ("", "version", "answers", "", "by chance", ""):
        table.add_column(heading, justify="right" if heading == "answers" else "left", no_wrap=True)
    for act, answers in rows:
        for version, share in _split(act, answers, THREE_SIGMA / len(rows)).shares.items():
            table.add_row(
                act.title if version == next(iter(act.weights)) else "",
                version,
                str(share.count),
                "█" * round(14 * share.measured),
                f"{share.low}–{share.high}",
                "[green]✓[/]" if share.fits else "[yellow]outside[/]",
            )
        table.add_row()
    return table


HINT = """What to try next:

  eval "$(.venv/bin/python -m localcluster env)"  # the tools and this cluster, here

  mesh status --stack local
  mesh explain front-tomcat bill-service --html path.html --stack local
  mesh shift bill-service v2=50 --steps 25,50,100 --interval 5s --probe 2000 \\
      --stack local    # by steps, with a gate; Pulumi.local.yaml has it then
  mesh verify bill-service --stack local
  mesh render --output all.yaml --stack local

  pulumi config set-all --stack local --path \\
      --plaintext 'routing.bill-service.weights.v1=90' \\
      --plaintext 'routing.bill-service.weights.v2=10'
  mesh diff --stack local    # what that changes, in words
  pulumi up --stack local    # the preview shows one change; say yes
"""


def _configuration(cluster: localcluster.Cluster) -> Config:
    """That of the stack file for the embedded cluster; official charts and images anywhere else."""
    config = stack_file("local" if isinstance(cluster, localcluster.EmbeddedCluster) else "dev")
    if not isinstance(cluster, localcluster.EmbeddedCluster):
        config["cluster"] = {"context": cluster.context, "kubeconfig": str(cluster.kubeconfig)}
        # A load balancer that never gives an address would keep Helm waiting.
        config["mesh"].setdefault("values", {})["ingress"] = {"service": {"type": "ClusterIP"}}
    return config


def main() -> int:
    start = time.monotonic()
    try:
        cluster = localcluster.up(tools=["helm"])  # for what is rendered
        folder = cache() / "demo"
        stack = Stack("local", folder / "project", cluster.environment)
        kubectl = Kubectl(cluster.context, str(cluster.kubeconfig))
        code = Demo(stack, kubectl, _configuration(cluster), folder / "seen.json").play()
    except (localcluster.ClusterError, PulumiError, KubectlError, TimeoutError) as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1
    CONSOLE.print(f"\n{time.monotonic() - start:.0f} s in all.\n")
    CONSOLE.print(HINT, markup=False)
    return code


if __name__ == "__main__":
    sys.exit(main())
