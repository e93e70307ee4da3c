"""Each rule of the policy pack: compliant, violating, and with nothing to judge."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from mesh.declared import declared
from names import is_production
from policy.rules import RULES, Proposed, Rule, verdicts

from .given import STACKS

BY_NAME = {rule.name: rule for rule in RULES}
TYPES = {
    "Service": "core/v1",
    "PodDisruptionBudget": "policy/v1",
    "Deployment": "apps/v1",
    "VirtualService": "networking.istio.io/v1beta1",
    "DestinationRule": "networking.istio.io/v1beta1",
    "PeerAuthentication": "security.istio.io/v1beta1",
}


def proposed(kind: str, name: str = "x", parents: str = "", stack: str = "dev", **spec: Any) -> Proposed:
    resource_type = f"kubernetes:{TYPES[kind]}:{kind}"
    urn = f"urn:pulumi:{stack}::istio-governance::{parents}{resource_type}::{name}"
    return Proposed(urn, resource_type, name, {"metadata": {"name": name, "namespace": "shop"}, "spec": spec})


def pods(container: Mapping[str, Any] | None = None, replicas: int = 1, **more: Any) -> Proposed:
    containers = [{"name": "main", "image": "nginx:1", **(container or {})}]
    labels = {"app": "bill", "version": "v1"}
    template = {"metadata": {"labels": labels}, "spec": {"containers": containers, **more.pop("pod", {})}}
    return proposed("Deployment", "bill-v1", replicas=replicas, template=template, **more)


def route(*weights: int | None, name: str = "vs-bill", **spec: Any) -> Proposed:
    destinations = [
        {"destination": {"host": "bill", "subset": f"v{i}"}, **({} if weight is None else {"weight": weight})}
        for i, weight in enumerate(weights, 1)
    ]
    return proposed("VirtualService", name, hosts=["bill"], http=[{"route": destinations}], **spec)


def subset(name: str, **spec: Any) -> Proposed:
    return proposed(
        "DestinationRule", f"dest-{name}", host="bill", subsets=[{"name": name, "labels": {"version": name}}], **spec
    )


SERVICE = proposed("Service", "bill", selector={"app": "bill"})
LIMITS = {"resources": {"requests": {"cpu": "10m"}, "limits": {"memory": "1Gi"}}}
HARDENED = {"runAsNonRoot": True, "allowPrivilegeEscalation": False}
BUDGET = proposed("PodDisruptionBudget", "bill-v1", maxUnavailable=1, selector={"matchLabels": {"app": "bill"}})
NOBODY: list[Proposed] = []

CASES: list[tuple[str, Sequence[Proposed], str]] = [
    ("weights-add-up", [route(90, 10)], ""),
    ("weights-add-up", [route(None)], ""),
    ("weights-add-up", [route(90, 20)], "do not add up to 100"),
    ("weights-add-up", [route(110, -10)], "do not add up to 100"),
    ("weights-add-up", NOBODY, ""),
    ("subsets-have-pods", [route(100), subset("v1"), SERVICE, pods()], ""),
    ("subsets-have-pods", [route(100, 0), subset("v1"), SERVICE, pods()], ""),
    ("subsets-have-pods", [route(100), subset("v1")], ""),
    ("subsets-have-pods", [route(100), SERVICE, pods()], "no DestinationRule declares the subset v1 of bill"),
    ("subsets-have-pods", [route(100), subset("v1"), SERVICE], "has no pods"),
    ("subsets-have-pods", [route(100), subset("v1"), SERVICE, pods(replicas=0)], "has no pods"),
    ("subsets-have-pods", [route(90, 10), subset("v1"), subset("v2"), SERVICE, pods()], "subset v2 of bill gets"),
    ("subsets-have-pods", NOBODY, ""),
    ("images-are-pinned", [pods()], ""),
    ("images-are-pinned", [pods({"image": "registry.example.com:5000/bill@sha256:0"})], ""),
    ("images-are-pinned", [pods({"image": "nginx:latest"})], "nginx:latest may be another one tomorrow"),
    ("images-are-pinned", [pods({"image": "registry.example.com:5000/bill"})], "give it a tag or a digest"),
    ("images-are-pinned", [SERVICE], ""),
    ("resources-are-set", [pods(LIMITS)], ""),
    ("resources-are-set", [pods()], "main has no requests and no limits"),
    ("resources-are-set", [pods({"resources": {"requests": {"cpu": 1}}})], "main has no limits"),
    ("resources-are-set", [SERVICE], ""),
    ("pods-are-not-privileged", [pods({"securityContext": {"runAsNonRoot": True}})], ""),
    ("pods-are-not-privileged", [pods({"securityContext": {"privileged": True}})], "(privileged)"),
    (
        "pods-are-not-privileged",
        [pods({"securityContext": {"capabilities": {"add": ["SYS_MODULE"]}}})],
        "(capability SYS_MODULE)",
    ),
    ("pods-are-not-privileged", [pods(pod={"hostNetwork": True})], "(hostNetwork)"),
    ("pods-are-not-privileged", [pods(pod={"volumes": [{"hostPath": {"path": "/etc"}}]})], "(hostPath /etc)"),
    (
        "pods-are-not-privileged",
        [
            proposed(
                "Deployment",
                parents="istio-governance:nodes:NodePrep$",
                template={"spec": {"containers": [{"securityContext": {"privileged": True}}]}},
            )
        ],
        "",
    ),
    ("pods-are-not-privileged", [SERVICE], ""),
    ("containers-are-hardened", [pods({"securityContext": HARDENED})], ""),
    (
        "containers-are-hardened",
        [
            pods(
                {"securityContext": {"allowPrivilegeEscalation": False}},
                pod={"securityContext": {"runAsNonRoot": True}},
            )
        ],
        "",
    ),
    ("containers-are-hardened", [pods()], "set runAsNonRoot: true, allowPrivilegeEscalation: false"),
    ("containers-are-hardened", [pods({"securityContext": {"runAsNonRoot": True}})], "main could become root"),
    ("containers-are-hardened", [SERVICE], ""),
    ("replicas-have-a-budget", [pods(replicas=2), BUDGET], ""),
    ("replicas-have-a-budget", [pods(replicas=1)], ""),
    ("replicas-have-a-budget", [pods(replicas=2)], "set services.*.disruptionBudget"),
    ("replicas-have-a-budget", NOBODY, ""),
    ("mutual-tls-is-on", [proposed("PeerAuthentication", mtls={"mode": "STRICT"})], ""),
    ("mutual-tls-is-on", [proposed("PeerAuthentication", mtls={"mode": "PERMISSIVE"})], "mTLS PERMISSIVE"),
    ("mutual-tls-is-on", [proposed("PeerAuthentication", portLevelMtls={8080: {"mode": "DISABLE"}})], "mTLS DISABLE"),
    ("mutual-tls-is-on", [subset("v1", trafficPolicy={"tls": {"mode": "ISTIO_MUTUAL"}})], ""),
    ("mutual-tls-is-on", [subset("v1", trafficPolicy={"tls": {"mode": "DISABLE"}})], "plain text"),
    ("mutual-tls-is-on", NOBODY, ""),
    ("hosts-are-unique", [route(100), proposed("VirtualService", "other", hosts=["front"])], ""),
    ("hosts-are-unique", [route(100), route(100, name="edge", gateways=["edge"])], ""),
    ("hosts-are-unique", [route(100), route(100, name="again")], "another VirtualService has the host bill"),
    ("hosts-are-unique", NOBODY, ""),
]


@pytest.mark.parametrize(("rule", "resources", "message"), CASES)
def test_rule(rule: str, resources: Sequence[Proposed], message: str) -> None:
    found = [finding.message for finding in BY_NAME[rule].check(resources)]
    assert bool(found) == bool(message), found
    assert all(message in text for text in found[:1])


def test_every_rule_has_compliant_violating_and_absent_cases() -> None:
    for name in BY_NAME:
        cases = [case for case in CASES if case[0] == name]
        assert {bool(message) for _, _, message in cases} == {True, False}
        assert any(not message and resources in (NOBODY, [SERVICE]) for _, resources, message in cases)


def test_levels_follow_the_environment() -> None:
    latest = [
        proposed("Deployment", stack=stack, template={"spec": {"containers": [{"image": "nginx"}]}})
        for stack in ("dev", "prod-eu")
    ]
    pinned = [verdict for verdict in verdicts(latest) if verdict.rule == "images-are-pinned"]
    assert [(verdict.finding.resource.stack, verdict.mandatory) for verdict in pinned] == [
        ("prod-eu", True),
        ("dev", False),
    ]
    assert [is_production(name) for name in ("prod", "team/production", "prod-eu", "product", "dev")] == [
        True,
        True,
        True,
        False,
        False,
    ]


@pytest.mark.parametrize("stack", STACKS)
def test_no_stack_of_the_checkout_breaks_a_mandatory_rule(stack: str) -> None:
    resources = [Proposed(r.urn, r.type, r.name, r.inputs) for r in declared(stack)]
    assert resources
    assert [verdict for verdict in verdicts(resources) if verdict.mandatory] == []


def test_rules_of_one_resource_need_no_other() -> None:
    """They run before the resource changes, when the engine does not know the rest yet."""
    for rule in (rule for rule in RULES if not rule.needs_stack):
        for name, resources, message in CASES:
            if name == rule.name and message:
                assert any(_finds(rule, resource) for resource in resources)


def _finds(rule: Rule, resource: Proposed) -> bool:
    return any(rule.check([resource]))
