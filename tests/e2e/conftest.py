"""The embedded cluster that the suite makes, has for itself and takes down again."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest

import localcluster
from harness.stack import Stack, stack_file
from harness.traffic import Load
from harness.unchanged import Unchanged
from localcluster.build import locked
from localcluster.instance import NAMES
from mesh.cluster.kubectl import Kubectl
from tests.conftest import not_run

# Each of the suite's workers has a cluster for itself. Another name lets two checkouts run their suites side by side.
CLUSTERS = [name for name in NAMES if name.startswith("test")]
INSTANCE = os.environ.get("TEST_CLUSTER") or CLUSTERS[int(os.environ.get("PYTEST_XDIST_WORKER", "gw0")[2:])]
SHOP = Path(__file__).parent / "shop"


@pytest.fixture(scope="module", autouse=True)
def machine(request: pytest.FixtureRequest) -> Iterator[None]:
    """Shared with the modules that run on the other clusters; one that is marked `alone` waits until they are done."""
    with locked("machine", shared=request.node.get_closest_marker("alone") is None):
        yield


@pytest.fixture(scope="session")
def cluster() -> Iterator[localcluster.EmbeddedCluster]:
    """Where it cannot be had the tests are not run, and the summary says so; in CI that is a failure."""
    with locked(f"suite-{INSTANCE}"):  # a second suite waits, or each would take the other's cluster down
        try:
            localcluster.down(INSTANCE, localcluster.Choice.EMBEDDED)
            cluster = localcluster.up(INSTANCE, localcluster.Choice.EMBEDDED)
        except localcluster.ClusterError as error:
            not_run("the end-to-end tests", error)
        assert isinstance(cluster, localcluster.EmbeddedCluster)
        try:
            yield cluster
        finally:
            localcluster.down(INSTANCE, localcluster.Choice.EMBEDDED)


@pytest.fixture(scope="session")
def kubectl(cluster: localcluster.EmbeddedCluster) -> Kubectl:
    return Kubectl(cluster.context, str(cluster.kubeconfig))


@pytest.fixture(scope="session")
def config(cluster: localcluster.EmbeddedCluster) -> dict[str, Any]:
    """That of the stack `local`, on the suite's cluster."""
    return {
        **stack_file("local"),
        "cluster": {"context": cluster.context, "kubeconfig": str(cluster.kubeconfig)},
    }


@pytest.fixture(scope="module")
def stack(
    cluster: localcluster.EmbeddedCluster,
    config: dict[str, Any],
    tmp_path_factory: pytest.TempPathFactory,
    request: pytest.FixtureRequest,
    kubectl: Kubectl,
) -> Iterator[Stack]:
    """A stack of the module's own, destroyed when the module is done, however it ended."""
    name = Path(str(request.path)).stem.replace("_", "-")
    stack = Stack(name, tmp_path_factory.mktemp(name), cluster.environment)
    stack.configure(config)
    stack.select()
    try:
        yield stack
    finally:
        stack.configure(config)
        stack.recover(kubectl)
        stack.destroy()


@pytest.fixture(scope="module")
def owner(stack: Stack) -> Stack:
    """It owns Istio, and has workloads of its own."""
    stack.up()
    return stack


@pytest.fixture(scope="module")
def shop(
    owner: Stack, cluster: localcluster.EmbeddedCluster, kubectl: Kubectl, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stack]:
    del owner
    shop = Stack("shop", tmp_path_factory.mktemp("shop"), cluster.environment)
    (shop.folder / "defaults.yaml").unlink()
    shutil.copy(SHOP / "defaults.yaml", shop.folder)
    written = f"context: {cluster.context}, kubeconfig: {cluster.kubeconfig}"
    file = (SHOP / "Pulumi.shop.yaml").read_text()
    shop.file.write_text(file.replace("context: istio-governance, kubeconfig: .cluster/kubeconfig", written))
    shop.select()
    text = shop.file.read_text()  # Pulumi sets it in its own style when it adds the salt of its secrets
    try:
        shop.up()
        kubectl.run("apply", f"--filename={SHOP / 'others.yaml'}")
        for deployment, namespace in (("legacy-one", "shop"), ("legacy-two", "shop"), ("clerk", "office")):
            kubectl.run("rollout", "status", f"deployment/{deployment}", f"--namespace={namespace}", timeout=120)
        yield shop
    finally:
        kubectl.run("delete", f"--filename={SHOP / 'others.yaml'}", "--ignore-not-found", timeout=120)
        shop.end_orphans()
        shop.file.write_text(text)
        shop.pulumi("cancel", "--yes")
        shop.destroy()


@pytest.fixture
def others(owner: Stack, shop: Stack, kubectl: Kubectl) -> Iterator[Unchanged]:
    """What is not the shop's, which no test may change."""
    del shop
    unchanged = Unchanged(kubectl, "istio-governance/shop", [owner])
    yield unchanged
    assert unchanged.differences() == {}


@pytest.fixture
def no_request_fails(
    kubectl: Kubectl, record_property: Callable[[str, object], None]
) -> Callable[[], AbstractContextManager[None]]:
    """`with no_request_fails():` has requests all the time, of which none may fail; the report has their number."""

    @contextmanager
    def load() -> Iterator[None]:
        with Load(kubectl, "istio-demo") as sent:
            yield
        record_property("requests", sent.requests)
        assert sent.requests > 100
        assert sent.failures == []

    return load
