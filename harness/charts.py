"""Istio's charts as an air-gapped place has them: packed, and behind a mirror on the loopback."""

from __future__ import annotations

import json
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from localcluster import build

CHARTS = ("base", "istiod", "cni", "gateway")


def pack(folder: Path, charts: Path | None = None) -> Path:
    """Puts `charts`, by default Istio's own, into `folder`, as .tgz files with an index."""
    build.build(["charts", "helm"])
    for chart in CHARTS:
        _helm("package", str((charts or build.charts()) / chart), f"--destination={folder}")
    _helm("repo", "index", str(folder))
    return folder


def refusing(folder: Path) -> Path:
    """Puts the charts into `folder`, the gateway's with a schema of the shape that refuses every value."""
    build.build(["charts"])
    for chart in CHARTS:
        shutil.copytree(build.charts() / chart, folder / chart)
    schema = folder / "gateway" / "values.schema.json"
    schema.write_text(json.dumps({**json.loads(schema.read_text()), "type": "object", "additionalProperties": False}))
    return folder


@contextmanager
def mirror(folder: Path) -> Iterator[str]:
    """The URL at which `folder` is served."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(folder))) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: Any) -> None:
        """Says nothing."""


def _helm(*args: str) -> None:
    helm = build.user_binaries() / "helm"
    subprocess.run([str(helm), *args], capture_output=True, text=True, timeout=60, check=True)
