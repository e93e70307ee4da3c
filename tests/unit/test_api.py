"""Questions to pods, through the real `kubectl proxy`, to a stand-in of the API server on this machine."""

from __future__ import annotations

import http.client
import json
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from http import HTTPStatus
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from config.files import PROJECT
from mesh.cluster import api
from mesh.cluster.api import Pods, Question
from mesh.cluster.kubectl import Kubectl, KubectlError

from .api_server import StandIn, standing_in


@pytest.fixture
def serving(tmp_path: Path) -> Iterator[tuple[StandIn, Kubectl]]:
    with standing_in(tmp_path) as both:
        yield both


@pytest.fixture
def server(serving: tuple[StandIn, Kubectl]) -> StandIn:
    return serving[0]


@pytest.fixture
def kubectl(serving: tuple[StandIn, Kubectl]) -> Kubectl:
    return serving[1]


@pytest.fixture
def pods(kubectl: Kubectl) -> Iterator[Pods]:
    with Pods(kubectl) as found:
        yield found


def asked(pod: str, path: str = "/stats") -> Question:
    return Question("shop", pod, 15000, path)


def test_the_answers_have_the_order_of_the_questions(pods: Pods) -> None:
    questions = [Question(f"n{n % 3}", f"pod-{n}", 15000 + n % 2, f"/stats?n={n}") for n in range(200)]
    questions += [asked("counting"), asked("counting", "/other")]
    assert pods.get(questions) == [" ".join(map(str, question)).encode() for question in questions]
    assert pods.get([]) == []


def test_what_fails_for_one_pod_is_its_error_alone(pods: Pods, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api, "SECONDS", 1.0)
    names = ["good", "gone", "forbidden", "deaf", "silent", "torn"]
    good, *failed = pods.get([*map(asked, names), asked("good", "/unknown")])
    assert good == b"shop good 15000 /stats"
    assert all(isinstance(error, KubectlError) for error in failed)
    gone, forbidden, deaf, silent, torn, unknown = map(str, failed)
    assert gone == 'pods "gone" not found'
    assert (
        forbidden == 'pods "forbidden" is forbidden; asking a pod takes the rights get and create on pods/portforward'
    )
    assert deaf == "the port-forward broke off: connection refused"
    assert silent == "no answer within 1 seconds"
    assert torn.startswith("the port-forward broke off: ")
    assert unknown == "/unknown was answered with 404: shop good 15000 /unknown"


def test_a_port_forward_serves_the_next_question_too(pods: Pods, server: StandIn) -> None:
    for path in ("/stats", "/unknown", "/stats"):
        answers = pods.get([asked(f"pod-{n}", path) for n in range(5)])
    assert answers == [f"shop pod-{n} 15000 /stats".encode() for n in range(5)]
    assert server.forwards == 5


def test_one_that_ended_meanwhile_is_opened_again(pods: Pods, server: StandIn) -> None:
    for turn in range(1, 4):
        assert pods.get([asked("brief")]) == [b"shop brief 15000 /stats"]
        assert server.forwards == turn


def test_one_that_lay_idle_is_trusted_no_more(pods: Pods, server: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api, "IDLE_SECONDS", 0.1)
    for pause, forwards in ((0.0, 1), (0.0, 1), (0.2, 2)):
        time.sleep(pause)
        assert pods.get([asked("good")]) == [b"shop good 15000 /stats"]
        assert server.forwards == forwards


def test_so_many_pods_are_asked_at_once(pods: Pods, server: StandIn) -> None:
    pods.get([Question("shop", "slow", port, "/") for port in range(1, 3 * api.AT_ONCE)])
    assert 1 < server.most <= api.AT_ONCE


def test_threads_ask_side_by_side(pods: Pods) -> None:
    found: list[list[bytes | KubectlError]] = []
    threads = [threading.Thread(target=lambda: found.append(pods.get([asked("slow")] * 20))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [[b"shop slow 15000 /stats"] * 20] * 8


@given(st.binary(min_size=1, max_size=5000), st.integers(1, 700), st.sampled_from(["chunked", "counting"]))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60)
def test_an_answer_may_come_in_any_pieces(server: StandIn, pods: Pods, body: bytes, piece: int, pod: str) -> None:
    server.body, server.piece = body, piece
    assert pods.get([asked(pod)]) == [body]


def test_no_cluster_is_an_error_before_any_question(tmp_path: Path) -> None:
    with pytest.raises(KubectlError, match="no such file"):
        Pods(Kubectl("other", str(tmp_path / "none")))


def test_a_cluster_that_is_away_is_each_ones_error(kubectl: Kubectl, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    config = json.loads((tmp_path / "kubeconfig").read_text())
    config["clusters"][0]["cluster"]["server"] = f"http://127.0.0.1:{port}"
    (tmp_path / "kubeconfig").write_text(json.dumps(config))
    with Pods(kubectl) as pods:
        [error] = pods.get([asked("good")])
    assert isinstance(error, KubectlError)
    assert "connection refused" in str(error)


_ASKS = """
import sys
from mesh.cluster.api import Pods, Question
from mesh.cluster.kubectl import Kubectl
pods = Pods(Kubectl("c", sys.argv[1]))
print(pods._socket.parent, flush=True)
pods.get([Question("shop", "silent", 15000, "/")])
"""


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_the_proxy_ends_with_the_command(kubectl: Kubectl, end: signal.Signals) -> None:
    command = [sys.executable, "-c", _ASKS, kubectl.kubeconfig]
    with subprocess.Popen(command, cwd=PROJECT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as asking:
        assert asking.stdout and asking.stderr
        folder = Path(asking.stdout.readline().strip())
        assert folder.stat().st_mode & 0o777 == 0o700
        assert processes(folder)
        asking.send_signal(end)
        said = asking.stderr.read()
    assert "Exception ignored" not in said and "Task was destroyed" not in said
    until(lambda: not folder.exists() and not processes(folder))


def test_nothing_but_port_forwards_passes_through_the_socket(pods: Pods) -> None:
    connection = http.client.HTTPConnection("localhost")
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.connect(str(pods._socket))
    connection.request("GET", "/api/v1/namespaces/shop/secrets")
    assert connection.getresponse().status == HTTPStatus.FORBIDDEN
    connection.close()


@pytest.mark.parametrize("count", [0, 1, 200, 201, 1000])
def test_pods_are_listed_by_pages(pods: Pods, server: StandIn, count: int) -> None:
    server.listed = count
    assert [pod["metadata"]["name"] for pod in pods.labelled("app=a b")] == [f"pod-{number}" for number in range(count)]
    assert {query["labelSelector"] for query in server.lists} == {"app=a b"}
    assert len(server.lists) == max(1, -(-count // api.PAGE))


def test_a_list_that_is_refused_says_why(kubectl: Kubectl, tmp_path: Path) -> None:
    with Pods(kubectl) as pods, pytest.raises(KubectlError, match=r"^pods is forbidden$"):
        [*pods.labelled("forbidden")]
    config = json.loads((tmp_path / "kubeconfig").read_text())
    config["clusters"][0]["cluster"]["server"] = "http://127.0.0.1:1"
    (tmp_path / "kubeconfig").write_text(json.dumps(config))
    with Pods(kubectl) as pods, pytest.raises(KubectlError, match="connection refused"):
        [*pods.labelled("any")]


def test_everything_in_one_process_shares_them(kubectl: Kubectl) -> None:
    assert api.pods(kubectl) is api.pods(Kubectl(kubectl.context, kubectl.kubeconfig))
    assert api.pods(kubectl).get([asked("good")]) == [b"shop good 15000 /stats"]


def processes(folder: Path) -> list[int]:
    """Those that have the folder in their command."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if str(folder).encode() in (process / "cmdline").read_bytes():
                found.append(int(process.name))
    return found


def until(done: Callable[[], bool]) -> None:
    end = time.monotonic() + 10
    while not done():
        assert time.monotonic() < end
        time.sleep(0.02)
