"""What becomes of the configuration of routing; tests/parity asks istioctl about the same objects."""

from __future__ import annotations

import re
from typing import Any

import pytest

from istio.rules import Object, outside, routed

from .given import config

TESTERS = {"name": "testers", "headers": {"x-user": {"exact": "jason"}, "x-any": {}}}


def before(**rule: Any) -> dict[str, Object]:
    (service,) = routed(config(routing={"bill-service": rule}))
    return {made.name: made for made in service.before}


def weights(services: Any = None, **rule: Any) -> Any:
    (service,) = routed(config(services=services or {}, routing={"bill-service": rule}))
    return service.weights.spec


def split(v1: int, v2: int, **more: Any) -> list[dict[str, Any]]:
    return [
        {"destination": {"host": "bill-service", "subset": version, **more}, "weight": weight}
        for version, weight in (("v1", v1), ("v2", v2))
    ]


def test_matches_come_first_with_weights_of_their_own_or_the_services() -> None:
    by_uri = {"name": "by-uri", "uri": {"prefix": "/a"}, "sourceLabels": {"app": "x"}}
    http = weights(match=[{**TESTERS, "weights": {"v2": 100}}, by_uri])["http"]
    assert http == [
        {
            "name": "bill-service-testers",
            "match": [{"headers": {"x-user": {"exact": "jason"}, "x-any": {}}}],
            "route": split(0, 100),
        },
        {
            "name": "bill-service-by-uri",
            "match": [{"uri": {"prefix": "/a"}, "sourceLabels": {"app": "x"}}],
            "route": split(90, 10),
        },
        {"name": "bill-service-route", "route": split(90, 10)},
    ]


def test_a_match_has_what_the_rule_says_unless_it_says_otherwise() -> None:
    own = {"timeout": "0s", "retries": {"attempts": 0}, "faults": {}, "mirror": {"version": "v2", "percentage": 0}}
    rule = {
        "timeout": "3s",
        "retries": {"attempts": 2, "retryOn": ["5xx", "503"]},
        "faults": {"abort": {"httpStatus": 503}},
        "mirror": {"version": "v1"},
    }
    inheriting, other, all_others = weights(**rule, match=[TESTERS, {**TESTERS, "name": "others", **own}])["http"]
    expected = {
        "timeout": "3s",
        "retries": {"attempts": 2, "retryOn": "5xx,503"},
        "fault": {"abort": {"percentage": {"value": 100.0}, "httpStatus": 503}},
        "mirror": {"host": "bill-service", "subset": "v1"},
        "mirrorPercentage": {"value": 100.0},
    }
    for route in (inheriting, all_others):
        assert {key: value for key, value in route.items() if key not in ("name", "match", "route")} == expected
    assert {key: value for key, value in other.items() if key not in ("name", "match", "route")} == {
        "retries": {"attempts": 0}
    }


def test_an_exposed_service_has_one_rule_for_the_gateway_and_the_mesh() -> None:
    """With the port in it: in the mesh its outside name is called at another than the service's own."""
    spec = weights(expose={"hosts": ["bills.example.com"]})
    assert spec == {
        "hosts": ["bill-service", "bills.example.com"],
        "gateways": ["istio-demo/gw-bill-service", "mesh"],
        "http": [{"name": "bill-service-route", "route": split(90, 10, port={"number": 9999})}],
    }
    gateway = before(expose={"hosts": ["bills.example.com"]})["gw-bill-service"]
    assert gateway.spec == {
        "selector": {"istio": "ingressgateway"},
        "servers": [{"port": {"number": 80, "name": "http", "protocol": "HTTP"}, "hosts": ["bills.example.com"]}],
    }


def test_a_secret_means_https_and_a_gateway_of_others_is_only_bound_to() -> None:
    http, https = before(expose={"hosts": ["a.io"], "tlsSecret": "tls"})["gw-bill-service"].spec["servers"]
    assert http["tls"] == {"httpsRedirect": True}
    assert https["tls"] == {"mode": "SIMPLE", "credentialName": "tls"}
    assert "gw-bill-service" not in before(expose={"hosts": ["a.io"], "gateway": "edge/public"})
    assert weights(expose={"hosts": ["a.io"], "gateway": "edge/public"})["gateways"] == ["edge/public", "mesh"]


OUTSIDE = {"authority": {"regex": r"(?i)(a\.io|b\.a\.io)(:[0-9]+)?"}}
GATEWAY = {"gateways": ["istio-demo/gw-bill-service"]}


def test_outside_names_lead_to_the_exposed_port_and_the_services_own_to_the_port_that_is_called() -> None:
    ports = {"bill-service": {"ports": {"admin": {"port": 81}, "tcp-data": {"port": 9000}}}}
    spec = weights(ports, expose={"hosts": ["a.io", "b.a.io"], "port": "admin"})
    assert spec["http"] == [
        {
            "name": "bill-service-route",
            "match": [GATEWAY, OUTSIDE],
            "route": split(90, 10, port={"number": 81}),
        },
        {"name": "bill-service-route", "route": split(90, 10)},
    ]
    assert spec["tcp"] == [{"match": [{"port": 9000}], "route": split(90, 10, port={"number": 9000})}]


def test_matches_hold_for_outside_names_too() -> None:
    ports = {"bill-service": {"ports": {"admin": {"port": 81}}}}
    tester, user = {"headers": {"x-user": {"exact": "jason"}}}, {"sourceLabels": {"app": "x"}, "uri": {"prefix": "/a"}}
    mirrored = {"name": "by-caller", **user, "mirror": {"version": "v1"}}
    by_user, by_caller, rest, *own = weights(
        ports,
        expose={"hosts": ["a.io", "b.a.io"], "port": "admin"},
        match=[{"name": "testers", **tester, "weights": {"v2": 100}}, mirrored],
    )["http"]
    assert by_user["match"] == [{**tester, **GATEWAY}, {**tester, **OUTSIDE}]
    assert by_caller["match"] == [{**user, **OUTSIDE}], "beside gateways Istio does not look at sourceLabels"
    assert by_caller["mirror"]["port"] == {"number": 81}
    assert rest["match"] == [GATEWAY, OUTSIDE]
    assert [route["name"] for route in own] == [by_user["name"], by_caller["name"], rest["name"]]
    assert [route.get("match") for route in own] == [[tester], [user], None]


@pytest.mark.parametrize(
    ("name", "fits"),
    [
        ("a.io", True),
        ("A.io:80", True),
        ("b.a.io", True),
        ("axio", False),
        ("a.io.istio-demo", False),
        ("bill-service", False),
        ("bill-service.istio-demo:81", False),
    ],
)
def test_outside_names_are_told_from_the_services_own(name: str, fits: bool) -> None:
    """Envoy matches the whole of it, as here."""
    assert bool(re.fullmatch(OUTSIDE["authority"]["regex"], name)) is fits


def test_tcp_ports_get_tcp_routes_and_no_others() -> None:
    spec = weights({"bill-service": {"ports": {"http": {"appProtocol": "tcp"}}}})
    assert spec == {
        "hosts": ["bill-service"],
        "tcp": [{"match": [{"port": 9999}], "route": split(90, 10, port={"number": 9999})}],
    }


@pytest.mark.parametrize(
    ("mode", "tls"), [("STRICT", {"mode": "ISTIO_MUTUAL"}), ("PERMISSIVE", None), ("DISABLE", {"mode": "DISABLE"})]
)
def test_mutual_tls_is_asked_of_the_pods_and_of_their_callers(mode: str, tls: Any) -> None:
    made = before(mtls=mode)
    assert made["mtls-bill-service"].spec == {
        "selector": {"matchLabels": {"service": "bill-service"}},
        "mtls": {"mode": mode},
    }
    assert made["dest-bill-service"].spec.get("trafficPolicy", {}).get("tls") == tls


def test_the_policy_is_that_of_the_whole_service() -> None:
    made = before(
        weights={"v1": 100, "v2": None},
        outlierDetection={"consecutive5xxErrors": 3},
        connectionPool={"http": {"http1MaxPendingRequests": 10, "http2MaxRequests": 5}},
        sticky={"cookie": {"name": "USER"}},
    )
    assert made["dest-bill-service"].spec["trafficPolicy"] == {
        "outlierDetection": {"consecutive5xxErrors": 3},
        "connectionPool": {"http": {"http1MaxPendingRequests": 10, "http2MaxRequests": 5}},
        "loadBalancer": {"consistentHash": {"httpCookie": {"name": "USER", "ttl": "0s"}}},
    }
    assert set(made["dest-bill-service-v1"].spec) == {"host", "subsets"}


@pytest.mark.parametrize(
    ("protocol", "port", "kind", "exit_port"),
    [("TLS", 443, "tls", 443), ("HTTP", 80, "http", 80), ("HTTP", 8080, "http", 80)],
)
def test_an_outside_host_is_reached_by_the_egress_gateway(protocol: str, port: int, kind: str, exit_port: int) -> None:
    given = config(mesh={"profile": "demo"}, egress={"api.example.com": {"protocol": protocol, "port": port}})
    made = {found.kind: found for found in outside("api.example.com", given.egress["api.example.com"], "a", "mesh")}
    assert {found.name for found in made.values()} == {"egress-api-example-com"}
    assert made["ServiceEntry"].spec["resolution"] == "DNS"
    out, on = made["VirtualService"].spec[kind]
    assert (out["match"][0]["gateways"], out["match"][0]["port"]) == (["mesh"], port)
    assert out["route"][0]["destination"] == {
        "host": "istio-egressgateway.mesh.svc.cluster.local",
        "port": {"number": exit_port},
    }
    assert (on["match"][0]["gateways"], on["match"][0]["port"]) == (["a/egress-api-example-com"], exit_port)
    assert on["route"][0]["destination"] == {"host": "api.example.com", "port": {"number": port}}
