"""From small pieces of what proxies and the cluster say to the hops of a path, and to what is broken."""

from __future__ import annotations

import dataclasses
import io
import re
from collections.abc import Mapping
from html.parser import HTMLParser
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from config.files import Origin
from mesh.cluster import dump
from mesh.cluster.dump import Dump
from mesh.explain import hops, html, kubeproxy, mermaid, text
from mesh.explain.drawing import draw
from mesh.explain.live import Declared, Endpoint, Pod, ServicePort, Snapshot
from mesh.explain.model import Kind, Path

HOST = "bill-service.istio-demo.svc.cluster.local"
VS = "/apis/networking.istio.io/v1/namespaces/istio-demo/virtual-service/vs-bill-service"
MUTUAL = [
    {
        "name": "tlsMode-istio",
        "match": {"tlsMode": "istio"},
        "transport_socket": {"name": "envoy.transport_sockets.tls"},
    },
    {"name": "tlsMode-disabled", "match": {}, "transport_socket": {"name": "envoy.transport_sockets.raw_buffer"}},
]
TLS_CHAIN = {
    "name": "0.0.0.0_80",
    "filter_chain_match": {"destination_port": 80, "transport_protocol": "tls"},
    "transport_socket": {"name": "envoy.transport_sockets.tls"},
}
PLAIN_CHAIN = {
    "name": "0.0.0.0_80",
    "filter_chain_match": {"destination_port": 80, "transport_protocol": "raw_buffer"},
}


def section(kind: str, **content: Any) -> dict[str, Any]:
    return {"@type": f"type.googleapis.com/envoy.admin.v3.{kind}ConfigDump", **content}


def listener(name: str, chains: list[dict[str, Any]], **entry: Any) -> dict[str, Any]:
    state = {"listener": {"name": name, "filter_chains": chains}, "last_updated": "2026-11-24T06:33:40.028Z"}
    return {"name": name, "active_state": state, **entry}


def http(table: str) -> dict[str, Any]:
    return {"filters": [{"name": dump.HTTP, "typed_config": {"rds": {"route_config_name": table}}}]}


def tcp(cluster: str) -> dict[str, Any]:
    return {"filters": [{"name": dump.TCP, "typed_config": {"cluster": cluster}}]}


def cluster(subset: str, **more: Any) -> dict[str, Any]:
    body = {"name": f"outbound|9999|{subset}|{HOST}", "transport_socket_matches": MUTUAL, **more}
    return {"cluster": body, "last_updated": "2026-11-24T06:33:42.594Z"}


def route(weights: Mapping[str, int], match: Mapping[str, Any] | None = None) -> dict[str, Any]:
    clusters = [{"name": f"outbound|9999|{subset}|{HOST}", "weight": weight} for subset, weight in weights.items()]
    return {
        "name": "bill-service-route",
        "match": match or {"prefix": "/"},
        "route": {"weighted_clusters": {"clusters": clusters}},
        "metadata": {"filter_metadata": {"istio": {"config": VS}}},
    }


def envoy(
    listeners: list[dict[str, Any]] | None = None,
    routes: list[dict[str, Any]] | None = None,
    clusters: list[dict[str, Any]] | None = None,
    hosts: Mapping[str, list[str]] | None = None,
    mtls: bool = True,
) -> Dump:
    """The proxy of the story's caller, with some of it changed."""
    hosts = {"v1": ["10.0.0.1"], "v2": ["10.0.0.2"]} if hosts is None else hosts
    mode = {"filter_metadata": {"envoy.transport_socket_match": {"tlsMode": "istio"}}} if mtls else {}
    address = {
        name: [{"socket_address": {"address": a, "port_value": 80}} for a in each] for name, each in hosts.items()
    }
    virtual_host = {
        "name": f"{HOST}:9999",
        "domains": [HOST, "bill-service"],
        "routes": routes or [route({"v1": 90, "v2": 10})],
    }
    return dump.parse(
        {
            "configs": [
                section(
                    "Clusters",
                    dynamic_active_clusters=[cluster(""), cluster("v1"), cluster("v2")]
                    if clusters is None
                    else clusters,
                ),
                section(
                    "Endpoints",
                    dynamic_endpoint_configs=[
                        {
                            "endpoint_config": {
                                "cluster_name": f"outbound|9999|{name}|{HOST}",
                                "endpoints": [
                                    {"lb_endpoints": [{"endpoint": {"address": a}, "metadata": mode} for a in each]}
                                ],
                            }
                        }
                        for name, each in address.items()
                    ],
                ),
                section(
                    "Listeners",
                    dynamic_listeners=[listener("0.0.0.0_9999", [http("9999")])] if listeners is None else listeners,
                ),
                section(
                    "Routes",
                    dynamic_route_configs=[
                        {
                            "route_config": {"name": "9999", "virtual_hosts": [virtual_host]},
                            "last_updated": "2026-11-24T06:33:42.605Z",
                        }
                    ],
                ),
            ]
        },
        {
            "cluster_statuses": [
                {
                    "name": f"outbound|9999|{name}|{HOST}",
                    "host_statuses": [{"address": a, "health_status": {"eds_health_status": "HEALTHY"}} for a in each],
                }
                for name, each in address.items()
            ]
        },
    )


def server(*chains: dict[str, Any]) -> Dump:
    return envoy(listeners=[listener("virtualInbound", list(chains))], clusters=[])


def pod(name: str, address: str, version: str, **changes: Any) -> Pod:
    labels = {"service": "bill-service", "version": version}
    return dataclasses.replace(
        Pod(name, address, "node", labels, {}, True, ("bill-service",), ("istio-proxy",)), **changes
    )


def rule(kind: str, name: str, **spec: Any) -> dict[str, Any]:
    return {"kind": kind, "metadata": {"name": name, "namespace": "istio-demo"}, "spec": spec}


def subset_rule(version: str) -> dict[str, Any]:
    subsets = [{"name": version, "labels": {"version": version}}]
    return rule("DestinationRule", f"dest-bill-service-{version}", host="bill-service", subsets=subsets)


def virtual_service(**weights: int) -> dict[str, Any]:
    to = [{"destination": {"host": "bill-service", "subset": v}, "weight": w} for v, w in weights.items()]
    routes = [{"name": "bill-service-route", "route": to}]
    return rule("VirtualService", "vs-bill-service", hosts=["bill-service"], http=routes)


def snapshot(**changes: Any) -> Snapshot:
    """The story, meshed, with `changes`."""
    v1, v2 = pod("bill-v1", "10.0.0.1", "v1"), pod("bill-v2", "10.0.0.2", "v2")
    story = Snapshot(
        source="front-tomcat",
        target="bill-service:9999",
        namespace="istio-demo",
        stack="dev",
        mesh=True,
        caller=Pod("front", "10.0.0.9", "node", {"app": "front-tomcat"}, {}, True, ("front-tomcat",), ("istio-proxy",)),
        service="bill-service",
        cluster_ip="10.96.0.9",
        port=ServicePort("http", 9999, "80"),
        affinity=False,
        pods=(v1, v2),
        endpoints=(Endpoint("bill-v1", "10.0.0.1:80", True), Endpoint("bill-v2", "10.0.0.2:80", True)),
        rules=(subset_rule("v1"), subset_rule("v2"), virtual_service(v1=90, v2=10)),
        proxy=envoy(),
        servers={"bill-v1": server(TLS_CHAIN, PLAIN_CHAIN), "bill-v2": server(TLS_CHAIN, PLAIN_CHAIN)},
        declared=Declared({("routing", "bill-service", "weights", "v1"): Origin("Pulumi.dev.yaml", 6)}),
        weights={"v1": 90, "v2": 10},
        workload="Deployment",
    )
    return dataclasses.replace(story, **changes)


def broken(path: Path) -> list[tuple[Kind, str, str]]:
    return [(hop.kind, problem.what, problem.fix) for _, hop, problem in path.broken]


def test_the_story_has_a_whole_path() -> None:
    path = hops.explain(snapshot())
    inside = [*Kind][: [*Kind].index(Kind.CONTAINER) + 1]
    assert [hop.kind for hop in path.hops] == [kind for kind in inside if kind is not Kind.KUBE_PROXY]
    assert path.broken == () and path.notes == ()
    assert [(branch.name, branch.share, branch.servers[0].pod) for branch in path.branches] == [
        ("v1", 0.9, "bill-v1"),
        ("v2", 0.1, "bill-v2"),
    ]
    route = next(hop for hop in path.hops if hop.kind is Kind.ROUTE)
    assert route.name == f"9999 / {HOST}:9999 / bill-service-route"
    assert route.rows == (("90 % → v1, 10 % → v2",),)
    assert route.delivery and (route.delivery.type, route.delivery.updated) == ("RDS", "2026-11-24T06:33:42.605Z")
    source = route.sources[0]
    assert (source.object, source.key, source.origin) == (
        "VirtualService istio-demo/vs-bill-service",
        "routing.bill-service.weights.v1",
        "Pulumi.dev.yaml:6",
    )


def test_routes_with_conditions_come_first_and_are_told() -> None:
    canary = route({"v2": 100}, {"prefix": "/", "headers": [{"name": "x-user", "string_match": {"exact": "me"}}]})
    path = hops.explain(snapshot(proxy=envoy(routes=[canary, route({"v1": 90, "v2": 10})])))
    rows = next(hop.rows for hop in path.hops if hop.kind is Kind.ROUTE)
    assert rows == (("if header x-user is me: 100 % → v2",), ("else: 90 % → v1, 10 % → v2",))
    assert [branch.share for branch in path.branches] == [0.9, 0.1]


def test_a_version_in_to_leaves_the_others_out() -> None:
    path = hops.explain(snapshot(focus="v2"))
    assert next(hop.name for hop in path.hops if hop.kind is Kind.CLUSTER) == "v2"
    assert [row[1] for hop in path.hops if hop.kind is Kind.CONTAINER for row in hop.rows] == ["bill-v2"]


@pytest.mark.parametrize(
    ("changes", "kind", "what", "fix"),
    [
        pytest.param(
            {
                "proxy": envoy(routes=[route({"v1": 90, "v3": 10})]),
                "rules": (subset_rule("v1"), virtual_service(v1=90, v3=10)),
            },
            Kind.CLUSTER,
            "subset v3, which no DestinationRule has",
            "services.bill-service.versions.v3",
            id="missing subset",
        ),
        pytest.param(
            {"proxy": envoy(clusters=[cluster(""), cluster("v1")])},
            Kind.CLUSTER,
            "not in sync: DestinationRule istio-demo/dest-bill-service-v2",
            "istioctl proxy-status",
            id="subset not in the proxy",
        ),
        pytest.param(
            {"proxy": envoy(hosts={"v1": ["10.0.0.1"], "v2": []}), "pods": (pod("bill-v1", "10.0.0.1", "v1"),)},
            Kind.ENDPOINT,
            "v2 gets requests and has no pod (version=v2",
            "services.bill-service.versions.v2.replicas",
            id="no pod",
        ),
        pytest.param(
            {
                "proxy": envoy(hosts={"v1": ["10.0.0.1"], "v2": []}),
                "pods": (pod("bill-v1", "10.0.0.1", "v1"), pod("bill-v2", "10.0.0.2", "v2", ready=False)),
            },
            Kind.ENDPOINT,
            "v2 has no ready endpoint: bill-v2 is not ready",
            "kubectl describe pod --namespace istio-demo bill-v2",
            id="not ready",
        ),
        pytest.param(
            {
                "proxy": envoy(
                    listeners=[listener("10.96.0.9_9999", [tcp(f"outbound|9999||{HOST}")])], hosts={"": ["10.0.0.1"]}
                ),
                "port": ServicePort("tcp-bill", 9999, "80"),
            },
            Kind.LISTENER,
            "has the name tcp-bill",
            "appProtocol to http",
            id="port name",
        ),
        pytest.param(
            {"proxy": envoy(listeners=[])},
            Kind.LISTENER,
            "no listener for port 9999",
            "Sidecar object or an exportTo",
            id="no listener",
        ),
        pytest.param(
            {
                "proxy": envoy(
                    listeners=[
                        listener("0.0.0.0_9999", [http("9999")]),
                        {"error_state": {"details": "bad Lua", "failed_configuration": {"name": "0.0.0.0_9999"}}},
                    ]
                )
            },
            Kind.LISTENER,
            "refused the newest listener and goes on with the one before: bad Lua",
            "EnvoyFilter",
            id="refused",
        ),
        pytest.param(
            {"rules": (subset_rule("v1"), subset_rule("v2"), virtual_service(v1=50, v2=50)), "istiod_ready": False},
            Kind.ROUTE,
            "vs-bill-service says v1 50 %, v2 50 %, the proxy has v1 90 %, v2 10 %",
            "istiod has no ready pod",
            id="behind",
        ),
        pytest.param(
            {"proxy": envoy(mtls=False), "servers": {"bill-v1": server(TLS_CHAIN), "bill-v2": server(PLAIN_CHAIN)}},
            Kind.ENDPOINT,
            "speaks plain text to bill-v1, which takes mutual TLS only",
            "PeerAuthentication to PERMISSIVE",
            id="plain to strict",
        ),
        pytest.param(
            {
                "proxy": envoy(
                    clusters=[
                        cluster(
                            v, transport_socket_matches=[], transport_socket={"name": "envoy.transport_sockets.tls"}
                        )
                        for v in ("v1", "v2")
                    ]
                ),
                "servers": {"bill-v1": server(PLAIN_CHAIN), "bill-v2": server(TLS_CHAIN)},
            },
            Kind.ENDPOINT,
            "speaks mutual TLS to bill-v1, which takes plain text only",
            "trafficPolicy.tls",
            id="TLS to plain",
        ),
        pytest.param(
            {"proxy": None, "caller": Pod("front", "10.0.0.9", "node", {}, {}, True, ("front-tomcat",))},
            Kind.REDIRECT,
            "the pod front has no sidecar",
            "kubectl delete pod front",
            id="caller without a sidecar",
        ),
        pytest.param(
            {
                "pods": (
                    pod("bill-v1", "10.0.0.1", "v1"),
                    pod("bill-v2", "10.0.0.2", "v2", init_containers=()),
                ),
                "servers": {"bill-v1": server(TLS_CHAIN, PLAIN_CHAIN)},
                "proxy": envoy(mtls=False),
            },
            Kind.INBOUND,
            "the pod bill-v2 has no sidecar",
            "restart it",
            id="server without a sidecar",
        ),
        pytest.param(
            {"focus": "v2", "proxy": envoy(routes=[route({"v1": 100})]), "rules": (), "weights": {}},
            Kind.ROUTE,
            "no route sends requests to v2",
            "mesh shift bill-service v2=10",
            id="weight 0",
        ),
    ],
)
def test_what_is_broken_is_named_with_its_hop_and_fix(changes: dict[str, Any], kind: Kind, what: str, fix: str) -> None:
    found = broken(hops.explain(snapshot(**changes)))
    assert len(found) == 1, found
    assert found[0][0] is kind
    assert what in found[0][1]
    assert fix in found[0][2]


def test_another_split_than_declared_is_noted() -> None:
    path = hops.explain(snapshot(weights={"v1": 50, "v2": 50}))
    assert path.broken == ()
    assert path.notes == ("the stack dev declares v1 50 %, v2 50 %, the proxy has another split: `pulumi up` mends it",)


def test_a_listener_that_is_only_draining_does_not_count() -> None:
    draining = {"name": "10.96.0.9_9999", "draining_state": {"listener": {"name": "10.96.0.9_9999"}}}
    proxy = envoy(listeners=[listener("0.0.0.0_9999", [http("9999")]), draining])
    assert set(proxy.listeners) == {"0.0.0.0_9999"}


def test_an_ejected_host_is_not_healthy() -> None:
    status = {
        "name": "outbound|9999||h",
        "host_statuses": [
            {"address": {}, "health_status": {"eds_health_status": "HEALTHY", "failed_outlier_check": True}}
        ],
    }
    (host,) = dump.parse({}, {"cluster_statuses": [status]}).hosts["outbound|9999||h"]
    assert host.health == "failed_outlier_check"


def unmeshed(**changes: Any) -> Snapshot:
    pods = tuple(pod(f"bill-v{n}", f"10.244.0.{n + 4}", f"v{n}", init_containers=()) for n in (1, 2))
    found = tuple(Endpoint(each.name, f"{each.address}:80", True) for each in pods)
    caller = Pod("front", "10.0.0.9", "node", {}, {}, True, ("front-tomcat",))
    nothing: dict[str, Any] = {"mesh": False, "proxy": None, "servers": {}, "rules": (), "weights": {}}
    return snapshot(**{**nothing, "caller": caller, "pods": pods, "endpoints": found, **changes})


def test_without_a_mesh_kube_proxys_chain_is_explained() -> None:
    path = hops.explain(unmeshed())
    assert [hop.kind for hop in path.hops] == [Kind.NAME, Kind.KUBE_PROXY, Kind.ENDPOINT, Kind.CONTAINER]
    assert path.broken == () and path.control == ()
    chain = path.hops[1]
    assert chain.rows[0] == ("KUBE-SERVICES", "to 10.96.0.9:9999", "→ KUBE-SVC-PK4BNTKC2JYVE7B2")
    assert [row[1] for row in chain.rows[1:]] == ["statistic random probability 0.50000000000", "all the rest"]
    assert "EndpointSlices" in chain.derived
    assert [branch.share for branch in path.branches] == [0.5, 0.5]


@pytest.mark.parametrize(("mode", "name"), [("ipvs", "IPVS"), ("nftables", "nftables"), ("ebpf", "eBPF")])
def test_other_ways_than_iptables_are_named(mode: str, name: str) -> None:
    path = hops.explain(unmeshed(balancer=mode))
    assert path.hops[1].name.startswith(name) and path.hops[1].rows == ()
    assert path.broken == ()


def test_a_service_without_a_ready_endpoint_is_broken_without_a_mesh_too() -> None:
    path = hops.explain(unmeshed(endpoints=(Endpoint("bill-v1", "10.244.0.5:80", False),)))
    ((kind, what, _),) = broken(path)
    assert kind is Kind.KUBE_PROXY and "no ready endpoint" in what


def test_probabilities_give_every_endpoint_the_same() -> None:
    left, shares = 1.0, []
    for probability in kubeproxy.probabilities(4):
        shares.append(left * probability)
        left -= shares[-1]
    assert shares == pytest.approx([0.25] * 4)


def test_the_chain_is_read_where_iptables_save_can_be() -> None:
    table = """*nat
-A KUBE-SEP-AAAAAAAAAAAAAAAA -p tcp -m comment --comment "istio-demo/bill-service:http" -j DNAT --to-destination 10.0.0.1:80
-A KUBE-SEP-BBBBBBBBBBBBBBBB -p tcp -m comment --comment "istio-demo/bill-service:http" -j DNAT --to-destination 10.0.0.2:80
-A KUBE-SERVICES -d 10.96.0.9/32 -p tcp -m comment --comment "istio-demo/bill-service:http cluster IP" -m tcp --dport 9999 -j KUBE-SVC-CCCCCCCCCCCCCCCC
-A KUBE-SVC-CCCCCCCCCCCCCCCC -m comment --comment "istio-demo/bill-service:http -> 10.0.0.1:80" -m statistic --mode random --probability 0.50000000000 -j KUBE-SEP-AAAAAAAAAAAAAAAA
-A KUBE-SVC-CCCCCCCCCCCCCCCC -m comment --comment "istio-demo/bill-service:http -> 10.0.0.2:80" -j KUBE-SEP-BBBBBBBBBBBBBBBB
-A KUBE-SVC-OTHEROTHEROTHERO -m comment --comment "istio-demo/bill-service:https -> 10.0.0.2:80" -j KUBE-SEP-BBBBBBBBBBBBBBBB
"""  # noqa: E501
    assert kubeproxy.found_chain(table, "istio-demo/bill-service:http") == (
        ("KUBE-SERVICES", "to 10.96.0.9:9999", "→ KUBE-SVC-CCCCCCCCCCCCCCCC"),
        (
            "KUBE-SVC-CCCCCCCCCCCCCCCC",
            "statistic random probability 0.50000000000",
            "→ KUBE-SEP-AAAAAAAAAAAAAAAA → 10.0.0.1:80",
        ),
        ("KUBE-SVC-CCCCCCCCCCCCCCCC", "all the rest", "→ KUBE-SEP-BBBBBBBBBBBBBBBB → 10.0.0.2:80"),
    )


def printed(path: Path, full: bool = False) -> str:
    output = io.StringIO()
    text.write(path, Console(file=output, width=120), full)
    return output.getvalue()


def test_the_text_fits_on_one_screen_and_explains_the_control_path_in_full() -> None:
    path = hops.explain(snapshot())
    assert len(printed(path).splitlines()) <= 42
    full = printed(path, full=True)
    assert "etcd" in full and "LDS brings listeners" in full
    assert "routing.bill-service.weights.v1 in Pulumi.dev.yaml:6" in full


_KEYS = [
    ("routing", "bill-service", "weights"),
    *(("routing", "bill-service", "weights", version) for version in ("v1", "v2")),
    *(("services", "bill-service", "versions", version) for version in ("v1", "v2")),
    ("services", "bill-service", "ports", "http"),
    ("services", "bill-service", "ports", "http", "targetPort"),
    ("mesh", "cni"),
]


@given(st.dictionaries(st.sampled_from(_KEYS), st.integers(27, 29)))
def test_no_hop_names_a_place_twice_however_the_file_is_written(lines: dict[tuple[str, ...], int]) -> None:
    """A map on one line has several keys there."""
    path = hops.explain(
        snapshot(declared=Declared({key: Origin("Pulumi.dev.yaml", line) for key, line in lines.items()}))
    )
    for hop in path.hops:
        places = [(source.object, source.origin) for source in hop.sources]
        assert len(places) == len(set(places))
        assert not any((name, "") in places for name, origin in places if origin)
    for found in re.findall(r"\(Pulumi\.dev\.yaml:([0-9,]+)\)", printed(path)):
        assert len(found.split(",")) == len(set(found.split(",")))
    used = [("routing", "bill-service", "weights", version) for version in ("v1", "v2")]
    named = " ".join(source.key for hop in path.hops for source in hop.sources)
    assert all(".".join(key) in named for key in used if key in lines)


def test_the_mermaid_chart_has_the_weights_and_quotes_its_labels() -> None:
    chart = mermaid.write(hops.explain(snapshot()))
    assert chart.startswith("flowchart LR")
    assert 'route -- "v1: 90 %" --> server0_0' in chart
    assert 'control3 -. "xDS" .-> caller' in chart


class Page(HTMLParser):
    """What a page refers to, the tags that were left open, and its text."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.refers: list[str] = []
        self.open: list[str] = []
        self.words = ""
        self.feed(source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.refers += [value or "" for name, value in attrs if name in {"src", "href", "srcset", "action", "data"}]
        if tag not in {"meta", "br"}:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words += data


def many_pods() -> Snapshot:
    pods = tuple(pod(f"bill-{n}", f"10.0.0.{n}", "v1") for n in range(1, 10))
    hosts = {"v1": [each.address for each in pods], "v2": []}
    return snapshot(pods=pods, proxy=envoy(hosts=hosts), servers={})


@pytest.mark.parametrize("given", [snapshot(), unmeshed(), many_pods(), snapshot(proxy=envoy(listeners=[]))])
def test_the_page_needs_nothing_else_and_is_well_formed(given: Snapshot) -> None:
    path = hops.explain(given)
    source = html.write(path)
    page = Page(source)
    assert page.open == []
    assert set(page.refers) <= {f"#hop-{number}" for number in range(1, len(path.hops) + 1)}
    assert "url(http" not in source and "@import" not in source
    for hop in path.hops:
        assert hop.name in page.words and hop.why in page.words
    for _, _, problem in path.broken:
        assert problem.what in page.words and problem.fix in page.words


def test_names_cannot_break_the_page() -> None:
    path = hops.explain(snapshot(source="<script>alert(1)</script>"))
    assert "<script" not in html.write(path)


def test_of_many_pods_some_are_drawn_and_the_others_counted() -> None:
    drawing = draw(hops.explain(many_pods()))
    assert [box.title for box in drawing.servers] == [
        *(f"bill-{n}" for n in range(1, 5)),
        "and 5 more",
        "no endpoint",
    ]
    assert all(box.y >= 0 and box.y + box.height <= drawing.height for box in drawing.servers)


def test_a_ribbon_is_as_broad_as_its_share() -> None:
    v1, v2 = draw(hops.explain(snapshot())).ribbons
    assert v1.breadth == pytest.approx(9 * v2.breadth)
