"""This project's program in this process, in the way of the Automation API's inline programs.

Pulumi then starts no Python of its own and lists no packages, which is one half of what a change of weights takes. The
Automation API's own `Stack` runs four more Pulumi commands around each; this takes its server alone.

https://www.pulumi.com/docs/iac/automation-api/concepts-terminology/
"""

from __future__ import annotations

import runpy
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import grpc  # type: ignore[import-untyped]
from pulumi.automation._server import LanguageServer
from pulumi.runtime.proto import language_pb2_grpc

from components import sdk
from mesh.program.offline import offline
from mesh.program.stack import Stack

sdk.import_classes()  # this is imported when the program is to run, and while the cluster is asked


def pulumi(stack: Stack, *args: str) -> str:
    """What the command printed, with the program in this process and without its look at the cluster.

    Raises `PulumiError` when it fails.
    """
    with _served(stack.folder) as address:
        return stack.pulumi(*args, f"--client={address}")


@contextmanager
def _served(project: Path) -> Iterator[str]:
    """The address for Pulumi's `--client`. The look at the cluster that the program begins with is left out."""

    def program() -> None:
        with offline():
            runpy.run_path(str(project / "__main__.py"))

    server = grpc.server(ThreadPoolExecutor())
    language_pb2_grpc.add_LanguageRuntimeServicer_to_server(LanguageServer(program), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(grace=None)
