"""Where the counts of requests come from: the callers' sidecars, or a Prometheus that knows them."""

from __future__ import annotations

import json
import urllib.parse
import urllib.request
from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import Protocol

from mesh.cluster.service import LiveService
from mesh.traffic.counts import Place, Snapshot, Traffic


class MetricsError(Exception):
    """Prometheus cannot be asked, or says that the question is wrong."""


class Metrics(Protocol):
    """`snapshot` is what has been counted until now, by place and version."""

    def snapshot(self) -> Snapshot: ...


def metrics_of(live: LiveService) -> Metrics:
    """Prometheus where `mesh.prometheus` names one."""
    url = live.config.mesh.prometheus
    return Prometheus(live, url) if url else Sidecars(live)


class Sidecars:
    """The callers' proxies themselves."""

    def __init__(self, live: LiveService) -> None:
        self._live = live

    def snapshot(self) -> Snapshot:
        return self._live.counted(self._live.clients())


class Prometheus:
    """Istio's standard metrics as the callers report them: those of the called miss what never arrived.

    https://istio.io/latest/docs/reference/config/metrics/
    """

    def __init__(self, live: LiveService, url: str) -> None:
        self._live, self._url = live, url.rstrip("/")

    def snapshot(self) -> Snapshot:
        """Raises `MetricsError`."""
        of = (
            f'reporter="source",destination_service_name="{self._live.name}",'
            f'destination_service_namespace="{self._live.namespace}"'
        )
        found: defaultdict[Place, defaultdict[str, Traffic]] = defaultdict(lambda: defaultdict(Traffic))
        for metric, by, traffic_of in (
            ("istio_requests_total", "response_code, response_flags, grpc_response_status", _of_requests),
            ("istio_tcp_connections_opened_total", "response_flags", lambda _, n: Traffic(connections=n)),
            ("istio_tcp_connections_closed_total", "response_flags", _of_closed),
            ("istio_tcp_sent_bytes_total", "response_flags", lambda _, n: Traffic(received=n)),
        ):
            for place, version, labels, count in self._counts(metric, by, of):
                found[place][version] += traffic_of(labels, count)
        buckets: defaultdict[tuple[Place, str], dict[float, int]] = defaultdict(dict)
        for place, version, labels, count in self._counts("istio_request_duration_milliseconds_bucket", "le", of):
            buckets[place, version][float(labels["le"])] = count
        for (place, version), cumulative in buckets.items():
            all_of_them = cumulative.pop(float("inf"), 0)
            above = {bound: all_of_them - count for bound, count in cumulative.items()}
            found[place][version] += Traffic(slower={0.0: all_of_them, **above})
        return {place: dict(versions) for place, versions in found.items()}

    def _counts(self, metric: str, by: str, of: str) -> Iterator[tuple[Place, str, dict[str, str], int]]:
        """Those of the service's versions; a request that met no pod at all is of none."""
        version_of = {label: version for version, label in self._live.versions.items()}
        # By proxy: the count of one that goes must not look as if all began anew.
        labels = "instance, source_workload_namespace, source_workload"
        labels += ", destination_version, destination_canonical_revision"
        for found, count in self._query(f"sum by ({labels}, {by}) ({metric}{{{of}}})"):
            # What a pod that never answered is, is known by its address alone, which gives the second of these.
            named = (found.get("destination_version", ""), found.get("destination_canonical_revision", ""))
            if version := next((version_of[name] for name in named if name in version_of), ""):
                caller = f"{found.get('source_workload_namespace', '')}/{found.get('source_workload', '')}"
                yield Place(caller, found.get("instance", "")), version, found, count

    def _query(self, query: str) -> list[tuple[dict[str, str], int]]:
        """https://prometheus.io/docs/prometheus/latest/querying/api/#instant-queries"""
        target = f"{self._url}/api/v1/query?{urllib.parse.urlencode({'query': query})}"
        try:
            with urllib.request.urlopen(target, timeout=10) as answer:  # noqa: S310
                result = json.load(answer)["data"]["result"]
        except (OSError, ValueError, KeyError) as error:
            raise MetricsError(f"Prometheus at {self._url} gives no answer: {error}") from None
        return [(entry["metric"], int(float(entry["value"][1]))) for entry in result]


_UNCONNECTED = {"UF", "UH", "NC"}
_FAILED_CALLS = {"2", "4", "12", "13", "14", "15"}
"""The statuses of gRPC that mean the same as an HTTP status from 500 on.
https://grpc.io/docs/guides/status-codes/"""


def _of_requests(labels: Mapping[str, str], count: int) -> Traffic:
    """By the code, 0 where none came, and why a proxy ended the request.

    https://www.envoyproxy.io/docs/envoy/latest/configuration/observability/access_log/usage#command-operators
    """
    code = int(labels.get("response_code", "0") or 0)
    flags = set(labels.get("response_flags", "").split(","))
    if "DC" in flags:
        return Traffic(succeeded=count if code else 0, abandoned=count, begun=count)
    if 0 < code < 500 and flags & {"UC", "UPE", "UR", "LR", "SI", "DT"}:
        return Traffic(succeeded=count, cut=count, begun=count)
    late = count if flags & {"UT", "SI", "DT"} or labels.get("grpc_response_status") == "4" else 0
    unconnected = count if flags & _UNCONNECTED else 0
    failed = code >= 500 or not code or labels.get("grpc_response_status", "") in _FAILED_CALLS
    if failed:
        return Traffic(failed=count, late=late, abandoned=late, unconnected=unconnected, begun=count)
    return Traffic(succeeded=count, begun=count)


def _of_closed(labels: Mapping[str, str], count: int) -> Traffic:
    """Connections of TCP: those that were never made say so by their end."""
    if set(labels.get("response_flags", "").split(",")) & _UNCONNECTED:
        return Traffic(failed=count, unconnected=count)
    return Traffic(succeeded=count)
