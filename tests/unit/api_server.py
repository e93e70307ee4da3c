"""A stand-in of the API server, on this machine, for questions to pods."""

from __future__ import annotations

import asyncio
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from urllib.parse import parse_qsl

import h11
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response
from websockets.typing import Subprotocol

from mesh.cluster.kubectl import Kubectl

_WHERE = re.compile(r"/api/v1/namespaces/(?P<namespace>[^/]+)/pods/(?P<pod>[^/]+)/portforward\?ports=(?P<port>\d+)")


@dataclass
class StandIn:
    """An API server that knows nothing but port-forwards, to pods that tell what they were asked, or by name do worse.

    `piece` is how many bytes one message has at most; it lists as many pods as `listed`.
    """

    piece: int = 4096
    forwards: int = 0
    together: int = 0
    most: int = 0
    body: bytes = b""
    listed: int = 0
    lists: list[dict[str, str]] = field(default_factory=list)

    def refuse(self, socket: ServerConnection, request: Request) -> Response | None:
        if request.path.startswith("/api/v1/pods?"):
            return self._list(socket, dict(parse_qsl(request.path.partition("?")[2])))
        pod = self._where(request)["pod"]
        if pod == "gone":
            return socket.respond(HTTPStatus.NOT_FOUND, json.dumps({"message": 'pods "gone" not found'}))
        if pod == "forbidden":
            return socket.respond(HTTPStatus.FORBIDDEN, json.dumps({"message": 'pods "forbidden" is forbidden: '}))
        return None

    def _list(self, socket: ServerConnection, query: dict[str, str]) -> Response:
        if query["labelSelector"] == "forbidden":
            return socket.respond(HTTPStatus.FORBIDDEN, json.dumps({"message": "pods is forbidden"}))
        self.lists.append(query)
        first = int(query.get("continue", "0"))
        after = first + int(query["limit"])
        more = {"continue": str(after)} if after < self.listed else {}
        items = [{"metadata": {"name": f"pod-{number}"}} for number in range(first, min(after, self.listed))]
        return socket.respond(HTTPStatus.OK, json.dumps({"metadata": more, "items": items}))

    async def forward(self, socket: ServerConnection) -> None:
        assert socket.request
        where, http = self._where(socket.request), h11.Connection(h11.SERVER)
        self.forwards += 1
        header = int(where["port"]).to_bytes(2, "little")
        await socket.send(b"\0" + header)
        await socket.send(b"\1" + header)
        if where["pod"] == "deaf":
            await socket.send(b"\1connection refused")
            return
        with suppress(ConnectionClosed):
            while True:
                message = await socket.recv(decode=False)
                assert message[0] == 0
                http.receive_data(message[1:])
                asked = http.next_event()
                assert isinstance(asked, h11.Request)
                assert isinstance(http.next_event(), h11.EndOfMessage)
                await self._answer(socket, http, where, asked.target.decode())
                if where["pod"] == "brief":
                    return
                http.start_next_cycle()

    async def _answer(self, socket: ServerConnection, http: h11.Connection, where: dict[str, str], path: str) -> None:
        self.together += 1
        self.most = max(self.most, self.together)
        if where["pod"] == "silent":
            await socket.wait_closed()
        await asyncio.sleep(0.01 if where["pod"] == "slow" else 0)
        self.together -= 1
        body = self.body or f"{where['namespace']} {where['pod']} {where['port']} {path}".encode()
        status = 404 if path == "/unknown" else 200
        counted = [("Content-Length", str(len(body)))] if where["pod"] == "counting" else []
        answer = b"".join(
            http.send(event) or b""
            for event in (
                h11.Response(status_code=status, headers=counted),
                h11.Data(data=body),
                h11.EndOfMessage(),
            )
        )
        end = len(answer) // 2 if where["pod"] == "torn" else len(answer)
        for start in range(0, end, self.piece):
            await socket.send(b"\0" + answer[start : min(start + self.piece, end)])
        if where["pod"] == "torn":
            await socket.close()

    @staticmethod
    def _where(request: Request) -> dict[str, str]:
        found = _WHERE.fullmatch(request.path)
        assert found
        return found.groupdict()


@contextmanager
def standing_in(folder: Path) -> Iterator[tuple[StandIn, Kubectl]]:
    """One that serves, and kubectl for it; the kubeconfig lies in `folder`."""
    standin, loop, started = StandIn(), asyncio.new_event_loop(), threading.Event()
    stop, protocol, kubeconfig = asyncio.Event(), Subprotocol("v4.channel.k8s.io"), folder / "kubeconfig"

    async def run() -> None:
        async with serve(
            standin.forward, "127.0.0.1", 0, subprotocols=[protocol], process_request=standin.refuse, close_timeout=0.1
        ) as listening:
            [listener] = listening.sockets
            kubeconfig.write_text(json.dumps(_kubeconfig(f"http://127.0.0.1:{listener.getsockname()[1]}")))
            started.set()
            await stop.wait()

    thread = threading.Thread(target=lambda: loop.run_until_complete(run()))
    thread.start()
    try:
        assert started.wait(10)
        yield standin, Kubectl("c", str(kubeconfig))
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join()


def _kubeconfig(server: str) -> dict[str, object]:
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "c", "cluster": {"server": server}}],
        "users": [{"name": "u", "user": {}}],
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
    }
