"""Which environments a change touches: `python -m ci.stacks BASE` prints `stacks=["dev", …]`, for $GITHUB_OUTPUT.

It runs before anything is installed, so it takes nothing but Python and git.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Collection, Sequence
from pathlib import Path

ORDER = ("dev", "staging", "prod")
"""The environments in the order of deployment. Other stacks, `local` for one, are nobody's environment."""

_PROGRAM = (
    "Pulumi.yaml",
    "__main__.py",
    "names.py",
    "defaults.yaml",
    "requirements.txt",
    "components/",
    "config/",
    "istio/",
    "mesh/",
    "policy/",
)
"""What every stack is made from."""


def touched(changed: Collection[str], known: Sequence[str]) -> list[str]:
    """Those of the `known` stacks that the `changed` files belong to, in the order of deployment."""
    shared = any(name.startswith(_PROGRAM) for name in changed)
    return [stack for stack in known if shared or f"Pulumi.{stack}.yaml" in changed]


def changed(base: str) -> list[str] | None:
    """The files that differ between `base` and HEAD; None when `base` is unknown, as on the first push."""
    done = subprocess.run(
        ["git", "diff", "--name-only", "--no-renames", base, "HEAD", "--"], capture_output=True, text=True, check=False
    )
    return None if done.returncode else done.stdout.splitlines()


def main(base: str) -> None:
    known = [stack for stack in ORDER if Path(f"Pulumi.{stack}.yaml").exists()]
    files = changed(base) if base else None
    print(f"stacks={json.dumps(known if files is None else touched(files, known))}")


if __name__ == "__main__":
    main(sys.argv[1])
