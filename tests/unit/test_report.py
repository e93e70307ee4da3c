"""The report on a change: a table of kinds of change, each with the words that a reviewer must find."""

from __future__ import annotations

import itertools
import json
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pulumi
import pytest
from click.testing import CliRunner
from hypothesis import Phase, assume, given, settings
from hypothesis import strategies as st

from config import ConfigError, merged
from config.files import SECRET
from mesh import preflight
from mesh.commands import diff
from mesh.program.recorder import Resource
from mesh.report import markdown, states, text
from mesh.report.report import ObjectDiff, Report, report
from mesh.report.states import Comparison, State

from .given import ROOT, program
from .test_nodes import HOST_KEY


@pytest.fixture(autouse=True)
def no_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preflight, "check", lambda _config, owner: None)  # noqa: ARG005


@pytest.fixture(autouse=True)
def no_helm(monkeypatch: pytest.MonkeyPatch) -> None:
    """The charts of these tests lie where no test goes; tests/parity renders real ones."""
    monkeypatch.setattr("mesh.program.render.of_release", lambda _release, _folder: [])


def compared(before: Mapping[str, Any], after: Mapping[str, Any]) -> Report:
    """The report on the stack dev with the changes `after` instead of `before`."""
    old, new = (states.of(program("dev", **changes), name) for name, changes in (("old", before), ("new", after)))
    return report("dev", Comparison(old, new))


def bill(**service: Any) -> dict[str, Any]:
    return {"services": {"bill-service": service}}


def weighted(**weights: int | None) -> dict[str, Any]:
    return {"routing": {"bill-service": {"weights": weights}}}


def other(name: str) -> dict[str, Any]:
    """One more service."""
    versions = {"v1": {"image": "cart:1"}}
    return {"services": {name: {"ports": {"http": {"port": 80}}, "versions": versions}}}


NOTHING: dict[str, Any] = {}
V3 = bill(versions={"v3": {"image": "nginx:1.29", "replicas": 2}})
TWO_PORTS = {
    **bill(ports={"admin": {"port": 9998, "targetPort": 80}}),
    "routing": {"bill-service": {"expose": {"hosts": ["bills.example.com"], "port": "http"}}},
}

# What changes → what it was, what it is, and what must be in the comment (and, after !, what must not).
CASES: Mapping[str, tuple[Mapping[str, Any], Mapping[str, Any], tuple[str, ...]]] = {
    "nothing": (NOTHING, NOTHING, ("## `dev`: no changes", "!Risk", "!<details>")),
    "a weight": (
        NOTHING,
        weighted(v1=50, v2=50),
        (
            "- **bill-service**: v1 90 % → 50 %, v2 10 % → 50 %; affects only VirtualService vs-bill-service\n",
            "## `dev`: 1 resource changes",
            "Risk: low",
            "40 % of the requests to bill-service move from v1 to v2",
            "restarts: no pod",
            "deleted: nothing",
            "-      weight: 90\n+      weight: 50",
        ),
    ),
    "much traffic at once": (
        NOTHING,
        weighted(v1=0, v2=100),
        ("v1 90 % → 0 %, v2 10 % → 100 %", "Risk: medium", "90 % of the requests"),
    ),
    "a weight of an exposed service with several ports": (
        TWO_PORTS,
        merged(TWO_PORTS, weighted(v1=50, v2=50)),
        (
            "- **bill-service**: v1 90 % → 50 %, v2 10 % → 50 %; affects only VirtualService vs-bill-service\n",
            "## `dev`: 1 resource changes",
            "40 % of the requests to bill-service move from v1 to v2",
        ),
    ),
    "an image": (
        NOTHING,
        bill(template={"image": "nginx:1.29"}),
        (
            "image of v1 and v2 nginx:alpine → nginx:1.29; "
            "affects only Deployment bill-service-v1 and Deployment bill-service-v2",
            "restarts: Deployment bill-service-v1, Deployment bill-service-v2",
            "Risk: medium",
            "traffic: none moves",
        ),
    ),
    "an image of one version": (
        NOTHING,
        bill(versions={"v2": {"image": "nginx:1.29"}}),
        ("image of v2 nginx:alpine → nginx:1.29; affects only Deployment bill-service-v2\n",),
    ),
    "a new version": (
        NOTHING,
        V3,
        ("new version v3 (nginx:1.29, 2 replicas)", "v3 0 %", "+ Deployment bill-service-v3", "!restarts: Deployment"),
    ),
    "a removed version": (
        V3,
        NOTHING,
        ("version v3 is removed; affects", "Risk: high", "deleted: ", "Deployment bill-service-v3", "!still gets"),
    ),
    "a removed version that has traffic": (
        V3 | weighted(v1=80, v2=10, v3=10),
        NOTHING,
        ("v1 80 % → 90 %", "version v3 is removed", "bill-service v3 still gets 10 % and is removed"),
    ),
    "replicas": (
        bill(versions={"v1": {"replicas": 2}}),
        bill(versions={"v1": {"replicas": 3}}),
        ("replicas of v1 2 → 3; affects only Deployment bill-service-v1", "Risk: low", "restarts: no pod"),
    ),
    "env": (
        bill(template={"env": {"LEVEL": "info"}}),
        bill(template={"env": {"LEVEL": "debug"}}),
        ("env LEVEL of v1 and v2 info → debug", "restarts: Deployment bill-service-v1"),
    ),
    "a new env": (NOTHING, bill(template={"env": {"LEVEL": "debug"}}), ("env LEVEL of v1 and v2 unset → debug",)),
    "a port": (
        NOTHING,
        bill(ports={"http": {"port": 8888}}),
        ("port http 9999 → 8888; affects only Service bill-service", "Risk: high", "calls bill-service:9999 fails"),
    ),
    "a target port": (
        NOTHING,
        bill(ports={"http": {"targetPort": 8080}}),
        (
            "targetPort of port http 80 → 8080",
            "readiness probe of v1 and v2: tcpSocket.port 80 → 8080",
            "Deployment bill-service-v1",
            "requests to bill-service:9999 fail until its Service and all its pods have changed from 80 to 8080",
            "Risk: high",
        ),
    ),
    "a first disruption budget": (
        NOTHING,
        bill(disruptionBudget={"maxUnavailable": 1}),
        ("PodDisruptionBudget bill-service-v1 is new", "Risk: low", "restarts: no pod"),
    ),
    "a disruption budget": (
        bill(disruptionBudget={"maxUnavailable": 1}),
        bill(disruptionBudget={"maxUnavailable": 2}),
        ("maxUnavailable of bill-service-v1 and bill-service-v2 1 → 2; affects only PodDisruptionBudget",),
    ),
    "network policies": (
        NOTHING,
        {"namespace": {"defaultDeny": True}},
        ("**network**: NetworkPolicy bill-service-callers is new, NetworkPolicy default-deny is new",),
    ),
    "who may call": (
        {"namespace": {"defaultDeny": True}},
        {"namespace": {"defaultDeny": True}, **bill(ports={"http": {"targetPort": 8080}})},
        ("**network**: who may call the pods is another; affects only NetworkPolicy bill-service-callers",),
    ),
    "protection": (
        NOTHING,
        {"protect": True},
        ("Service bill-service is now protected", "Namespace istio-demo is now protected", "restarts: no pod"),
    ),
    "spread": (
        NOTHING,
        bill(template={"spread": [{"topologyKey": "zone"}]}),
        ("spread over nodes of v1 and v2 is another", "restarts: Deployment bill-service-v1"),
    ),
    "a probe": (
        NOTHING,
        bill(versions={"v1": {"readinessProbe": {"httpGet": {"path": "/", "port": 80}}}}),
        ("readiness probe of v1: tcpSocket.port 80 → unset", "readiness probe of v1: httpGet.path unset → /"),
    ),
    "resources": (
        NOTHING,
        bill(versions={"v1": {"resources": {"limits": {"memory": "1Gi"}}}}),
        ("limits.memory of v1 unset → 1Gi; affects only Deployment bill-service-v1",),
    ),
    "a label": (
        NOTHING,
        bill(template={"labels": {"team": "shop"}}),
        ("label team unset → shop", "restarts: Deployment bill-service-v1, Deployment bill-service-v2"),
    ),
    "a selector": (
        NOTHING,
        bill(selector={"service": "billing"}),
        ("## `dev`: refused", "the selector of Deployment bill-service-v1 cannot change", "add a version instead"),
    ),
    "the namespace": (
        NOTHING,
        {"namespace": {"name": "shop"}},
        (
            "namespace istio-demo → shop",
            "replaced: ",
            "with the Namespace istio-demo everything in it goes",
            "Risk: high",
            "Namespace shop is new",
        ),
    ),
    "a new service": (
        NOTHING,
        other("cart"),
        ("- **cart**: a new service, new version v1 (cart:1); affects only ServiceAccount cart, ", "Risk: low"),
    ),
    "a removed service": (
        other("cart"),
        NOTHING,
        ("- **cart**: the service is removed, with v1", "Risk: high", "Deployment cart-v1"),
    ),
    "a renamed service": (
        other("cart"),
        other("basket"),
        (
            "- **basket**: the new name of cart: Kubernetes cannot rename, so cart is deleted, and whoever calls it ",
            "- **cart**: the service is removed",
        ),
    ),
    "rules taken away": (
        NOTHING,
        {"routing": None},
        ("no rules any more, so all its pods are balanced evenly", "the split of bill-service ends", "Risk: high"),
    ),
    "first rules": (
        {"routing": None},
        NOTHING,
        ("- **bill-service**: v1 90 %, v2 10 %; affects only ", "the split of bill-service begins"),
    ),
    "a mesh value": (
        NOTHING,
        {"mesh": {"values": {"istiod": {"traceSampling": 50}}}},
        ("- **mesh**: value traceSampling of istiod unset → 50; affects only Release istiod\n",),
    ),
    "the mesh's version": (
        {"mesh": {"version": "1.30.1"}},
        NOTHING,
        (
            "- **mesh**: Istio 1.30.1 → 1.31.0",
            "bill-service**: pods of v1 and v2 restart with the sidecar of 1.31.0",
            "front-tomcat**: pods of v1 restart",
            "!refused",
        ),
    ),
    "the mesh's version, too far": (
        {"mesh": {"version": "1.28.0"}},
        NOTHING,
        ("## `dev`: refused", "Istio 1.28.0 → 1.31.0 skips minor versions: go to 1.29 first"),
    ),
    "the mesh's profile": (
        NOTHING,
        {"mesh": {"profile": "default"}},
        ("profile demo → default", "istio-egressgateway is removed", "deleted: Release istio-egressgateway"),
    ),
    "a version without pods": (
        NOTHING,
        {
            "services": {"bill-service": {"versions": {"v2": {"replicas": 0}}}},
            "routing": {"bill-service": {"weights": {"v1": 100, "v2": 0}}},
        },
        ("replicas of v2", "pods go when nothing is in flight to them any more"),
    ),
    "the mesh off": (
        NOTHING,
        {"mesh": {"mode": "off"}},
        (
            "Istio 1.31.0 is removed (istio-egressgateway",
            "pods of v1 and v2 restart without a sidecar",
            "sidecars by the default control plane → as each pod says",
            "no rules any more",
            "go when no proxy uses them any more; affects only Command subsets-announced",
            "Risk: high",
        ),
    ),
    "the mesh on": (
        {"mesh": {"mode": "off"}},
        NOTHING,
        ("Istio 1.31.0 is installed (istio-base, ", "pods of v1 and v2 restart with the sidecar of 1.31.0"),
    ),
    "purge": (
        NOTHING,
        {"mesh": {"purge": False}},
        ("purge on destroy true → false", "Risk: low", "deleted: nothing"),
    ),
    "the cluster": (
        NOTHING,
        {"cluster": {"context": "other"}},
        ("context dev → other, so everything goes to another cluster", "would leave the cluster", "Risk: high"),
    ),
}  # fmt: skip


def ruled(**rule: Any) -> dict[str, Any]:
    return {"routing": {"bill-service": rule}}


def meshed(**mesh: Any) -> dict[str, Any]:
    return {"mesh": mesh}


def port(**http: Any) -> dict[str, Any]:
    return bill(ports={"http": http})


TESTERS = {"name": "testers", "headers": {"x-user": {"exact": "jason"}}, "weights": {"v2": 100}}
RULES = ruled(
    match=[TESTERS],
    timeout="3s",
    retries={"attempts": 2, "perTryTimeout": "1s"},
    mirror={"version": "v2", "percentage": 10.0},
    faults={"delay": {"fixedDelay": "1s", "percentage": 5.0}},
    connectionPool={"http": {"http2MaxRequests": 9}},
    expose={"hosts": ["bills.example.com"], "port": "http"},
)
ADMIN = bill(ports={"admin": {"port": 9998, "targetPort": 81, "appProtocol": "http"}})
ADMIN_TCP = bill(ports={"admin": {"port": 9998, "targetPort": 81, "appProtocol": "tcp"}})
STICKY = ruled(weights={"v1": 100, "v2": 0}, sticky={"cookie": {"name": "user", "ttl": "1h"}})
LEDGER = {"ports": {"tcp-ledger": {"port": 7000}}, "versions": {"v1": {"image": "l:1"}, "v2": {"image": "l:1"}}}
PLANES = {"default": {"version": "1.31.0"}, "canary": {"version": "1.31.1"}}
BESIDE = meshed(version="", revision="default", revisions=PLANES)
API: dict[str, Any] = {"egress": {"api.example.com": {}}}
REFERENCE = {"secretKeyRef": {"name": "db", "key": "password"}}


def ledger(weights: Mapping[str, int]) -> dict[str, Any]:
    return {"services": {"ledger": LEDGER}, "routing": {"ledger": {"weights": weights}}}


def legacy(**http: Any) -> dict[str, Any]:
    """A service whose pods and Service somebody else makes."""
    versions: dict[str, Any] = {"v1": {}, "v2": {}}
    service = {"workload": "existing", "ports": {"http": {"port": 80, **http}}, "versions": versions}
    return {"services": {"legacy": service}, "routing": {"legacy": {"weights": {"v1": 50, "v2": 50}}}}


def stateful(**template: Any) -> dict[str, Any]:
    service = {"workload": "StatefulSet", "ports": {"http": {"port": 80}}, "versions": {"v1": {"image": "c:1"}}}
    return {"services": {"catalog": {**service, "template": template}}}


def cart(**ports: Any) -> dict[str, Any]:
    versions = {"v1": {"image": "cart:1"}}
    return {"services": {"cart": {"ports": ports, "versions": versions}}}


def over_ssh(**nodes: Any) -> dict[str, Any]:
    hosts = {"n1": {"address": "192.0.2.1", "hostKey": HOST_KEY}}
    return {"nodes": {"mode": "ssh", "reboot": True, "hosts": hosts, **nodes}, "sshPrivateKey": SECRET}


def bare(name: str) -> dict[str, Any]:
    """A service whose pods have no sidecar."""
    return {name: {"template": {"podTemplate": {"metadata": {"labels": {"sidecar.istio.io/inject": "false"}}}}}}


# What changes → what it was, what it is, its level, and what must be in the comment (and, after !, what must not).
EFFECTS: Mapping[str, tuple[Mapping[str, Any], Mapping[str, Any], str, tuple[str, ...]]] = {
    "HTTP becomes TCP": (
        NOTHING,
        port(appProtocol="tcp"),
        "high",
        (
            "port http of bill-service is taken for TCP and no longer for HTTP/1.1",
            "requests were split (v1 90 %, v2 10 %), whole connections are now (v1 90 %, v2 10 %)",
            "no other rule of this stack is lost",
            "!traffic: none moves",
        ),
    ),
    "HTTP becomes TCP at one of two ports": (
        ADMIN | RULES,
        ADMIN_TCP | RULES,
        "high",
        (
            "port admin of bill-service is taken for TCP",
            "of this stack's rules match testers (header x-user is jason), timeout 3s, 2 retries of 1s, ",
            "the faults (5 % are delayed by 1s on purpose), a copy of 10 % to v2 and the limits of connectionPool.http "
            "are lost",
        ),
    ),
    "HTTP becomes TCP at the exposed one of two ports": (
        ADMIN | ruled(expose={"hosts": ["bills.example.com"], "port": "admin"}),
        ADMIN_TCP,
        "high",
        ("of this stack's rules the way in from outside as bills.example.com is lost", "cannot be called from outside"),
    ),
    "TCP becomes HTTP": (
        port(appProtocol="tcp"),
        NOTHING,
        "high",
        ("connections were passed whole, each request is split now (v1 90 %, v2 10 %)", "what is no plain HTTP fails"),
    ),
    "stickiness is lost with HTTP": (
        STICKY,
        port(appProtocol="tcp") | ruled(weights={"v1": 100, "v2": 0}),
        "high",
        ("the stickiness by cookie user for 1h is lost", "sticky by cookie user for 1h → nothing"),
    ),
    "HTTP becomes TCP by the port's name, without rules": (
        cart(http={"port": 80}),
        cart(tcp={"port": 80}),
        "high",
        ("port tcp of cart is taken for TCP", "requests were balanced, whole connections are now", "is called tcp"),
    ),
    "HTTP becomes TCP where only the rules know": (
        legacy(),
        legacy(appProtocol="tcp"),
        "high",
        ("the port of legacy is taken for TCP", "whole connections are now (v1 50 %, v2 50 %)"),
    ),
    "HTTP becomes gRPC": (
        NOTHING,
        port(appProtocol="grpc"),
        "high",
        ("speak HTTP/2 to its pods", "fail every request"),
    ),
    "gRPC becomes HTTP": (
        port(appProtocol="grpc"),
        NOTHING,
        "high",
        ("HTTP/1.1 to its pods now; every call of gRPC f",),
    ),
    "grpc-web is no gRPC": (
        NOTHING,
        port(appProtocol="grpc-web"),
        "low",
        ("appProtocol of port http unset → grpc-web",),
    ),
    "HTTP becomes TLS": (
        cart(http={"port": 80}),
        cart(http={"port": 80, "appProtocol": "https"}),
        "high",
        ("is taken for TLS", "callers and pods have to speak TLS themselves"),
    ),
    "HTTP becomes whatever": (
        cart(http={"port": 80}),
        cart(web={"port": 80}),
        "medium",
        ("taken for whatever each connection shows and no longer for HTTP/1.1", "past all rules"),
    ),
    "TCP becomes TLS": (
        cart(tcp={"port": 80}),
        cart(tcp={"port": 80, "appProtocol": "tls"}),
        "medium",
        ("passed by the name in their TLS, and not split by weight",),
    ),
    "a port is removed": (ADMIN, NOTHING, "high", ("whoever calls bill-service:9998 (admin) fails from now on",)),
    "a port is added": (NOTHING, ADMIN, "medium", ("port admin is new", "traffic: none moves")),
    "connections are shifted": (
        ledger({"v1": 80, "v2": 20}),
        ledger({"v1": 20, "v2": 80}),
        "medium",
        ("v1 80 % → 20 %, v2 20 % → 80 % for connections to port 7000", "60 % of the new connections to ledger move"),
    ),
    "mutual TLS only": (
        NOTHING,
        ruled(mtls="STRICT"),
        "high",
        (
            "mTLS as the mesh → STRICT",
            "callers without a sidecar are refused: none of this stack",
            "are not known here",
        ),
    ),
    "mutual TLS only, with a caller that has no sidecar": (
        {"services": bare("front-tomcat")},
        {"services": bare("front-tomcat")} | ruled(mtls="STRICT"),
        "high",
        ("callers without a sidecar are refused: front-tomcat of this stack",),
    ),
    "mutual TLS and plain text": (
        ruled(mtls="STRICT"),
        ruled(mtls="PERMISSIVE"),
        "high",
        ("mTLS STRICT → PERMISSIVE", "callers without a sidecar get in, unencrypted and unknown"),
    ),
    "mTLS is left to the mesh": (
        ruled(mtls="STRICT"),
        NOTHING,
        "high",
        ("mTLS STRICT → as the mesh", "mutual TLS and plain text unless somebody set it otherwise"),
    ),
    "plain text only, at once": (
        ruled(mtls="STRICT"),
        ruled(mtls="DISABLE"),
        "high",
        ("go in plain text", "set PERMISSIVE first, `pulumi up`, then DISABLE"),
    ),
    "plain text only": (
        ruled(mtls="PERMISSIVE"),
        ruled(mtls="DISABLE"),
        "high",
        ("the network can read and change them", "!set PERMISSIVE first"),
    ),
    "encrypted again": (
        ruled(mtls="DISABLE"),
        ruled(mtls="PERMISSIVE"),
        "low",
        ("encrypted again, nobody is refused",),
    ),
    "STRICT from plain text": (ruled(mtls="DISABLE"), ruled(mtls="STRICT"), "high", ("set PERMISSIVE first",)),
    "PERMISSIVE is said": (NOTHING, ruled(mtls="PERMISSIVE"), "medium", ("unless somebody set a policy",)),
    "the mesh encrypts no more": (
        ruled(mtls="STRICT"),
        ruled(mtls="STRICT") | meshed(values={"istiod": {"meshConfig": {"enableAutoMtls": False}}}),
        "high",
        ("enableAutoMtls of istiod unset → false", "go in plain text, all but those to bill-service"),
    ),
    "sidecars off for a service": (
        NOTHING,
        bill(template={"podTemplate": {"metadata": {"labels": {"sidecar.istio.io/inject": "false"}}}}),
        "high",
        ("the pods of bill-service have no sidecar any more: no mutual TLS",),
    ),
    "profile demo → default": (
        NOTHING,
        meshed(profile="default"),
        "high",
        (
            "profile demo (istiod and both gateways, small, with access logs and every request traced) becomes default",
            "meanwhile: nothing is down: istiod, then gateways and pods with sidecars are made anew one by one",
            "whatever of others leaves by the egress gateway fails",
            "pods of v1 and v2 restart, as their sidecars become others",
        ),
    ),
    "profile demo → default, older charts": (
        meshed(version="1.20.1"),
        meshed(version="1.20.1", profile="default"),
        "high",
        ("profile demo (", "becomes default ("),
    ),
    "profile default → demo": (meshed(profile="default"), NOTHING, "medium", ("profile default (", "becomes demo (")),
    "profile default → minimal": (
        meshed(profile="default") | ruled(expose={"hosts": ["bills.example.com"]}),
        meshed(profile="minimal"),
        "high",
        ("bill-service cannot be called from outside any more", "the ingress gateway goes, and its address with it"),
    ),
    "a load balancer becomes internal": (
        NOTHING,
        meshed(values={"ingress": {"service": {"type": "ClusterIP"}}}),
        "high",
        ("istio-ingressgateway becomes a ClusterIP (before: LoadBalancer)",),
    ),
    "the namespace moves": (
        bill(template={"env": {"PASSWORD": REFERENCE}}) | ruled(expose={"hosts": ["bills.example.com"]}),
        bill(template={"env": {"PASSWORD": REFERENCE}})
        | ruled(expose={"hosts": ["bills.example.com"]})
        | {"namespace": {"name": "shop"}},
        "high",
        (
            "meanwhile: first come namespace shop, all pods anew in it",
            "the old names stop answering at the end of this change: bill-service.istio-demo; callers in other "
            "namespaces have to call bill-service.shop",
            "bills.example.com has rules in both namespaces for a while",
            "no pod starts in shop before somebody makes Secret db there",
            "with the Namespace istio-demo everything in it goes",
        ),
    ),
    "the namespace moves, and what others make in it does not": (
        legacy(),
        legacy() | {"namespace": {"name": "shop"}},
        "high",
        ("the pods and the Service of legacy stay in istio-demo and are deleted with it", "!legacy.istio-demo"),
    ),
    "the namespace is given away": (
        NOTHING,
        {"namespace": {"create": False}},
        "high",
        ("all requests fail at the end: namespace istio-demo would be deleted last", "until namespace.keep was true"),
    ),
    "the namespace is given away as it is": (
        {"namespace": {"keep": True}},
        {"namespace": {"create": False}},
        "high",
        ("!all requests fail",),
    ),
    "the namespace is taken over": (
        {"namespace": {"create": False}},
        NOTHING,
        "medium",
        ("`pulumi up` refuses until `mesh adopt` has taken it over",),
    ),
    "Istio moves": (NOTHING, meshed(namespace="istio2"), "high", ("Istio cannot move", "Set mesh.mode to off")),
    "managed → existing": (
        NOTHING,
        meshed(mode="existing"),
        "high",
        (
            "this stack's Istio goes last",
            "loses the control plane",
            "Istio's CRDs go with it",
            "sidecar of the revision",
        ),
    ),
    "existing → managed": (meshed(mode="existing"), NOTHING, "high", ("an Istio of others is there", "mesh adopt")),
    "existing → off": (
        meshed(mode="existing"),
        meshed(mode="off"),
        "high",
        ("the Istio of others stays", "no mutual TLS any more", "every split, match, timeout and retry", "!CRDs"),
    ),
    "managed → off": (
        NOTHING,
        meshed(mode="off"),
        "high",
        (
            "first the pods restart without sidecars, one by one, then the rules go",
            "Istio's CRDs go with it",
        ),
    ),
    "managed → off, with mutual TLS only": (
        ruled(mtls="STRICT"),
        ruled(mtls="STRICT") | meshed(mode="off"),
        "high",
        (
            "requests to bill-service, which takes mutual TLS only, fail while of caller and pod just one has a",
            "PERMISSIVE in a change of its own first",
        ),
    ),
    "off → managed, with mutual TLS only": (
        ruled(mtls="STRICT") | meshed(mode="off"),
        ruled(mtls="STRICT"),
        "high",
        ("fail while of caller and pod just one has a sidecar", "and STRICT only after this one"),
    ),
    "off → existing": (meshed(mode="off"), meshed(mode="existing"), "medium", ("of the Istio that is there",)),
    "off → managed": (meshed(mode="off"), NOTHING, "medium", ("first comes Istio, then the pods restart",)),
    "a control plane beside": (
        NOTHING,
        BESIDE,
        "medium",
        ("the control plane canary (Istio 1.31.1) is installed, the CRDs of Istio 1.31.0 → 1.31.1", "restarts: no pod"),
    ),
    "a service moves to it": (
        BESIDE,
        BESIDE | bill(revision="canary"),
        "medium",
        ("the pods of bill-service restart one by one to go from the control plane default to canary",),
    ),
    "all move to one that is not there yet": (
        meshed(version="1.31.0"),
        meshed(version="", revision="canary", revisions={"canary": {"version": "1.31.1"}}),
        "high",
        ("the API server refuses any change of them: canary, which is to do it, comes in the same change",),
    ),
    "a single pod beside an upgrade": (
        stateful() | meshed(version="1.30.1"),
        stateful(),
        "high",
        ("catalog v1 has one pod", "meanwhile: nothing else is down"),
    ),
    "all move to it, and the old one goes": (
        BESIDE,
        meshed(version="", revision="canary", revisions={"canary": {"version": "1.31.1"}}),
        "high",
        (
            "by the default control plane → by the control plane canary",
            "follow the revision default lose their control",
        ),
    ),
    "an upgrade": (meshed(version="1.30.1"), NOTHING, "medium", ("nothing is down: istiod, then gateways and pods",)),
    "a way back": (NOTHING, meshed(version="1.30.1"), "high", ("Istio 1.31.0 → 1.30.1 is a way back",)),
    "the CNI off": (NOTHING, meshed(cni=False), "high", ("an init container that needs NET_ADMIN", "Pod Security")),
    "the CNI on": (meshed(cni=False), NOTHING, "medium", ("the node agent comes on every node, then the pods",)),
    "a host is prepared": (
        NOTHING,
        over_ssh(),
        "high",
        ("**nodes**: n1 is prepared, n1 is rebooted where its modules need that", "meanwhile: n1: rebooted one after"),
    ),
    "a host is prepared for more": (
        over_ssh(),
        over_ssh(modules=["br_netfilter"]),
        "high",
        ("n1 is prepared again", "so what runs there with one pod is down"),
    ),
    "purge on": (meshed(purge=False), NOTHING, "medium", ("nothing goes now", "every Istio object in the cluster")),
    "a pod that goes first": (
        stateful(),
        stateful(env={"LEVEL": "debug"}),
        "high",
        ("catalog v1 has one pod, which goes before the new one starts",),
    ),
    "one of several pods goes first": (
        stateful(replicas=3),
        stateful(replicas=3, env={"LEVEL": "debug"}),
        "medium",
        ("!which goes before the new one starts",),
    ),
    "a match comes": (NOTHING, ruled(match=[TESTERS]), "medium", ("a new rule: v1 0 %, v2 100 %", "is not known here")),
    "a match goes": (ruled(match=[TESTERS]), NOTHING, "medium", ("are decided by the rules after it",)),
    "a match asks for something else": (
        ruled(match=[TESTERS]),
        ruled(match=[TESTERS | {"uri": {"prefix": "/beta"}, "sourceLabels": {"app": "web"}}]),
        "medium",
        (
            "match testers asks for header x-user is jason and path begins with /beta and from pods with app=web in "
            "place of header x-user is jason",
        ),
    ),
    "matches in another order": (
        ruled(match=[TESTERS, TESTERS | {"name": "beta", "uri": {"prefix": "/beta"}}]),
        ruled(match=[TESTERS | {"name": "beta", "uri": {"prefix": "/beta"}}, TESTERS]),
        "medium",
        ("the rules are tried in another order: beta, testers, all others", "the first that fits decides"),
    ),
    "faults": (
        NOTHING,
        ruled(faults={"abort": {"httpStatus": 503, "percentage": 50.0}}),
        "high",
        ("of the requests to bill-service 50 % are answered with 503 on purpose", "!traffic: none moves"),
    ),
    "a mirror": (NOTHING, ruled(mirror={"version": "v2"}), "medium", ("a copy of 100 % to v2 of the requests to",)),
    "retries": (NOTHING, ruled(retries={"attempts": 5, "retryOn": ["5xx"]}), "medium", ("5 retries on 5xx; each try",)),
    "a timeout": (NOTHING, ruled(timeout="300ms"), "medium", ("take longer than 300ms fail from now on",)),
    "no timeout": (ruled(timeout="300ms"), NOTHING, "medium", ("as long as they want (before: 300ms)",)),
    "a pool": (
        NOTHING,
        ruled(connectionPool={"tcp": {"maxConnections": 1}}),
        "medium",
        ("connectionPool.tcp.maxConnections unset → 1", "above the new limits of connectionPool fail at once"),
    ),
    "outliers": (NOTHING, ruled(outlierDetection={"interval": "3s"}), "medium", ("that fail get none for a while",)),
    "exposed": (
        NOTHING,
        ruled(expose={"hosts": ["bills.example.com"]}),
        "high",
        ("bill-service is called from outside the cluster as bills.example.com, by http, unencrypted",),
    ),
    "exposed no more": (
        ruled(expose={"hosts": ["bills.example.com"]}),
        NOTHING,
        "high",
        ("bill-service cannot be called from outside any more as bills.example.com",),
    ),
    "exposed by https": (
        ruled(expose={"hosts": ["bills.example.com"]}),
        ruled(expose={"hosts": ["bills.example.com"], "tlsSecret": "bills"}),
        "high",
        ("by https with the Secret bills (before: by http, unencrypted)",),
    ),
    "a way out": (NOTHING, API, "medium", ("**api.example.com**: requests to port 443 (TLS) leave by the egress",)),
    "no way out": (
        API,
        NOTHING,
        "high",
        ("they leave from the pods themselves, or fail", "!balanced evenly", "!the split of"),
    ),
    "no way out, and nothing else let through": (
        API | {"namespace": {"defaultDeny": True}},
        {"namespace": {"defaultDeny": True}},
        "high",
        ("they fail: namespace.defaultDeny lets nothing out",),
    ),
    "another way out": (
        API,
        {"egress": {"api.example.com": {"protocol": "HTTP", "addresses": ["192.0.2.1"]}}},
        "high",
        ("protocol TLS → HTTP, port 443 → 80, addresses those of DNS → 192.0.2.1", "is called by HTTP at port 80"),
    ),
    "all may call again": (
        {"namespace": {"defaultDeny": True}},
        NOTHING,
        "high",
        ("anybody in the cluster may call the pods, and these may call anybody",),
    ),
    "protection off": (
        {"protect": True},
        NOTHING,
        "high",
        ("2 Namespaces, 5 Releases, 1 Service and 1 Command lose their protection: from then on",),
    ),
    "a service of others gets rules": (NOTHING, legacy(), "medium", ("the split of legacy begins (v1 50 %, v2 50 %)",)),
    "a new version": (NOTHING, V3, "low", ("replaced: nothing",)),
    "another kind of workload": (NOTHING, bill(workload="StatefulSet"), "high", ("v1 becomes a StatefulSet in place",)),
    "charts from elsewhere": (NOTHING, meshed(charts="oci://example.com/c"), "medium", ("chart repository https",)),
    "many variables": (
        NOTHING,
        bill(template={"env": {f"V{number}": "x" for number in range(12)}}),
        "medium",
        ("12 variables of the environment of v1 and v2 are new",),
    ),
    "a variable that is JSON": (
        bill(template={"env": {"LIMITS": '{"cpu": 1, "gpu": [1, 2]}'}}),
        bill(template={"env": {"LIMITS": '{"cpu": 2, "gpu": [1, 2]}'}}),
        "medium",
        ("env LIMITS.cpu of v1 and v2 1 → 2; affects",),
    ),
    "a variable that is a hash": (
        bill(template={"env": {"COMMIT": "3fa9c21b"}}),
        bill(template={"env": {"COMMIT": "4fa9c21b"}}),
        "medium",
        ("env COMMIT of v1 and v2 [hash] → another;",),
    ),
    "an image by a commit and a digest": (
        bill(template={"image": "app:3fa9c21b@sha256:" + "ab12" * 16}),
        bill(template={"image": "app:4fa9c21b@sha256:" + "cd34" * 16}),
        "medium",
        ("app:3fa9c21b@sha256:ab12ab12ab12 → app:4fa9c21b@sha256:cd34cd34cd34;",),
    ),
    "long texts that begin alike": (
        bill(template={"env": {"URL": "http://" + "x" * 90 + "1"}}),
        bill(template={"env": {"URL": "http://" + "x" * 90 + "2"}}),
        "medium",
        ("env URL of v1 and v2 …xxxxxxxxxx1 → …xxxxxxxxxx2;",),
    ),
}


@pytest.mark.parametrize("case", EFFECTS)
def test_an_effect_is_told_with_its_level(case: str) -> None:
    before, after, level, expected = EFFECTS[case]
    found = compared(before, after)
    comment = markdown.write(found)
    for words in expected:
        assert (words[1:] not in comment) if words.startswith("!") else (words in comment), comment
    assert found.risk.level == level, comment


def test_a_long_list_is_counted() -> None:
    many = {"services": {f"s{number}": cart()["services"]["cart"] for number in range(9)}}
    found = compared(many, NOTHING)
    assert len(found.risk.deleted) == 18
    assert "- deleted: 9 Deployments and 9 ServiceAccounts, each below\n" in markdown.write(found)


def test_every_way_to_weaken_encryption_is_told_and_never_low() -> None:
    modes: list[str | None] = [None, "STRICT", "PERMISSIVE", "DISABLE"]
    safety = {"STRICT": 2, "PERMISSIVE": 1, None: 1, "DISABLE": 0}
    for old, new in itertools.permutations(modes, 2):
        found = compared(ruled(mtls=old), ruled(mtls=new))
        assert any(line.startswith("bill-service takes ") for line in found.risk.traffic)
        if safety[str(new) if new else None] < safety[str(old) if old else None]:
            assert found.risk.level == "high", (old, new)


def sentences_of(found: Report) -> list[str]:
    return [*map(str, found.words), *found.refusals, *markdown.risk_lines(found.risk)]


# What people and their tools write into values; each is to be told in words.
TEXTS = st.sampled_from(
    [
        *(
            '{"a": {"b": [{"c": 1}]}}',
            '[{"x": "y"}]',
            'exec {"a": 1}',
            "{{",
            "[{",
            "{}",
            "[]",
            "1234567",
            "plain",
            "{of}",
        ),
        *("3fa9c21b", "DEADBEEF01", "abcdefabcdefab", "release-0a1b2c3d", "ab12" * 16, "0" * 70, "a\n b", "<b>", "`x`"),
        *(f"registry.example.com/app:1@sha256:{digit * 64}" for digit in "ab"),
    ]
)
TREES = st.recursive(
    TEXTS | st.integers(0, 10**9) | st.booleans(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=6,
)
MAPS = st.dictionaries(st.sampled_from(("one", "two", "three")), TREES, max_size=3)
PODS = st.fixed_dictionaries(
    {},
    optional={
        "env": st.dictionaries(st.sampled_from(("A", "B", "C")), TEXTS, max_size=3),
        "image": st.sampled_from(["app:1", *(f"app:1@sha256:{digit * 64}" for digit in "ab")]),
        "labels": st.dictionaries(
            st.sampled_from(("team", "commit")), st.sampled_from(("shop", "3fa9c21b")), max_size=2
        ),
        "command": st.lists(TEXTS, min_size=1, max_size=3),
        "resources": MAPS,
        "readinessProbe": MAPS,
        "securityContext": MAPS,
        "podTemplate": st.fixed_dictionaries(
            {},
            optional={
                "metadata": st.fixed_dictionaries(
                    {"annotations": st.dictionaries(st.sampled_from(("checksum/x", "y")), TEXTS, max_size=2)}
                ),
                "spec": st.fixed_dictionaries(
                    {},
                    optional={
                        "tolerations": st.lists(MAPS, max_size=2),
                        "affinity": MAPS,
                        "initContainers": st.lists(st.just({"name": "a", "image": "i:1", "args": ["[{"]}), max_size=1),
                    },
                ),
            },
        ),
    },
)
HOSTS = st.lists(st.sampled_from(("a.example.com", "b.example.com")), min_size=1, max_size=2, unique=True)
CHANGES = st.fixed_dictionaries(
    {
        "services": st.fixed_dictionaries(
            {
                "bill-service": st.fixed_dictionaries(
                    {},
                    optional={
                        "template": PODS,
                        "versions": st.fixed_dictionaries({"v1": PODS}),
                        "ports": st.fixed_dictionaries(
                            {
                                "http": st.fixed_dictionaries(
                                    {}, optional={"appProtocol": st.sampled_from(("grpc", "http"))}
                                )
                            }
                        ),
                    },
                )
            }
        ),
        "routing": st.fixed_dictionaries(
            {
                "bill-service": st.fixed_dictionaries(
                    {},
                    optional={
                        "match": st.lists(
                            st.fixed_dictionaries(
                                {
                                    "name": st.just("m"),
                                    "headers": st.dictionaries(
                                        st.sampled_from(("x-a", "x-b")),
                                        TEXTS.map(lambda text: {"exact": text}),
                                        min_size=1,
                                    ),
                                }
                            ),
                            max_size=1,
                        ),
                        "timeout": st.sampled_from(("1s", "2s")),
                        "retries": st.fixed_dictionaries({"attempts": st.integers(1, 3)}),
                        "faults": st.just({"abort": {"httpStatus": 503}}),
                        "mtls": st.sampled_from(("STRICT", "PERMISSIVE", "DISABLE")),
                        "outlierDetection": st.just({"interval": "3s"}),
                        "expose": st.fixed_dictionaries({"hosts": HOSTS}, optional={"tlsSecret": st.just("tls")}),
                    },
                )
            }
        ),
    },
    optional={
        "mesh": st.fixed_dictionaries(
            {},
            optional={
                "profile": st.sampled_from(("default", "demo")),
                "cni": st.booleans(),
                "purge": st.booleans(),
                "values": st.dictionaries(st.sampled_from(("istiod", "ingress", "base")), MAPS, max_size=2),
                "imagePullSecrets": st.lists(st.sampled_from(("a", "3fa9c21b")), max_size=2, unique=True),
            },
        ),
        "namespace": st.fixed_dictionaries({"name": st.sampled_from(("shop", "istio-demo"))}),
        "egress": st.dictionaries(
            st.sampled_from(("api.example.com", "old.example.com")),
            st.fixed_dictionaries({}, optional={"protocol": st.sampled_from(("HTTP", "TLS"))}),
            max_size=2,
        ),
    },
)


@settings(max_examples=40, phases=[Phase.generate])
@given(CHANGES, CHANGES)
def test_no_sentence_has_json_or_hashes(before: Mapping[str, Any], after: Mapping[str, Any]) -> None:
    try:
        found = compared(before, after)
    except pulumi.RunError:
        assume(False)  # demo alone has an egress gateway
    assert found.verdict != "wrong"
    for sentence in sentences_of(found):
        told = re.sub(r"@sha256:[0-9a-f]+", "", sentence)
        assert '{"' not in told and "[{" not in told and "'}" not in told, sentence
        assert not [
            word for word in re.findall(r"(?<![0-9A-Za-z])[0-9A-Fa-f]{7,}(?![0-9A-Za-z])", told) if not word.isdecimal()
        ], sentence
        assert "only what is shown below" not in sentence
    assert (found.risk.level == "none") == (found.verdict == "none")


@pytest.mark.parametrize("case", CASES)
def test_a_comment_says(case: str) -> None:
    before, after, expected = CASES[case]
    found = compared(before, after)
    comment, printed = markdown.write(found), text.write(found)
    for words in expected:
        assert (words[1:] not in comment) if words.startswith("!") else (words in comment), comment
    assert comment.startswith("<!-- mesh diff: dev -->\n## `dev`: ")
    assert comment.count("<details>") == comment.count("</details>")
    # The terminal has the same words, in lines that it can show.
    told = found.verdict != "none"
    flat = " ".join(printed.split())
    for sentence in (*map(str, found.words), *found.refusals, *markdown.risk_lines(found.risk)):
        assert (sentence in flat, sentence in comment.replace("**", "")) == (told, told), sentence
    for line in printed.partition("\nResources: ")[0].splitlines():
        assert len(line) <= text.WIDTH or " " not in line.strip(), line


def test_every_changed_resource_is_in_exactly_one_sentence() -> None:
    found = compared(NOTHING, {"mesh": {"mode": "off"}})
    affected = sorted(name for sentence in found.words for name in sentence.affected)
    assert affected == sorted(resource.name for resource in found.resources)


def only(before: Mapping[str, Any], after: Mapping[str, Any], kind: str = "Deployment", **fields: Any) -> Report:
    """The report on one object, given by its inputs; {} is none."""
    line = f"kubernetes:core/v1:{kind}"

    def state(inputs: Mapping[str, Any], protect: bool) -> State:
        urn = f"urn:pulumi:dev::istio-governance::{line}::one"
        one = Resource(urn, line, "one", "", frozenset(), "", inputs, (), {}, protect)
        return states.of([one] if inputs else [], "a state")

    return report("dev", Comparison(state(before, fields.get("protect", False)), state(after, False)))


def test_what_has_no_words_of_its_own_is_told_by_its_path() -> None:
    found = only({"spec": {"limits": {"cpu": 1}}}, {"spec": {"limits": {"cpu": 2.0}}}, kind="Quota")
    assert str(found.words[0]) == "one: limits.cpu of Quota one 1 → 2; affects only Quota one"


def test_secret_values_are_never_shown() -> None:
    signature = {"4dabf18193072939515e22adb298388d": "1b47061264138c4ac30d75fd1eb44270", "value": "hunter2"}
    before = {"stringData": {"password": "hunter1"}, "data": {"a": "aHVudGVyMQ=="}}
    after = {"stringData": {"password": "hunter2"}, "data": {"a": "aHVudGVyMg=="}, "spec": {"env": signature}}
    found = only(before, after, kind="Secret")
    for written in (markdown.write(found), text.write(found), str(found)):
        assert "[secret]" in written
        assert not any(secret in written for secret in ("hunter", "aHVu"))


@pytest.mark.parametrize(("after", "what"), [({}, "deleted"), ({"metadata": {"name": "other"}}, "replaced")])
def test_what_is_protected_stays(after: Mapping[str, Any], what: str) -> None:
    found = only({"metadata": {"name": "one"}}, after, kind="Namespace", protect=True)
    assert found.verdict == "refused"
    assert f"Namespace one is protected and would be {what}" in found.refusals[0]


def test_protection_that_is_taken_away_is_told() -> None:
    found = only({"metadata": {"name": "one"}}, {"metadata": {"name": "one"}}, kind="Namespace", protect=True)
    assert found.words[0].parts == ("Namespace one is no longer protected",)
    assert found.risk.level == "high"


def test_policy_findings_that_the_change_brings_are_part_of_the_risk() -> None:
    comment = markdown.write(compared(NOTHING, bill(versions={"v2": {"image": "nginx:latest"}})))
    assert "- policy: advice, bill-service-v2: the image nginx:latest may be another one tomorrow" in comment
    assert "front-tomcat" not in comment
    assert "Risk: medium" in comment
    privileged = bill(versions={"v2": {"securityContext": {"privileged": True}}})
    comment = markdown.write(compared(NOTHING, privileged))
    assert "- policy: mandatory, bill-service-v2: " in comment
    assert "Risk: high" in comment


def test_a_long_report_is_cut_below_the_limit() -> None:
    spec = {str(number): "x" * 60 for number in range(5000)}
    comment = markdown.write(only({"metadata": {"name": "one"}}, {"metadata": {"name": "one"}, "spec": spec}))
    assert 60_000 < len(comment) <= markdown.LIMIT
    assert "… cut" in comment
    assert comment.count("```") % 2 == 0
    assert comment.rstrip().endswith("</details>")


def test_many_resources_are_cut_below_the_limit() -> None:
    diffs = tuple(ObjectDiff("+", f"ConfigMap {number}", "+x\n" * 900) for number in range(200))
    comment = markdown.write(Report("dev", "old", "new", resources=diffs, rendered=diffs))
    assert len(comment) <= markdown.LIMIT
    assert "Cut here" in comment
    assert comment.count("<details>") == comment.count("</details>")


def test_a_diff_cannot_leave_its_fence() -> None:
    comment = markdown.write(only({"data": "```\n</details>"}, {"data": "```\n# injected\n</details>"}))
    assert comment.count("```") == 2
    assert "\n# injected" not in comment


def step(operation: str, **states_: Any) -> dict[str, Any]:
    """As `pulumi preview --json` prints it; a replacement is three steps of one resource."""
    urn = "urn:pulumi:dev::istio-governance::kubernetes:apps/v1:Deployment::one"
    sides = {
        side: {"urn": urn, "type": "kubernetes:apps/v1:Deployment", "inputs": inputs}
        for side, inputs in states_.items()
    }
    return {"op": operation, "urn": urn, **sides}


def test_a_preview_knows_best_what_is_replaced() -> None:
    both = {"oldState": {"spec": {"a": 1.0}}, "newState": {"spec": {"a": 2.0}}}
    steps = [step("create-replacement", **both), step("replace", **both), step("delete-replaced", oldState={})]
    found = report("dev", states.previewed({"steps": steps}, "live", ROOT))
    assert found.risk.replaced == ("Deployment one",)
    (changed,) = report("dev", states.previewed({"steps": [step("update", **both)]}, "live", ROOT)).resources
    assert changed.sign == "~"


def test_a_preview_that_changes_nothing() -> None:
    same = {"spec": {"a": 1}}
    found = report("dev", states.previewed({"steps": [step("same", oldState=same, newState=same)]}, "live", ROOT))
    assert found.verdict == "none"
    assert found.unchanged == 1


def test_a_secret_that_only_pulumi_can_compare() -> None:
    hidden = {"stringData": {"password": "[secret]"}}
    both = {"oldState": hidden, "newState": hidden}
    changed = step("update", **both)
    for side in ("oldState", "newState"):
        changed[side]["type"] = "kubernetes:core/v1:Secret"
    found = report("dev", states.previewed({"steps": [changed]}, "live", ROOT))
    assert found.words[0].parts == ("the values of Secret one change",)


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository of its own with this program in it."""
    folder = tmp_path_factory.mktemp("checkout")
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    for name in listed.stdout.splitlines():
        if (ROOT / name).is_file() and not name.startswith(("localcluster/", "tests/")):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, folder / name)
    git(folder, "init", "--quiet")
    commit(folder)
    return folder


@pytest.fixture(autouse=True)
def as_committed(request: pytest.FixtureRequest) -> Iterator[None]:
    yield
    if "checkout" in request.fixturenames:
        git(request.getfixturevalue("checkout"), "checkout", "--quiet", ".")


def git(folder: Path, *args: str) -> None:
    subprocess.run(["git", *args], cwd=folder, check=True, capture_output=True)


def commit(folder: Path) -> None:
    git(folder, "add", "--all")
    git(folder, "-c", "user.name=test", "-c", "user.email=test@example.com", "commit", "--quiet", "--message", "test")


def edit(file: Path, old: str, new: str) -> None:
    assert old in file.read_text()
    file.write_text(file.read_text().replace(old, new))


def test_two_checkouts_are_compared_each_with_its_own_code(checkout: Path) -> None:
    edit(checkout / "Pulumi.dev.yaml", "v1: 90, v2: 10", "v1: 50, v2: 50")
    edit(checkout / "names.py", 'return f"vs-{service}"', 'return f"rules-{service}"')
    found = report("dev", states.offline("dev", "HEAD", checkout))
    assert found.before.startswith("HEAD (")
    assert {"+ VirtualService rules-bill-service", "- VirtualService vs-bill-service"} == {
        f"{one.sign} {one.name}" for one in found.resources
    }


def test_a_wrong_configuration_is_the_whole_report(checkout: Path) -> None:
    edit(checkout / "Pulumi.dev.yaml", "v2: 10", "v2: 20")
    found = report("dev", states.offline("dev", "HEAD", checkout))
    assert found.verdict == "wrong"
    for written in (markdown.write(found), text.write(found)):
        assert "cannot be compared" in written
        assert "weights that add up to 100; these add up to 110" in written
        assert "Risk" not in written


def test_a_configuration_that_was_wrong_is_said_to_be(checkout: Path) -> None:
    edit(checkout / "Pulumi.dev.yaml", "v2: 10", "v2: 20")
    commit(checkout)
    edit(checkout / "Pulumi.dev.yaml", "v2: 20", "v2: 10")
    try:
        assert "is wrong itself" in report("dev", states.offline("dev", "HEAD", checkout)).problems
    finally:
        git(checkout, "reset", "--quiet", "--hard", "HEAD~")


def test_a_new_stack_is_new_in_every_resource(checkout: Path) -> None:
    shutil.copyfile(checkout / "Pulumi.dev.yaml", checkout / "Pulumi.new.yaml")
    try:
        found = report("new", states.offline("new", "HEAD", checkout))
        assert {one.sign for one in found.resources} == {"+"}
    finally:
        (checkout / "Pulumi.new.yaml").unlink()


def test_a_commit_that_git_does_not_know(checkout: Path) -> None:
    with pytest.raises(states.StateError, match="git does not know no-such-commit"):
        states.offline("dev", "no-such-commit", checkout)


def test_code_that_cannot_run_is_an_error_and_no_comparison(checkout: Path) -> None:
    edit(checkout / "names.py", "def workload", "def wrkld")
    with pytest.raises(states.StateError, match="the working tree cannot say what it declares: AttributeError"):
        states.offline("dev", "HEAD", checkout)


def ran(monkeypatch: pytest.MonkeyPatch, found: Comparison, *args: str) -> tuple[int, str]:
    monkeypatch.setattr(
        states, "offline", lambda stack, revision: found if (stack, revision) == ("dev", "main") else None
    )
    done = CliRunner().invoke(diff.command, ["--stack", "dev", "--against", "main", *args], standalone_mode=False)
    return done.return_value, done.output


@pytest.mark.parametrize(
    ("case", "code", "verdict"), [("nothing", 0, "none"), ("a weight", 1, "changes"), ("a selector", 2, "refused")]
)
def test_the_exit_code_and_the_json(monkeypatch: pytest.MonkeyPatch, case: str, code: int, verdict: str) -> None:
    before, after, _ = CASES[case]
    found = Comparison(states.of(program("dev", **before), "old"), states.of(program("dev", **after), "new"))
    assert ran(monkeypatch, found, "--markdown") == (code, markdown.write(report("dev", found)))
    exit_code, printed = ran(monkeypatch, found, "--json")
    assert exit_code == code
    assert json.loads(printed)["verdict"] == verdict


def test_a_wrong_configuration_ends_with_two(monkeypatch: pytest.MonkeyPatch) -> None:
    code, printed = ran(monkeypatch, Comparison(State("old"), State("new", problems="3 problems")), "--markdown")
    assert code == 2
    assert "3 problems" in printed


def test_a_stack_without_a_file() -> None:
    done = CliRunner().invoke(diff.command, ["--stack", "dve"], standalone_mode=False)
    assert isinstance(done.exception, ConfigError)
    assert "did you mean 'dev'?" in str(done.exception)


def test_a_comparison_that_cannot_be_made_is_a_report_too() -> None:
    done = CliRunner().invoke(
        diff.command, ["--stack", "dev", "--against", "no-such-commit", "--markdown"], standalone_mode=False
    )
    assert done.return_value == 2
    assert done.output.startswith("<!-- mesh diff: dev -->\n## `dev`: cannot be compared\n")
    assert "git does not know no-such-commit" in done.output
