"""Checks the workflows: `python -m ci.lint`. actionlint is built from its Go module; without Go that is NOT RUN, but
in CI a failure. https://github.com/rhysd/actionlint"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from localcluster import build
from localcluster.commands import search_path
from localcluster.errors import ClusterError


def main() -> int:
    if "CI" not in os.environ and not shutil.which("go", path=search_path()):
        print("NOT RUN: the check of the workflows, because Go is missing", file=sys.stderr)
        return 0
    try:
        build.build(["actionlint"])
    except ClusterError as error:
        print(f"actionlint cannot be built: {error}", file=sys.stderr)
        return 1
    # Python and shell inside of the steps are checked where they lie, in ci/.
    command = [str(build.user_binaries() / "actionlint"), "-shellcheck=", "-pyflakes="]
    return subprocess.run(command, cwd=Path(__file__).parent.parent, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
