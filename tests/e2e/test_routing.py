"""Every feature of `routing` and `egress` against the real proxies, and changes of versions under load."""

from __future__ import annotations

import base64
import copy
import hashlib
import json
import re
import subprocess
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from config import merged
from harness.stack import PulumiError, Stack
from harness.traffic import Load, splits
from mesh.cluster.envoy import Proxy, proxies
from mesh.cluster.kubectl import Kubectl, KubectlError
from tests.e2e.binomial import is_plausible

NAMESPACE = "istio-demo"
OUTSIDE = "outside"
IMAGE = "localhost/istio-governance/nginx:debian-12"
BILL = "http://bill-service:9999"
SECURE = "sessions.example.com"
SESSION = f"http://session-service.{NAMESPACE}:80"

Config = dict[str, Any]

# A page that says which pod it is from.
SESSION_SERVICE = {
    "ports": {"http": {"port": 80}},
    "template": {
        "image": IMAGE,
        "command": ["sh", "-c", "hostname > /usr/share/nginx/html/index.html; exec nginx -g 'daemon off;'"],
    },
    "versions": {"v1": {"replicas": 2}},
}
# The stand-in for a host outside the mesh: a web server without a sidecar, in a namespace of its own.
STAND_IN = {
    "apiVersion": "apps/v1",
    "kind": "Deployment",
    "metadata": {"name": OUTSIDE, "namespace": OUTSIDE},
    "spec": {
        "selector": {"matchLabels": {"app": OUTSIDE}},
        "template": {
            "metadata": {"labels": {"app": OUTSIDE}},
            "spec": {
                "terminationGracePeriodSeconds": 1,
                "containers": [
                    {
                        "name": OUTSIDE,
                        "image": IMAGE,
                        "imagePullPolicy": "IfNotPresent",
                        "command": [
                            "sh",
                            "-c",
                            "echo 'server { listen 443 ssl; root /usr/share/nginx/html; ssl_certificate /tls/tls.crt; "
                            "ssl_certificate_key /tls/tls.key; }' > /etc/nginx/sites-enabled/tls; "
                            "echo outside > /usr/share/nginx/html/index.html; exec nginx -g 'daemon off;'",
                        ],
                        "volumeMounts": [{"name": "tls", "mountPath": "/tls"}],
                        "readinessProbe": {"tcpSocket": {"port": 80}, "periodSeconds": 1},
                    }
                ],
                "volumes": [{"name": "tls", "secret": {"secretName": OUTSIDE}}],
            },
        },
    },
}


def bill(version: str) -> dict[str, Any]:
    page = f"echo 'this is bill-service-{version}' > /usr/share/nginx/html/index.html; exec nginx -g 'daemon off;'"
    return {"command": ["sh", "-c", page]}


# The proxies see nothing but bytes on this port.
LEDGER_SERVICE = {
    "ports": {"tcp": {"port": 9000, "targetPort": 80}},
    "template": {"image": IMAGE},
    "versions": {"v1": bill("v1"), "v2": bill("v2")},
}

# Two ports that one server answers, and a volume for the generated container.
CART_SERVICE = {
    "ports": {
        "http": {"port": 8080, "targetPort": 80},
        "admin": {"port": 8081, "targetPort": 80, "appProtocol": "http"},
    },
    "template": {
        "image": IMAGE,
        "podTemplate": {
            "spec": {
                "containers": [{"name": "cart-service", "volumeMounts": [{"name": "more", "mountPath": "/more"}]}],
                "volumes": [{"name": "more", "emptyDir": {}}],
            }
        },
    },
    "versions": {"v1": bill("v1"), "v2": bill("v2")},
}


def match(name: str, **fields: Any) -> dict[str, Any]:
    return {"name": name, "headers": {"x-test": {"exact": name}}, **fields}


ROUTING = {
    "bill-service": {
        "weights": {"v1": 90, "v2": 10},
        "match": [
            match("header", weights={"v2": 100}),
            match("abort", faults={"abort": {"httpStatus": 555}}),
            match("delay", faults={"delay": {"fixedDelay": "700ms"}}),
            match("timeout", weights={"v2": 100}, timeout="400ms", retries={"attempts": 0}),
            match("retries", weights={"v1": 100}, retries={"attempts": 3, "retryOn": ["404"]}),
            match("mirror", weights={"v1": 100}, mirror={"version": "v2"}),
            {"name": "query", "query": {"version": {"exact": "2"}}, "weights": {"v2": 100}},
            {"name": "method", "method": {"exact": "HEAD"}, "uri": {"prefix": "/v"}, "weights": {"v2": 100}},
            match("source", sourceLabels={"app": "nobody"}, weights={"v2": 100}),
        ],
        "expose": {"hosts": ["bills.example.com"]},
    },
    "session-service": {
        "weights": {"v1": 100},
        "sticky": {"cookie": {"name": "SESSION", "ttl": "1h"}},
        "mtls": "STRICT",
        "expose": {"hosts": [SECURE], "tlsSecret": "sessions"},
        "outlierDetection": {"consecutive5xxErrors": 7, "baseEjectionTime": "42s"},
        "connectionPool": {"tcp": {"maxConnections": 123}, "http": {"http1MaxPendingRequests": 45}},
    },
    "ledger-service": {"weights": {"v1": 30, "v2": 70}},
    "cart-service": {
        "weights": {"v1": 70, "v2": 30},
        "match": [
            match("header", weights={"v2": 100}),
            {"name": "source", "sourceLabels": {"app": "nobody"}, "weights": {"v2": 100}},
        ],
        "expose": {"hosts": ["cart.example.com"], "port": "http"},
    },
}


@dataclass(frozen=True)
class Answer:
    """'000' is no answer."""

    status: str
    seconds: float
    text: str


def get(
    kubectl: Kubectl,
    *curl: str,
    namespace: str = NAMESPACE,
    pods: str = "front-tomcat-v1",
    container: str = "front-tomcat",
) -> list[Answer]:
    """The answers to one request, or to as many as the URL says."""
    where = ["exec", f"--namespace={namespace}", f"deployment/{pods}", f"--container={container}", "--", "sh", "-c"]
    # curl's exit code is that of its last request.
    command = 'curl --silent --max-time 20 --write-out "\\n%{http_code} %{time_total}\\n" "$@" || true'
    printed = kubectl.run(*where, command, "curl", *curl, timeout=120)
    found = re.findall(r"(.*?)\n(\d{3}) (\d+\.\d+)\n", printed, re.DOTALL)
    return [Answer(status, float(seconds), text.strip()) for text, status, seconds in found]


def versions(answers: list[Answer]) -> set[str]:
    assert {answer.status for answer in answers} == {"200"}, answers
    return {answer.text for answer in answers}


def asked_as(kubectl: Kubectl, name: str, path: str = "/?[1-20]") -> list[Answer]:
    return get(kubectl, "--header", f"x-test: {name}", f"{BILL}{path}")


def requests_for(kubectl: Kubectl, version: str, path: str) -> int:
    """How many requests for `path` this version's pod has logged."""
    log = kubectl.run(
        "logs", f"deployment/bill-service-{version}", f"--namespace={NAMESPACE}", "--container=bill-service"
    )
    # The error log names them, too.
    return len(re.findall(rf'"\w+ {re.escape(path)}\S* HTTP/1\.1" \d{{3}}', log))


@dataclass(frozen=True)
class Certificate:
    """Self-signed; curl ends a connection to a server that has another key than it is told to `pin`."""

    key: Path
    certificate: Path
    pin: str

    @classmethod
    def of(cls, host: str, folder: Path) -> Certificate:
        key, certificate = folder / "key.pem", folder / "certificate.pem"
        made = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days=2"]
        made += ["-subj", f"/CN={host}", "-keyout", str(key), "-out", str(certificate)]
        subprocess.run(made, check=True, capture_output=True)
        public = ["openssl", "pkey", "-in", str(key), "-pubout", "-outform", "DER"]
        digest = hashlib.sha256(subprocess.run(public, check=True, capture_output=True).stdout).digest()
        return cls(key, certificate, f"sha256//{base64.b64encode(digest).decode()}")

    @property
    def curl(self) -> list[str]:
        return ["--insecure", "--pinnedpubkey", self.pin]

    def store(self, kubectl: Kubectl, name: str, namespace: str) -> None:
        files = f"--key={self.key}", f"--cert={self.certificate}"
        kubectl.run("create", "secret", "tls", name, f"--namespace={namespace}", *files)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    """The stand-in's."""
    return Certificate.of("secure.example.com", tmp_path_factory.mktemp("outside"))


@pytest.fixture(scope="module")
def outside(kubectl: Kubectl, cluster: object, certificate: Certificate) -> Iterator[str]:
    """The address of the stand-in."""
    del cluster
    kubectl.run("create", "namespace", OUTSIDE)
    try:
        certificate.store(kubectl, OUTSIDE, OUTSIDE)
        kubectl.run("apply", "--filename=-", stdin=json.dumps(STAND_IN))
        kubectl.run("rollout", "status", f"deployment/{OUTSIDE}", f"--namespace={OUTSIDE}", timeout=60)
        (pod,) = kubectl.items("pods", f"--namespace={OUTSIDE}")
        yield pod["status"]["podIP"]
    finally:
        kubectl.run("delete", "namespace", OUTSIDE, timeout=120)


@pytest.fixture(scope="module")
def complete(config: Config, outside: str) -> Config:
    """One configuration with every feature."""
    changes = {
        "services": {
            "session-service": SESSION_SERVICE,
            "ledger-service": LEDGER_SERVICE,
            "cart-service": CART_SERVICE,
        },
        "routing": ROUTING,
        "egress": {
            "api.example.com": {"protocol": "HTTP", "addresses": [outside]},
            "secure.example.com": {"addresses": [outside]},
        },
    }
    return merged(config, changes)


@pytest.fixture(scope="module")
def caller(stack: Stack, complete: Config, kubectl: Kubectl) -> Proxy:
    """The proxy of the pod that asks, when everything is there."""
    stack.configure(complete)
    stack.up()
    return next(proxy for proxy in proxies(kubectl, NAMESPACE) if proxy.pod.startswith("front-tomcat"))


def test_a_match_has_weights_of_its_own(caller: Proxy, kubectl: Kubectl) -> None:
    del caller
    assert versions(asked_as(kubectl, "header")) == {"this is bill-service-v2"}
    assert versions(get(kubectl, f"{BILL}/?version=2&n=[1-20]")) == {"this is bill-service-v2"}
    assert "this is bill-service-v1" in versions(get(kubectl, f"{BILL}/?version=3&n=[1-20]"))
    heads = get(kubectl, "--head", f"{BILL}/v?[1-5]")
    assert {answer.status for answer in heads} == {"404"}
    assert requests_for(kubectl, "v2", "/v?") == 5
    assert "this is bill-service-v1" in versions(asked_as(kubectl, "source")), "the caller has other labels"


def test_faults_are_played(caller: Proxy, kubectl: Kubectl) -> None:
    del caller
    assert {answer.status for answer in asked_as(kubectl, "abort")} == {"555"}
    delayed = asked_as(kubectl, "delay", "/?[1-3]")
    versions(delayed)
    assert min(answer.seconds for answer in delayed) >= 0.69


def test_a_request_that_takes_too_long_is_ended(caller: Proxy, kubectl: Kubectl) -> None:
    """The workers of v2 are stopped, so that it takes connections and never answers."""
    del caller
    pod = [
        "exec",
        f"--namespace={NAMESPACE}",
        "deployment/bill-service-v2",
        "--container=bill-service",
        "--",
        "sh",
        "-c",
    ]
    workers = "for p in /proc/[0-9]*; do [ $(cat $p/comm) = nginx ] && kill -{} ${{p#/proc/}}; done; true"
    kubectl.run(*pod, workers.format("STOP"))
    try:
        assert {answer.status for answer in asked_as(kubectl, "timeout", "/?[1-2]")} == {"504"}
    finally:
        kubectl.run(*pod, workers.format("CONT"))
    assert versions(asked_as(kubectl, "header")) == {"this is bill-service-v2"}


def test_a_failed_request_is_tried_again(caller: Proxy, kubectl: Kubectl) -> None:
    del caller
    path = f"/missing-{uuid.uuid4().hex}"
    assert [answer.status for answer in asked_as(kubectl, "retries", path)] == ["404"]
    assert requests_for(kubectl, "v1", path) == 4


def test_a_mirror_gets_a_copy(caller: Proxy, kubectl: Kubectl) -> None:
    del caller
    path = f"/index.html?{uuid.uuid4().hex}"
    assert versions(asked_as(kubectl, "mirror", path)) == {"this is bill-service-v1"}
    for version in ("v1", "v2"):
        assert requests_for(kubectl, version, path) == 1


def test_the_policy_reaches_the_clusters_of_the_callers(caller: Proxy) -> None:
    clusters = {entry["cluster"]["name"]: entry["cluster"] for entry in caller.config("dynamic_active_clusters")}
    for subset in ("", "v1"):
        cluster = clusters[f"outbound|80|{subset}|session-service.{NAMESPACE}.svc.cluster.local"]
        assert cluster["outlier_detection"]["consecutive_5xx"] == 7
        assert cluster["outlier_detection"]["base_ejection_time"] == "42s"
        (threshold,) = cluster["circuit_breakers"]["thresholds"]
        assert (threshold["max_connections"], threshold["max_pending_requests"]) == (123, 45)
    assert "outlier_detection" not in clusters[f"outbound|9999|v1|bill-service.{NAMESPACE}.svc.cluster.local"]


def test_a_sticky_caller_stays_with_one_pod(caller: Proxy, kubectl: Kubectl) -> None:
    del caller
    # The proxy makes the cookie of the addresses of the connection.
    assert len(versions(get(kubectl, "--header", "Connection: close", f"{SESSION}/?[1-40]"))) == 2
    headers = get(kubectl, "--dump-header", "-", f"{SESSION}/")[0].text
    cookie = re.search(r"(?i)set-cookie: (SESSION=[^;]+)", headers)
    assert cookie, headers
    assert (
        len(versions(get(kubectl, "--cookie", cookie[1], "--header", "Connection: close", f"{SESSION}/?[1-40]"))) == 1
    )


def test_strict_mutual_tls_refuses_plain_text(caller: Proxy, kubectl: Kubectl) -> None:
    del caller
    stranger = {"namespace": OUTSIDE, "pods": OUTSIDE, "container": OUTSIDE}
    assert [a.status for a in get(kubectl, f"{SESSION}/", **stranger)] == ["000"]
    assert [a.status for a in get(kubectl, f"http://bill-service.{NAMESPACE}:9999/", **stranger)] == ["200"]
    assert versions(get(kubectl, f"{SESSION}/"))


def test_requests_from_outside_follow_the_same_weights(caller: Proxy, kubectl: Kubectl) -> None:
    del caller
    gateway = "http://istio-ingressgateway.istio-system"
    stranger = {"namespace": OUTSIDE, "pods": OUTSIDE, "container": OUTSIDE}
    host = ["--header", "Host: bills.example.com"]
    answers = get(kubectl, *host, f"{gateway}/?[1-400]", **stranger)
    versions(answers)
    assert len(answers) == 400
    assert is_plausible(sum(a.text == "this is bill-service-v1" for a in answers), 400, 0.9)
    tester = get(kubectl, *host, "--header", "x-test: header", f"{gateway}/?[1-20]", **stranger)
    assert versions(tester) == {"this is bill-service-v2"}
    assert [a.status for a in get(kubectl, "--header", "Host: other.example.com", f"{gateway}/", **stranger)] == ["404"]


def requests_at(caller: Proxy, port: int) -> int:
    """How many this caller has sent to a port of the cart's Service."""
    found = caller.endpoints("cart-service", NAMESPACE)
    return sum(one.attempts.succeeded for one in found if one.cluster.port == port and one.cluster.subset)


@pytest.mark.parametrize(("service", "host", "v1"), [("cart", "cart", 0.7), ("bill", "bills", 0.9)])
def test_callers_in_the_mesh_get_the_same_by_the_outside_name(
    service: str, host: str, v1: float, caller: Proxy, kubectl: Kubectl
) -> None:
    """The address is of no network: only by the rules for the name can there be an answer."""
    host = f"{host}.example.com"
    within: Mapping[str, Any] = {}
    inside = ["--resolve", f"{host}:80:192.0.2.1", f"http://{host}/?[1-400]"]
    stranger = {"namespace": OUTSIDE, "pods": OUTSIDE, "container": OUTSIDE}
    outside = ["--header", f"Host: {host}", "http://istio-ingressgateway.istio-system/?[1-400]"]
    for where, curl in ((within, inside), (stranger, outside)):
        answers = get(kubectl, *curl, **where)
        versions(answers)
        assert len(answers) == 400
        assert is_plausible(sum(a.text == "this is bill-service-v1" for a in answers), 400, v1)
        tester = get(kubectl, "--header", "x-test: header", *curl[:-1], curl[-1].replace("400", "20"), **where)
        assert versions(tester) == {"this is bill-service-v2"}
    split = {"v1": round(v1 * 100), "v2": 100 - round(v1 * 100)}
    gateway = next(proxy for proxy in proxies(kubectl, "istio-system") if proxy.pod.startswith("istio-ingressgateway"))
    for proxy in (caller, gateway):
        found = splits(proxy, f"{service}-service", NAMESPACE, f"{service}-service-route")
        assert found and all(one == split for one in found), found


def test_two_ports_of_one_server_are_told_apart(caller: Proxy, kubectl: Kubectl) -> None:
    before = {port: requests_at(caller, port) for port in (8080, 8081)}
    by_name = "this is bill-service-v1", "this is bill-service-v2"
    assert versions(get(kubectl, "http://cart-service:8081/?[1-60]")) == set(by_name)
    assert {port: requests_at(caller, port) - before[port] for port in before} == {8080: 0, 8081: 60}
    versions(get(kubectl, "http://cart-service:8080/?[1-20]"))
    versions(get(kubectl, "--resolve", "cart.example.com:80:192.0.2.1", "http://cart.example.com/?[1-20]"))
    assert {port: requests_at(caller, port) - before[port] for port in before} == {8080: 40, 8081: 60}


def test_a_piece_of_a_pod_template_adds_to_the_generated_container(caller: Proxy, kubectl: Kubectl) -> None:
    del caller
    where = ["deployment/cart-service-v1", f"--namespace={NAMESPACE}", "--container=cart-service"]
    assert "/more" in kubectl.run("exec", *where, "--", "sh", "-c", "grep -o ' /more ' /proc/mounts")
    pod = kubectl.json("get", "deployment", "cart-service-v1", f"--namespace={NAMESPACE}")["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert container["image"] == IMAGE
    assert [port["containerPort"] for port in container["ports"]] == [80]


def test_the_ingress_gateway_ends_tls(caller: Proxy, kubectl: Kubectl, tmp_path: Path) -> None:
    del caller
    certificate = Certificate.of(SECURE, tmp_path)
    gateway = "istio-ingressgateway.istio-system"
    stranger = {"namespace": OUTSIDE, "pods": OUTSIDE, "container": OUTSIDE}
    pinned = [*certificate.curl, "--retry", "5", "--retry-all-errors", "--connect-to", f"{SECURE}:443:{gateway}:443"]
    certificate.store(kubectl, "sessions", "istio-system")
    try:
        assert versions(get(kubectl, *pinned, f"https://{SECURE}/", **stranger))
        plain = get(kubectl, "--header", f"Host: {SECURE}", f"http://{gateway}/", **stranger)
        assert [answer.status for answer in plain] == ["301"]
    finally:
        kubectl.run("delete", "secret", "sessions", "--namespace=istio-system")


def test_connections_are_split_where_the_proxies_see_no_requests(caller: Proxy, kubectl: Kubectl) -> None:
    del caller
    answers = get(kubectl, "--header", "Connection: close", "http://ledger-service:9000/?[1-400]")
    assert versions(answers) == {"this is bill-service-v1", "this is bill-service-v2"} and len(answers) == 400
    assert is_plausible(sum(a.text == "this is bill-service-v1" for a in answers), 400, 0.3)


def test_requests_to_an_outside_host_leave_by_the_egress_gateway(caller: Proxy, kubectl: Kubectl) -> None:
    """The address is of no network: only by the rules for the host can there be an answer."""
    del caller
    mark = uuid.uuid4().hex
    answers = get(kubectl, "--resolve", "api.example.com:80:192.0.2.1", f"http://api.example.com/?{mark}")
    assert versions(answers) == {"outside"}
    log = kubectl.run("logs", "deployment/istio-egressgateway", "--namespace=istio-system", "--tail=50")
    assert mark in log


def test_tls_of_the_pods_passes_the_egress_gateway(caller: Proxy, kubectl: Kubectl, certificate: Certificate) -> None:
    """The key is that of the host outside: nobody on the way has ended the TLS."""
    del caller
    resolved = ["--resolve", "secure.example.com:443:192.0.2.1"]
    assert versions(get(kubectl, *certificate.curl, *resolved, "https://secure.example.com/")) == {"outside"}
    gateway = next(p for p in proxies(kubectl, "istio-system") if p.pod.startswith("istio-egressgateway"))
    connections = {
        status["name"]: [
            int(stat.get("value", 0))
            for host in status.get("host_statuses", [])
            for stat in host["stats"]
            if stat["name"] == "cx_total"
        ]
        for status in gateway.json("clusters", format="json")["cluster_statuses"]
    }
    assert connections["outbound|443||secure.example.com"] == [1]


@pytest.mark.parametrize("host", ["api.example.com", "secure.example.com"])
def test_the_way_to_an_outside_host_is_explained(host: str, caller: Proxy, stack: Stack) -> None:
    explained = stack.mesh("explain", caller.pod, host, "--json")
    assert explained.returncode == 0, explained.stdout + explained.stderr
    hops = {hop["kind"]: hop for hop in json.loads(explained.stdout)["hops"]}
    assert [*hops][-4:] == ["gateway listener", "gateway route", "gateway cluster", "outside"]
    assert "istio-egressgateway" in hops["route"]["rows"][0][0] and host in hops["gateway route"]["rows"][0][0]
    assert [row[1] for row in hops["outside"]["rows"]] == ["in use"]
    unknown = stack.mesh("explain", caller.pod, f"x{host}")
    assert unknown.returncode == 2 and f"did you mean '{host}'" in unknown.stderr, unknown.stderr


def test_a_second_up_and_a_refresh_change_nothing(caller: Proxy, stack: Stack) -> None:
    del caller
    assert set(stack.up()) == {"same"}
    stack.pulumi("refresh", "--yes", "--skip-preview", "--expect-no-changes")


# Changes of versions, each in one `pulumi up`, under load


def serving(config: Config, versions: Mapping[str, Mapping[str, Any]], weights: Mapping[str, int]) -> Config:
    changed = copy.deepcopy(config)
    # null takes away what the shared defaults have.
    gone = dict.fromkeys({"v1", "v2"} - set(versions))
    changed["services"]["bill-service"]["versions"] = {**gone, **versions}
    changed["routing"] = {"bill-service": {"weights": dict(weights)}}
    return changed


REQUESTS = 1000
"""Of each change, at least."""
V1, V2, V3, GREEN, ONE = bill("v1"), bill("v2"), bill("v3"), bill("green"), {**bill("v1b"), "versionLabel": "one"}
CHANGES: Mapping[str, tuple[Mapping[str, Mapping[str, Any]], Mapping[str, int]]] = {
    "a version comes, with weight": ({"v1": V1, "v2": V2, "v3": V3}, {"v1": 30, "v2": 50, "v3": 20}),
    "a version with half of the requests goes": ({"v1": V1, "v3": V3}, {"v1": 60, "v3": 40}),
    "a version gets another name": ({"v1": V1, "green": GREEN}, {"v1": 60, "green": 40}),
    "and another label": ({"v1b": ONE, "green": GREEN}, {"v1b": 60, "green": 40}),
}


@pytest.mark.parametrize("change", CHANGES)
def test_no_request_fails_when(
    change: str,
    caller: Proxy,
    complete: Config,
    stack: Stack,
    kubectl: Kubectl,
    record_property: Callable[[str, object], None],
) -> None:
    stack.configure(serving(complete, *CHANGES[change]))
    with Load(kubectl, NAMESPACE) as load:
        stack.up()
        load.wait_for(REQUESTS)
    record_property("requests", load.requests)
    assert load.failures == []
    assert load.requests >= REQUESTS
    route = splits(caller, "bill-service", NAMESPACE, "bill-service-route")
    assert route and all(split == CHANGES[change][1] for split in route), route


def test_a_label_of_a_live_version_cannot_change_in_place(
    caller: Proxy, complete: Config, stack: Stack, kubectl: Kubectl
) -> None:
    del caller
    versions, weights = CHANGES["and another label"]
    relabelled = {**versions, "v1b": {**versions["v1b"], "versionLabel": "two"}}
    stack.configure(serving(complete, relabelled, weights))
    with pytest.raises(PulumiError, match="give the version another name"):
        stack.up()
    stack.configure(serving(complete, versions, weights))
    assert {answer.status for answer in get(kubectl, f"{BILL}/?[1-20]")} == {"200"}


@pytest.mark.parametrize("left", ["ledger-service", ""], ids=["while another's stay", "altogether"])
def test_no_request_fails_when_rules_come_and_go(
    left: str, caller: Proxy, complete: Config, stack: Stack, kubectl: Kubectl
) -> None:
    del caller
    rules = {"ledger-service": ROUTING["ledger-service"]}
    without = serving(complete, *CHANGES["and another label"])
    ruled = {**without, "routing": {**without["routing"], **rules}}
    without["routing"] = {name: rule for name, rule in rules.items() if name == left}
    with Load(kubectl, NAMESPACE) as load:
        for config in (ruled, without):
            stack.configure(config)
            stack.up()
        load.wait_for(REQUESTS)
    assert load.failures == []
    with pytest.raises(KubectlError, match="NotFound"):
        kubectl.run("get", "virtualservice", "vs-bill-service", f"--namespace={NAMESPACE}")
