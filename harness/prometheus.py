"""A real Prometheus, for the tests of gates that ask one, and a stand-in for what Istio's proxies export.

Upstream Envoy lacks the filter by which Istio's counts `istio_requests_total` and its like. What that filter knows of a
request the access log knows, too: so the stand-in makes the same metrics of the logs of the callers' proxies.
"""

from __future__ import annotations

import re
import subprocess
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from tempfile import TemporaryDirectory

from harness.servers import answers, free_port, serving
from localcluster.commands import run
from mesh.cluster.envoy import CONTAINER, Proxy

PROMETHEUS = Path("/usr/bin/prometheus")
LOG_FORMAT = (
    "counted %UPSTREAM_CLUSTER_RAW% %RESPONSE_CODE% %RESPONSE_FLAGS% %GRPC_STATUS_NUMBER% %DURATION% %UPSTREAM_HOST% "
    "%BYTES_SENT% %PROTOCOL%\n"
)
"""For `meshConfig.accessLogFormat`; https://www.envoyproxy.io/docs/envoy/latest/configuration/observability/access_log/usage"""
BOUNDS = (1, 5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10_000)

_LINE = re.compile(
    r"counted outbound\|\d+\|(?P<version>[^|]*)\|(?P<service>[^.]+)\.(?P<namespace>[^.]+)\.svc\.\S+ (?P<code>\d+) "
    r"(?P<flags>\S+) (?P<grpc>\S+) (?P<duration>\d+) (?P<host>\S+) (?P<sent>\d+) (?P<protocol>\S+)"
)
_CONFIG = """
global: {{scrape_interval: 1s}}
scrape_configs: [{{job_name: callers, honor_labels: true, static_configs: [{{targets: ["127.0.0.1:{port}"]}}]}}]
"""


class Exported:
    """The metrics of callers, as text, while `follow` reads the logs of their proxies."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._lock = threading.Lock()

    def follow(self, proxy: Proxy, log: Iterator[str]) -> None:
        workload = proxy.workload.partition("/")[2]
        source = {"source_workload": workload, "source_workload_namespace": proxy.namespace, "instance": proxy.pod}
        for line in log:
            if found := _LINE.search(line):
                with self._lock:
                    self._count(source, found.groupdict())

    def text(self) -> str:
        with self._lock:
            return "".join(f"{name} {count}\n" for name, count in sorted(self._counts.items()))

    def _count(self, source: dict[str, str], found: dict[str, str]) -> None:
        labels = {
            "reporter": "source",
            **source,
            "destination_service_name": found["service"],
            "destination_service_namespace": found["namespace"],
            # Istio knows it of the pod, and so of none that was not reached.
            "destination_version": "unknown" if found["host"] == "-" else found["version"],
            "response_flags": found["flags"],
        }
        if found["protocol"] == "-":
            self._add("istio_tcp_connections_opened_total", labels)
            self._add("istio_tcp_connections_closed_total", labels)
            self._add("istio_tcp_sent_bytes_total", labels, int(found["sent"]))
            return
        status = "" if found["grpc"] == "-" else found["grpc"]
        labels |= {"response_code": found["code"], "grpc_response_status": status}
        self._add("istio_requests_total", labels)
        for bound in (*BOUNDS, "+Inf"):
            if bound == "+Inf" or int(found["duration"]) <= int(bound):
                self._add("istio_request_duration_milliseconds_bucket", {**labels, "le": str(bound)})

    def _add(self, metric: str, labels: dict[str, str], count: int = 1) -> None:
        named = ",".join(f'{label}="{value}"' for label, value in sorted(labels.items()))
        self._counts[f"{metric}{{{named}}}"] += count


@contextmanager
def prometheus(callers: Sequence[Proxy]) -> Iterator[str]:
    """The address of a Prometheus that knows what these callers sent from now on."""
    if not PROMETHEUS.exists():
        run(["apt-get", "install", "--yes", "--no-install-recommends", "prometheus"])
    exported, port = Exported(), free_port()
    with TemporaryDirectory() as folder, _exporting(exported, callers) as exporter:
        config = Path(folder) / "prometheus.yml"
        config.write_text(_CONFIG.format(port=exporter))
        url = f"http://127.0.0.1:{port}"
        command = [str(PROMETHEUS), f"--config.file={config}", f"--storage.tsdb.path={folder}/data"]
        with serving([*command, f"--web.listen-address=127.0.0.1:{port}"], lambda: answers(f"{url}/-/ready")):
            yield url


@contextmanager
def _exporting(exported: Exported, callers: Sequence[Proxy]) -> Iterator[int]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/plain; version=0.0.4")
            self.end_headers()
            self.wfile.write(exported.text().encode())

        def log_message(self, *_: object) -> None:
            """Quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threads = [threading.Thread(target=server.serve_forever)]
    logs = []
    for proxy in callers:
        where = (
            "logs",
            "--follow",
            "--tail=0",
            f"--namespace={proxy.namespace}",
            proxy.pod,
            f"--container={CONTAINER}",
        )
        log = subprocess.Popen(proxy.kubectl.command(*where), stdout=subprocess.PIPE, text=True)
        logs.append(log)
        threads.append(threading.Thread(target=exported.follow, args=(proxy, log.stdout or iter(()))))
    for thread in threads:
        thread.start()
    try:
        yield server.server_port
    finally:
        for log in logs:
            log.kill()
        server.shutdown()
        for thread in threads:
            thread.join()
        server.server_close()
