"""istioctl accepts what is made of every feature of `routing` and `egress`, and finds nothing to say about it."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from config import merged
from config.files import values
from mesh.declared import declared_by
from mesh.program.render import rendered

TESTERS = {"name": "testers", "headers": {"x-user": {"exact": "jason"}}}
ONE = {"weights": {"v1": 100, "v2": None}}
PORTS = {"services": {"bill-service": {"ports": {"admin": {"port": 81}, "tcp-data": {"port": 9000}}}}}

FEATURES: Mapping[str, Mapping[str, Any]] = {
    "weights": {},
    "matches": {
        "match": [
            {**TESTERS, "weights": {"v2": 100}},
            {"name": "any", "headers": {"x-any": {}}, "uri": {"prefix": "/a"}, "method": {"exact": "GET"}},
            {"name": "cookie", "headers": {"cookie": {"regex": "(.*; )?version=v2(;.*)?"}}, "weights": {"v2": 100}},
            {"name": "query", "query": {"canary": {"exact": "1"}}, "sourceLabels": {"app": "front-tomcat"}},
        ]
    },
    "timeout and retries": {
        "timeout": "3s",
        "retries": {"attempts": 2, "perTryTimeout": "250ms", "retryOn": ["5xx", "reset", "503"]},
        "match": [{**TESTERS, "timeout": "0s", "retries": {"attempts": 0}}],
    },
    "faults": {
        "faults": {"delay": {"percentage": 0.5, "fixedDelay": "1s"}, "abort": {"httpStatus": 503}},
        "match": [{**TESTERS, "faults": {}}],
    },
    "mirror": {**ONE, "mirror": {"version": "v2", "percentage": 10}},
    "outliers and pool": {
        "outlierDetection": {
            "consecutive5xxErrors": 3,
            "consecutiveGatewayErrors": 2,
            "interval": "5s",
            "baseEjectionTime": "1m",
            "maxEjectionPercent": 50,
            "minHealthPercent": 30,
        },
        "connectionPool": {
            "tcp": {"maxConnections": 100, "connectTimeout": "500ms"},
            "http": {
                "http1MaxPendingRequests": 10,
                "http2MaxRequests": 100,
                "maxRequestsPerConnection": 1,
                "maxRetries": 3,
                "idleTimeout": "1h",
            },
        },
    },
    "sticky by header": {**ONE, "sticky": {"header": "x-user"}},
    "sticky by cookie": {**ONE, "sticky": {"cookie": {"name": "USER", "ttl": "1h", "path": "/"}}},
    "sticky for the session": {**ONE, "sticky": {"cookie": {"name": "USER"}}},
    "mutual TLS": {"mtls": "STRICT"},
    "mutual TLS or not": {"mtls": "PERMISSIVE"},
    "plain text": {"mtls": "DISABLE"},
    "exposed": {"expose": {"hosts": ["bills.example.com"]}, "match": [TESTERS]},
    "exposed by https": {"expose": {"hosts": ["bills.example.com", "b.example.com"], "tlsSecret": "bills-tls"}},
}


def objects(**changes: Any) -> list[dict[str, Any]]:
    """What the stack dev declares with `changes`, charts left out."""
    stack = merged(values("dev"), {"mesh": {"mode": "existing"}, **changes})
    return rendered(declared_by(stack, "dev"))


def istioctl(*args: str) -> str:
    done = subprocess.run(["istioctl", *args], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def accepted(folder: Path, *made: Mapping[str, Any]) -> None:
    file = folder / "objects.yaml"
    file.write_text(yaml.safe_dump_all(made))
    rules = [found for found in made if found["apiVersion"].split("/")[0].endswith("istio.io")]
    assert rules
    (folder / "rules.yaml").write_text(yaml.safe_dump_all(rules))
    printed = istioctl("validate", "--filename", str(folder / "rules.yaml"))
    assert "warning" not in printed.lower(), printed
    found = json.loads(istioctl("analyze", "--use-kube=false", "--output=json", "--all-namespaces", str(file)))
    assert found == []


@pytest.mark.parametrize("feature", FEATURES)
def test_istio_accepts_the_feature(feature: str, tmp_path: Path) -> None:
    accepted(tmp_path, *objects(routing={"bill-service": FEATURES[feature]}))


@pytest.mark.parametrize(
    "rule",
    [
        {},
        {
            "expose": {"hosts": ["bills.example.com", "b.example.com"], "port": "admin"},
            "match": [TESTERS, {"name": "source", "sourceLabels": {"app": "front-tomcat"}, "uri": {"prefix": "/a"}}],
        },
    ],
)
def test_istio_accepts_several_ports_tcp_included(rule: Mapping[str, Any], tmp_path: Path) -> None:
    accepted(tmp_path, *objects(**PORTS, routing={"bill-service": rule}))


@pytest.mark.parametrize(
    "egress",
    [
        {},
        {"protocol": "HTTP", "port": 8080, "addresses": ["192.0.2.1"]},
        {"outlierDetection": {"consecutive5xxErrors": 3}, "connectionPool": {"tcp": {"maxConnections": 10}}},
    ],
    ids=str,
)
def test_istio_accepts_hosts_outside(egress: Mapping[str, Any], tmp_path: Path) -> None:
    accepted(tmp_path, *objects(egress={"api.example.com": egress}))


def test_istioctl_would_find_a_mistake(tmp_path: Path) -> None:
    """Or all the tests above would prove nothing."""
    made = objects()
    (route,) = [found for found in made if found["kind"] == "VirtualService"]
    route["spec"]["http"][0]["route"][0]["destination"]["subset"] = "v9"
    with pytest.raises(AssertionError, match="v9"):
        accepted(tmp_path, *made)
