"""What somebody changes behind the stack's back is found, and put right, and nothing else is."""

from __future__ import annotations

import base64
import json
import secrets
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import pytest

from config import merged
from harness.stack import PulumiError, Stack
from harness.traffic import wait_until_enforced
from mesh.cluster.kubectl import Kubectl

NAMESPACE = "istio-demo"

Entry = dict[str, Any]


@pytest.fixture(scope="module")
def installed(stack: Stack) -> Stack:
    stack.up()
    return stack


def at_once(stack: Stack, *commands: list[str]) -> list[subprocess.CompletedProcess[str]]:
    """The results of commands of `mesh` that only read, in their order."""
    with ThreadPoolExecutor() as pool:
        return [*pool.map(lambda command: stack.mesh(*command), commands)]


def drift(stack: Stack, code: int) -> Entry:
    found = stack.mesh("drift", "--json")
    assert found.returncode == code, found.stderr
    report: Entry = json.loads(found.stdout)
    return report


def fields(report: Entry) -> set[tuple[str, str, str]]:
    """Kind, name and field of each finding."""
    return {(entry["kind"], entry["name"], entry["field"]) for entry in report["drift"]}


def assert_no_drift(stack: Stack) -> None:
    report = drift(stack, 0)
    assert (report["drift"], report["pending"]) == ([], [])
    assert report["compared"] > 60


def assert_pulumi_sees_no_change(stack: Stack) -> None:
    stack.pulumi("preview", "--expect-no-changes")
    stack.pulumi("refresh", "--yes", "--skip-preview", "--expect-no-changes")


def edit_weights(kubectl: Kubectl, v1: int) -> None:
    patch = [
        {"op": "replace", "path": f"/spec/http/0/route/{number}/weight", "value": weight}
        for number, weight in enumerate((v1, 100 - v1))
    ]
    _edit(kubectl, "virtualservice/vs-bill-service", patch, NAMESPACE)


def _edit(kubectl: Kubectl, what: str, patch: list[Entry], namespace: str) -> None:
    kubectl.run("patch", what, f"--namespace={namespace}", "--type=json", f"--patch={json.dumps(patch)}")


def test_a_fresh_stack_has_no_drift_and_neither_has_a_refreshed_one(installed: Stack) -> None:
    checked, repaired = at_once(installed, ["check"], ["repair", "--yes"])
    assert repaired.stdout.startswith("No drift")
    assert checked.returncode == 0, checked.stdout + checked.stderr
    for good in ("no drift", "istio-cni-node is ready on every node", "5 proxies are in sync with istiod"):
        assert f"✓ {good}" in checked.stdout
    installed.pulumi("refresh", "--yes", "--skip-preview", "--expect-no-changes")
    assert_no_drift(installed)


def test_a_rule_that_envoy_refuses_is_named(installed: Stack, kubectl: Kubectl) -> None:
    """It is valid for istiod, which so sends it on."""
    unknown = {
        "@type": "type.googleapis.com/xds.type.v3.TypedStruct",
        "type_url": "type.googleapis.com/does.not.Exist",
        "value": {},
    }
    patch = {
        "applyTo": "HTTP_FILTER",
        "match": {
            "context": "SIDECAR_OUTBOUND",
            "listener": {"filterChain": {"filter": {"name": "envoy.filters.network.http_connection_manager"}}},
        },
        "patch": {"operation": "INSERT_BEFORE", "value": {"name": "unknown", "typed_config": unknown}},
    }
    refused = {
        "apiVersion": "networking.istio.io/v1alpha3",
        "kind": "EnvoyFilter",
        "metadata": {"name": "refused", "namespace": NAMESPACE},
        "spec": {
            "workloadSelector": {"labels": {"app": "front-tomcat"}},
            "configPatches": [patch],
        },
    }
    kubectl.run("apply", "--filename=-", stdin=json.dumps(refused))
    try:
        checked = installed.mesh("check")
        assert checked.returncode == 1
        assert f"✗ {NAMESPACE}/front-tomcat-v1-" in checked.stdout
        assert "has not taken istiod's latest listener. Envoy says: " in checked.stdout, checked.stdout
    finally:
        kubectl.run("delete", "envoyfilter", "refused", f"--namespace={NAMESPACE}")


def test_every_edit_is_named_and_put_right(installed: Stack, kubectl: Kubectl) -> None:
    edit_weights(kubectl, 70)
    kubectl.run("delete", "destinationrule", "dest-bill-service-v2", f"--namespace={NAMESPACE}")
    kubectl.run("label", "deployment", "bill-service-v1", f"--namespace={NAMESPACE}", "app=edited", "--overwrite")
    kubectl.run("label", "service", "istiod", "--namespace=istio-system", "app=edited", "--overwrite")
    kubectl.run("delete", "clusterrole", "istio-cni-repair-role")
    tls = [{"op": "add", "path": "/spec/trafficPolicy", "value": {"tls": {"mode": "DISABLE"}}}]
    _edit(kubectl, "destinationrule/dest-bill-service", tls, NAMESPACE)
    # Last, as its webhook checks the rules. They can be put right only after istiod is.
    kubectl.run("scale", "deployment", "istiod", "--namespace=istio-system", "--replicas=0")
    shown, said, checked, refused = at_once(installed, ["drift", "--json"], ["drift"], ["check"], ["repair"])
    assert shown.returncode == said.returncode == 1, shown.stderr + said.stderr
    report = json.loads(shown.stdout)
    assert fields(report) == {
        ("VirtualService", "vs-bill-service", "spec.http[0].route[0].weight"),
        ("VirtualService", "vs-bill-service", "spec.http[0].route[1].weight"),
        ("DestinationRule", "dest-bill-service", "spec.trafficPolicy"),
        ("DestinationRule", "dest-bill-service-v2", ""),
        ("Deployment", "bill-service-v1", "metadata.labels.app"),
        ("Service", "istiod", "metadata.labels.app"),
        ("ClusterRole", "istio-cni-repair-role", ""),
        ("Deployment", "istiod", "spec.replicas"),
    }
    weight = next(entry for entry in report["drift"] if entry["field"].endswith("[0].weight"))
    assert (weight["declared"], weight["live"], weight["manager"]) == (90, 70, "kubectl-patch")
    weights = "bill-service: v1 90 % declared, 70 % live; v2 10 % declared, 30 % live (by kubectl-patch"
    assert weights in said.stdout

    assert checked.returncode == 1
    assert "istiod of revision default: 0 of 0 ready" in checked.stdout and "not as declared" in checked.stdout

    assert refused.returncode == 2 and "add --yes" in refused.stderr

    # That it begins with every edit shows that the refused one changed nothing.
    repaired = installed.mesh("repair", "--yes")
    assert repaired.returncode == 0, repaired.stdout + repaired.stderr
    assert "bill-service: v1 70 % → 90 %; v2 30 % → 10 %" in repaired.stdout
    assert repaired.stdout.count("\n✓ ") == len({(entry["kind"], entry["name"]) for entry in report["drift"]})
    assert_no_drift(installed)
    assert_pulumi_sees_no_change(installed)
    # A proxy that lost its istiod waits longer and longer between two tries to find one.
    wait_until_enforced(kubectl, NAMESPACE, {"v1": 90, "v2": 10}, seconds=90)


def test_an_edit_that_a_refresh_took_into_the_state_is_put_right_there_too(installed: Stack, kubectl: Kubectl) -> None:
    edit_weights(kubectl, 60)
    installed.pulumi("refresh", "--yes", "--skip-preview")
    assert {name for _, name, _ in fields(drift(installed, 1))} == {"vs-bill-service"}
    assert installed.mesh("repair", "--yes").returncode == 0
    assert_no_drift(installed)
    assert_pulumi_sees_no_change(installed)


INJECTOR = "mutatingwebhookconfiguration/istio-sidecar-injector"
ADDED_BY_AKS = [
    {"key": "control-plane", "operator": "NotIn", "values": ["true"]},
    {"key": "kubernetes.azure.com/managedby", "operator": "NotIn", "values": ["aks"]},
]


def get(kubectl: Kubectl, what: str, *args: str) -> Entry:
    found: Entry = json.loads(kubectl.run("get", what, "--output=json", *args))
    return found


def selectors(kubectl: Kubectl) -> list[list[Entry]]:
    return [webhook["namespaceSelector"]["matchExpressions"] for webhook in get(kubectl, INJECTOR)["webhooks"]]


def write_selectors(kubectl: Kubectl, wanted: list[list[Entry]], manager: str) -> None:
    patch = [
        {"op": "replace", "path": f"/webhooks/{number}/namespaceSelector/matchExpressions", "value": expressions}
        for number, expressions in enumerate(wanted)
    ]
    how = ("--type=json", f"--patch={json.dumps(patch)}", f"--field-manager={manager}")
    kubectl.run("patch", INJECTOR, *how)


def test_what_aks_adds_to_webhooks_stays_and_the_same_by_somebody_else_goes(
    installed: Stack, kubectl: Kubectl, config: Entry
) -> None:
    declared = selectors(kubectl)
    enforced = [[*expressions, *ADDED_BY_AKS] for expressions in declared]
    write_selectors(kubectl, enforced, "admissionsenforcer")
    before = get(kubectl, INJECTOR)["metadata"]["resourceVersion"]
    report = drift(installed, 0)
    assert (report["drift"], report["pending"]) == ([], [])
    assert {(entry["name"], entry["manager"]) for entry in report["allowed"]} == {
        ("istio-sidecar-injector", "admissionsenforcer")
    }
    assert len(report["allowed"]) == len(declared)
    said, repaired = at_once(installed, ["drift"], ["repair", "--yes"])
    for told in (said, repaired):
        assert told.returncode == 0, told.stdout + told.stderr
        assert f"{len(declared)} fields by AKS' admissions enforcer." in told.stdout
    assert repaired.stdout.startswith("No drift")
    assert get(kubectl, INJECTOR)["metadata"]["resourceVersion"] == before

    # An edit of the same object is put right, and no more than that.
    kubectl.run("label", INJECTOR, "app=edited", "--overwrite")
    assert installed.mesh("repair", "--yes").returncode == 0
    assert get(kubectl, INJECTOR)["metadata"]["labels"]["app"] == "sidecar-injector"
    assert selectors(kubectl) == enforced
    assert len(drift(installed, 0)["allowed"]) == len(declared)

    write_selectors(kubectl, declared, "somebody")
    write_selectors(kubectl, enforced, "somebody")
    report = drift(installed, 1)
    assert (len(report["drift"]), report["allowed"]) == (len(declared) * len(ADDED_BY_AKS), [])
    assert {entry["manager"] for entry in report["drift"]} == {"somebody"}
    assert installed.mesh("repair", "--yes").returncode == 0
    assert selectors(kubectl) == declared

    # Helm takes them away whenever it upgrades the release; from then on AKS sees the annotation.
    write_selectors(kubectl, enforced, "admissionsenforcer")
    installed.configure(merged(config, {"mesh": {"platform": "aks"}}))
    try:
        installed.up()
        annotations = get(kubectl, INJECTOR)["metadata"]["annotations"]
        assert annotations["admissions.enforcer/disabled"] == "true"
        assert selectors(kubectl) == declared
        assert_no_drift(installed)
    finally:
        installed.configure(config)
    installed.up()
    assert_no_drift(installed)


def test_a_change_of_the_program_is_no_drift(installed: Stack, config: Entry) -> None:
    installed.configure({**config, "routing": {"bill-service": {"weights": {"v1": 50, "v2": 50}}}})
    try:
        report = drift(installed, 0)
    finally:
        installed.configure(config)
    assert [(change["action"], change["name"]) for change in report["pending"]] == [("update", "vs-bill-service")]


def test_the_versions_are_the_declared_one(installed: Stack) -> None:
    shown = installed.mesh("version", "--json")
    assert shown.returncode == 0, shown.stdout
    found = json.loads(shown.stdout)
    assert {plane["revision"]: plane["version"] for plane in found["control_planes"]} == found["declared"]
    assert {gateway["name"] for gateway in found["gateways"]} == {"istio-ingressgateway", "istio-egressgateway"}
    assert [proxies["namespaces"] for proxies in found["proxies"]] == [{NAMESPACE: 3}]


def test_an_unreachable_cluster_is_no_drift(installed: Stack, config: Entry) -> None:
    installed.configure({**config, "cluster": {**config["cluster"], "context": "nowhere"}})
    try:
        for told in at_once(installed, ["drift"], ["repair"], ["version"]):
            assert told.returncode == 2 and "nowhere" in told.stderr
            assert "Traceback" not in told.stderr
    finally:
        installed.configure(config)


def test_a_secret_value_is_in_the_pods_that_use_it_and_nowhere_else(
    installed: Stack, config: Entry, kubectl: Kubectl
) -> None:
    """A stack file that has one, as `pulumi config set --secret` writes it; then another value."""
    env = {"DB_PASSWORD": {"secret": "dbPassword"}, "TOKEN": {"secretKeyRef": {"name": "tokens", "key": "bills"}}}
    values = [secrets.token_hex(12) for _ in range(3)]
    printed: list[str] = []

    def put(value: str) -> None:
        encrypted = installed.encrypted("dbPassword", value)
        services = {"bill-service": {"versions": {"v2": {"env": env}}}}
        installed.configure({**merged(config, {"services": services}), "dbPassword": encrypted})

    def mesh(*args: str, code: int = 0) -> str:
        done = installed.mesh(*args)
        assert done.returncode == code, done.stdout + done.stderr
        printed.append(done.stdout + done.stderr)
        return done.stdout

    def has(value: str, variable: str = "DB_PASSWORD") -> bool:
        where = ("deployment/bill-service-v2", "--container=bill-service", f"--namespace={NAMESPACE}")
        return kubectl.run("exec", *where, "--", "printenv", variable).strip() == value

    put(values[0])
    with pytest.raises(PulumiError, match=r"v2\.env\.TOKEN: there is no Secret tokens in the namespace istio-demo"):
        installed.pulumi("preview")
    token = f"--from-literal=bills={values[2]}"
    kubectl.run("create", "secret", "generic", "tokens", token, f"--namespace={NAMESPACE}")
    printed.append(installed.pulumi("up", "--yes"))
    assert has(values[0]) and has(values[2], "TOKEN")
    before = pods(kubectl)

    put(values[1])
    assert "bill-service: secret DB_PASSWORD of v2 changes: the pods restart; affects only" in mesh("diff", code=1)
    printed.append(installed.pulumi("up", "--yes", "--diff"))
    assert installed.changes()["update"] == 2, "the Secret and the Deployment, and no replacement"
    assert has(values[1])
    after = pods(kubectl)
    assert [version for version in before if before[version] != after[version]] == ["bill-service-v2"]

    data = [{"op": "replace", "path": "/data/dbPassword", "value": encoded(values[2])}]
    _edit(kubectl, "secret/bill-service-env", data, NAMESPACE)
    assert "data.dbPassword: [secret] declared, another live (by kubectl-patch" in mesh("drift", code=1)
    assert "another → [secret]" in mesh("repair", "--yes")
    live = kubectl.run("get", "secret", "bill-service-env", f"--namespace={NAMESPACE}", "--output=jsonpath={.data}")
    assert json.loads(live) == {"dbPassword": encoded(values[1])}
    assert_no_drift(installed)
    assert_pulumi_sees_no_change(installed)

    assert "dbPassword" in mesh("config", "services.bill-service.versions.v2.env")
    assert "dbPassword: '[secret]'" in mesh("render")
    printed += [installed.pulumi("preview", "--json"), installed.pulumi("stack", "export")]
    backend = Path(urlparse(installed.variables["PULUMI_BACKEND_URL"]).path)
    kept = [file.read_bytes() for folder in (backend, installed.folder) for file in folder.rglob("*") if is_kept(file)]
    assert any(b"bill-service-env" in content for content in kept)
    for value in values:
        for text in (value, encoded(value)):
            assert not [output for output in printed if text in output]
            assert not [content for content in kept if text.encode() in content]
    # It is somebody else's, and `destroy` would refuse to take it along.
    kubectl.run("delete", "secret", "tokens", f"--namespace={NAMESPACE}")


def is_kept(file: Path) -> bool:
    """A file of the stack's own, and no link into the checkout."""
    return file.is_file() and not file.is_symlink()


def encoded(value: str) -> str:
    return base64.b64encode(value.encode()).decode()


def pods(kubectl: Kubectl) -> dict[str, set[str]]:
    """Deployment → the pods that it has and that are not about to go."""
    found: dict[str, set[str]] = {}
    for pod in kubectl.items("pods", f"--namespace={NAMESPACE}"):
        if "deletionTimestamp" not in pod["metadata"]:
            found.setdefault(pod["metadata"]["name"].rsplit("-", 2)[0], set()).add(pod["metadata"]["name"])
    return found
