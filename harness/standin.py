"""A stand-in for an older Istio, as only one is served here: the same build under another version.

Charts and images have the content of the current version; what differs is what an upgrade goes by, the version of the
charts and the tag of the images. So an upgrade from the stand-in goes through every step and rolls everything, but no
program in it behaves as an older one would, and the proxies report the current version.
"""

from __future__ import annotations

import re
import tarfile
import tempfile
from pathlib import Path
from typing import Any

from harness.stack import PROJECT
from localcluster import EmbeddedCluster

CURRENT = "1.31.0"
OLDER = "1.30.0-standin"

_IMAGES = ("pilot", "proxyv2", "install-cni")


def provide(cluster: EmbeddedCluster, config: dict[str, Any], folder: Path) -> dict[str, Any]:
    """`config` with charts of both versions, in `folder`, and their images on the cluster's node."""
    source = PROJECT / config["mesh"]["charts"]
    for version in (CURRENT, OLDER):
        for chart in ("base", "istiod", "cni", "gateway"):
            _pack(source / chart, folder / f"{chart}-{version}.tgz", version)
    hub = config["mesh"]["hub"]
    listed = cluster.execute("ctr", "--namespace=k8s.io", "images", "list", "--quiet").split()
    for image in _IMAGES:
        older = f"{hub}/{image}:{OLDER}"
        if older not in listed:
            cluster.execute("ctr", "--namespace=k8s.io", "images", "tag", f"{hub}/{image}:{CURRENT}", older)
    return {**config, "mesh": {**config["mesh"], "charts": str(folder)}}


def _pack(source: Path, target: Path, version: str) -> None:
    with tempfile.TemporaryDirectory() as scratch, tarfile.open(target, "w:gz") as archive:
        for file in source.rglob("*"):
            if not file.is_file():
                continue
            packed = file
            if file.name == "Chart.yaml":
                packed = Path(scratch) / file.name
                packed.write_text(
                    re.sub(r"^(version|appVersion): .*$", rf"\1: {version}", file.read_text(), flags=re.MULTILINE)
                )
            archive.add(packed, f"{source.name}/{file.relative_to(source)}")
