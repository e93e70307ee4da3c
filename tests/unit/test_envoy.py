"""What is read out of Envoy's answers, against answers of the shape that Envoy 1.39 and 1.25 give."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from mesh.cluster.dump import Cluster
from mesh.cluster.envoy import Proxy
from mesh.cluster.kubectl import Kubectl, KubectlError
from mesh.traffic.counts import Traffic, total

from .api_server import standing_in

HOST = "bill-service.istio-demo.svc.cluster.local"


@dataclass(frozen=True)
class Answering(Proxy):
    """Gives the same answers by path."""

    answers: dict[str, object] = field(default_factory=dict, hash=False)

    def read(self, path: str, **query: str) -> str:
        del query
        return json.dumps(self.answers[path])


def proxy(**answers: object) -> Proxy:
    return Answering(Kubectl(), "istio-demo", "front-tomcat-v1-0", answers=answers)


def cluster(subset: str, port: int = 9999, host: str = HOST) -> str:
    return f"outbound|{port}|{subset}|{host}"


@pytest.mark.parametrize("name", ["xds-grpc", "BlackHoleCluster", "inbound|80||", "outbound|x|v1|host"])
def test_clusters_of_other_names_lead_nowhere(name: str) -> None:
    parsed = Cluster.parse(name)
    assert parsed is None or not parsed.leads_to("bill-service", "istio-demo")


def host(address: str, **counts: int) -> dict[str, Any]:
    """An endpoint as `/clusters` shows it: a count of 0 has no value."""
    stats = [{"name": name, **({"value": str(value)} if value else {})} for name, value in counts.items()]
    where = {"socket_address": {"address": address, "port_value": 80}}
    return {"address": where, "stats": stats, "health_status": {"eds_health_status": "HEALTHY"}}


def counted(stats: Mapping[str, Any], *hosts: dict[str, Any], tcp: bool = False) -> Traffic:
    """What a caller has sent to v2, where a whole cluster counts `stats`."""
    listed = [
        {"histograms": [{"name": f"cluster.{cluster('v2')};.{name}", "buckets": value}]}
        if isinstance(value, list)
        else {"name": f"cluster.{cluster('v2')};.{name}", "value": value}
        for name, value in stats.items()
    ]
    statuses = [
        {"name": cluster(""), "host_statuses": [host("10.0.0.1", rq_total=99, rq_error=99)]},
        {"name": cluster("v2"), "host_statuses": list(hosts)},
        {"name": "outbound|80|v2|other.istio-demo.svc.cluster.local", "host_statuses": [host("10.0.0.9", rq_error=7)]},
    ]
    found = proxy(stats={"stats": listed}, clusters={"cluster_statuses": statuses})
    places = found.counted("bill-service", "istio-demo", {9999} if tcp else set())
    assert {place.caller for place in places} == {"istio-demo/front-tomcat-v1-0"}
    return total(versions["v2"] for versions in places.values() if "v2" in versions)


@pytest.mark.parametrize("separator", ["", ";"])  # up to Istio 1.17, and later
def test_statistics_of_clusters_are_read(separator: str) -> None:
    buckets = [
        {"upper_bound": 5, "interval": 0, "cumulative": 80},
        {"upper_bound": 10, "interval": 0, "cumulative": 99},
        {"upper_bound": 25, "interval": 0, "cumulative": 100},
    ]
    stats = [
        {"name": f"cluster.{cluster('v2')}{separator}.upstream_rq_retry", "value": 5},
        {"name": f"cluster.{cluster('v2')}{separator}.external.upstream_rq_2xx", "value": 90},
        {"histograms": [{"name": f"cluster.{cluster('v2')}{separator}.upstream_rq_time", "buckets": buckets}]},
    ]
    found = proxy(stats={"stats": stats}, clusters={}).counted("bill-service", "istio-demo", ())
    [(place, versions)] = found.items()
    assert (place.port, place.pod) == (9999, "")
    assert versions == {"v2": Traffic(0, 0, 5, {0: 100, 5: 20, 10: 1, 25: 0})}


Seen = tuple[Mapping[str, int], Mapping[str, int]]
"""What a real proxy (Envoy 1.39) has counted by endpoint, and by cluster where it keeps that, of requests of which was
known how they ended."""
HANG: Seen = {"rq_total": 20}, {"upstream_rq_total": 20, "upstream_cx_destroy_local_with_active_rq": 20}
CUT: Seen = {"rq_total": 20, "rq_success": 20}, {"upstream_rq_total": 20, "upstream_cx_protocol_error": 20}
CUT_LATE: Seen = {"rq_total": 20, "rq_success": 20}, {"upstream_cx_destroy_local_with_active_rq": 20}
REFUSED: Seen = {"cx_connect_fail": 60, "cx_total": 60, "rq_error": 60}, {"upstream_rq_retry": 40}
DEAF: Seen = (
    {"rq_total": 2, "cx_active": 2},
    {"upstream_rq_cancelled": 18, "upstream_cx_destroy_local_with_active_rq": 2},
)
NOBODY: Seen = {}, {"upstream_cx_none_healthy": 20}
HEADERS: Seen = {"rq_total": 40, "rq_error": 13, "rq_success": 27}, {"upstream_rq_total": 40}
EARLY: Seen = {"rq_total": 40, "rq_error": 14, "rq_success": 26}, {"upstream_rq_rx_reset": 14}
SLOW: Seen = {"rq_total": 40, "rq_error": 25, "rq_timeout": 22}, {"upstream_rq_tx_reset": 37}
ACTIVE: Seen = {"rq_total": 30, "rq_success": 20, "rq_active": 10}, {}


@pytest.mark.parametrize(
    ("seen", "kept", "expected"),
    [
        (HANG, True, {"given_up": 20, "bad": 20}),
        (HANG, False, {"given_up": 20, "bad": 20}),
        (CUT, True, {"cut": 20, "bad": 20}),
        (CUT_LATE, True, {"given_up": 20, "bad": 20}),
        (REFUSED, True, {"unconnected": 60, "bad": 60}),
        (REFUSED, False, {"unconnected": 60, "bad": 60}),
        (DEAF, True, {"given_up": 20, "bad": 20}),
        (NOBODY, True, {"unconnected": 20, "bad": 20}),
        (HEADERS, True, {"bad": 13}),
        (HEADERS, False, {"bad": 13}),
        (EARLY, True, {"cut": 14, "bad": 14}),
        (EARLY, False, {"bad": 14}),
        (SLOW, True, {"late": 22, "given_up": 15, "bad": 40}),
        (SLOW, False, {"late": 22, "given_up": 15, "bad": 40}),
        (ACTIVE, True, {"active": 10, "bad": 0}),
    ],
)
def test_what_went_wrong_is_known_by_kind(seen: Seen, kept: bool, expected: dict[str, int]) -> None:
    by_endpoint, by_cluster = seen
    traffic = counted(by_cluster if kept else {}, host("10.0.0.1", **by_endpoint))
    kinds = dict.fromkeys(("given_up", "cut", "unconnected", "late", "active"), 0)
    assert {name: getattr(traffic, name) for name in (*kinds, "bad")} == {**kinds, **expected}


def test_at_a_tcp_port_connections_count_and_what_came_back() -> None:
    stats = {"upstream_cx_total": 23, "upstream_cx_rx_bytes_total": 0, "upstream_cx_destroy_local_with_active_rq": 20}
    silent = counted(stats, host("10.0.0.1", rq_total=20, cx_connect_fail=3, rq_active=2), tcp=True)
    assert (silent.requests, silent.unconnected, silent.connections, silent.received) == (23, 3, 23, 0)
    assert silent.bad == 3


def test_what_an_application_was_asked_by_all_is_known_from_its_own_proxy() -> None:
    counts = {"upstream_rq_2xx": 30, "upstream_rq_5xx": 2, "upstream_cx_protocol_error": 20, "upstream_cx_total": 9}
    stats = [{"name": f"cluster.inbound|80||;.{name}", "value": value} for name, value in counts.items()]
    stats += [{"name": "cluster.inbound|7000||;.upstream_cx_total", "value": 8}]
    stats += [{"name": f"cluster.{cluster('v2')};.upstream_rq_5xx", "value": 99}]
    asked = proxy(stats={"stats": stats}).served({7000})
    assert asked == Traffic(30, 2, cut=20, connections=8)


def test_what_each_pod_was_asked_is_known_apart() -> None:
    hosts = [host("10.0.0.1", rq_total=9, rq_success=9), host("10.0.0.2", rq_total=11, rq_success=8, rq_error=3)]
    statuses = [{"name": cluster("v1"), "host_statuses": hosts}]
    found = proxy(stats={}, clusters={"cluster_statuses": statuses}).counted("bill-service", "istio-demo", ())
    assert {place.pod: versions["v1"].bad for place, versions in found.items()} == {"10.0.0.1": 0, "10.0.0.2": 3}


def test_an_endpoint_is_healthy_when_nothing_speaks_against_it() -> None:
    health = [
        {"eds_health_status": "HEALTHY"},
        {"eds_health_status": "UNHEALTHY"},
        {"eds_health_status": "HEALTHY", "failed_outlier_check": True},
        {},
    ]
    statuses = [{"name": cluster("v1"), "host_statuses": [{"health_status": status} for status in health]}]
    found = proxy(clusters={"cluster_statuses": statuses}).endpoints("bill-service", "istio-demo")
    assert [endpoint.healthy for endpoint in found] == [True, False, False, True]


def test_differences_of_traffic_are_traffic() -> None:
    before, after = Traffic(10, 1, 0, {5: 4}), Traffic(30, 2, 1, {5: 9, 10: 1})
    assert after - before == Traffic(20, 1, 1, {5: 5, 10: 1})
    assert before + (after - before) == Traffic(30, 2, 1, {5: 9, 10: 1})


def test_a_question_names_the_pod_the_port_and_the_query(tmp_path: Path) -> None:
    with standing_in(tmp_path) as (_, kubectl):
        found = Proxy(kubectl, "istio-demo", "front", port=15777).read("clusters", format="json", filter="a|b")
        assert found == "istio-demo front 15777 /clusters?format=json&filter=a%7Cb"
        with pytest.raises(KubectlError, match="not found"):
            Proxy(kubectl, "istio-demo", "gone").read("clusters")


@pytest.mark.parametrize("kind", ["containers", "initContainers"])
@pytest.mark.parametrize(
    ("config", "port"),
    [('{"proxyAdminPort":15777}\n', 15777), ("{}\n", 15000), ("", 15000), ("proxyAdminPort: 1", 15000), (None, 15000)],
)
def test_the_admin_interface_is_where_the_injection_says(kind: str, config: str | None, port: int) -> None:
    variables = [
        {"name": "POD_NAME", "valueFrom": {}},
        *([{"name": "PROXY_CONFIG", "value": config}] if config else []),
    ]
    other = {"name": "app", "env": [{"name": "PROXY_CONFIG", "value": '{"proxyAdminPort":1}'}]}
    spec = {"containers": [other], **{kind: [other, {"name": "istio-proxy", "env": variables}]}}
    pod = {"metadata": {"name": "front", "namespace": "shop"}, "spec": spec}
    assert Proxy.of(Kubectl(), pod).port == port
    assert Proxy.of(Kubectl(), {**pod, "spec": {"containers": [other]}}).port == 15000
