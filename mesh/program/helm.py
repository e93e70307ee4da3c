"""helm, which renders charts and needs no cluster for it."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

KUBERNETES: Final = "1.36.0"
"""The Kubernetes that charts are rendered for. It is pinned, as are the APIs that they see (helm's own list), so that
the same configuration always gives the same bytes."""


class HelmError(Exception):
    """helm is missing or failed; the message says what to do, or what helm said."""


def template(
    name: str,
    chart: str,
    *,
    namespace: str,
    values: Mapping[str, Any],
    repository: str = "",
    version: str = "",
    folder: Path,
) -> str:
    """The YAML of a release with its CRDs. A path in `chart` begins in `folder`. Raises `HelmError`.

    https://helm.sh/docs/helm/helm_template/
    """
    return _helm(
        *("template", name, chart, f"--namespace={namespace}", "--values=-"),
        *(f"--{option}={value}" for option, value in {"repo": repository, "version": version}.items() if value),
        *("--include-crds", "--skip-tests", f"--kube-version={KUBERNETES}"),
        folder=folder,
        stdin=json.dumps(values),
    )


def _helm(*args: str, folder: Path, stdin: str) -> str:
    helm = shutil.which("helm")
    if helm is None:
        raise HelmError("helm is not on PATH; install helm 3 as described at https://helm.sh/docs/intro/install/")
    try:
        done = subprocess.run(
            [helm, *args], cwd=folder, input=stdin, capture_output=True, text=True, timeout=120, check=False
        )
    except subprocess.TimeoutExpired:
        raise HelmError(f"`helm {' '.join(args)}` did not end within 120 seconds") from None
    if done.returncode:
        raise HelmError(f"`helm {' '.join(args)}` failed:\n{done.stderr.strip()}")
    return done.stdout
