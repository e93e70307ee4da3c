"""What a user gets wrong is told before anything changes: key, value, what is allowed, how to fix it; no traceback."""

from __future__ import annotations

import copy
import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from config import merged
from config.files import values
from config.merge import patched, settled
from harness.stack import PulumiError, Stack
from mesh.cluster.kubectl import Kubectl, KubectlError
from mesh.declared import declared_by
from tests.unit.test_pods import BAD, COMPLETE, with_piece

Config = dict[str, Any]


def refused(stack: Stack, config: Config, command: str = "up") -> str:
    """What Pulumi prints when it refuses `config`."""
    stack.configure(config)
    flags = ["--yes", "--skip-preview"] if command == "up" else []
    with pytest.raises(PulumiError) as error:
        stack.pulumi(command, *flags)
    assert "Traceback" not in error.value.output
    assert "nothing was changed" in error.value.output
    assert [r["type"] for r in stack.resources()] in ([], ["pulumi:pulumi:Stack"])
    return error.value.output


@pytest.mark.parametrize("command", ["preview", "up"])
def test_all_mistakes_are_told_together(stack: Stack, config: Config, command: str) -> None:
    wrong = copy.deepcopy(config)
    wrong["routing"]["bill-service"]["weights"] = {"v1": 90, "v2": 20}
    wrong["mesh"]["profil"] = "demo"
    wrong["services"]["bill-service"]["ports"] = {"http": {"port": 99999}}
    printed = refused(stack, wrong, command)
    assert "3 problems" in printed
    assert "add up to 110" in printed
    assert "did you mean 'profile'?" in printed
    assert "services.bill-service.ports.http.port = 99999" in printed


def test_a_kubeconfig_that_does_not_exist(stack: Stack, config: Config) -> None:
    assert "cluster.kubeconfig" in refused(stack, {**config, "cluster": {"kubeconfig": "no/such/file"}})


def test_a_context_that_does_not_exist(stack: Stack, config: Config) -> None:
    cluster = {**config["cluster"], "context": "nowhere"}
    assert "nowhere" in refused(stack, {**config, "cluster": cluster})


@pytest.fixture
def silent_server() -> Iterator[int]:
    """A port that accepts connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def test_a_cluster_that_does_not_answer_is_told_within_ten_seconds(
    stack: Stack, config: Config, silent_server: int, tmp_path: Path
) -> None:
    kubeconfig = yaml.safe_load(Path(config["cluster"]["kubeconfig"]).read_text())
    kubeconfig["clusters"][0]["cluster"]["server"] = f"https://127.0.0.1:{silent_server}"
    unreachable = tmp_path / "kubeconfig"
    unreachable.write_text(yaml.safe_dump(kubeconfig))
    start = time.monotonic()
    printed = refused(stack, {**config, "cluster": {**config["cluster"], "kubeconfig": str(unreachable)}})
    # Ten seconds on a quiet machine; a loaded one may take a while to start Pulumi.
    assert time.monotonic() - start < 20
    assert "the cluster cannot be read" in printed


def test_objects_of_others_are_not_taken_over(stack: Stack, config: Config, kubectl: Kubectl) -> None:
    kubectl.run("create", "namespace", "istio-demo")
    try:
        printed = refused(stack, config)
        assert "Namespace istio-demo was not made by a stack" in printed
        assert "namespace.create" in printed
    finally:
        kubectl.run("delete", "namespace", "istio-demo")


def taken(kubectl: Kubectl, template: object) -> str:
    """What the API server has against these pods of a Deployment, which it is only asked about; '' for nothing."""
    selector = {"matchLabels": {"service": "bill-service", "version": "v1"}}
    body = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "asked", "namespace": "default"},
        "spec": {"selector": selector, "template": template},
    }
    try:
        kubectl.run("apply", "--server-side", "--dry-run=server", "--filename=-", stdin=json.dumps(body))
    except KubectlError as error:
        return str(error)
    return ""


def generated(**changes: Any) -> Any:
    made = declared_by(merged(values("local"), changes), "local")
    return json.loads(json.dumps(made.spec("Deployment", "bill-service-v1")["template"]))


def pieces() -> Iterator[tuple[str, Any]]:
    """Those of one version, but for a port of a probe: the API server takes it, and the pods never get ready."""
    for change, key, text in BAD:
        version = change.get("services", {}).get("bill-service", {}).get("versions", {}).get("v1", {})
        if change.keys() == {"services"} and version.keys() == {"podTemplate"} and not key.endswith("httpGet.port"):
            yield f"{key}: {text}", version["podTemplate"]


def test_the_api_server_refuses_the_pods_that_are_refused(kubectl: Kubectl) -> None:
    base = generated()
    assert taken(kubectl, base) == ""
    assert [name for name, piece in pieces() if not taken(kubectl, settled(patched(base, piece)))] == []


def test_the_api_server_takes_the_pods_that_are_taken(kubectl: Kubectl) -> None:
    assert taken(kubectl, generated(**with_piece(COMPLETE))) == ""
