"""What is refused, and in which words; what the shared defaults do; how a stack's values reach the model."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pulumi
import pytest
import yaml

from config import ConfigError, Problem, StackConfig, files, load, merged, stack
from config.files import as_pulumi_passes
from config.types import SECRET
from mesh.program.recorder import PROJECT, record

from .given import NO_DEFAULTS, VALID, config


def problems(document: Mapping[str, Any], **options: Any) -> Sequence[Problem]:
    with pytest.raises(ConfigError) as refused:
        load(document, defaults=NO_DEFAULTS, **options)
    return refused.value.problems


def bill(**service: Any) -> dict[str, Any]:
    return {"services": {"bill-service": service}}


def v1(**version: Any) -> dict[str, Any]:
    return bill(versions={"v1": version})


def http(**port: Any) -> dict[str, Any]:
    return bill(ports={"http": port})


def weights(**by_version: Any) -> dict[str, Any]:
    return {"routing": {"bill-service": {"weights": by_version}}}


def rule(**fields: Any) -> dict[str, Any]:
    return {"routing": {"bill-service": fields}}


def match(**fields: Any) -> dict[str, Any]:
    return rule(match=[{"name": "testers", "headers": {"x-user": {"exact": "jason"}}, **fields}])


def tcp(**fields: Any) -> dict[str, Any]:
    return {**http(appProtocol="tcp"), **rule(**fields)}


def revisions(**mesh: Any) -> dict[str, Any]:
    two = {"stable": {"version": "1.30.2"}, "canary": {"version": "1.31.0"}}
    return {"mesh": merged({"version": None, "revisions": two, "revision": "stable"}, mesh)}


def outside(**fields: Any) -> dict[str, Any]:
    return {"mesh": {"profile": "demo"}, "egress": {"api.example.com": fields}}


def env(value: Any) -> dict[str, Any]:
    """A variable with this value."""
    return v1(env={"DB": value})


def shared(**ports: Any) -> dict[str, Any]:
    """More ports that lead to that of `http`."""
    return bill(ports={name: {"port": 81, "targetPort": 80, **fields} for name, fields in ports.items()})


DB = "services.bill-service.versions.v1.env.DB"
RULE = "routing.bill-service"
MATCH = "routing.bill-service.match.0"
WEIGHTS = "routing.bill-service.weights"
BILL = "services.bill-service"
LONG = "a" * 64

BAD: Sequence[tuple[Mapping[str, Any], str, str]] = [
    # Revisions.
    (revisions(version="1.31.0"), "mesh.version", "`version: null` takes out the one in defaults.yaml"),
    (revisions(revision="canry"), "mesh.revision", "did you mean 'canary'?"),
    (revisions(revision=""), "mesh.revision", "say which one injects the sidecars"),
    (revisions(revisions={"canary": {"version": "1.99.0"}}), "mesh.revisions.canary.version", "a version from 1."),
    (revisions(revisions={"canary": {"version": 1.31}}), "mesh.revisions.canary.version", '"1.31.0"'),
    (revisions(revisions={"canary": {"version": None}}), "mesh.revisions.canary.version", "add 'version'"),
    (revisions(revisions={"canary": {"version": ""}}), "mesh.revisions.canary.version", "a quoted Istio version"),
    (revisions(revisions={"stable": {"version": "1.29.0"}}), "mesh.revisions", "at most one minor version apart"),
    (revisions(revisions={"1.31": {"version": "1.31.0"}}), "mesh.revisions.1.31", "of at most 46 characters"),
    (revisions(revisions={LONG: {"version": "1.31.0"}}), f"mesh.revisions.{LONG}", "of at most 46 characters"),
    (revisions(mode="existing"), "mesh.revisions", "mesh.mode is existing"),
    (merged(revisions(), bill(revision="stabel")), f"{BILL}.revision", "did you mean 'stable'?"),
    (merged(revisions(), bill(revision="stable", workload="existing")), f"{BILL}.revision", "somebody else owns"),
    (bill(revision="canary"), f"{BILL}.revision", "write mesh.revisions: {canary: {version: …}}"),
    ({"mesh": {"revision": "canary"}}, "mesh.revision", "write mesh.revisions: {canary: {version: …}}"),
    # Weights.
    (weights(v1=90, v2=20), WEIGHTS, "these add up to 110"),
    (weights(v1=90, v2=20), WEIGHTS, "config set-all --path --plaintext 'routing.bill-service.weights.v1=…'"),
    (weights(v1=90, v2=None), WEIGHTS, "these add up to 90"),
    (weights(v1=0, v2=0), WEIGHTS, "these add up to 0"),
    (weights(v1=-10, v2=110), f"{WEIGHTS}.v1", "a whole number from 0 to 100"),
    (weights(v1=-10, v2=110), f"{WEIGHTS}.v2", "a whole number from 0 to 100"),
    (weights(v1=50.5, v2=49.5), f"{WEIGHTS}.v1", "a whole number from 0 to 100"),
    (weights(v1=90.0), f"{WEIGHTS}.v1", "a whole number from 0 to 100"),
    (weights(v1="90"), f"{WEIGHTS}.v1", "a whole number from 0 to 100"),
    (weights(v1=True), f"{WEIGHTS}.v1", "a whole number from 0 to 100"),
    (weights(v1=[90]), f"{WEIGHTS}.v1", "a whole number from 0 to 100"),
    ({"routing": {"bill-service": {"weights": {"v1": None, "v2": None}}}}, WEIGHTS, "add up to 100"),
    ({"routing": {"bill-service": {"weights": None}}}, WEIGHTS, "add 'weights'"),
    (weights(v2=None, v22=10), f"{WEIGHTS}.v22", "did you mean 'v2'?"),
    (weights(v2=None, blue=10), f"{WEIGHTS}.blue", "use one of: v1, v2"),
    ({"routing": {"bil-service": {"weights": {"v1": 100}}}}, "routing.bil-service", "did you mean 'bill-service'?"),
    (
        {"routing": {"front-tomcat": {"weights": {"v1": 100}}}},
        "routing.front-tomcat",
        "add services.front-tomcat.ports",
    ),
    (bill(versions={"v2": {"replicas": 0}}), f"{WEIGHTS}.v2", "this version has no replicas"),
    (bill(template={"replicas": 0}), f"{WEIGHTS}.v1", "this version has no replicas"),
    (weights(v1=70, old=30, v2=0), f"{WEIGHTS}.old", "give its 30 % to others in the same change"),
    # Routes.
    (match(name=None), f"{MATCH}.name", "allowed: a DNS label"),
    (match(name="route"), f"{MATCH}.name", "not 'route'"),
    (
        rule(match=[{"name": "a", "uri": {"exact": "/"}}, {"name": "a", "uri": {"exact": "/b"}}]),
        f"{RULE}.match.1.name",
        "no other match",
    ),
    (match(headers={}), MATCH, "at least one of headers, uri"),
    (match(headers={"X-User": {}}), f"{MATCH}.headers.X-User", "in small letters"),
    (match(headers={"x": {"exact": "a", "prefix": "a"}}), f"{MATCH}.headers.x", "one of exact, prefix and regex"),
    (match(uri={}), f"{MATCH}.uri", "one of exact, prefix and regex"),
    (match(uri={"regex": "("}), f"{MATCH}.uri.regex", "missing )"),
    (match(uri={"regex": "(?!a)b"}), f"{MATCH}.uri.regex", "RE2 has no look-around"),
    (match(query={"a": {"prefix": "b"}}), f"{MATCH}.query.a.prefix", "a known key: exact, regex"),
    (match(sourceLabels={"app": "a b"}), f"{MATCH}.sourceLabels.app", "a label's value"),
    (match(weights={"v3": 100}), f"{MATCH}.weights.v3", "a version of bill-service"),
    (match(weights={"v1": 1}), f"{MATCH}.weights", "--plaintext 'routing.bill-service.match[0].weights.v1=…'"),
    (merged(match(weights={"v2": 100}), bill(versions={"v2": {"replicas": 0}})), f"{MATCH}.weights.v2", "no replicas"),
    (match(wieghts={}), f"{MATCH}.wieghts", "did you mean 'weights'?"),
    (rule(timeout="3"), f"{RULE}.timeout", "a duration such as 250ms"),
    (rule(retries={}), f"{RULE}.retries.attempts", "add 'attempts'"),
    (rule(retries={"attempts": 0, "retryOn": ["5xx"]}), f"{RULE}.retries", "attempts: 0 alone"),
    (rule(retries={"attempts": 1, "retryOn": ["6xx"]}), f"{RULE}.retries.retryOn.0", "one of Envoy's conditions"),
    (rule(retries={"attempts": 1, "perTryTimeout": "0s"}), f"{RULE}.retries.perTryTimeout", "a duration such as"),
    (
        rule(faults={"abort": {"percentage": 101, "httpStatus": 503}}),
        f"{RULE}.faults.abort.percentage",
        "from 0 to 100",
    ),
    (rule(faults={"abort": {"httpStatus": 600}}), f"{RULE}.faults.abort.httpStatus", "from 200 to 599"),
    (rule(faults={"delay": {}}), f"{RULE}.faults.delay.fixedDelay", "add 'fixedDelay'"),
    (rule(mirror={"version": "v3"}), f"{RULE}.mirror.version", "a version of bill-service"),
    (
        merged(rule(mirror={"version": "v2"}), bill(versions={"v2": {"replicas": 0}})),
        f"{RULE}.mirror.version",
        "replicas",
    ),
    (rule(mtls="strict"), f"{RULE}.mtls", "STRICT (mutual TLS only)"),
    (rule(outlierDetection={"interval": "5"}), f"{RULE}.outlierDetection.interval", "a duration such as"),
    (rule(connectionPool={"tcp": {"maxConnections": 0}}), f"{RULE}.connectionPool.tcp.maxConnections", "1 or more"),
    (rule(sticky={"header": "x-user"}), WEIGHTS, "one version with 100 where the service is sticky"),
    (rule(sticky={"header": "x-user"}), WEIGHTS, "by a match on their cookie"),
    (rule(sticky={}), f"{RULE}.sticky", "either header or cookie"),
    (rule(sticky={"cookie": {"name": "a b"}}), f"{RULE}.sticky.cookie.name", "a token (RFC 9110)"),
    (rule(shift={"steps": [50, 10, 100]}), f"{RULE}.shift.steps", "rising whole numbers, the last 100"),
    (rule(shift={"steps": [10, 50]}), f"{RULE}.shift.steps", "rising whole numbers, the last 100"),
    (rule(shift={"steps": [0, 100]}), f"{RULE}.shift.steps.0", "a whole number from 1 to 100"),
    (rule(shift={"gate": {"succesRate": 99}}), f"{RULE}.shift.gate.succesRate", "did you mean 'successRate'?"),
    (rule(shift={"gate": {"confidence": 100}}), f"{RULE}.shift.gate.confidence", "percent from 50 to below 100"),
    # Ports that carry no HTTP.
    (http(appProtocol="tls"), f"{BILL}.ports.http", "set services.bill-service.ports.http.appProtocol to tcp"),
    (tcp(timeout="3s"), f"{RULE}.timeout", "the service has TCP ports only"),
    ({**http(appProtocol="tcp"), **match()}, f"{RULE}.match", "the service has TCP ports only"),
    # In and out of the mesh.
    (rule(expose={"hosts": []}), f"{RULE}.expose.hosts", "at least one name"),
    (rule(expose={"hosts": ["*"]}), f"{RULE}.expose.hosts.0", "a full DNS name"),
    (rule(expose={"hosts": ["a.io"], "gateway": "gw"}), f"{RULE}.expose.gateway", "<namespace>/<name>"),
    (
        rule(expose={"hosts": ["a.io"], "gateway": "a/b", "tlsSecret": "s"}),
        f"{RULE}.expose.tlsSecret",
        "nothing beside gateway",
    ),
    (rule(expose={"hosts": ["a.io"], "port": "web"}), f"{RULE}.expose.port", "the name of an HTTP port"),
    (
        {**bill(ports={"web": {"port": 80}}), **rule(expose={"hosts": ["a.io"]})},
        f"{RULE}.expose.port",
        "one of the service's HTTP ports: http, web",
    ),
    (
        {"mesh": {"profile": "minimal"}, **rule(expose={"hosts": ["a.io"]})},
        f"{RULE}.expose",
        "set mesh.ingress to true",
    ),
    (
        {**outside(), **rule(expose={"hosts": ["api.example.com"]})},
        "egress.api.example.com",
        "no service is exposed under",
    ),
    ({"egress": {"api.example.com": {}}}, "egress.api.example.com", "set mesh.egress to true"),
    (outside(addresses=["localhost"]), "egress.api.example.com.addresses", "IP addresses"),
    (outside(protocol="https"), "egress.api.example.com.protocol", "HTTP, or TLS"),
    ({"mesh": {"profile": "demo"}, "egress": {"API": {}}}, "egress.API", "a full DNS name"),
    # Names.
    ({"services": {"Bill": {"versions": {"v1": {"image": "x"}}}}}, "services.Bill", "a DNS label (RFC 1123)"),
    ({"services": {"1bill": {"versions": {"v1": {"image": "x"}}}}}, "services.1bill", "starts with a letter"),
    ({"services": {LONG: {"versions": {"v1": {"image": "x"}}}}}, f"services.{LONG}", "a DNS label (RFC 1123)"),
    (bill(versions={"V1": {}}), f"{BILL}.versions.V1", "a DNS label (RFC 1123)"),
    (bill(versions={"v1.0": {}}), f"{BILL}.versions.v1.0", "a DNS label (RFC 1123)"),
    (bill(versions={"-v": {}}), f"{BILL}.versions.-v", "a DNS label (RFC 1123)"),
    (bill(versions={"": {}}), f"{BILL}.versions.", "a DNS label (RFC 1123)"),
    (bill(ports={"HTTP": {"port": 80}}), f"{BILL}.ports.HTTP", "rename 'HTTP'"),
    (bill(ports={"sixteen-letters-": {"port": 80}}), f"{BILL}.ports.sixteen-letters-", "rename 'sixteen-letters-'"),
    (bill(ports={"sixteen-lettersx": {"port": 80}}), f"{BILL}.ports.sixteen-lettersx", "at most 15"),
    ({"namespace": {"name": "istio_demo"}}, "namespace.name", "a DNS label (RFC 1123)"),
    ({"mesh": {"namespace": ""}}, "mesh.namespace", "a DNS label (RFC 1123)"),
    # Names that two things would have.
    (
        {"services": {"a": {"versions": {"b-c": {"image": "x"}}}, "a-b": {"versions": {"c": {"image": "x"}}}}},
        "services.a.versions.b-c",
        "'a-b-c' is taken twice",
    ),
    (
        {
            "services": {
                "bill": {"ports": {"http": {"port": 1}}, "versions": {"service": {"image": "x"}}},
            },
            "routing": {"bill": {"weights": {"service": 100}}},
        },
        "services.bill.versions.service",
        "dest-bill-service",
    ),
    (bill(versions={"v1": {"versionLabel": "v2"}}), f"{BILL}.versions.v1", "'v2'"),
    (bill(template={"versionLabel": "x"}), f"{BILL}.versions.v2", "'x'"),
    ({"namespace": {"name": "istio-system"}}, "namespace.name", "another"),
    # Unknown keys, at each level.
    ({"mseh": {}}, "mseh", "did you mean 'mesh'?"),
    ({"xyz": 1}, "xyz", "use one of: schemaVersion, cluster, mesh"),
    ({"cluster": {"contxt": "x"}}, "cluster.contxt", "did you mean 'context'?"),
    ({"mesh": {"verion": "1.31.0"}}, "mesh.verion", "did you mean 'version'?"),
    ({"mesh": {"values": {"istoid": {}}}}, "mesh.values.istoid", "did you mean 'istiod'?"),
    ({"nodes": {"moed": "none"}}, "nodes.moed", "did you mean 'mode'?"),
    ({"namespace": {"nmae": "x"}}, "namespace.nmae", "did you mean 'name'?"),
    (bill(prots={}), f"{BILL}.prots", "did you mean 'ports'?"),
    (bill(template={"imgae": "x"}), f"{BILL}.template.imgae", "did you mean 'image'?"),
    (v1(comand=[]), f"{BILL}.versions.v1.comand", "did you mean 'command'?"),
    (http(prot=80), f"{BILL}.ports.http.prot", "did you mean 'port'?"),
    (http(target_port=80), f"{BILL}.ports.http.target_port", "did you mean 'targetPort'?"),
    ({"schema_version": 1}, "schema_version", "did you mean 'schemaVersion'?"),
    ({"routing": {"bill-service": {"weigths": {}}}}, "routing.bill-service.weigths", "did you mean 'weights'?"),
    ({"[key]": 1}, "[key]", "use one of: schemaVersion"),
    # Images and ports.
    (bill(template={"image": None}), f"{BILL}.versions.v1.image", f"in {BILL}.template.image"),
    (v1(image=""), f"{BILL}.versions.v1.image", "an image such as nginx:alpine"),
    (http(port=0), f"{BILL}.ports.http.port", "a whole number from 1 to 65535"),
    (http(port=65536), f"{BILL}.ports.http.port", "a whole number from 1 to 65535"),
    (http(port="80"), f"{BILL}.ports.http.port", "a whole number from 1 to 65535"),
    (http(port=None), f"{BILL}.ports.http.port", "add 'port'"),
    (v1(labels={"tier": "a b"}), f"{BILL}.versions.v1.labels.tier", "a label's value"),
    (v1(versionLabel="a b"), f"{BILL}.versions.v1.versionLabel", "the value of the label version"),
    (http(targetPort=-1), f"{BILL}.ports.http.targetPort", "a whole number from 1 to 65535"),
    # The mesh.
    ({"mesh": {"mode": "on"}}, "mesh.mode", "managed (this stack installs Istio), existing"),
    ({"mesh": {"mode": True}}, "mesh.mode", "managed (this stack installs Istio), existing"),
    ({"mesh": {"profile": "ambient"}}, "mesh.profile", "default, minimal or demo"),
    ({"mesh": {"version": None}}, "mesh.version", "say which Istio to install"),
    ({"mesh": {"version": "1.16.9"}}, "mesh.version", "what the charts of older ones read is not known"),
    ({"mesh": {"version": "1.99.0"}}, "mesh.version", "what the charts of newer ones read is not known"),
    ({"mesh": {"version": "1.23.6", "platform": "gke"}}, "mesh.platform", "the charts have platforms from 1.24 on"),
    ({"mesh": {"version": "1.23.6", "platform": "aks"}}, "mesh.platform", "what it adds to them is no drift"),
    ({"mesh": {"images": {"proxy": "a/b:1"}}}, "mesh.images.proxy", "did you mean 'proxyv2'?"),
    ({"mesh": {"images": {"pilot": "pilot:1"}}}, "mesh.images.pilot", "a whole image reference"),
    ({"mesh": {"images": {"pilot": "example.com/pilot"}}}, "mesh.images.pilot", "a whole image reference"),
    ({"mesh": {"version": "2.31.0"}}, "mesh.version", "a version from 1."),
    ({"mesh": {"version": "newest"}}, "mesh.version", "a quoted Istio version from"),
    ({"mesh": {"version": "1.31"}}, "mesh.version", "a quoted Istio version from"),
    ({"mesh": {"version": 1.31}}, "mesh.version", 'write it in quotes, or YAML makes it a number: "1.31.0"'),
    # Services.
    ({"services": None}, "services", "add 'services'"),
    ({"services": {"front-tomcat": None, "bill-service": None}, "routing": None}, "services", "at least one service"),
    (bill(versions=None), f"{BILL}.versions", "at least one version"),
    (bill(versions={"v1": None, "v2": None}), f"{BILL}.versions", "at least one version"),
    (bill(selector={"version": "v1"}), f"{BILL}.selector.version", "labels that all versions share"),
    # The environment of the pods, and its secrets.
    (bill(template={"env": {"A": 1}}), f"{BILL}.template.env.A", "a text, {secret: <top-level secret key>}"),
    (bill(template={"env": {"1A": "x"}}), f"{BILL}.template.env.1A", "letters, digits, '-', '_' and '.', first no"),
    (bill(template={"env": {"A B": "x"}}), f"{BILL}.template.env.A B", "rename 'A B'"),
    (bill(template={"env": {"A=B": "x"}}), f"{BILL}.template.env.A=B", "rename 'A=B'"),
    (bill(template={"env": {"": "x"}}), f"{BILL}.template.env.", "a variable's name that every Kubernetes takes"),
    (env({}), DB, "either secret or secretKeyRef"),
    (env({"secret": "dbPassword", "secretKeyRef": {"name": "a", "key": "b"}}), DB, "keep one of the two"),
    (env({"secrt": "dbPassword"}), f"{DB}.secrt", "did you mean 'secret'?"),
    (env({"secret": ""}), f"{DB}.secret", "the key of a secret, such as dbPassword"),
    (env({"secret": "db.password"}), f"{DB}.secret", "the key of a secret, such as dbPassword"),
    (env({"secret": ["dbPassword"]}), f"{DB}.secret", "the key of a secret, such as dbPassword"),
    (env({"secret": "mesh"}), f"{DB}.secret", "a secret key of your own"),
    (env({"secret": "sshPrivateKey"}), f"{DB}.secret", "a secret key of your own"),
    (env({"secret": "dbPassword"}), f"{DB}.secret", "there is none yet"),
    (env({"secret": "dbPassword"}), f"{DB}.secret", "pulumi config set --secret dbPassword"),
    (env({"secret": "dbPasword"}) | {"dbPassword": SECRET}, f"{DB}.secret", "did you mean 'dbPassword'?"),
    (env({"secret": "dbPassword"}) | {"dbPassword": "hunter2"}, "dbPassword", "a secret, which no file holds as plain"),
    (env({"secret": "dbPassword"}) | {"dbPassword": {"a": 1}}, "dbPassword", "a secret, which no file holds as plain"),
    ({"dbPassword": SECRET}, "dbPassword", "env: {NAME: {secret: dbPassword}}"),
    ({"sshPrivatKey": SECRET}, "sshPrivatKey", "did you mean 'sshPrivateKey'?"),
    (env({"secretKeyRef": {"name": "a"}}), f"{DB}.secretKeyRef.key", "add 'key'"),
    (env({"secretKeyRef": {"name": "A_", "key": "b"}}), f"{DB}.secretKeyRef.name", "a DNS name (RFC 1123)"),
    (env({"secretKeyRef": {"name": "", "key": "b"}}), f"{DB}.secretKeyRef.name", "a DNS name (RFC 1123)"),
    (env({"secretKeyRef": {"name": "a", "key": "b c"}}), f"{DB}.secretKeyRef.key", "letters, digits, '-', '_' and '.'"),
    (env({"secretKeyRef": "a/b"}), f"{DB}.secretKeyRef", "a map with the keys name, key"),
    (bill(workload="existing", template={"env": {"A": "x"}}), f"{BILL}.template.env", "somebody else owns these pods"),
    (
        bill(workload="existing", versions={"v1": {"env": {"A": "x"}}}),
        f"{BILL}.versions.v1.env",
        "somebody else owns these pods",
    ),
    (v1(command="sh"), f"{BILL}.versions.v1.command", "a list of strings"),
    (v1(replicas=-1), f"{BILL}.versions.v1.replicas", "a whole number, 0 or more"),
    (v1(replicas=True), f"{BILL}.versions.v1.replicas", "a whole number, 0 or more"),
    (v1(drainSeconds=3601), f"{BILL}.versions.v1.drainSeconds", "from 0 to 3600"),
    (bill(timeout="5 minutes"), f"{BILL}.timeout", "such as 90s or 5m"),
    (bill(timeout=""), f"{BILL}.timeout", "such as 90s or 5m"),
    (bill(ports={"other": {"port": 9999}}), f"{BILL}.ports.other.port", "'http' has the same"),
    (shared(grpc={}), f"{BILL}.ports.grpc", "the protocol of 'http', which leads to the same port"),
    (shared(raw={"appProtocol": "tcp"}), f"{BILL}.ports.raw", "put 'raw' before 'http'"),
    (
        {"services": {"front-tomcat": {"selector": {"service": "bill-service"}}}},
        f"{BILL}.selector",
        "front-tomcat has the same",
    ),
    # Something else where a map belongs: never told to be a name.
    ({"mesh": "1.31.0"}, "mesh", "a map"),
    ({"services": ["bill-service"]}, "services", "at least one service, by name"),
    ({"services": {"bill-service": "nginx"}}, BILL, "a map"),
    (bill(ports={"http": 80}), f"{BILL}.ports.http", "a map"),
    (bill(versions={"v1": "nginx"}), f"{BILL}.versions.v1", "a map"),
    ({"routing": {"bill-service": 90}}, "routing.bill-service", "a map"),
    ({"schemaVersion": 2}, "schemaVersion", "allowed: 1"),
]


@pytest.mark.parametrize(
    ("change", "key", "text"), BAD, ids=[f"{key}: {text}".replace(LONG, "long") for _, key, text in BAD]
)
def test_refused_with_key_and_fix(change: Mapping[str, Any], key: str, text: str) -> None:
    told = {problem.key: str(problem) for problem in problems(merged(VALID, change))}
    assert key in told, told
    assert text in told[key]


@pytest.mark.parametrize(
    ("options", "key", "text"),
    [
        ({"needs_cluster": True}, "cluster", "pulumi config set --path cluster.context"),
        ({"secret_keys": ["mesh"]}, "mesh", "a `secure:` value may only be a top-level key"),
        ({"secret_keys": ["services"]}, "services", "env: {NAME: {secret: <key>}}"),
    ],
)
def test_refused_whatever_the_values_are(options: Mapping[str, Any], key: str, text: str) -> None:
    (problem,) = problems(merged(VALID, {"cluster": None}), **options)
    assert problem.key == key
    assert text in str(problem)


@pytest.mark.parametrize("cluster", [{"context": "test"}, {"kubeconfig": "some/file"}])
def test_either_says_which_cluster(cluster: Mapping[str, str]) -> None:
    assert load(merged(VALID, {"cluster": None}) | {"cluster": cluster}, defaults=NO_DEFAULTS, needs_cluster=True)


def test_all_problems_are_told_at_once() -> None:
    change = {
        "mesh": {"profile": "ambient", "verion": "1"},
        "services": {"bill-service": {"ports": {"http": {"port": 0}}, "versions": {"v3": {"image": ""}}}},
        "routing": {"bill-service": {"weights": {"v1": 50, "v2": 20}}},
    }
    found = problems(merged(VALID, change), needs_cluster=True)
    assert {problem.key for problem in found} == {
        "mesh.profile",
        "mesh.verion",
        "services.bill-service.ports.http.port",
        "services.bill-service.versions.v3.image",
        "routing.bill-service.weights",
    }
    report = str(ConfigError(list(found)))
    assert report.startswith("the configuration has 5 problems; nothing was changed\n")
    assert "  5. " in report


def test_a_problem_is_key_value_allowed_and_fix() -> None:
    (problem,) = problems(merged(VALID, {"mesh": {"profile": "ambient"}}))
    assert str(problem) == (
        'mesh.profile = "ambient"\n     allowed: default, minimal or demo\n'
        "     fix:     set 'mesh.profile' to default, minimal or demo"
    )


@pytest.mark.parametrize("off", [False, "off"])
def test_off_needs_no_quotes_and_no_version(off: object) -> None:
    given = config(mesh={"mode": off, "version": None})
    assert given.mesh.mode == "off"
    assert not given.mesh.on
    assert given.weights == {}


@pytest.mark.parametrize(
    "change",
    [
        shared(admin={}),
        shared(admin={"appProtocol": "http"}),
        merged(shared(grpc={}), http(appProtocol="auto")),
        {"mesh": {"mode": "off"}, **shared(grpc={})},
        bill(ports={"http": {"appProtocol": "grpc"}, "web": {"port": 81, "targetPort": 80, "appProtocol": "http"}}),
        bill(ports={"http": {"appProtocol": "tcp"}, "web": {"port": 81, "targetPort": 80, "appProtocol": "http"}}),
    ],
)
def test_ports_that_lead_to_one_server(change: Mapping[str, Any]) -> None:
    assert len(config(**change).services["bill-service"].container_ports) == 1


def test_unlisted_versions_have_weight_0() -> None:
    assert config(routing={"bill-service": {"weights": {"v1": 100, "v2": None}}}).weights == {
        "bill-service": {"v1": 100, "v2": 0}
    }


def test_version_with_weight_0_needs_no_replicas() -> None:
    given = config(**weights(v1=100, v2=0), **bill(versions={"v2": {"replicas": 0}}))
    assert given.services["bill-service"].version("v2").replicas == 0


def test_version_has_its_own_fields_over_those_of_the_template() -> None:
    template = {"image": "nginx:1", "env": {"A": "0", "B": "2"}, "labels": {"x": "1"}, "command": ["a", "b"]}
    service = config(
        **bill(template=template, versions={"v1": {"env": {"A": "1"}, "labels": {"y": "2"}, "command": ["c"]}})
    ).services["bill-service"]
    version = service.version("v1")
    assert (version.image, version.env, version.labels, version.command) == (
        "nginx:1",
        {"A": "1", "B": "2"},
        {"x": "1", "y": "2"},
        ("c",),
    )
    assert service.version("v2") == service.template


# Shared defaults


@pytest.mark.parametrize(
    ("below", "above", "expected"),
    [
        ({}, {}, {}),
        ({"a": 1}, {}, {"a": 1}),
        ({"a": 1}, {"b": 2}, {"a": 1, "b": 2}),
        ({"a": 1}, {"a": 2}, {"a": 2}),
        ({"a": {"b": 1, "c": 2}}, {"a": {"b": 3}}, {"a": {"b": 3, "c": 2}}),
        ({"a": {"b": 1}}, {"a": 2}, {"a": 2}),
        ({"a": 1}, {"a": {"b": 2}}, {"a": {"b": 2}}),
        ({"a": [1, 2]}, {"a": [3]}, {"a": [3]}),
        ({"a": 1, "b": 2}, {"a": None}, {"b": 2}),
        ({"a": {"b": 1}}, {"a": {"b": None}}, {"a": {}}),
        ({}, {"a": None}, {}),
        ({}, {"a": {"b": None}}, {"a": {}}),
    ],
)
def test_merged(below: Mapping[str, Any], above: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    assert merged(below, above) == expected


def test_stack_is_laid_over_the_defaults(tmp_path: Path) -> None:
    defaults = tmp_path / "defaults.yaml"
    defaults.write_text(
        "mesh: {version: '1.31.0', profile: demo}\nservices: {a: {template: {image: x}, versions: {v1: {}, v2: {}}}}\n"
    )
    document = {"mesh": {"profile": "minimal"}, "services": {"a": {"versions": {"v2": None, "v3": {"image": "y"}}}}}
    given = load(document, defaults=defaults)
    assert (given.mesh.version, given.mesh.profile) == ("1.31.0", "minimal")
    assert {name: given.services["a"].version(name).image for name in given.services["a"].versions} == {
        "v1": "x",
        "v3": "y",
    }


def test_project_defaults_make_a_stack_on_their_own() -> None:
    assert set(load({}).services) == {"front-tomcat", "bill-service"}


def test_a_stack_file_that_pulumi_cannot_hand_on_is_refused(tmp_path: Path) -> None:
    """Longer ones end in `argument list too long`, before the program could say anything."""
    services = {f"service-{number}": {"labels": {"note": "x" * 100}} for number in range(1000)}
    (tmp_path / "Pulumi.big.yaml").write_text(json.dumps({"config": {files.NAMESPACE + "services": services}}))
    with pytest.raises(ConfigError) as refused:
        files.values("big", tmp_path)
    (problem,) = refused.value.problems
    assert problem.key == "Pulumi.big.yaml"
    assert "less than 131072" in problem.allowed and "defaults.yaml" in problem.fix


def test_defaults_that_are_no_map_are_refused(tmp_path: Path) -> None:
    defaults = tmp_path / "defaults.yaml"
    defaults.write_text("- mesh\n")
    with pytest.raises(ConfigError, match="a map"):
        load(VALID, defaults=defaults)


@pytest.mark.parametrize("name", ["1", "0x1f", "2024-01-01"])
def test_names_that_yaml_takes_for_something_else_are_names(tmp_path: Path, name: str) -> None:
    defaults = tmp_path / "defaults.yaml"
    defaults.write_text(f"services: {{bill-service: {{versions: {{{name}: {{image: x}}}}}}}}\n")
    versions = load(VALID, defaults=defaults).services["bill-service"].versions
    assert versions.keys() == {"v1", "v2", str(yaml.safe_load(name))}


# From Pulumi's configuration


def read(document: Mapping[str, Any], secrets: Sequence[str] = ()) -> StackConfig:
    """What the program gets when the stack file says `document`."""
    raw = as_pulumi_passes({f"{PROJECT}:{key}": value for key, value in document.items()} | {"other:key": "x"})
    got: list[StackConfig] = []
    record(lambda: got.append(stack.read()), config=raw, secrets=[f"{PROJECT}:{key}" for key in secrets])
    return got[0]


def test_read_gives_the_typed_configuration() -> None:
    given = read({"cluster": {"context": "dev"}, "routing": {"bill-service": {"weights": {"v1": 30, "v2": 70}}}})
    assert given.cluster.context == "dev"
    assert given.weights == {"bill-service": {"v1": 30, "v2": 70}}


@pytest.mark.parametrize(
    ("document", "secrets", "text"),
    [
        ({"mesh": {"profile": "ambient"}}, [], "mesh.profile"),
        ({"mesh": "demo"}, [], 'mesh = "demo"'),
        ({"mesh": {}}, ["mesh"], "a `secure:` value may only be a top-level key"),
        ({"sshKey": "text"}, ["sshKey"], "sshKey"),
    ],
)
def test_read_ends_the_program_with_the_list_and_no_traceback(
    document: Mapping[str, Any], secrets: Sequence[str], text: str
) -> None:
    with pytest.raises(pulumi.RunError) as ended:
        read({"cluster": {"context": "dev"}, **document}, secrets)
    assert "nothing was changed" in str(ended.value)
    assert text in str(ended.value)
    assert ended.value.__suppress_context__


@pytest.mark.parametrize(
    "secret", [{"sshKey": "hunter2"}, {"ssh.key": "hunter2"}, {"mesh": {"profile": "hunter2"}}], ids=str
)
def test_secret_values_are_never_shown(secret: Mapping[str, Any]) -> None:
    with pytest.raises(pulumi.RunError) as ended:
        read({"cluster": {"context": "dev"}, **secret}, list(secret))
    assert "hunter2" not in str(ended.value)
    assert "1. " in str(ended.value)


def test_only_ci_may_leave_out_the_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(pulumi.RunError, match="a context or a kubeconfig"):
        read({})
    monkeypatch.setenv("CI", "true")
    assert read({}).cluster.context == ""


def test_the_template_of_all_services_lies_below_each_ones_own() -> None:
    shared = {"replicas": 3, "securityContext": {"runAsNonRoot": True, "runAsUser": 101}, "drainSeconds": 1}
    own = {"replicas": None, "securityContext": {"runAsUser": 7}}
    services = {
        "one": {"template": own, "versions": {"v1": {"image": "nginx", "drainSeconds": 2}}},
        "two": {"versions": {"v1": {"image": "nginx"}}},
    }
    loaded = load({**VALID, "routing": {}, "template": shared, "services": services}, defaults=NO_DEFAULTS).services
    one, two = loaded["one"].version("v1"), loaded["two"].version("v1")
    assert (one.replicas, one.drain_seconds, one.security_context) == (None, 2, {"runAsNonRoot": True, "runAsUser": 7})
    assert (two.replicas, two.drain_seconds, two.security_context) == (3, 1, shared["securityContext"])


def test_existing_pods_have_no_template() -> None:
    loaded = config(template={"env": {"A": "1"}}, services={"front-tomcat": {"workload": "existing"}}).services
    assert loaded["bill-service"].template.env == {"A": "1"}
    assert loaded["front-tomcat"].template.env == {}


def test_what_is_wrong_in_the_template_of_all_services_is_said_once() -> None:
    with pytest.raises(ConfigError) as refused:
        config(template={"replicas": -1})
    assert [problem.key for problem in refused.value.problems] == ["template.replicas"]


def test_an_inherited_value_comes_from_the_line_that_sets_it(tmp_path: Path) -> None:
    (tmp_path / "defaults.yaml").write_text("services:\n  one: {template: {replicas: 2}}\n  two: {}\n")
    (tmp_path / "Pulumi.x.yaml").write_text(
        "config:\n  istio-governance:template:\n    replicas: 1\n    drainSeconds: 3\n"
        "  istio-governance:services:\n    two: {template: {drainSeconds: null}}\n"
    )
    found = {".".join(path): str(origin) for path, origin in files.origins("x", tmp_path).items()}
    assert found["services.one.template.replicas"] == "defaults.yaml:2"
    assert found["services.two.template.replicas"] == "Pulumi.x.yaml:3"
    assert found["services.one.template.drainSeconds"] == "Pulumi.x.yaml:4"
    assert "services.two.template.drainSeconds" not in found
