"""Counts from Prometheus, against a stand-in for one: a server that gives fixed answers to the two questions."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from urllib.parse import parse_qs, urlparse

import pytest

from mesh.cluster.metrics import MetricsError, Prometheus, Sidecars, metrics_of
from mesh.cluster.service import LiveService
from mesh.traffic.counts import Place, Traffic
from tests.unit import given

# (version, code, flags, status of gRPC, count), as the callers' proxies report it.
REQUESTS = [
    ("v1", "200", "-", "", 900),
    ("v1", "404", "-", "", 10),
    ("v2", "200", "-", "", 90),
    ("v2", "503", "UF,URX", "", 3),
    ("v2", "500", "-", "", 4),
    ("v2", "504", "UT", "", 2),
    ("v2", "0", "DC", "", 5),  # given up by the caller
    ("v2", "200", "DC", "", 1),
    ("v2", "200", "UPE", "", 6),  # cut short
    ("v2", "200", "-", "0", 20),
    ("v2", "200", "-", "5", 1),  # NOT_FOUND, as a 404
    ("v2", "200", "-", "13", 7),
    ("v2", "200", "-", "4", 8),  # DEADLINE_EXCEEDED
    ("v9", "200", "-", "", 7),
    ("unknown", "503", "UH", "", 7),
]
BUCKETS = [("v2", "5", 60), ("v2", "10", 90), ("v2", "+Inf", 100)]
CONNECTIONS = {
    "opened": [("v2", "-", 30)],
    "closed": [("v2", "-", 20), ("v2", "UF", 4)],
    "sent_bytes": [("v2", "-", 9)],
}
CALLER = {"source_workload_namespace": "office", "source_workload": "clerk", "instance": "10.0.0.7:15020"}


class StandInPrometheus(BaseHTTPRequestHandler):
    """Answers as https://prometheus.io/docs/prometheus/latest/querying/api/#instant-queries says."""

    tcp = False

    def do_GET(self) -> None:
        (query,) = parse_qs(urlparse(self.path).query)["query"]
        assert 'reporter="source"' in query and 'destination_service_name="bill-service"' in query
        found: list[tuple[dict[str, str], int]] = []
        if "istio_requests_total" in query and not self.tcp:
            labels = ("destination_version", "response_code", "response_flags", "grpc_response_status")
            found = [(dict(zip(labels, values, strict=True)), count) for *values, count in REQUESTS]
        elif "milliseconds_bucket" in query and not self.tcp:
            # A pod that never said what it is, is known by its address.
            found = [({"destination_version": "unknown", "destination_canonical_revision": v, "le": le}, count)
                     for v, le, count in BUCKETS]  # fmt: skip
        elif self.tcp:
            found = [({"destination_version": v, "response_flags": flags}, count)
                     for name, rows in CONNECTIONS.items() if name in query for v, flags, count in rows]  # fmt: skip
        result: list[dict[str, object]] = [
            {"metric": CALLER | labels, "value": [0, str(count)]} for labels, count in found
        ]
        body = json.dumps({"status": "success", "data": {"resultType": "vector", "result": result}}).encode()
        self.send_response(200)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Quiet."""


@pytest.fixture
def stand_in() -> Iterator[str]:
    server = HTTPServer(("127.0.0.1", 0), StandInPrometheus)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def live(prometheus: str) -> LiveService:
    return LiveService.of(given.config(mesh={"prometheus": prometheus}), "bill-service")


def test_prometheus_gives_requests_by_what_became_of_them_and_times(stand_in: str) -> None:
    source = metrics_of(live(stand_in))
    assert isinstance(source, Prometheus)
    [(place, versions)] = source.snapshot().items()
    assert place == Place("office/clerk", "10.0.0.7:15020")
    assert versions["v1"] == Traffic(910, begun=910)
    v2 = versions["v2"]
    assert v2.attempts == sum(count for version, *_, count in REQUESTS if version == "v2")
    assert (v2.unconnected, v2.late, v2.given_up, v2.cut) == (3, 2 + 8, 5 + 1, 6)
    assert (v2.wrong, v2.bad) == (4 + 7, 3 + (4 + 7) + (2 + 8) + (5 + 1))
    assert v2.slower == {0.0: 100, 5.0: 40, 10.0: 10}


def test_prometheus_gives_connections_of_tcp(stand_in: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(StandInPrometheus, "tcp", True)
    [versions] = metrics_of(live(stand_in)).snapshot().values()
    assert versions == {"v2": Traffic(20, 4, unconnected=4, connections=30, received=9)}


def test_a_prometheus_that_is_not_there_is_told() -> None:
    with pytest.raises(MetricsError, match="gives no answer"):
        metrics_of(live("http://127.0.0.1:1")).snapshot()


def test_without_one_the_sidecars_are_asked() -> None:
    assert isinstance(metrics_of(live("")), Sidecars)
