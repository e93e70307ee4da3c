"""The policy pack where the language host is too old to start it.

Pulumi starts a pack through the language host of the pack's runtime. The one that the embedded cluster is built with
does not know that request. For a runtime without a language host Pulumi looks for an analyzer program instead: the
pack gets such a runtime, `python-stand-in`, and its program does what the language host would do.
"""

from __future__ import annotations

import os
from pathlib import Path

from mesh.program.stack import Stack

RUNTIME = "python-stand-in"


def stand_in_pack(stack: Stack) -> Path:
    """A folder that serves as `--policy-pack` for this stack, whose environment is changed for it."""
    pack = stack.folder / f"policy-{RUNTIME}"
    pack.mkdir(exist_ok=True)
    (pack / "PulumiPolicy.yaml").write_text(f"runtime: {RUNTIME}\n")
    program = pack / "__main__.py"
    program.unlink(missing_ok=True)
    program.symlink_to(stack.folder / "policy" / "__main__.py")
    analyzer = pack / f"pulumi-analyzer-policy-{RUNTIME}"
    analyzer.write_text(f'#!/bin/sh\nexec "{stack.folder}/.venv/bin/python" -u -m pulumi.policy "$@"\n')
    analyzer.chmod(0o755)
    stack.environment = {**stack.environment, "PATH": f"{pack}{os.pathsep}{stack.variables['PATH']}"}
    return pack
