"""Where the counts of requests come from: the callers' sidecars, or a Prometheus that knows them."""

from __future__ import annotations

import json
import urllib.parse
import urllib.request
from collections import defaultdict
from collections.abc import Mapping
from typing import Protocol

from mesh.cluster.envoy import Proxy
from mesh.cluster.service import LiveService
from mesh.traffic.counts import Snapshot, Traffic


class MetricsError(Exception):
    """Prometheus cannot be asked, or says that the question is wrong."""


class Metrics(Protocol):
    """`snapshot` is what has been counted until now, by source and version."""

    def snapshot(self) -> Snapshot[str]: ...


def metrics_of(live: LiveService) -> Metrics:
    """Prometheus where `mesh.prometheus` names one."""
    url = live.config.mesh.prometheus
    return Prometheus(live, url) if url else Sidecars(live)


class Sidecars:
    """The callers' proxies themselves."""

    def __init__(self, live: LiveService) -> None:
        self._live = live

    def snapshot(self) -> Snapshot[str]:
        found: Mapping[Proxy, dict[str, Traffic]] = self._live.traffic(self._live.clients())
        return {proxy.pod: traffic for proxy, traffic in found.items()}


class Prometheus:
    """Istio's standard metrics as the callers report them: those of the called miss what never arrived.

    https://istio.io/latest/docs/reference/config/metrics/
    """

    def __init__(self, live: LiveService, url: str) -> None:
        self._live, self._url = live, url.rstrip("/")

    def snapshot(self) -> Snapshot[str]:
        """Raises `MetricsError`."""
        of = (
            f'reporter="source",destination_service_name="{self._live.name}",'
            f'destination_service_namespace="{self._live.namespace}"'
        )
        version_of = {label: version for version, label in self._live.versions.items()}
        found: defaultdict[str, Traffic] = defaultdict(Traffic)
        for labels, count in self._query(f"sum by (destination_version, response_code) (istio_requests_total{{{of}}})"):
            version = version_of.get(labels.get("destination_version", ""))
            if version:
                status = labels.get("response_code", "0")
                good = status.isdecimal() and 0 < int(status) < 500
                found[version] += Traffic(succeeded=count) if good else Traffic(failed=count)
        buckets: defaultdict[str, dict[float, int]] = defaultdict(dict)
        histogram = f"istio_request_duration_milliseconds_bucket{{{of}}}"
        for labels, count in self._query(f"sum by (destination_version, le) ({histogram})"):
            version = version_of.get(labels.get("destination_version", ""))
            if version:
                buckets[version][float(labels["le"])] = count
        for version, cumulative in buckets.items():
            total = cumulative.pop(float("inf"), 0)
            found[version] += Traffic(slower={0.0: total, **{bound: total - n for bound, n in cumulative.items()}})
        return {"prometheus": dict(found)}

    def _query(self, query: str) -> list[tuple[dict[str, str], int]]:
        """https://prometheus.io/docs/prometheus/latest/querying/api/#instant-queries"""
        target = f"{self._url}/api/v1/query?{urllib.parse.urlencode({'query': query})}"
        try:
            with urllib.request.urlopen(target, timeout=10) as answer:  # noqa: S310
                result = json.load(answer)["data"]["result"]
        except (OSError, ValueError, KeyError) as error:
            raise MetricsError(f"Prometheus at {self._url} gives no answer: {error}") from None
        return [(entry["metric"], int(float(entry["value"][1]))) for entry in result]
