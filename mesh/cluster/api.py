"""Questions by HTTP to single pods, many side by side and without a process for each, and the list of the pods.

They go through port-forwards as websockets, and these through one `kubectl proxy`, which knows every kind of
authentication and listens on a socket that nobody else can reach.
https://kubernetes.io/docs/reference/kubernetes-api/workload-resources/pod-v1/#get-connect-portforward-requests-to-portforward-of-pod
"""

from __future__ import annotations

import asyncio
import atexit
import json
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from tempfile import mkdtemp
from typing import Any, NamedTuple, Self
from urllib.parse import urlencode

import h11
from websockets.asyncio.client import ClientConnection, unix_connect
from websockets.exceptions import ConnectionClosed, InvalidStatus, WebSocketException
from websockets.typing import Subprotocol

from mesh.cluster.kubectl import Kubectl, KubectlError

AT_ONCE = 64
"""How many pods are asked at the same time, and how many port-forwards are kept open for the next question."""

SECONDS = 20.0
"""How long an answer may take."""

IDLE_SECONDS = 30.0
"""After so long nobody can tell whether what lies between here and the pod still keeps a port-forward."""

_END_SECONDS = 5.0

RIGHTS = "the rights get and create on pods/portforward"

PAGE = 200
"""How many pods are listed at a time: thousands in one piece would take hundreds of MiB."""

_LIST = "/api/v1/pods"
_FORWARDS = "/api/v1/namespaces/[^/]+/pods/[^/]+/portforward"
_PROTOCOL = Subprotocol("v4.channel.k8s.io")
_DATA = 0  # the other channel has an error, if any
# Whatever ends this process closes its end of the pipe, and with that goes the proxy, and the folder, which is $0.
_WHILE_WE_LIVE = '"$@" & exec >&- 2>&-; read -r _; kill -9 $!; wait; rm -r "$0"'


class Question(NamedTuple):
    """GET of `path`, such as `/stats?format=json`, at a port of a pod, be it one of its loopback interface alone."""

    namespace: str
    pod: str
    port: int
    path: str


class Pods:
    """The pods of one cluster. Threads may ask side by side."""

    def __init__(self, kubectl: Kubectl) -> None:
        """Raises `KubectlError`."""
        self._socket, self._proxy = _serve(kubectl)
        self._kept: dict[tuple[str, str, int], _Forward] = {}
        self._limit = asyncio.Semaphore(AT_ONCE)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Whatever is not over in time is left behind: no command waits at its end for what nobody needs any more."""
        with suppress(TimeoutError):
            asyncio.run_coroutine_threadsafe(self._hang_up(), self._loop).result(_END_SECONDS)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_END_SECONDS)
        if not self._thread.is_alive():
            self._loop.close()
        _end(self._proxy)

    def get(self, questions: Sequence[Question]) -> list[bytes | KubectlError]:
        """The bodies of the answers, in the order of the questions; a pod that gives none has the reason instead."""
        answers = asyncio.run_coroutine_threadsafe(self._answers(questions), self._loop)
        try:
            return answers.result()
        finally:
            answers.cancel()  # after Ctrl-C nobody waits for them

    def labelled(self, selector: str) -> Iterator[dict[str, Any]]:
        """The pods of all namespaces with these labels, which kubectl takes far longer for. Raises `KubectlError`."""
        query = {"labelSelector": selector, "limit": str(PAGE)}
        while True:
            page = self._page(f"{_LIST}?{urlencode(query)}")
            yield from page["items"]
            if not (following := page["metadata"].get("continue")):
                return
            query["continue"] = following

    def _page(self, path: str) -> Any:
        connection = _OverSocket(self._socket)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            status, body = answer.status, answer.read()
        except (OSError, HTTPException) as error:
            raise KubectlError(f"the pods cannot be listed: {str(error) or type(error).__name__}") from None
        finally:
            connection.close()
        if status != HTTPStatus.OK:
            raise KubectlError(_said(status, body))
        return json.loads(body)

    async def _answers(self, questions: Sequence[Question]) -> list[bytes | KubectlError]:
        # Those to the same port go one after the other, by the same port-forward.
        at: dict[tuple[str, str, int], list[int]] = {}
        for number, question in enumerate(questions):
            at.setdefault(question[:3], []).append(number)
        found: list[bytes | KubectlError] = [b""] * len(questions)

        async def ask(numbers: list[int]) -> None:
            for number in numbers:
                found[number] = await self._answer(questions[number])

        await asyncio.gather(*map(ask, at.values()))
        return found

    async def _answer(self, question: Question) -> bytes | KubectlError:
        async with self._limit:
            try:
                async with asyncio.timeout(SECONDS):
                    return await self._ask(question)
            except KubectlError as error:
                return error
            except TimeoutError:
                return KubectlError(f"no answer within {SECONDS:.0f} seconds")
            except _BROKEN as error:
                return KubectlError(f"the port-forward broke off: {str(error) or type(error).__name__}")

    async def _ask(self, question: Question) -> bytes:
        where = question[:3]
        if kept := self._kept.pop(where, None):
            with suppress(*_BROKEN):  # it may have ended since the last question
                if time.monotonic() - kept.used < IDLE_SECONDS:
                    return await self._through(kept, question)
            kept.close()
        return await self._through(await _Forward.to(self._socket, *where), question)

    async def _through(self, forward: _Forward, question: Question) -> bytes:
        where = question[:3]
        try:
            return await forward.get(question.path)
        finally:
            if forward.ready and where not in self._kept and len(self._kept) < AT_ONCE:
                self._kept[where] = forward
            else:
                forward.close()

    async def _hang_up(self) -> None:
        asking = asyncio.all_tasks() - {asyncio.current_task()}
        for task in asking:
            task.cancel()
        await asyncio.gather(*asking, return_exceptions=True)
        for forward in self._kept.values():
            forward.close()


def pods(kubectl: Kubectl) -> Pods:
    """Those that everything in this process shares, until it ends. Raises `KubectlError`."""
    with _sharing:
        if kubectl not in _shared:
            _shared[kubectl] = Pods(kubectl)
            atexit.register(_shared[kubectl].close)
        return _shared[kubectl]


def said(answer: bytes | KubectlError) -> bytes:
    """Raises what it is in place of an answer."""
    if isinstance(answer, KubectlError):
        raise answer
    return answer


_shared: dict[Kubectl, Pods] = {}
_sharing = threading.Lock()


class _OverSocket(HTTPConnection):
    """A connection to kubectl's proxy."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=60)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


class _ClosedError(Exception):
    """The stream has ended; the message is why."""


_BROKEN = (OSError, WebSocketException, h11.ProtocolError, _ClosedError)


class _Forward:
    """A stream to one port of one pod, for one question after the other.

    Each message begins with the number of its channel, and the first one of each channel has nothing but the port.
    https://github.com/kubernetes/kubernetes/blob/master/staging/src/k8s.io/kubelet/pkg/cri/streaming/portforward/websocket.go
    """

    def __init__(self, websocket: ClientConnection) -> None:
        self.used = time.monotonic()
        self._socket = websocket
        self._opened: set[int] = set()
        self._http = h11.Connection(h11.CLIENT)

    @classmethod
    async def to(cls, proxy: Path, namespace: str, pod: str, port: int) -> _Forward:
        """Raises `KubectlError` when it is refused."""
        url = f"ws://localhost/api/v1/namespaces/{namespace}/pods/{pod}/portforward?ports={port}"
        try:
            return cls(
                await unix_connect(
                    str(proxy),
                    url,
                    subprotocols=[_PROTOCOL],
                    compression=None,
                    max_size=None,
                    open_timeout=None,
                    ping_interval=None,
                    proxy=None,
                )
            )
        except InvalidStatus as refused:
            raise KubectlError(_why(refused.response.status_code, bytes(refused.response.body or b""))) from None

    @property
    def ready(self) -> bool:
        """Whether the next question can be asked."""
        return self._http.our_state is h11.IDLE

    async def get(self, path: str) -> bytes:
        """Raises `KubectlError` when the answer is none, and one of `_BROKEN` when the stream ends before it."""
        request = h11.Request(method="GET", target=path, headers=[("Host", "localhost")])
        await self._send(self._http.send(request), self._http.send(h11.EndOfMessage()))
        status, body = 0, bytearray()
        while True:
            match self._http.next_event():
                case h11.NEED_DATA:
                    self._http.receive_data(await self._received())
                case h11.Response(status_code=status):
                    pass
                case h11.Data(data=data):
                    body += data
                case h11.EndOfMessage():
                    break
        if self._http.states == {h11.CLIENT: h11.DONE, h11.SERVER: h11.DONE}:
            self._http.start_next_cycle()
            self.used = time.monotonic()
        if status != HTTPStatus.OK:
            raise KubectlError(f"{path} was answered with {status}: {_beginning(body)}")
        return bytes(body)

    def close(self) -> None:
        """Without the goodbye, for which a kubelet takes a second."""
        self._socket.transport.abort()

    async def _send(self, *data: bytes | None) -> None:
        with suppress(ConnectionClosed):  # what it received until then says why
            await self._socket.send(bytes([_DATA]) + b"".join(filter(None, data)))

    async def _received(self) -> bytes:
        """b'' at the end."""
        while True:
            try:
                message = await self._socket.recv(decode=False)
            except ConnectionClosed:
                if self._http.their_state is h11.SEND_RESPONSE:
                    raise _ClosedError("it ended before the answer") from None
                return b""
            channel, data = message[0], message[1:]
            if channel not in self._opened:
                self._opened.add(channel)
            elif channel == _DATA:
                return data
            elif data:
                raise _ClosedError(_beginning(data))


def _serve(kubectl: Kubectl) -> tuple[Path, subprocess.Popen[bytes]]:
    """The socket of a `kubectl proxy`, in a folder of this user alone. Raises `KubectlError`."""
    folder = Path(mkdtemp(prefix="mesh-"))
    address, log = folder / "api", folder / "log"
    command = kubectl.command("proxy", f"--unix-socket={address}", f"--accept-paths=^{_FORWARDS}$,^{_LIST}$")
    with log.open("wb") as errors:
        proxy = subprocess.Popen(
            ["sh", "-c", _WHILE_WE_LIVE, str(folder), *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            start_new_session=True,  # Ctrl-C is for us, and we may have questions yet
        )
    if proxy.stdout and proxy.stdout.readline():  # it says where it listens
        return address, proxy
    said = log.read_text().strip()
    _end(proxy)
    raise KubectlError(said or "kubectl proxy ended at once")


def _end(proxy: subprocess.Popen[bytes]) -> None:
    try:
        proxy.communicate(timeout=_END_SECONDS)  # closes its stdin
    except subprocess.TimeoutExpired:
        os.killpg(proxy.pid, signal.SIGKILL)  # it has a session of its own
        proxy.wait()


def _why(status: int, body: bytes) -> str:
    """What the API server said against a port-forward, with the way out where it is a matter of rights."""
    said = _said(status, body)
    return f"{said.rstrip(': ')}; asking a pod takes {RIGHTS}" if status == HTTPStatus.FORBIDDEN else said


def _said(status: int, body: bytes) -> str:
    try:
        return str(json.loads(body)["message"])
    except (ValueError, KeyError, TypeError):
        return _beginning(body) or f"status {status}"


def _beginning(text: bytes | bytearray) -> str:
    return text.decode(errors="replace").strip().partition("\n")[0][:500]
