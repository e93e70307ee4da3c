"""The components from the package, in a program in YAML with Istio and in one in TypeScript beside it, as examples/ has
them: two versions, 90/10, other weights, gone again; and nothing of the one is touched by the other."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from config import merged
from harness import examples
from harness import stack as harness
from harness.traces import Traces, traces_settled
from harness.unchanged import Unchanged
from harness.waiting import eventually
from localcluster import EmbeddedCluster, build
from mesh.cluster.kubectl import Kubectl
from mesh.program.stack import PulumiError, Stack
from tests.e2e.binomial import is_plausible

REQUESTS = 400
TOKEN = "a-token-of-the-test"  # noqa: S105

Config = dict[str, Any]


@pytest.fixture(scope="module")
def before(cluster: EmbeddedCluster) -> Traces:
    return Traces.of(cluster)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("package")
    for place in (folder, folder / "wrong"):
        (examples.checkout(place) / "venv").symlink_to(sys.prefix)
    return folder


@pytest.fixture(scope="module")
def variables(before: Traces, folder: Path, cluster: EmbeddedCluster) -> Mapping[str, str]:
    del before
    return examples.environment(folder, cluster)


@pytest.fixture(scope="module")
def settings(folder: Path, cluster: EmbeddedCluster, config: Config) -> Config:
    """Of both programs, on the suite's cluster."""
    mesh = merged(config["mesh"], {"version": "1.31.0", "charts": str(build.charts())})
    # From the folder of the program, so that no state names one of this machine.
    for place in (folder, folder / "wrong"):
        (place / "kubeconfig").symlink_to(cluster.kubeconfig)
    where = {"context": cluster.context, "kubeconfig": "../../kubeconfig"}
    image = "localhost/istio-governance/nginx:debian-12"
    return {"cluster": where, "mesh": mesh, "image": image, "weights": {"v1": 90, "v2": 10}}


@contextmanager
def running(stack: Stack, settings: Config) -> Iterator[Stack]:
    """From its first update to its end, whatever a test has left of it."""
    try:
        stack.up()
        yield stack
    finally:
        examples.configure(stack, settings)
        stack.pulumi("cancel", "--yes")
        stack.destroy()


def in_yaml(folder: Path, variables: Mapping[str, str], settings: Config, name: str) -> Stack:
    stack = examples.example("yaml", folder, variables, settings, name)
    stack.pulumi("config", "set", "--secret", "token", TOKEN)
    return stack


@pytest.fixture(scope="module")
def shop(folder: Path, variables: Mapping[str, str], settings: Config) -> Iterator[Stack]:
    """The program in YAML, which owns Istio."""
    with running(in_yaml(folder, variables, settings, "test"), settings) as stack:
        yield stack


@pytest.fixture(scope="module")
def orders_settings(settings: Config) -> Config:
    mesh = {"mode": "existing"}
    return {**settings, "mesh": mesh, "namespace": "orders", "weights": {"v1": 90, "v2": 10}}


@pytest.fixture(scope="module")
def orders(folder: Path, shop: Stack, variables: Mapping[str, str], orders_settings: Config) -> Iterator[Stack]:
    """The program in TypeScript, in the mesh of the other."""
    del shop
    stack = examples.example("typescript", folder, variables, orders_settings)
    examples.install_sdk(stack, folder / "package")
    with running(stack, orders_settings):
        yield stack


def answers(kubectl: Kubectl, namespace: str) -> Counter[str]:
    """Who answered, of requests from the namespace's caller to its web."""
    curl = ["curl", "--silent", "--header", "Connection: close", f"http://web/?[1-{REQUESTS}]"]
    printed = kubectl.run(
        "exec", f"--namespace={namespace}", "deployment/caller-v1", "--container=caller", "--",
        "sh", "-c", f"{shlex.join(curl)} || true", timeout=120,
    )  # fmt: skip
    return Counter(printed.split())


def assert_split(kubectl: Kubectl, namespace: str, weights: Mapping[str, int]) -> None:
    found = answers(kubectl, namespace)
    assert sum(found.values()) == REQUESTS and set(found) <= set(weights), found
    assert is_plausible(found["v1"], REQUESTS, weights["v1"] / 100), found


def shifted(stack: Stack, settings: Config, kubectl: Kubectl, namespace: str, weights: dict[str, int]) -> None:
    """By the program's own configuration and `pulumi up`."""
    examples.configure(stack, {**settings, "weights": weights})
    changes = stack.up()
    assert changes.get("update") == 1 and not changes.keys() - {"update", "same"}, changes
    eventually(lambda: assert_split(kubectl, namespace, weights), seconds=10)


def test_the_schema_is_what_pulumi_gets_from_the_package(folder: Path, variables: Mapping[str, str]) -> None:
    """In a checkout without a virtual environment, which Pulumi makes."""
    package = examples.checkout(folder / "fresh")
    printed = subprocess.run(
        ["pulumi", "package", "get-schema", str(package)], env=variables, capture_output=True, text=True, check=True
    ).stdout
    assert json.loads(printed) == json.loads((package / "schema.json").read_text())
    assert (package / "venv" / "bin" / "python").exists()


def test_a_wrong_input_ends_the_preview_in_words(folder: Path, variables: Mapping[str, str], settings: Config) -> None:
    wrong = in_yaml(folder / "wrong", variables, settings, "wrong")
    text = (wrong.folder / "Pulumi.yaml").read_text()
    (wrong.folder / "Pulumi.yaml").write_text(text.replace("namespace: shop", "namespace: Shop"))
    with pytest.raises(PulumiError) as refused:
        wrong.pulumi("preview")
    told = refused.value.output
    assert "Traceback" not in told and 'File "' not in told, told
    for words in ('1. namespace = "Shop"', "allowed: a DNS label", "fix:     set 'namespace' to"):
        assert words in told, told


def test_no_secret_is_told_in_a_refusal(folder: Path, variables: Mapping[str, str], settings: Config) -> None:
    """Pulumi adds the values of the properties that it is told of."""
    wrong = in_yaml(folder / "wrong", variables, settings, "leak")
    text = (wrong.folder / "Pulumi.yaml").read_text()
    (wrong.folder / "Pulumi.yaml").write_text(text.replace("token: ${token}", "tokne: ${token}"))
    with pytest.raises(PulumiError) as refused:
        wrong.pulumi("preview")
    told = refused.value.output
    assert "secrets" in told and "fix:" in told and TOKEN not in told, told


def test_the_program_in_yaml_splits_by_its_weights(shop: Stack, kubectl: Kubectl) -> None:
    assert set(shop.up()) == {"same"}
    outputs = shop.outputs()
    assert outputs["weights"] == {"v1": 90, "v2": 10} and outputs["version"] == "1.31.0"
    eventually(lambda: assert_split(kubectl, "shop", {"v1": 90, "v2": 10}), seconds=10)


def test_the_state_names_no_folder_of_this_machine(shop: Stack) -> None:
    """But those that the configuration names itself."""
    commands = [one["inputs"] for one in shop.resources() if one["type"] == "command:local:Command"]
    assert commands
    for inputs in commands:
        words = json.dumps({key: inputs[key] for key in ("create", "delete") if key in inputs})
        assert "../../package/venv/bin/python" in words and str(shop.folder.parent) not in words, words


def test_a_secret_gets_to_the_pods_and_to_no_state(shop: Stack, kubectl: Kubectl) -> None:
    pod = ("exec", "--namespace=shop", "deployment/web-v1", "--container=web", "--")
    assert kubectl.run(*pod, "sh", "-c", "echo $GREETING $TOKEN").split() == ["hello", TOKEN]
    assert TOKEN not in shop.pulumi("stack", "export")


def test_mesh_reads_by_a_stack_file_of_this_project(
    shop: Stack, tmp_path: Path, cluster: EmbeddedCluster, kubectl: Kubectl
) -> None:
    """And shifts nothing that is another program's: as docs/components.md has it."""
    reader = harness.Stack("reader", tmp_path, cluster.environment)
    web = {"ports": {"http": {"port": 80}}, "versions": {"v1": {}, "v2": {}}}
    services = {"web": {"workload": "existing", **web}, "caller": {"workload": "existing", "versions": {"v1": {}}}}
    gone = {"front-tomcat": None, "bill-service": None}  # those of defaults.yaml
    reader.configure(
        {
            "cluster": {"context": cluster.context, "kubeconfig": str(cluster.kubeconfig)},
            "mesh": {"mode": "existing", "version": None},
            "namespace": {"name": "shop", "create": False},
            "services": {**gone, **services},
            "routing": {"web": {"weights": {"v1": 90, "v2": 10}}},
        }
    )
    unchanged = Unchanged(kubectl, "nobody", [shop])
    for command in (["status"], ["verify", "web"], ["explain", "caller", "web"]):
        done = reader.mesh(*command)
        assert done.returncode == 0, done.stdout + done.stderr
    refused = reader.mesh("shift", "web", "v2=50", "--now")
    assert refused.returncode == 1 and "VirtualService vs-web belongs to the stack shop/test" in refused.stderr
    stateless = reader.mesh("drift")
    assert stateless.returncode == 2 and "no stack named 'reader' found" in stateless.stderr
    assert unchanged.differences() == {}


def test_a_change_of_the_weights_in_yaml_changes_one_object(
    shop: Stack, settings: Config, orders: Stack, kubectl: Kubectl
) -> None:
    unchanged = Unchanged(kubectl, "shop/test", [orders])
    shifted(shop, settings, kubectl, "shop", {"v1": 30, "v2": 70})
    assert unchanged.differences() == {}


def test_the_program_in_typescript_does_the_same(
    orders: Stack, orders_settings: Config, shop: Stack, kubectl: Kubectl
) -> None:
    assert set(orders.up()) == {"same"}
    assert orders.outputs() == {"urls": {"web": "http://web.orders:80"}, "weights": {"web": {"v1": 90, "v2": 10}}}
    eventually(lambda: assert_split(kubectl, "orders", {"v1": 90, "v2": 10}), seconds=10)
    unchanged = Unchanged(kubectl, "orders/test", [shop])
    shifted(orders, orders_settings, kubectl, "orders", {"v1": 30, "v2": 70})
    assert unchanged.differences() == {}


def test_istio_stays_while_others_use_it(shop: Stack, orders: Stack, kubectl: Kubectl) -> None:
    del orders
    with pytest.raises(PulumiError) as refused:
        shop.destroy()
    assert "VirtualService orders/vs-web" in refused.value.output, refused.value.output
    assert "Nothing was deleted." in refused.value.output
    assert_split(kubectl, "shop", {"v1": 30, "v2": 70})
    assert_split(kubectl, "orders", {"v1": 30, "v2": 70})
    shop.up()


def test_a_namespace_stays_while_others_have_something_in_it(shop: Stack, kubectl: Kubectl) -> None:
    """Also by its own component, without the guard of all."""
    text = (shop.folder / "Pulumi.yaml").read_text()
    kubectl.run("create", "configmap", "theirs", "--namespace=shop")
    try:
        (shop.folder / "Pulumi.yaml").write_text(text.replace("namespace: {name: shop}", "namespace: {name: other}"))
        with pytest.raises(PulumiError) as refused:
            shop.up()
        assert "ConfigMap shop/theirs" in refused.value.output, refused.value.output
        assert kubectl.items("configmap", "theirs", "--namespace=shop")
    finally:
        kubectl.run("delete", "configmap", "theirs", "--namespace=shop")
        (shop.folder / "Pulumi.yaml").write_text(text)
        shop.up()
    assert_split(kubectl, "shop", {"v1": 30, "v2": 70})


def test_destroy_leaves_what_was_there_before(
    shop: Stack, orders: Stack, cluster: EmbeddedCluster, before: Traces
) -> None:
    orders.destroy()
    shop.destroy()
    assert traces_settled(cluster, before) == before
