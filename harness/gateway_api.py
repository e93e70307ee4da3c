"""The CRDs of the Gateway API, out of the Go module that Istio itself is built with."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from localcluster.build import GO
from mesh.cluster.kubectl import Kubectl

_MODULE = "sigs.k8s.io/gateway-api"
KINDS = ("gatewayclasses", "gateways", "httproutes", "grpcroutes", "tcproutes", "referencegrants")


@contextmanager
def installed(kubectl: Kubectl) -> Iterator[None]:
    """Those of the standard channel, as long as it lasts."""
    downloaded = subprocess.run(
        ["go", "mod", "download", "-json", _MODULE], cwd=GO / "cluster", capture_output=True, text=True, check=True
    )
    folder = Path(json.loads(downloaded.stdout)["Dir"]) / "config" / "crd" / "standard"
    files = [f"--filename={folder / f'gateway.networking.k8s.io_{kind}.yaml'}" for kind in KINDS]
    kubectl.run("apply", "--server-side", *files)
    try:
        for kind in KINDS:
            name = f"customresourcedefinition/{kind}.gateway.networking.k8s.io"
            kubectl.run("wait", name, "--for=condition=Established", "--timeout=30s")
        for name in ("istio", "istio-remote"):  # which istiod makes of its own accord
            kubectl.run("wait", f"gatewayclass/{name}", "--for=create", "--timeout=60s", timeout=70)
        yield
    finally:
        kubectl.run("delete", "--ignore-not-found", *files, timeout=120)
