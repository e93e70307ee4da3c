"""What is read out of Envoy's answers, against answers of the shape that Envoy 1.39 and 1.25 give."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from mesh.cluster.envoy import Cluster, Proxy
from mesh.cluster.kubectl import Kubectl, KubectlError
from mesh.traffic.counts import Traffic

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


def routes(*actions: dict[str, Any]) -> dict[str, Any]:
    rules = [{"name": "bill-service-route", "route": action} for action in actions]
    return {"configs": [{"route_config": {"virtual_hosts": [{"name": "any", "routes": rules}]}}, {"route_config": {}}]}


def weighted(**weights: int) -> dict[str, Any]:
    clusters = [{"name": cluster(subset), "weight": weight} for subset, weight in weights.items()]
    return {"weighted_clusters": {"clusters": clusters}}


@pytest.mark.parametrize("name", ["xds-grpc", "BlackHoleCluster", "inbound|80||", "outbound|x|v1|host"])
def test_clusters_of_other_names_lead_nowhere(name: str) -> None:
    parsed = Cluster.parse(name)
    assert parsed is None or not parsed.leads_to("bill-service", "istio-demo")


def test_the_split_is_read_with_one_and_with_several_clusters() -> None:
    assert proxy(config_dump=routes(weighted(v1=90, v2=10), {"cluster": cluster("v1")})).splits(
        "bill-service", "istio-demo", "bill-service-route"
    ) == [{"v1": 90, "v2": 10}, {"v1": 100}]


def test_a_route_to_another_namespace_or_of_another_name_is_not_the_services() -> None:
    other = {"cluster": cluster("v1", host="bill-service.istio-demo-2.svc.cluster.local")}
    assert proxy(config_dump=routes(other)).splits("bill-service", "istio-demo", "bill-service-route") == []
    assert proxy(config_dump=routes(weighted(v1=100))).splits("bill-service", "istio-demo", "another") == []


@pytest.mark.parametrize("separator", ["", ";"])  # up to Istio 1.17, and later
def test_traffic_is_read_from_the_statistics_of_the_clusters(separator: str) -> None:
    def statistic(subset: str, name: str) -> str:
        return f"cluster.{cluster(subset)}{separator}.{name}"

    buckets = [
        {"upper_bound": 5, "interval": 0, "cumulative": 80},
        {"upper_bound": 10, "interval": 0, "cumulative": 99},
        {"upper_bound": 25, "interval": 0, "cumulative": 100},
    ]
    stats: list[dict[str, Any]] = [
        {"name": statistic("v1", "upstream_rq_total"), "value": 0},
        {"name": statistic("v2", "upstream_rq_total"), "value": 105},
        {"name": statistic("v2", "upstream_rq_2xx"), "value": 90},
        {"name": statistic("v2", "upstream_rq_4xx"), "value": 7},
        {"name": statistic("v2", "upstream_rq_5xx"), "value": 3},
        {"name": statistic("v2", "upstream_rq_retry"), "value": 5},
        {"name": f"cluster.{cluster('v2')}{separator}.external.upstream_rq_2xx", "value": 90},
        {"histograms": [{"name": statistic("v2", "upstream_rq_time"), "buckets": buckets}]},
    ]
    found = proxy(stats={"stats": stats}).traffic("bill-service", "istio-demo")
    assert found == {"v1": Traffic(), "v2": Traffic(97, 3, 5, {0: 100, 5: 20, 10: 1, 25: 0})}


def test_a_proxy_that_keeps_no_statistics_of_clusters_counts_by_endpoint() -> None:
    def host(address: str, succeeded: int, failed: int, **health: object) -> dict[str, Any]:
        counts = {"rq_success": succeeded, "rq_error": failed}
        stats = [{"name": name, **({"value": str(value)} if value else {})} for name, value in counts.items()]
        where = {"socket_address": {"address": address, "port_value": 80}}
        return {"address": where, "stats": stats, "health_status": {"eds_health_status": "HEALTHY", **health}}

    statuses = [
        {"name": cluster(""), "host_statuses": [host("10.0.0.1", 1, 1)]},
        {"name": cluster("v1"), "host_statuses": [host("10.0.0.1", 9, 0), host("10.0.0.2", 8, 3)]},
        {"name": cluster("v2")},
        {"name": "outbound|80|v1|other.istio-demo.svc.cluster.local", "host_statuses": [host("10.0.0.9", 7, 0)]},
    ]
    found = proxy(stats={"stats": []}, clusters={"cluster_statuses": statuses})
    assert found.traffic("bill-service", "istio-demo") == {"v1": Traffic(17, 3)}


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
