"""A mesh through its life, and not one request fails: upgrades, a change of values, revisions, parts off and on.

The older version is a stand-in, the same build under another version (harness/standin.py). The tests build on each
other in the order in which they stand; switching the whole mesh off and on is part of test_story.py.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from config import merged
from harness.charts import refusing
from harness.stack import PulumiError, Stack
from harness.standin import CURRENT, OLDER, provide
from localcluster import EmbeddedCluster
from mesh.cluster.kubectl import Kubectl

NAMESPACE = "istio-demo"

Config = dict[str, Any]
NoRequestFails = Callable[[], AbstractContextManager[None]]


@pytest.fixture(scope="module")
def both(cluster: EmbeddedCluster, config: Config, tmp_path_factory: pytest.TempPathFactory) -> Config:
    """The configuration with charts and images of the current version and of the older one."""
    return provide(cluster, config, tmp_path_factory.mktemp("charts"))


def mesh(config: Config, **mesh: Any) -> Config:
    return merged(config, {"mesh": mesh})


def pods(kubectl: Kubectl, namespace: str = NAMESPACE) -> dict[str, dict[str, Any]]:
    """The pods that are not going already, by name.

    Of the three workloads none but the new ones: a Deployment counts as done a moment before it tells the old to go.
    """
    end = time.monotonic() + 30
    while True:
        items = kubectl.items("pods", f"--namespace={namespace}")
        found = {pod["metadata"]["name"]: pod for pod in items if "deletionTimestamp" not in pod["metadata"]}
        if namespace != NAMESPACE or len(found) == 3 or time.monotonic() > end:
            return found
        time.sleep(0.5)


def proxies(kubectl: Kubectl, namespace: str = NAMESPACE) -> dict[str, str]:
    """Pod → the tag of its proxy's image."""
    images = {
        name: [c["image"] for c in [*pod["spec"]["containers"], *pod["spec"].get("initContainers", [])]]
        for name, pod in pods(kubectl, namespace).items()
    }
    return {name: i.rpartition(":")[2] for name, found in images.items() for i in found if "/proxyv2:" in i}


def control_planes(kubectl: Kubectl) -> dict[str, str]:
    """Pod → the revision that injected its proxy, as that proxy has it in its environment."""
    found = {}
    for name, pod in pods(kubectl).items():
        for container in [*pod["spec"]["containers"], *pod["spec"].get("initContainers", [])]:
            for variable in container.get("env", []):
                if variable["name"] == "CA_ADDR":
                    found[name] = variable["value"].partition(".")[0]
    return found


def test_upgrade_in_place(stack: Stack, both: Config, kubectl: Kubectl, no_request_fails: NoRequestFails) -> None:
    stack.configure(mesh(both, version=OLDER))
    stack.up()
    assert set(proxies(kubectl).values()) == {OLDER}
    stack.configure(both)
    with no_request_fails():
        stack.up()
    assert set(proxies(kubectl).values()) == {CURRENT}
    assert set(proxies(kubectl, "istio-system").values()) == {CURRENT}
    assert stack.outputs()["meshVersion"] == CURRENT


def test_there_is_no_way_back(stack: Stack, both: Config) -> None:
    """That no version can be skipped is a unit test: charts of a third one are not here."""
    stack.configure(mesh(both, version=OLDER))
    with pytest.raises(PulumiError) as refused:
        stack.pulumi("preview")
    assert f"mesh.version is {OLDER}" in refused.value.output
    assert "no way back" in refused.value.output
    assert "nothing was changed" in refused.value.output


def test_values_of_istiod_alone_leave_the_pods_as_they_are(stack: Stack, both: Config, kubectl: Kubectl) -> None:
    before = set(pods(kubectl))
    stack.configure(mesh(both, values={"istiod": {"env": {"PILOT_TRACE_SAMPLING": "50"}}}))
    assert stack.up()["update"] == 1
    assert set(pods(kubectl)) == before


def test_values_of_the_sidecars_make_the_pods_roll(
    stack: Stack, both: Config, kubectl: Kubectl, no_request_fails: NoRequestFails
) -> None:
    before = set(pods(kubectl))
    stack.configure(mesh(both, cni=False, egress=False, values={"istiod": {"global": {"proxy": {"logLevel": "info"}}}}))
    with no_request_fails():
        stack.up()
    assert before.isdisjoint(pods(kubectl))
    assert not kubectl.items("daemonsets", "--namespace=istio-system")
    assert not any("egress" in name for name in pods(kubectl, "istio-system"))


def test_cni_and_egress_come_back(
    stack: Stack, both: Config, kubectl: Kubectl, no_request_fails: NoRequestFails
) -> None:
    stack.configure(both)
    with no_request_fails():
        stack.up()
    assert kubectl.items("daemonsets", "--namespace=istio-system")
    assert any("egress" in name for name in pods(kubectl, "istio-system"))


def test_a_gateway_chart_that_refuses_itself_is_installed_without_its_schema_and_upgraded_to_a_healthy_one(
    stack: Stack, both: Config, kubectl: Kubectl, tmp_path: Path
) -> None:
    """Back and forth in place, and on another machine the same: the state names no folder of this one."""
    stack.configure(mesh(both, charts=str(refusing(tmp_path))))
    _, _, diagnostics = stack.pulumi("preview").partition("Diagnostics:")
    assert diagnostics.count("refuses the chart's own values") == 1
    assert "replace" not in stack.up()
    shutil.rmtree(stack.folder / ".mesh")
    stack.pulumi("preview", "--expect-no-changes")
    copied = ".mesh/charts/gateway-1.31.0.tgz"
    charts = {one["inputs"]["name"]: one["inputs"]["chart"] for one in stack.resources() if ":Release" in one["type"]}
    assert charts["istio-ingressgateway"] == charts["istio-egressgateway"] == copied != charts["istiod"]
    stack.configure(both)
    assert "refuses" not in stack.pulumi("preview")
    assert "replace" not in stack.up()
    assert {"istio-ingressgateway", "istio-egressgateway"} <= {
        item["metadata"]["name"] for item in kubectl.items("deployments", "--namespace=istio-system")
    }


def test_one_service_moves_to_a_second_control_plane(
    stack: Stack, both: Config, kubectl: Kubectl, no_request_fails: NoRequestFails
) -> None:
    revisions = {"default": {"version": CURRENT}, "canary": {"version": CURRENT}}
    before = {name for name in pods(kubectl) if name.startswith("bill-service")}
    stack.configure(
        merged(
            mesh(both, version="", revisions=revisions, revision="default"),
            {"services": {"front-tomcat": {"revision": "canary"}}},
        )
    )
    with no_request_fails():
        stack.up()
    found = control_planes(kubectl)
    assert {name: plane for name, plane in found.items() if name.startswith("bill-service")} == dict.fromkeys(
        before, "istiod"
    )
    assert {plane for name, plane in found.items() if name.startswith("front-tomcat")} == {"istiod-canary"}


def test_all_move_to_the_second_control_plane_and_the_first_goes(
    stack: Stack, both: Config, kubectl: Kubectl, no_request_fails: NoRequestFails
) -> None:
    stack.configure(mesh(both, version="", revisions={"canary": {"version": CURRENT}}, revision="canary"))
    with no_request_fails():
        stack.up()
    assert set(control_planes(kubectl).values()) == {"istiod-canary"}
    istiods = {item["metadata"]["name"] for item in kubectl.items("deployments", "--namespace=istio-system")}
    assert {name for name in istiods if name.startswith("istiod")} == {"istiod-canary"}
    (namespace,) = kubectl.items("namespace", NAMESPACE)
    labels = namespace["metadata"]["labels"]
    assert labels["istio.io/rev"] == "canary"
    assert "istio-injection" not in labels
    assert set(stack.up()) == {"same"}
    validators = kubectl.items("validatingwebhookconfigurations")
    services = {webhook["clientConfig"]["service"]["name"] for item in validators for webhook in item["webhooks"]}
    assert services == {"istiod-canary"}
