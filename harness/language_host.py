"""A stand-in for Pulumi's language host for Python, where a plugin is in Python: the local one is too old for that.

That host (3.79) takes a request to run a plugin for one to run a program, as today's Pulumi names the plugin's folder
in a part of the request that it does not know. So this stands before it: it runs plugins, and makes their virtual
environments, and hands all else on.

    python -m harness.language_host HOST ARGUMENTS...
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import Queue
from threading import Thread
from typing import Any

import grpc  # type: ignore[import-untyped]
from pulumi.runtime.proto import language_pb2 as proto

_SERVICE = "/pulumirpc.LanguageRuntime/"
_STREAMS = ("RunPlugin", "InstallDependencies")


def _same(message: bytes) -> bytes:
    return message


class Front(grpc.GenericRpcHandler):  # type: ignore[misc]
    """Every call as it came to the host behind, but for those on plugins."""

    def __init__(self, host: grpc.Channel) -> None:
        self._host = host

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
        name = details.method.removeprefix(_SERVICE)
        if name in _STREAMS:
            handle: Callable[..., Any] = self._run_plugin if name == "RunPlugin" else self._install
            return grpc.unary_stream_rpc_method_handler(handle)
        ask = self._host.unary_unary(details.method, request_serializer=_same, response_deserializer=_same)

        def hand_on(request: bytes, context: grpc.ServicerContext) -> bytes:
            try:
                return bytes(ask(request))
            except grpc.RpcError as error:
                context.abort(error.code(), error.details())
                raise

        return grpc.unary_unary_rpc_method_handler(hand_on)

    def _run_plugin(self, message: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
        request = proto.RunPluginRequest.FromString(message)
        python = _environment(request.info) / "bin" / "python"
        plugin = subprocess.Popen(
            [python, request.info.program_directory, *request.args],
            cwd=request.pwd,
            env=dict(variable.split("=", 1) for variable in request.env),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        context.add_callback(plugin.kill)
        said: Queue[dict[str, Any] | None] = Queue()

        def read(name: str, pipe: Any) -> None:
            for line in iter(pipe.readline, b""):
                said.put({name: line})
            said.put(None)

        for name in ("stdout", "stderr"):
            Thread(target=read, args=(name, getattr(plugin, name)), daemon=True).start()
        for _ in ("stdout", "stderr"):
            while part := said.get():
                yield proto.RunPluginResponse(**part).SerializeToString()
        yield proto.RunPluginResponse(exitcode=plugin.wait()).SerializeToString()

    def _install(self, message: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
        request = proto.InstallDependenciesRequest.FromString(message)
        if not request.is_plugin:
            yield from self._host.unary_stream(
                f"{_SERVICE}InstallDependencies", request_serializer=_same, response_deserializer=_same
            )(message)
            return
        environment = _environment(request.info)
        for command in (
            [sys.executable, "-m", "venv", str(environment)],
            [str(environment / "bin" / "pip"), "install", "--quiet", "--requirement", "requirements.txt"],
        ):
            done = subprocess.run(command, cwd=request.info.program_directory, capture_output=True, check=False)
            yield proto.InstallDependenciesResponse(stderr=done.stderr).SerializeToString()
            if done.returncode:
                context.abort(grpc.StatusCode.UNKNOWN, f"{command} failed")


def _environment(info: Any) -> Path:
    return Path(str(info.root_directory), str(info.options["virtualenv"]))


def main(host: str, *arguments: str) -> None:
    behind = subprocess.Popen([host, *arguments], stdout=subprocess.PIPE, text=True)
    said: Any = behind.stdout
    try:
        port = int(said.readline())
        server = grpc.server(ThreadPoolExecutor(32))
        server.add_generic_rpc_handlers([Front(grpc.insecure_channel(f"127.0.0.1:{port}"))])
        own = server.add_insecure_port("127.0.0.1:0")
        server.start()
        print(own, flush=True)
        for line in said:
            print(line, end="", flush=True)
        behind.wait()
    except KeyboardInterrupt:
        pass
    finally:
        behind.kill()


if __name__ == "__main__":
    main(*sys.argv[1:])
