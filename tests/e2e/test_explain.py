"""`mesh explain` on a live cluster: the path of the story, without and with the mesh, and each way to break it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest

from harness.stack import Stack
from harness.waiting import eventually
from localcluster import EmbeddedCluster
from mesh.cluster.kubectl import Kubectl
from tests.conftest import not_run
from tests.e2e import browser

NAMESPACE = "istio-demo"
SCOPE = f"--namespace={NAMESPACE}"
SERVICE_PORT = f"{NAMESPACE}/bill-service:http"
VIRTUAL_SERVICE = "virtualservices.networking.istio.io/vs-bill-service"
DESTINATION_RULE = "destinationrules.networking.istio.io/dest-bill-service"

Path_ = dict[str, Any]


def explain(stack: Stack, *more: str, source: str = "front-tomcat", target: str = "bill-service") -> tuple[int, Path_]:
    """The exit code and the path."""
    done = stack.mesh("explain", source, target, "--json", *more)
    assert done.stdout, done.stderr
    path: Path_ = json.loads(done.stdout)
    return done.returncode, path


def hop(path: Path_, kind: str) -> dict[str, Any]:
    found: dict[str, Any] = next(hop for hop in path["hops"] if hop["kind"] == kind)
    return found


def problems(path: Path_) -> list[tuple[str, str, str]]:
    return [(hop["kind"], problem["what"], problem["fix"]) for hop in path["hops"] for problem in hop["problems"]]


def assert_broken(stack: Stack, kind: str, what: str, fix: str, **names: str) -> None:
    def check() -> None:
        code, path = explain(stack, **names)
        assert code == 1, path
        assert any(k == kind and what in w and fix in f for k, w, f in problems(path)), problems(path)

    eventually(check)


def assert_whole(stack: Stack) -> None:
    def check() -> None:
        code, path = explain(stack)
        assert (code, problems(path), path["notes"]) == (0, [], [])

    eventually(check)


@contextmanager
def patched(kubectl: Kubectl, name: str, patch: object) -> Iterator[None]:
    """An object with a JSON merge patch; afterwards it is as before."""
    (before,) = kubectl.items(name, SCOPE)
    kubectl.run("patch", name, SCOPE, "--type=merge", f"--patch={json.dumps(patch)}")
    try:
        yield
    finally:
        kubectl.run("patch", name, SCOPE, "--type=json", f"--patch={json.dumps(_back(before['spec']))}")


def _back(spec: object) -> list[dict[str, object]]:
    return [{"op": "replace", "path": "/spec", "value": spec}]


@contextmanager
def applied(kubectl: Kubectl, manifest: dict[str, Any]) -> Iterator[None]:
    text = json.dumps(manifest)
    kubectl.run("apply", SCOPE, "--filename=-", stdin=text)
    try:
        yield
    finally:
        kubectl.run("delete", SCOPE, "--filename=-", "--ignore-not-found", stdin=text)


def rolled_out(kubectl: Kubectl, deployment: str) -> None:
    kubectl.run("rollout", "status", f"deployment/{deployment}", SCOPE, "--timeout=90s", timeout=100)

    def check() -> None:
        pods = kubectl.items("pods", SCOPE, f"--selector=version={deployment.rpartition('-')[2]}")
        assert all("deletionTimestamp" not in pod["metadata"] for pod in pods)

    eventually(check)


@pytest.fixture(scope="module")
def unmeshed(stack: Stack, config: dict[str, Any]) -> Stack:
    stack.configure({**config, "mesh": {**config["mesh"], "mode": "off"}})
    stack.up()
    return stack


@pytest.fixture(scope="module")
def meshed(stack: Stack, config: dict[str, Any]) -> Stack:
    stack.configure(config)
    stack.up()
    assert_whole(stack)
    return stack


def test_without_the_mesh_the_chain_of_kube_proxy_is_that_of_the_node(
    unmeshed: Stack, cluster: EmbeddedCluster
) -> None:
    code, path = explain(unmeshed)
    assert (code, [hop["kind"] for hop in path["hops"]]) == (0, ["name", "kube-proxy", "endpoint", "container"])
    assert [branch["share"] for branch in path["branches"]] == [0.5, 0.5]
    rows = hop(path, "kube-proxy")["rows"]
    assert [row[1] for row in rows[1:]] == ["statistic random probability 0.50000000000", "all the rest"]
    assert "EndpointSlices" in hop(path, "kube-proxy")["derived"]
    node = cluster.execute("iptables-save", "-t", "nat")
    service = [line for line in node.splitlines() if SERVICE_PORT in line and line.startswith("-A KUBE-SVC-")]
    assert all(any(line.endswith(row[2].split(" → ")[0].removeprefix("→ ")) for line in service) for row in rows[1:])
    assert f":{rows[0][2].removeprefix('→ ')} " in node
    *_, debugged = explain(unmeshed, "--debug", "--debug-image=localhost/istio-governance/nginx:debian-12")
    read = hop(debugged, "kube-proxy")
    assert read["derived"] == ""
    assert {row[0] for row in read["rows"]} == {row[0] for row in rows}
    assert {row[1] for row in read["rows"]} == {row[1] for row in rows}


def test_the_story_is_whole_and_each_hop_says_where_it_comes_from(meshed: Stack) -> None:
    _, path = explain(meshed)
    assert [hop["kind"] for hop in path["hops"]] == [
        "name",
        "redirect",
        "virtual listener",
        "listener",
        "route",
        "cluster",
        "endpoint",
        "inbound listener",
        "inbound cluster",
        "container",
    ]
    assert hop(path, "virtual listener")["name"] == "virtualOutbound, 0.0.0.0:15001"
    assert hop(path, "listener")["name"] == "0.0.0.0_9999"
    assert hop(path, "inbound cluster")["name"] == "inbound|80||"
    route = hop(path, "route")
    assert route["rows"] == [["90 % → v1, 10 % → v2"]]
    assert {source["object"] for source in route["sources"]} == {f"VirtualService {NAMESPACE}/vs-bill-service"}
    lines = meshed.file.read_text().splitlines()
    for source in route["sources"]:
        file, line = source["origin"].split(":")
        assert file == meshed.file.name
        assert lines[int(line) - 1].strip() in {"v1: 90", "v2: 10"}
    for kind, xds in (("listener", "LDS"), ("route", "RDS"), ("cluster", "CDS"), ("endpoint", "EDS")):
        assert hop(path, kind)["delivery"]["type"] == xds
    assert route["delivery"]["updated"].startswith("20")
    assert {row[3] for row in hop(path, "endpoint")["rows"]} == {"healthy, mutual TLS"}
    assert [(branch["name"], branch["share"]) for branch in path["branches"]] == [("v1", 0.9), ("v2", 0.1)]


def test_debug_reads_the_rules_that_are_otherwise_derived(meshed: Stack, kubectl: Kubectl) -> None:
    _, derived = explain(meshed)
    assert "annotations" in hop(derived, "redirect")["derived"]
    _, read = explain(meshed, "--debug")
    assert hop(read, "redirect")["derived"] == ""
    rules = hop(read, "redirect")["fields"]["rules"].splitlines()
    said = hop(derived, "redirect")["fields"]["rules"].splitlines()
    # iptables-save writes `-p tcp --dport` as `-p tcp -m tcp --dport`.
    assert {rule.replace("-p tcp --dport", "-p tcp -m tcp --dport") for rule in said} <= set(rules)
    inbound = hop(derived, "inbound listener")["fields"]["rules (derived)"].splitlines()
    assert {rule.replace("-p tcp --dport", "-p tcp -m tcp --dport") for rule in inbound} == set(
        hop(read, "inbound listener")["fields"]["rules"].splitlines()
    )
    pods = [pod["metadata"] for pod in kubectl.items("pods", SCOPE)]
    assert all("deletionTimestamp" in pod for pod in pods if pod["name"].startswith("mesh-explain"))


def test_names_of_versions_and_pods_lead_to_their_part_of_the_path(meshed: Stack, kubectl: Kubectl) -> None:
    _, version = explain(meshed, source="front-tomcat/v1", target="bill-service/v2:http")
    assert hop(version, "cluster")["name"] == "v2"
    pods = kubectl.items("pods", SCOPE, "--selector=service=bill-service,version=v1")
    # One from before the mesh may still be on its way out.
    (pod,) = [pod for pod in pods if "deletionTimestamp" not in pod["metadata"]]
    _, named = explain(meshed, target=pod["metadata"]["name"])
    assert [row[1] for row in hop(named, "container")["rows"]] == [pod["metadata"]["name"]]


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (("front-tomcat", "bil-service"), "did you mean bill-service?"),
        (("front-tomcut", "bill-service"), "did you mean front-tomcat?"),
        (("front-tomcat", "bill-service:80"), "bill-service has no port 80; it has 9999 (http)"),
        (("front-tomcat", "bill-service/v9"), "did you mean bill-service/v"),
    ],
)
def test_unknown_names_are_wrong_use(meshed: Stack, names: tuple[str, str], said: str) -> None:
    done = meshed.mesh("explain", *names)
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_the_admin_interface_is_passed_through(meshed: Stack) -> None:
    shown = meshed.mesh("explain", "front-tomcat", "bill-service", "--raw", "help").stdout
    assert shown.startswith("admin commands are:") and "/config_dump" in shown
    dump = json.loads(meshed.mesh("explain", "front-tomcat", "bill-service", "--raw", "config_dump").stdout)
    assert any(section["@type"].endswith("ListenersConfigDump") for section in dump["configs"])


def test_the_text_and_the_chart_are_printed(meshed: Stack) -> None:
    text = meshed.mesh("explain", "front-tomcat", "bill-service").stdout
    assert len(text.splitlines()) <= 66 and max(map(len, text.splitlines())) <= 80
    assert "90 % → v1, 10 % → v2" in text and "How the rules got there" in text
    assert "etcd" in meshed.mesh("explain", "front-tomcat", "bill-service", "--full").stdout
    assert meshed.mesh("explain", "front-tomcat", "bill-service", "--mermaid").stdout.startswith("flowchart LR")


@pytest.mark.parametrize("dark", [False, True])
def test_the_page_is_readable_in_a_browser(meshed: Stack, tmp_path: Path, dark: bool) -> None:
    page = tmp_path / "path.html"
    assert meshed.mesh("explain", "front-tomcat", "bill-service", "--html", str(page)).returncode == 0
    try:
        seen = browser.look(page, dark=dark)
    except browser.NoBrowserError as error:
        not_run("the look at the page in a browser", error)
    assert seen["dark"] is dark
    assert seen["page"] < 0.05 if dark else seen["page"] > 0.8
    for wrong in ("requests", "outside", "overlapping", "faint", "deadLinks"):
        assert seen[wrong] == [], wrong
    assert not seen["tooBroad"] and not browser.look(page, dark=dark, width=500)["tooBroad"]
    assert "The path is whole" in seen["words"]


def routed(kubectl: Kubectl, **to: Any) -> AbstractContextManager[None]:
    """The VirtualService with 90 % to v1 and 10 % to another destination."""
    v1 = {"destination": {"host": "bill-service", "subset": "v1"}, "weight": 90}
    route = [v1, {"destination": {"host": "bill-service", **to}, "weight": 10}]
    return patched(kubectl, VIRTUAL_SERVICE, {"spec": {"http": [{"name": "bill-service-route", "route": route}]}})


def test_a_missing_subset(meshed: Stack, kubectl: Kubectl) -> None:
    with routed(kubectl, subset="v3"):
        assert_broken(meshed, "cluster", "subset v3, which no DestinationRule has", "services.bill-service.versions.v3")
        _, path = explain(meshed)
        assert path["notes"] and "v1 90 %, v2 10 %" in path["notes"][0]
    assert_whole(meshed)


def test_an_unknown_host(meshed: Stack, kubectl: Kubectl) -> None:
    with routed(kubectl, host="nowhere"):
        assert_broken(
            meshed, "cluster", "nowhere.istio-demo.svc.cluster.local, and there is no such", "correct the host"
        )


def test_an_unknown_port(meshed: Stack, kubectl: Kubectl) -> None:
    with routed(kubectl, subset="v2", port={"number": 1234}):
        assert_broken(meshed, "cluster", "port 1234", "correct the port")


def test_the_wrong_name_of_a_port(meshed: Stack, kubectl: Kubectl) -> None:
    port = {"name": "tcp-bill", "port": 9999, "targetPort": 80}
    with patched(kubectl, "service/bill-service", {"spec": {"ports": [port]}}):
        assert_broken(meshed, "listener", "has the name tcp-bill", "appProtocol to http")
    assert_whole(meshed)


def test_mutual_tls_that_does_not_match(meshed: Stack, kubectl: Kubectl) -> None:
    strict = {
        "apiVersion": "security.istio.io/v1",
        "kind": "PeerAuthentication",
        "metadata": {"name": "default"},
        "spec": {"mtls": {"mode": "STRICT"}},
    }
    plain = {"spec": {"trafficPolicy": {"tls": {"mode": "DISABLE"}}}}
    with applied(kubectl, strict), patched(kubectl, DESTINATION_RULE, plain):
        assert_broken(meshed, "endpoint", "which takes mutual TLS only", "DestinationRule istio-demo/dest-bill-service")
    disabled = {**strict, "spec": {"mtls": {"mode": "DISABLE"}}}
    mutual = {"spec": {"trafficPolicy": {"tls": {"mode": "ISTIO_MUTUAL"}}}}
    with applied(kubectl, disabled), patched(kubectl, DESTINATION_RULE, mutual):
        assert_broken(meshed, "endpoint", "which takes plain text only", "trafficPolicy.tls")
    assert_whole(meshed)


def test_a_proxy_that_refuses_an_update(meshed: Stack, kubectl: Kubectl) -> None:
    lua = {
        "@type": "type.googleapis.com/envoy.extensions.filters.http.lua.v3.Lua",
        "inlineCode": "this is no Lua",
    }
    manager = {
        "name": "envoy.filters.network.http_connection_manager",
        "subFilter": {"name": "envoy.filters.http.router"},
    }
    patch = {
        "applyTo": "HTTP_FILTER",
        "match": {
            "context": "SIDECAR_OUTBOUND",
            "listener": {"portNumber": 9999, "filterChain": {"filter": manager}},
        },
        "patch": {"operation": "INSERT_BEFORE", "value": {"name": "envoy.filters.http.lua", "typed_config": lua}},
    }
    broken = {
        "apiVersion": "networking.istio.io/v1alpha3",
        "kind": "EnvoyFilter",
        "metadata": {"name": "broken"},
        "spec": {"workloadSelector": {"labels": {"app": "front-tomcat"}}, "configPatches": [patch]},
    }
    with applied(kubectl, broken):
        assert_broken(meshed, "listener", "refused the newest listener", "EnvoyFilter")
    assert_whole(meshed)


def test_a_version_with_weight_and_without_pods_and_one_that_is_not_ready(meshed: Stack, kubectl: Kubectl) -> None:
    deployment = "deployment/bill-service-v2"
    with patched(kubectl, deployment, {"spec": {"replicas": 0}}):
        assert_broken(meshed, "endpoint", "v2 gets requests and has no pod", "versions.v2.replicas")
        never = {"readinessProbe": {"exec": {"command": ["false"]}, "periodSeconds": 1, "tcpSocket": None}}
        pod = {"spec": {"containers": [{"name": "bill-service", **never}]}}
        kubectl.run("patch", deployment, SCOPE, f"--patch={json.dumps({'spec': {'replicas': 1, 'template': pod}})}")
        assert_broken(meshed, "endpoint", "v2 has no ready endpoint", "kubectl describe pod")
    rolled_out(kubectl, "bill-service-v2")
    assert_whole(meshed)


def test_a_proxy_that_istiod_does_not_reach(meshed: Stack, kubectl: Kubectl) -> None:
    """The webhook that istiod serves has to let the change pass while istiod is away; istiod puts it back."""
    istiod = ["deployment/istiod", "--namespace=istio-system"]
    kind = "validatingwebhookconfigurations.admissionregistration.k8s.io"
    hooks = [hook for hook in kubectl.items(kind) if "istio" in hook["metadata"]["name"]]
    kubectl.run("scale", *istiod, "--replicas=0")
    try:
        kubectl.run("wait", "pod", "--selector=app=istiod", istiod[1], "--for=delete", "--timeout=60s", timeout=70)
        for hook in hooks:
            name = hook["metadata"]["name"]
            path = [f"/webhooks/{number}/failurePolicy" for number in range(len(hook["webhooks"]))]
            ignore = [{"op": "replace", "path": each, "value": "Ignore"} for each in path]
            kubectl.run("patch", kind, name, "--type=json", f"--patch={json.dumps(ignore)}")
        with patched(kubectl, VIRTUAL_SERVICE, {"spec": {"http": half()}}):
            has = "says v1 50 %, v2 50 %, the proxy has v1 90 %, v2 10 %"
            assert_broken(meshed, "route", has, "istiod has no ready pod")
    finally:
        kubectl.run("scale", *istiod, "--replicas=1")
        kubectl.run("rollout", "status", *istiod, "--timeout=90s", timeout=100)
    eventually(lambda: _assert_no_problem(meshed))


def _assert_no_problem(stack: Stack) -> None:
    assert problems(explain(stack)[1]) == []


def half() -> list[dict[str, Any]]:
    to = [{"destination": {"host": "bill-service", "subset": version}, "weight": 50} for version in ("v1", "v2")]
    return [{"name": "bill-service-route", "route": to}]


@pytest.mark.parametrize(
    ("deployment", "kind"), [("bill-service-v2", "inbound listener"), ("front-tomcat-v1", "redirect")]
)
def test_a_pod_without_a_sidecar(meshed: Stack, kubectl: Kubectl, deployment: str, kind: str) -> None:
    left_out = {"spec": {"template": {"metadata": {"labels": {"sidecar.istio.io/inject": "false"}}}}}
    with patched(kubectl, f"deployment/{deployment}", left_out):
        rolled_out(kubectl, deployment)
        assert_broken(meshed, kind, "has no sidecar", "sidecar.istio.io/inject=false")
        if kind == "redirect":
            _, path = explain(meshed)
            assert hop(path, "kube-proxy")["rows"]
            raw = meshed.mesh("explain", "front-tomcat", "bill-service", "--raw", "help")
            assert raw.returncode == 1 and "has no sidecar" in raw.stderr
