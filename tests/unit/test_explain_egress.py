"""The path of a request to a host outside, from small pieces of what both proxies say."""

from __future__ import annotations

import dataclasses
import io
from typing import Any

import pytest
from rich.console import Console

from mesh.cluster import dump
from mesh.cluster.dump import Dump
from mesh.explain import egress, html, mermaid, text
from mesh.explain.egress import Exit
from mesh.explain.live import Pod, ServicePort, Snapshot
from mesh.explain.model import Kind, Path

from .given import config
from .test_explain import listener, section, tcp

GATEWAY = "istio-egressgateway.istio-system.svc.cluster.local"
HOSTS = {"api.example.com": {"protocol": "HTTP", "port": 8080}, "secure.example.com": {}}
POD = Pod("front-tomcat-1", "10.0.0.1", "node-1", {}, {}, True, ("front-tomcat", "istio-proxy"))
EXIT = Pod("istio-egressgateway-1", "10.0.0.9", "node-1", {}, {}, True, ("istio-proxy",))
ORDER = [
    *(Kind.NAME, Kind.REDIRECT, Kind.VIRTUAL_LISTENER, Kind.LISTENER, Kind.ROUTE, Kind.CLUSTER, Kind.ENDPOINT),
    *(Kind.EXIT_LISTENER, Kind.EXIT_ROUTE, Kind.EXIT_CLUSTER, Kind.OUTSIDE),
]


def proxy(port: int, http: bool, host: str, cluster: str, *addresses: str) -> Dump:
    """An Envoy that sends what is for `host` to `cluster`, and has others beside it."""
    chains = [{"filters": [{"name": dump.HTTP, "typed_config": {"rds": {"route_config_name": f"{port}"}}}]}]
    greeted = [{**tcp("outbound|443||other"), "filter_chain_match": {"server_names": ["other.example.com"]}}]
    greeted += [{**tcp(cluster), "filter_chain_match": {"server_names": [host]}}]
    routes = [
        {"name": f"{name}:{port}", "domains": [name, f"{name}."], "routes": [{"match": {}, "route": {"cluster": to}}]}
        for name, to in (("other.example.com", "outbound|80||other"), (host, cluster))
    ]
    config = {
        "configs": [
            section("Listeners", dynamic_listeners=[listener(f"0.0.0.0_{port}", chains if http else greeted)]),
            section("Routes", dynamic_route_configs=[{"route_config": {"name": f"{port}", "virtual_hosts": routes}}]),
            section("Clusters", dynamic_active_clusters=[{"cluster": {"name": cluster, "type": "EDS"}}]),
        ]
    }
    statuses = [
        {"address": {"socket_address": {"address": address, "port_value": to}}, "health_status": {}}
        for address, to in (one.split(":") for one in addresses)
    ]
    return dump.parse(config, {"cluster_statuses": [{"name": cluster, "host_statuses": statuses}]})


def found(host: str, **changes: Any) -> Exit:
    declared = config(mesh={"profile": "demo"}, egress=HOSTS).outside[host]
    http, port = declared.protocol == "HTTP", declared.target
    to, inner = (f"outbound|80||{GATEWAY}", 8080) if http else (f"outbound|443||{GATEWAY}", 8443)
    at = Snapshot(
        source="front-tomcat",
        target=f"{host}:{port}",
        namespace="istio-demo",
        stack="dev",
        mesh=True,
        caller=POD,
        service=host,
        cluster_ip="",
        port=ServicePort("http", port, ""),
        affinity=False,
        pods=(),
        endpoints=(),
        proxy=proxy(port, http, host, to, f"10.0.0.9:{inner}"),
    )
    out = proxy(inner, http, host, f"outbound|{port}||{host}", f"192.0.2.7:{port}")
    return dataclasses.replace(Exit(at, host, declared, "istio-system", (EXIT,), out), **changes)


def broken(path: Path) -> list[str]:
    return [problem.what for _, _, problem in path.broken]


@pytest.mark.parametrize("host", HOSTS)
def test_the_path_goes_through_the_gateway_and_out(host: str) -> None:
    path = egress.explain(found(host))
    assert [hop.kind for hop in path.hops] == ORDER and broken(path) == []
    by_kind = {hop.kind: hop for hop in path.hops}
    assert by_kind[Kind.ROUTE].rows == ((f"100 % → {GATEWAY}",),)
    assert by_kind[Kind.ENDPOINT].rows[0][0] == "istio-egressgateway-1"
    assert by_kind[Kind.EXIT_ROUTE].rows == ((f"100 % → {host}",),)
    assert by_kind[Kind.OUTSIDE].rows == ((f"192.0.2.7:{path.port}", "in use"),)
    [branch] = path.branches
    assert [server.pod for server in branch.servers] == ["istio-egressgateway-1"]


@pytest.mark.parametrize("host", HOSTS)
def test_every_writer_has_the_gateway_and_the_host(host: str) -> None:
    path = egress.explain(found(host))
    screen = io.StringIO()
    text.write(path, Console(file=screen, width=80, highlight=False), full=True)
    for written in (screen.getvalue(), mermaid.write(path), html.write(path)):
        assert "istio-egressgateway-1" in written and host in written
    assert all(len(line) <= 80 for line in screen.getvalue().splitlines())


NOTHING = Dump({}, {}, {}, {})


@pytest.mark.parametrize("host", HOSTS)
@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda one: {"at": dataclasses.replace(one.at, proxy=NOTHING)}, "there is no listener for port"),
        (lambda one: {"at": dataclasses.replace(one.at, proxy=other(one))}, "has no route here"),
        (lambda one: {"at": dataclasses.replace(one.at, proxy=past(one))}, "it leads past the egress gateway"),
        (lambda one: {"at": emptied(one), "gateways": ()}, "the egress gateway has no pod: every request fails"),
        (lambda one: {"at": emptied(one)}, "the egress gateway has no pod that is ready"),
        (lambda _: {"gateway": NOTHING}, "there is no listener for port"),
        (lambda one: {"gateway": dataclasses.replace(one.gateway, hosts={})}, "the gateway knows no address of"),
        (
            lambda one: {"at": dataclasses.replace(one.at, proxy=None, caller=dataclasses.replace(POD, containers=()))},
            "has no sidecar: no rule of the mesh applies",
        ),
    ],
    ids=["no listener", "no route", "past", "no gateway", "none ready", "deaf gateway", "no address", "no sidecar"],
)
def test_what_is_broken_is_named_with_a_fix(host: str, change: Any, told: str) -> None:
    one = found(host)
    path = egress.explain(dataclasses.replace(one, **change(one)))
    assert any(told in what for what in broken(path)), broken(path)
    assert all(problem.fix for _, _, problem in path.broken)
    html.write(path)


def other(one: Exit) -> Dump:
    return proxy(one.egress.target, one.is_http, "else.example.com", "outbound|80||else")


def past(one: Exit) -> Dump:
    return proxy(one.egress.target, one.is_http, one.host, f"outbound|{one.egress.target}||{one.host}", "192.0.2.7:80")


def emptied(one: Exit) -> Snapshot:
    assert one.at.proxy is not None
    return dataclasses.replace(one.at, proxy=dataclasses.replace(one.at.proxy, hosts={}))


def test_a_host_that_nobody_declared_is_told_with_the_nearest() -> None:
    given = config(mesh={"profile": "demo"}, egress=HOSTS)
    assert egress.is_outside(given, "api.example.com:8080") and not egress.is_outside(given, "bill-service:9999")
    assert "did you mean 'api.example.com'" in egress.unknown(given, "apo.example.com")
    assert egress.unknown(given, "bill-servce") == ""
    assert "declares no host outside" in egress.unknown(config(), "api.example.com")
    off = config(mesh={"mode": "off"}, egress=HOSTS)
    assert "the mesh is off" in egress.unknown(off, "api.example.com")
