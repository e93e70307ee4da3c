"""From a changed weight to the comment on the pull request, beside the bare preview of the same change."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator

from bench.measure import Comparison, in_turn, seconds
from bench.peers import Program
from harness.github import github

PAIRS = 7


def compared(ours: Program) -> Iterator[Comparison]:
    """`ci/preview` as the workflow runs it, with the stand-in of GitHub's API, against `pulumi preview`."""
    stack = ours.stack
    ours.weigh(0)  # what is live are the weights of the odd turns
    with github() as api:
        command = [str(stack.folder / "ci/preview"), stack.name]
        environment = {**stack.variables, **api.environment, "GITHUB_STEP_SUMMARY": "/dev/null"}

        def commented(_turn: int) -> float:
            return seconds(lambda: subprocess.run(command, env=environment, check=True, stdin=subprocess.DEVNULL))

        def previewed(_turn: int) -> float:
            return seconds(lambda: stack.pulumi("preview"))

        our, their = in_turn(PAIRS, {"ci/preview": commented, "pulumi preview": previewed}).values()
        if len(api.comments) != 1:
            raise RuntimeError(f"one comment is kept up to date, but there are {len(api.comments)}")
    stack.configure(ours.config)
    yield Comparison("(h) a pull request → its comment", "pulumi preview of the change", our, their)
