"""The one model of routes: what callers do, held against what the rules say, and whose object it is that decides."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from config import StackConfig
from istio.rules import routed
from mesh.cluster.dump import Destination, Route
from mesh.cluster.objects import Object
from mesh.routes import foresee, judge, others, wait
from mesh.routes.model import (
    Caller,
    Config,
    Connections,
    Difference,
    Expected,
    Kind,
    VirtualHost,
    by_rule,
    expected,
    percents,
)
from mesh.routes.others import Objects

from .calling import caller as scripted
from .calling import calling
from .given import config as configured

HERE = Caller("istio-demo", "front-1", {"app": "front-tomcat"})
OFFICE = Caller("office", "clerk-1", {"service.istio.io/canonical-name": "clerk"})
SHOP = Path(__file__).parents[1] / "e2e" / "shop"
FOREIGN: dict[str, Object] = {
    f"{item['kind']} {item['metadata']['namespace']}/{item['metadata']['name']}": item
    for item in yaml.safe_load_all((SHOP / "foreign-rules.yaml").read_text())
}
SEARCH = {
    "namespace": {"name": "shop"},
    "services": {
        "bill-service": None,
        "search": {"ports": {"http": {"port": 80}}, "template": {"image": "nginx"}, "versions": {"v1": {}, "v2": {}}},
    },
    "routing": {"bill-service": None, "search": {"weights": {"v1": 90, "v2": 10}}},
}


def service(config: StackConfig, name: str = "bill-service") -> Expected:
    return next(expected(one, address="10.0.0.1") for one in routed(config) if one.name == name)


def host(of: Expected) -> str:
    return f"{of.service}.{of.namespace}.svc.cluster.local"


def proxy(of: Expected, who: Caller = HERE) -> Config:
    """The configuration that istiod makes of a rule for a sidecar."""
    hosts, connections, clusters = [], [], {}
    for port, traffic in of.ports.items():
        rules = {name: wanted for name, wanted in of.http.items() if name in of.applied_to(who)}
        shares = [wanted.shares for wanted in rules.values()] if traffic == "http" else [of.tcp.get(port, {})]
        for subset in {"", *(name for one in shares for name in one)}:
            clusters[f"outbound|{port}|{subset}|{host(of)}"] = f"DestinationRule {of.namespace}/dest-{of.service}"
        if traffic == "http":
            routes = [
                Route(
                    name,
                    "",
                    of.rule,
                    _destinations(of, port, wanted.shares),
                    {"timeout": wanted.timeout or "none"},
                    (f"outbound|{port}|{wanted.mirror}|{host(of)}",) if wanted.mirror else (),
                )
                for name, wanted in rules.items()
            ]
            hosts.append(VirtualHost(f"{host(of)}:{port}", (host(of),), tuple(routes)))
        elif port in of.tcp:
            connections.append(
                Connections("10.0.0.1", port, Route("", "", of.rule, _destinations(of, port, of.tcp[port])))
            )
    return Config(tuple(hosts), tuple(connections), clusters)


def _destinations(of: Expected, port: int, shares: Mapping[str, float]) -> tuple[Destination, ...]:
    return tuple(Destination(f"outbound|{port}|{version}|{host(of)}", share) for version, share in shares.items())


def changed(config: Config, **fields: Any) -> Config:
    """With its first route changed."""
    first, *rest = config.virtual_hosts
    routes = (replace(first.routes[0], **fields), *first.routes[1:])
    return replace(config, virtual_hosts=(replace(first, routes=routes), *rest))


def kinds(found: list[Difference]) -> list[Kind]:
    return [one.kind for one in found]


WEIGHTS = st.integers(0, 100).map(lambda first: {"v1": first, "v2": 100 - first})
MATCHES = st.lists(
    st.fixed_dictionaries(
        {"uri": st.just({"prefix": "/beta"}), "weights": WEIGHTS},
        optional={"sourceLabels": st.just({"app": "front-tomcat"})},
    ),
    max_size=3,
).map(lambda found: [{"name": f"match-{number}", **one} for number, one in enumerate(found)])
RULES = st.fixed_dictionaries(
    {"weights": WEIGHTS, "match": MATCHES},
    optional={"timeout": st.sampled_from(["3s", "1500ms"]), "mirror": st.just({"version": "v2", "percentage": 50})},
)
PORTS = st.dictionaries(
    st.sampled_from(["http", "http-admin", "tcp-raw"]),
    st.integers(1, 65535).map(lambda port: {"port": port}),
    min_size=1,
).filter(lambda ports: len({port["port"] for port in ports.values()}) == len(ports))


def given_rule(rule: Mapping[str, Any], ports: Mapping[str, Any]) -> StackConfig:
    only_tcp = not any(name.startswith("http") for name in ports)
    kept = {"weights": rule["weights"]} if only_tcp else rule
    before = {"http": None, **ports} if "http" not in ports else ports
    return configured(services={"bill-service": {"ports": before}}, routing={"bill-service": kept})


@given(rule=RULES, ports=PORTS)
def test_what_istiod_makes_of_a_rule_is_as_the_rule_says(rule: Mapping[str, Any], ports: Mapping[str, Any]) -> None:
    """Whatever the rule, and for whomever: a caller with the labels of a match and one without them."""
    of = service(given_rule(rule, ports))
    for who in (HERE, OFFICE):
        assert judge.differences(proxy(of, who), who, of) == []


@given(rule=RULES, ports=PORTS, other=WEIGHTS)
def test_other_weights_are_a_difference(
    rule: Mapping[str, Any], ports: Mapping[str, Any], other: dict[str, int]
) -> None:
    config = given_rule(rule, ports)
    of = service(config)
    [made] = routed(config)
    late = proxy(expected(made, other, "10.0.0.1"))
    found = judge.differences(late, HERE, of)
    assert bool(found) == (other != dict(rule["weights"]))
    assert {Kind.LATE} >= set(kinds(found))


def test_each_way_to_differ_is_told() -> None:
    of = service(
        configured(
            routing={"bill-service": {"match": [{"name": "beta", "uri": {"prefix": "/"}, "weights": {"v2": 100}}]}}
        )
    )
    right = proxy(of)
    plain = Destination(f"outbound|9999||{host(of)}", 1)
    theirs = changed(right, object="VirtualService office/theirs", destinations=(plain,))
    of_gateway_api = changed(right, object="VirtualService istio-demo/x~9999~y", name="istio-demo.theirs.0")
    unknown = replace(right, clusters={plain.cluster: "DestinationRule office/theirs"})
    for config, kind, what in (
        (theirs, Kind.ELSEWHERE, "all pods alike"),
        (of_gateway_api, Kind.ELSEWHERE, "v2 100 %"),
        (changed(right, destinations=()), Kind.LATE, "nobody at bill-service-beta"),
        (changed(right, name="old"), Kind.LATE, "it has the route old"),
        (changed(right, fields={"timeout": "1s"}), Kind.CHANGED, "a timeout of 1s"),
        (changed(right, mirrors=(f"outbound|9999|v1|{host(of)}",)), Kind.LATE, "copies to v1"),
        (unknown, Kind.NO_SUBSET, "does not know the subset"),
        (Config((), (), {}), Kind.HIDDEN, "does not know the service"),
        (replace(right, virtual_hosts=()), Kind.ELSEWHERE, "no route for this port"),
    ):
        found = judge.differences(config, HERE, of)
        assert kind in kinds(found) and any(what in one.what for one in found), (kind, found)
    turned = replace(
        right, virtual_hosts=(replace(right.virtual_hosts[0], routes=right.virtual_hosts[0].routes[::-1]),)
    )
    assert "in the order bill-service-route, bill-service-beta" in judge.differences(turned, HERE, of)[0].what


def test_connections_are_judged_by_the_address_of_the_service() -> None:
    of = service(configured(services={"bill-service": {"ports": {"http": None, "tcp": {"port": 7000}}}}))
    right = proxy(of)
    assert judge.differences(right, HERE, of) == []
    theirs = Route(
        "", "", "VirtualService office/theirs", (Destination("outbound|7000||other.office.svc.cluster.local", 1),)
    )
    config = replace(right, connections=(Connections("10.0.0.1", 7000, theirs),))
    [found] = judge.differences(config, HERE, of)
    assert (found.kind, found.object) == (Kind.ELSEWHERE, "VirtualService office/theirs")
    assert kinds(judge.differences(replace(right, connections=()), HERE, of)) == [Kind.ELSEWHERE]


def test_gateways_are_judged_by_the_outside_names() -> None:
    of = service(configured(routing={"bill-service": {"expose": {"hosts": ["bills.example.com"]}}}))
    ingress = Caller("istio-system", "ingress-1", {"istio": "ingressgateway"}, is_gateway=True)
    inside = proxy(of)
    names = ("bills.example.com", "bills.example.com:80")
    exposed = replace(
        inside, virtual_hosts=(replace(inside.virtual_hosts[0], name="bills.example.com:80", domains=names),)
    )
    assert judge.differences(exposed, ingress, of) == []
    assert "no route for this name" in judge.differences(inside, ingress, of)[0].what


def test_a_rule_that_is_there_is_read_as_it_would_be_made() -> None:
    for one in routed(configured(routing={"bill-service": {"mirror": {"version": "v2", "percentage": 10}}})):
        assert by_rule(one, one.weights.spec) == expected(one)


@pytest.mark.parametrize(
    ("name", "difference", "who", "kind"),
    [
        (
            "HTTPRoute shop/theirs",
            Difference(Kind.ELSEWHERE, "port 80", "all pods alike", "route shop.theirs.0"),
            HERE,
            Kind.ELSEWHERE,
        ),
        (
            "VirtualService office/theirs",
            Difference(Kind.ELSEWHERE, "port 80", "all pods alike", "VirtualService office/theirs"),
            OFFICE,
            Kind.ELSEWHERE,
        ),
        ("Sidecar office/default", Difference(Kind.HIDDEN, "all ports", "hidden"), OFFICE, Kind.HIDDEN),
        (
            "DestinationRule office/theirs",
            Difference(Kind.NO_SUBSET, "port 80", "no v1", "DestinationRule office/theirs"),
            OFFICE,
            Kind.NO_SUBSET,
        ),
        (
            "EnvoyFilter shop/theirs",
            Difference(Kind.CHANGED, "port 80", "a timeout", "VirtualService shop/vs-search"),
            Caller("shop", "web-1", {"app": "web"}),
            Kind.CHANGED,
        ),
    ],
)
def test_what_decides_is_named_with_its_owner_and_a_fix(
    name: str, difference: Difference, who: Caller, kind: Kind
) -> None:
    of = service(configured(**SEARCH), "search")
    marked = {**FOREIGN[name], "metadata": {**FOREIGN[name]["metadata"], "managedFields": [{"manager": "kubectl"}]}}
    [found] = others.findings({who: [difference]}, of, Objects([marked], "istio-system"))
    assert (found.object, found.kind, found.owner) == (name, kind, "made with kubectl")
    assert name in found.fix or "mesh.accept" in found.fix
    assert found.workloads == {who.workload: 1}


def test_what_no_object_explains_is_a_proxy_that_is_late() -> None:
    of = service(configured(**SEARCH), "search")
    own = Difference(Kind.NO_SUBSET, "port 80", "no v1", "DestinationRule shop/dest-search")
    changed_by_nobody = Difference(Kind.CHANGED, "port 80", "a timeout", of.rule)
    found = others.findings({HERE: [own, changed_by_nobody]}, of, Objects((), "istio-system"))
    assert [one.kind for one in found] == [Kind.LATE, Kind.LATE]
    [hidden] = others.findings({OFFICE: [Difference(Kind.HIDDEN, "", "hidden")]}, of, Objects((), "istio-system"))
    assert hidden.object == ""


@pytest.mark.parametrize(
    ("egress", "shown"),
    [
        (None, True),
        ([{"hosts": ["*/*"]}], True),
        ([{"hosts": ["shop/*"]}], True),
        ([{"hosts": ["./*"]}, {"hosts": ["shop/search.shop.svc.cluster.local"]}], True),
        ([{"hosts": ["*/*.shop.svc.cluster.local"]}], True),
        ([{"hosts": ["shop/cart.shop.svc.cluster.local"]}], False),
        ([{"hosts": ["./*", "istio-system/*"]}], False),
        ([{"hosts": ["~/*"]}], False),
    ],
)
def test_a_sidecar_shows_what_its_hosts_name(egress: Any, shown: bool) -> None:
    of = service(configured(**SEARCH), "search")
    sidecar = {"kind": "Sidecar", "metadata": {"namespace": "office", "name": "x"}, "spec": {"egress": egress}}
    assert others.shows(sidecar, of) is shown


@pytest.mark.parametrize(
    ("name", "ours"),
    [
        ("HTTPRoute shop/theirs", True),
        ("VirtualService office/theirs", False),
        ("Sidecar office/default", False),
        ("DestinationRule office/theirs", False),
        ("EnvoyFilter shop/theirs", True),
    ],
)
def test_what_would_decide_is_foreseen(name: str, ours: bool) -> None:
    of = service(configured(**SEARCH), "search")
    found = foresee.rivals([of], Objects([FOREIGN[name]], "istio-system"), "istio-governance/shop", [])
    assert [(one.object, one.services, one.is_ours) for one in found] == [(name, ("search",), ours)]
    assert foresee.rivals([of], Objects([FOREIGN[name]], "istio-system"), "istio-governance/shop", [name]) == []
    elsewhere = service(configured(**{**SEARCH, "namespace": {"name": "another"}}), "search")
    of_others = foresee.rivals([elsewhere], Objects([FOREIGN[name]], "istio-system"), "istio-governance/x", [])
    # A Sidecar hides everything that it does not name.
    assert [one.object for one in of_others] == ([name] if name.startswith("Sidecar") else [])


@pytest.mark.parametrize(("made", "decides"), [("2026-01-01T00:00:00Z", True), ("2026-01-03T00:00:00Z", False)])
def test_of_two_rules_that_everybody_sees_the_older_one_decides(made: str, decides: bool) -> None:
    of = service(configured(**SEARCH), "search")
    theirs = FOREIGN["VirtualService office/theirs"]
    theirs = {
        **theirs,
        "metadata": {**theirs["metadata"], "creationTimestamp": made},
        "spec": {**theirs["spec"], "exportTo": ["*"]},
    }
    mark = {"istio-governance/stack": "istio-governance/shop"}
    metadata = {
        "name": "vs-search",
        "namespace": "shop",
        "annotations": mark,
        "creationTimestamp": "2026-01-02T00:00:00Z",
    }
    rule = {"kind": "VirtualService", "metadata": metadata, "spec": {}}
    found = foresee.rivals([of], Objects([theirs, rule], "istio-system"), "istio-governance/shop", [])
    assert [one.is_ours for one in found] == ([True] if decides else [])


def test_the_shares_of_a_route_read_as_words() -> None:
    assert percents({"": 1.0}) == "all pods alike"
    assert percents({"v1": 0.905, "other": 0.095}) == "v1 90.5 %, other 9.5 %"


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wait, "PAUSE", 0)


@pytest.mark.usefixtures("quick")
def test_one_of_a_template_shows_it_and_the_others_acknowledge(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that has not acknowledged the push that the first one has is asked for itself."""
    of = service(configured())
    right = proxy(of)
    first, second = scripted(right, template="a", pushes=[7]), scripted(right, template="a", pushes=[7])
    late = scripted(right, template="a", pushes=[8, 6])
    calling(monkeypatch, first, second, late)
    assert wait.until_enforced(None, [of], 1).callers == 3  # type: ignore[arg-type]
    assert (first.asked, second.asked, late.asked) == (1, 0, 1)


@pytest.mark.usefixtures("quick")
def test_nobody_is_asked_for_what_he_is_about_to_acknowledge(monkeypatch: pytest.MonkeyPatch) -> None:
    """But one that does not do so for long, as he may refuse something else."""
    monkeypatch.setattr(wait, "_PATIENCE", 0.3)
    of = service(configured())
    right = proxy(of)
    looks = (0, *[1] * 10, *[2] * 10, *[3] * 10, 1_000_000)
    scripts = [replace(scripted(right, template="a", pushes=[7]), behind=count) for count in looks]
    calling(monkeypatch, *scripts)
    waited = wait.until_enforced(None, [of], 5)  # type: ignore[arg-type]
    assert waited.callers == len(looks) and 0.3 < waited.seconds < 5
    assert sum(one.asked for one in scripts) == 5
    assert scripts[-1].asked == 1


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("shown", [True, False])
def test_those_without_a_pod_have_what_somebody_with_one_shows(monkeypatch: pytest.MonkeyPatch, shown: bool) -> None:
    """istiod says what it means to send, before it has sent it; where nobody shows it, that gets some time."""
    monkeypatch.setattr(wait, "_QUEUE_SECONDS", 1.0)
    of = service(configured())
    outside = Caller("vms", "machine", {}, has_pod=False)
    machine = replace(scripted(proxy(of), pushes=[5, 6, 6, 7]), caller=outside)
    calling(monkeypatch, machine, scripted(proxy(of) if shown else Config((), (), {}), pushes=[7]))
    waited = wait.until_enforced(None, [of], 5)  # type: ignore[arg-type]
    assert machine.pushes == [7]
    assert (waited.seconds < 1.0) is shown


@pytest.mark.usefixtures("quick")
def test_who_does_something_else_is_waited_for_and_named(monkeypatch: pytest.MonkeyPatch) -> None:
    of = service(configured())
    old = changed(proxy(of), destinations=_destinations(of, 9999, {"v1": 1.0}))
    slow, gone = scripted(old, old, proxy(of)), scripted(None, gone=True)
    calling(monkeypatch, slow, gone)
    assert wait.until_enforced(None, [of], 1).callers == 2  # type: ignore[arg-type]
    assert slow.asked == 3
    never, excepted, blind = scripted(old), scripted(old), scripted(Config((), (), {}))
    calling(monkeypatch, never, excepted, blind)
    with pytest.raises(wait.LateError) as late:
        wait.until_enforced(None, [of], 0, [excepted.caller])  # type: ignore[arg-type]
    assert str(late.value).splitlines()[1:] == [
        f"  {never.caller}: bill-service port 9999: v1 100 % at bill-service-route"
    ]
