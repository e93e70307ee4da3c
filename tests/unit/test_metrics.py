"""Counts from Prometheus, against a stand-in for one: a server that gives fixed answers to the two questions."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any
from urllib.parse import parse_qs, urlparse

import pytest

from mesh.cluster.metrics import MetricsError, Prometheus, Sidecars, metrics_of
from mesh.cluster.service import LiveService
from mesh.traffic.counts import Traffic
from tests.unit import given

REQUESTS = [
    ("v1", "200", 900),
    ("v1", "404", 10),
    ("v2", "200", 95),
    ("v2", "503", 4),
    ("v2", "0", 1),
    ("v9", "200", 7),
]
BUCKETS = [("v2", "5", 60), ("v2", "10", 90), ("v2", "+Inf", 100)]


class StandInPrometheus(BaseHTTPRequestHandler):
    """Answers as https://prometheus.io/docs/prometheus/latest/querying/api/#instant-queries says."""

    def do_GET(self) -> None:
        (query,) = parse_qs(urlparse(self.path).query)["query"]
        assert 'reporter="source"' in query and 'destination_service_name="bill-service"' in query
        result: list[dict[str, Any]]
        if "istio_requests_total" in query:
            result = [
                {"metric": {"destination_version": v, "response_code": code}, "value": [0, str(count)]}
                for v, code, count in REQUESTS
            ]
        else:
            result = [
                {"metric": {"destination_version": v, "le": le}, "value": [0, str(count)]} for v, le, count in BUCKETS
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


def test_prometheus_gives_requests_and_times_by_version(stand_in: str) -> None:
    source = metrics_of(live(stand_in))
    assert isinstance(source, Prometheus)
    assert source.snapshot() == {
        "prometheus": {"v1": Traffic(910, 0), "v2": Traffic(95, 5, 0, {0.0: 100, 5.0: 40, 10.0: 10})}
    }


def test_a_prometheus_that_is_not_there_is_told() -> None:
    with pytest.raises(MetricsError, match="gives no answer"):
        metrics_of(live("http://127.0.0.1:1")).snapshot()


def test_without_one_the_sidecars_are_asked() -> None:
    assert isinstance(metrics_of(live("")), Sidecars)
