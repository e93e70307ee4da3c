"""Each component alone: what it registers, under which names, in which order."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pulumi
import pytest

import names
from components import Announced, Istio, Purge, PurgeGuard, Routing, Workload, WorkloadNamespace
from components.istio import IstioArgs
from components.namespace import WorkloadNamespaceArgs
from components.purge import PurgeArgs
from components.routing import RoutingArgs, WaitArgs
from components.workload import WorkloadArgs
from config import StackConfig
from istio.charts import OFFICIAL_CHARTS
from istio.rules import routed
from istio.values import OFFICIAL_HUB
from mesh.drain import drain_seconds
from mesh.program.recorder import PROJECT, Recording, record

from .given import config

ALL_RELEASES = {"istio-base", "istiod", "istio-cni", "istio-ingressgateway", "istio-egressgateway"}

Make = Callable[[StackConfig, pulumi.ResourceOptions | None], pulumi.ComponentResource]


def make_istio(given: StackConfig, opts: pulumi.ResourceOptions | None = None) -> Istio:
    return Istio("mesh", IstioArgs(given.mesh), opts)


def make_namespace(given: StackConfig, opts: pulumi.ResourceOptions | None = None) -> WorkloadNamespace:
    return WorkloadNamespace("workloads", WorkloadNamespaceArgs(given.namespace, given.mesh), opts)


def make_workload(given: StackConfig, opts: pulumi.ResourceOptions | None = None) -> Workload:
    service, selector = given.services["bill-service"], given.selector("bill-service")
    workload = Workload("bill-service", WorkloadArgs(service, selector, "istio-demo", given.mesh), opts)
    workload.rest()
    return workload


def make_routing(given: StackConfig, opts: pulumi.ResourceOptions | None = None) -> Routing:
    (service,) = routed(given)
    routing = Routing("bill-service", RoutingArgs(service), opts)
    routing.split()
    return routing


def make_purge(given: StackConfig, opts: pulumi.ResourceOptions | None = None) -> Purge:
    return Purge("leftovers", PurgeArgs(given.cluster, given.mesh), opts)


def make_guard(given: StackConfig, opts: pulumi.ResourceOptions | None = None) -> PurgeGuard:
    return PurgeGuard("guard", PurgeArgs(given.cluster, given.mesh), opts)


def made(make: Make, **changes: Any) -> Recording:
    """What a component registers for the valid configuration with `changes`."""
    return record(lambda: make(config(**changes), None))


def workload(**service: Any) -> Recording:
    return made(make_workload, services={"bill-service": service})


def pod(recording: Recording, deployment: str = "bill-service-v1") -> Any:
    return recording.spec("Deployment", deployment)["template"]


def container(recording: Recording, deployment: str = "bill-service-v1") -> Any:
    (only,) = pod(recording, deployment)["spec"]["containers"]
    return only


# Every component


@pytest.mark.parametrize(
    ("make", "type_", "outputs"),
    [
        (make_istio, "istio:Istio", {"version": "1.31.0"}),
        (make_namespace, "namespace:WorkloadNamespace", {"namespace": "istio-demo"}),
        (make_workload, "workload:Workload", {"url": "http://bill-service.istio-demo:9999"}),
        (make_routing, "routing:Routing", {"weights": {"v1": 90, "v2": 10}}),
        (make_purge, "purge:Purge", {}),
        (make_guard, "purge:PurgeGuard", {}),
    ],
)
def test_component_has_its_type_outputs_and_children(make: Make, type_: str, outputs: Mapping[str, Any]) -> None:
    recording = record(
        lambda: make(config(), pulumi.ResourceOptions(depends_on=[Other("other")], ignore_changes=["spec"]))
    )
    other, component = recording.one("Other"), recording.one(type_.split(":")[1])
    children = [resource for resource in recording if resource not in (other, component)]
    assert component.type == f"{PROJECT}:{type_}"
    assert recording.outputs[component.urn] == outputs
    assert children
    for child in children:
        assert recording.parent(child) == component
        assert not child.ignore_changes, "the caller's options are not the child's"
        assert other.urn not in child.dependencies, "the caller's options are not the child's"
        assert other.urn in recording.before(child)


class Other(pulumi.CustomResource):
    """Something that a component depends on."""

    def __init__(self, name: str) -> None:
        super().__init__("test:index:Other", name, {})


@pytest.mark.parametrize("make", [make_istio, make_namespace, make_workload, make_routing])
def test_objects_carry_their_name_and_their_owner(make: Make) -> None:
    objects = [resource for resource in made(make) if "metadata" in resource.inputs]
    assert objects
    for resource in objects:
        metadata = resource.inputs["metadata"]
        assert metadata["name"] == resource.name
        assert metadata["labels"]["app.kubernetes.io/managed-by"] == "pulumi"
        assert metadata["annotations"][names.OWNER] == f"{PROJECT}/test"
        assert metadata.get("namespace", "istio-demo") == "istio-demo"


# Istio


@pytest.mark.parametrize(
    ("mesh", "missing"),
    [
        ({"profile": "demo"}, set()),
        ({"profile": "default"}, {"istio-egressgateway"}),
        ({"profile": "minimal"}, {"istio-ingressgateway", "istio-egressgateway"}),
        ({"profile": "demo", "cni": False}, {"istio-cni"}),
        ({"profile": "demo", "ingress": False}, {"istio-ingressgateway"}),
        ({"profile": "demo", "egress": False}, {"istio-egressgateway"}),
        ({"profile": "default", "egress": True}, set()),
        ({"profile": "minimal", "ingress": True}, {"istio-egressgateway"}),
    ],
)
def test_profile_decides_on_the_releases(mesh: Mapping[str, Any], missing: set[str]) -> None:
    releases = made(make_istio, mesh=mesh).named("Release")
    assert set(releases) == ALL_RELEASES - missing
    assert releases["istiod"].inputs["values"]["cni"]["enabled"] is mesh.get("cni", True)


def test_releases_wait_for_what_they_need_and_for_nothing_else() -> None:
    recording = made(make_istio, mesh={"profile": "demo"})
    releases = recording.named("Release")
    waits = {
        name: {recording.resources[urn].name for urn in recording.before(release)} - {"mesh"}
        for name, release in releases.items()
    }
    base = {"istio-system"}
    assert waits == {
        "istio-base": base,
        "istiod": base | {"istio-base"},
        "istio-cni": base | {"istio-base", "istiod"},
        "istio-ingressgateway": base | {"istio-base", "istiod"},
        "istio-egressgateway": base | {"istio-base", "istiod"},
    }
    assert [name for name, release in releases.items() if release.inputs["skipAwait"]] == ["istio-base"]


def test_at_first_no_control_plane_is_older_than_the_cni_agent_so_it_does_not_wait() -> None:
    def first(given: StackConfig, opts: pulumi.ResourceOptions | None = None) -> Istio:
        return Istio("mesh", IstioArgs(given.mesh, first=True), opts)

    recording = made(first, mesh={"profile": "demo"})
    releases = recording.named("Release")
    assert releases["istiod"].urn not in recording.before(releases["istio-cni"])
    for gateway in ("istio-ingressgateway", "istio-egressgateway"):
        assert releases["istiod"].urn in recording.before(releases[gateway])


def test_mesh_has_a_namespace_of_its_own() -> None:
    recording = made(make_istio, mesh={"namespace": "mesh-system"})
    assert recording.one("Namespace").name == "mesh-system"
    for release in recording.named("Release").values():
        assert release.inputs["namespace"] == "mesh-system"
        assert release.inputs["values"].get("global", {}).get("istioNamespace", "mesh-system") == "mesh-system"


@pytest.mark.parametrize(
    ("charts", "chart", "repository", "version"),
    [
        ("", "istiod", OFFICIAL_CHARTS, "1.31.0"),
        ("https://charts.example.com", "istiod", "https://charts.example.com", "1.31.0"),
        ("oci://example.com/charts", "oci://example.com/charts/istiod", None, "1.31.0"),
        ("oci://example.com/charts/", "oci://example.com/charts/istiod", None, "1.31.0"),
        ("some/folder", "some/folder/istiod", None, None),
    ],
)
def test_charts_come_from_the_configured_place(
    charts: str, chart: str, repository: str | None, version: str | None
) -> None:
    release = made(make_istio, mesh={"charts": charts}).named("Release")["istiod"].inputs
    assert release["name"] == "istiod"
    assert release["chart"] == chart
    assert release.get("repositoryOpts", {}).get("repo") == repository
    assert release.get("version") == version


def test_packed_chart_of_the_version_comes_before_a_folder(tmp_path: Path) -> None:
    (tmp_path / "istiod-1.31.0.tgz").touch()
    (tmp_path / "base-1.30.0.tgz").touch()
    releases = made(make_istio, mesh={"charts": str(tmp_path)}).named("Release")
    assert releases["istiod"].inputs["chart"] == str(tmp_path / "istiod-1.31.0.tgz")
    assert releases["istio-base"].inputs["chart"] == str(tmp_path / "base")


@pytest.mark.parametrize(("hub", "expected"), [("", OFFICIAL_HUB), ("example.com/istio", "example.com/istio")])
def test_images_come_from_the_hub_with_the_mesh_version(hub: str, expected: str) -> None:
    releases = made(make_istio, mesh={"hub": hub, "version": "1.30.2"}).named("Release")
    for name in ("istiod", "istio-cni"):
        assert (
            releases[name].inputs["values"]["global"] | {"hub": expected, "tag": "1.30.2"}
            == (releases[name].inputs["values"]["global"])
        )


def test_own_helm_values_are_laid_over_the_generated_ones() -> None:
    values = {"istiod": {"cni": {"enabled": False}, "extra": [1]}, "ingress": {"service": {"type": "X"}}}
    releases = made(make_istio, mesh={"values": values}).named("Release")
    istiod, ingress = (releases[name].inputs["values"] for name in ("istiod", "istio-ingressgateway"))
    assert istiod["cni"]["enabled"] is False
    assert istiod["extra"] == [1]
    assert istiod["global"]["tag"] == "1.31.0"
    assert ingress["service"]["type"] == "X"
    assert ingress["service"]["ports"]


@pytest.mark.parametrize(
    ("profile", "ports"),
    [("default", [15021, 80, 443]), ("demo", [15021, 80, 443, 31400, 15443])],
)
def test_profile_decides_on_the_values(profile: str, ports: list[int]) -> None:
    releases = made(make_istio, mesh={"profile": profile, "platform": "openshift"}).named("Release")
    istiod, ingress = (releases[name].inputs["values"] for name in ("istiod", "istio-ingressgateway"))
    assert istiod.get("profile") == (None if profile == "default" else profile)
    assert istiod["global"]["platform"] == "openshift"
    assert [port["port"] for port in ingress["service"]["ports"]] == ports


def test_image_pull_secrets_reach_every_pod_of_the_mesh() -> None:
    releases = made(make_istio, mesh={"profile": "demo", "imagePullSecrets": ["pull"]}).named("Release")
    for name in ("istiod", "istio-cni"):
        assert releases[name].inputs["values"]["global"]["imagePullSecrets"] == ["pull"]
    for name in ("istio-ingressgateway", "istio-egressgateway"):
        assert releases[name].inputs["values"]["imagePullSecrets"] == [{"name": "pull"}]


REVISIONS = {
    "version": None,
    "revisions": {"stable": {"version": "1.30.2"}, "canary": {"version": "1.31.0"}},
    "revision": "stable",
}


def test_each_revision_has_its_own_istiod_and_all_else_is_there_once() -> None:
    recording = made(make_istio, mesh={"profile": "demo", **REVISIONS})
    releases = {name: release.inputs["values"] for name, release in recording.named("Release").items()}
    assert set(releases) == ALL_RELEASES - {"istiod"} | {"istiod-stable", "istiod-canary"}
    assert {name: values.get("revision") for name, values in releases.items()} == {
        "istio-base": None,
        "istiod-stable": "stable",
        "istiod-canary": "canary",
        "istio-cni": None,
        "istio-ingressgateway": "stable",
        "istio-egressgateway": "stable",
    }
    assert releases["istio-base"]["defaultRevision"] == "stable"
    assert releases["istiod-canary"]["global"]["tag"] == "1.31.0"
    assert releases["istio-cni"]["global"]["tag"] == "1.30.2"
    assert recording.outputs[recording.one("Istio").urn] == {"version": "1.30.2"}


@pytest.mark.parametrize("revision", ["stable", "canary"])
def test_charts_of_several_revisions_are_of_the_version_that_fits_all(revision: str) -> None:
    releases = made(make_istio, mesh={"profile": "demo", **REVISIONS, "revision": revision}).named("Release")
    assert {name: release.inputs["version"] for name, release in releases.items()} == {
        "istio-base": "1.31.0",
        "istiod-stable": "1.30.2",
        "istiod-canary": "1.31.0",
        "istio-cni": "1.30.2",
        "istio-ingressgateway": {"stable": "1.30.2", "canary": "1.31.0"}[revision],
        "istio-egressgateway": {"stable": "1.30.2", "canary": "1.31.0"}[revision],
    }


def test_cni_and_gateways_wait_for_every_control_plane() -> None:
    recording = made(make_istio, mesh={"profile": "demo", **REVISIONS})
    releases = recording.named("Release")
    istiods = {releases["istiod-stable"].urn, releases["istiod-canary"].urn}
    for name in ("istio-cni", "istio-ingressgateway", "istio-egressgateway"):
        assert istiods <= recording.before(releases[name])


def test_revision_default_is_the_control_plane_without_a_name() -> None:
    plain = made(make_istio, mesh={"profile": "demo"})
    named = made(
        make_istio,
        mesh={**REVISIONS, "profile": "demo", "revision": "default", "revisions": {"default": {"version": "1.31.0"}}},
    )
    assert {r.urn: r.inputs for r in named} == {r.urn: r.inputs for r in plain}


# The namespace of the workloads


@pytest.mark.parametrize(
    ("mesh", "label"),
    [
        ({"mode": "managed"}, {"istio-injection": "enabled"}),
        ({"mode": "existing"}, {"istio-injection": "enabled"}),
        ({"mode": "existing", "revision": "canary"}, {"istio.io/rev": "canary"}),
        ({**REVISIONS}, {"istio.io/rev": "stable"}),
        ({**REVISIONS, "revision": "canary"}, {"istio.io/rev": "canary"}),
        ({"mode": "off"}, {}),
    ],
)
@pytest.mark.parametrize("create", [True, False])
def test_namespace_is_made_or_only_labelled(mesh: Mapping[str, Any], label: Mapping[str, str], create: bool) -> None:
    recording = made(make_namespace, mesh=mesh, namespace={"name": "shop", "create": create})
    objects = [r for r in recording if "metadata" in r.inputs]
    if create:
        assert [(r.kind, r.name) for r in objects] == [("Namespace", "shop")]
        assert objects[0].inputs["metadata"]["labels"] == {"app.kubernetes.io/managed-by": "pulumi", **label}
    else:
        assert [(r.kind, r.inputs["metadata"]) for r in objects] == (
            [("NamespacePatch", {"name": "shop", "labels": label})] if label else []
        ), "somebody else's: it gets our label, and neither our name nor anything more"


# Workloads


def test_workload_is_a_service_an_account_and_a_deployment_for_each_version() -> None:
    recording = made(make_workload)
    assert {(r.kind, r.name) for r in recording} == {
        ("Workload", "bill-service"),
        ("ServiceAccount", "bill-service"),
        ("Service", "bill-service"),
        ("Deployment", "bill-service-v1"),
        ("Deployment", "bill-service-v2"),
    }
    assert recording.spec("Service", "bill-service") == {
        "type": "ClusterIP",
        "selector": {"service": "bill-service"},
        "ports": [{"name": "http", "port": 9999, "targetPort": 80}],
    }
    for version in ("v1", "v2"):
        deployment = recording.named("Deployment")[f"bill-service-{version}"]
        selector = {"service": "bill-service", "version": version}
        assert deployment.inputs["spec"]["selector"] == {"matchLabels": selector}
        assert pod(recording, deployment.name)["metadata"]["labels"] == {
            "app": "bill-service",
            "istio.io/rev": "default",
            **selector,
        }
        assert pod(recording, deployment.name)["spec"]["serviceAccountName"] == "bill-service"


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_deployments_are_found_by_the_labels_of_their_pods(version: str) -> None:
    recording = made(make_workload)
    name = f"bill-service-{version}"
    labels = recording.named("Deployment")[name].inputs["metadata"]["labels"]
    assert labels.items() >= pod(recording, name)["metadata"]["labels"].items() - {("istio.io/rev", "default")}


def test_service_without_ports_has_no_service_object_and_no_url() -> None:
    recording = made(make_workload, services={"bill-service": {"ports": None}}, routing=None)
    assert "Service" not in {r.kind for r in recording}
    assert recording.outputs[recording.one("Workload").urn] == {"url": ""}
    assert "ports" not in container(recording)
    assert "readinessProbe" not in container(recording)


def test_ports_reach_service_and_pods() -> None:
    recording = workload(ports={"http": None, "grpc": {"port": 8080, "appProtocol": "grpc"}, "web": {"port": 80}})
    assert recording.spec("Service", "bill-service")["ports"] == [
        {"name": "grpc", "port": 8080, "targetPort": 8080, "appProtocol": "grpc"},
        {"name": "web", "port": 80, "targetPort": 80},
    ]
    assert container(recording)["ports"] == [
        {"name": "grpc", "containerPort": 8080},
        {"name": "web", "containerPort": 80},
    ]
    assert recording.outputs[recording.one("Workload").urn]["url"] == "http://bill-service.istio-demo:8080"


def test_several_ports_of_a_service_may_lead_to_one_of_the_container() -> None:
    """Which has one name: the API server takes a number and protocol once, and so does Pulumi's server-side apply."""
    recording = workload(
        ports={"http": {"port": 8080}, "admin": {"port": 8081, "targetPort": 80}, "metrics": {"port": 90}}
    )
    assert [(p["name"], p["port"], p["targetPort"]) for p in recording.spec("Service", "bill-service")["ports"]] == [
        ("http", 8080, 80),
        ("admin", 8081, 80),
        ("metrics", 90, 90),
    ]
    assert container(recording)["ports"] == [
        {"name": "http", "containerPort": 80},
        {"name": "metrics", "containerPort": 90},
    ]
    assert container(recording)["readinessProbe"]["tcpSocket"] == {"port": 80}


def test_selector_defaults_to_the_app_label() -> None:
    recording = workload(selector=None)
    assert recording.spec("Service", "bill-service")["selector"] == {"app": "bill-service"}
    assert recording.spec("Deployment", "bill-service-v1")["selector"]["matchLabels"] == {
        "app": "bill-service",
        "version": "v1",
    }


def test_labels_of_the_objects_are_apart_from_those_of_the_pods() -> None:
    recording = workload(labels={"team": "bills"}, template={"labels": {"tier": "back"}})
    for kind in ("Service", "ServiceAccount", "Deployment"):
        for resource in recording.named(kind).values():
            assert resource.inputs["metadata"]["labels"]["team"] == "bills"
    labels = pod(recording)["metadata"]["labels"]
    assert labels["tier"] == "back"
    assert "team" not in labels


def test_pulumi_does_not_wait_for_the_service_object() -> None:
    service = workload().named("Service")["bill-service"]
    assert service.inputs["metadata"]["annotations"]["pulumi.com/skipAwait"] == "true"


def test_deployment_waits_as_long_as_configured() -> None:
    assert workload(timeout="90s").named("Deployment")["bill-service-v1"].timeouts == {
        "create": "90s",
        "update": "90s",
        "delete": "90s",
    }


@pytest.mark.parametrize(("drain", "delete"), [(5, "5m"), (269, "5m"), (270, "360s"), (3600, "3690s")])
def test_pods_may_go_as_slowly_as_they_drain(drain: int, delete: str) -> None:
    timeouts = workload(template={"drainSeconds": drain}).named("Deployment")["bill-service-v1"].timeouts
    assert timeouts == {"create": "5m", "update": "5m", "delete": delete}


@pytest.mark.parametrize(
    ("mesh", "same"),
    [
        ({}, True),
        ({"mode": "off"}, False),
        ({"version": "1.30.2"}, False),
        ({"cni": False}, False),
        ({"hub": "example.com/istio"}, False),
        ({"profile": "demo"}, False),
        ({"namespace": "mesh-system"}, False),
        ({"imagePullSecrets": ["pull"]}, False),
        ({"values": {"istiod": {"global": {"proxy": {"logLevel": "debug"}}}}}, False),
        ({"values": {"istiod": {"meshConfig": {"defaultConfig": {"concurrency": 1}}}}}, False),
        ({"values": {"istiod": {"env": {"ENABLE_NATIVE_SIDECARS": "false"}}}}, False),
        ({"values": {"istiod": {"pilot": {"env": {"ENABLE_NATIVE_SIDECARS": "false"}}}}}, False),
        ({"values": {"istiod": {"meshConfig": {"accessLogFile": "/dev/stdout"}}}}, True),
        ({"values": {"istiod": {"env": {"PILOT_TRACE_SAMPLING": "1"}, "replicaCount": 2}}}, True),
        ({"values": {"istiod": {"global": {"priorityClassName": "high"}}}}, True),
        ({"values": {"cni": {"logLevel": "debug"}, "ingress": {"replicaCount": 2}}}, True),
        ({"egress": True, "ingress": False, "purge": True}, True),
    ],
    ids=str,
)
def test_pods_restart_when_they_need_another_sidecar_and_only_then(mesh: Mapping[str, Any], same: bool) -> None:
    def annotation(recording: Recording) -> object:
        return pod(recording)["metadata"].get("annotations", {}).get(names.SIDECAR)

    before = annotation(workload())
    after = annotation(made(make_workload, mesh=mesh))
    assert (after == before) is same
    assert str(before).startswith("1.31.0 ")


def test_gateways_restart_when_they_need_another_proxy_and_only_then() -> None:
    def annotations(**mesh: Any) -> list[object]:
        releases = made(make_istio, mesh={"profile": "demo", **mesh}).named("Release")
        names_ = ("istio-ingressgateway", "istio-egressgateway")
        return [releases[name].inputs["values"]["podAnnotations"][names.SIDECAR] for name in names_]

    assert annotations() == annotations(values={"istiod": {"replicaCount": 2}})
    assert set(annotations()).isdisjoint(annotations(version="1.30.2"))


@pytest.mark.parametrize(("mesh", "expected"), [({}, "default"), ({"revision": "canary"}, "canary")])
def test_sidecars_of_an_existing_mesh_are_known_by_its_revision(mesh: Mapping[str, Any], expected: str) -> None:
    metadata = pod(made(make_workload, mesh={"mode": "existing", **mesh}))["metadata"]
    assert metadata["annotations"][names.SIDECAR] == expected
    assert metadata["labels"][names.REVISION] == expected


def test_sidecars_keep_the_statistics_by_version_and_no_others() -> None:
    config = json.loads(pod(made(make_workload))["metadata"]["annotations"]["proxy.istio.io/config"])
    (kept,) = config["proxyStatsMatcher"]["inclusionRegexps"]
    assert "," not in kept  # Istio splits it there
    of_v1 = "cluster.outbound|9999|v1|bill-service.istio-demo.svc.cluster.local;.upstream_rq_"
    for statistic in ("time", "2xx", "5xx", "total", "retry"):
        assert re.fullmatch(kept, of_v1 + statistic)
    of_all = of_v1.replace("|v1|", "||")
    assert not re.fullmatch(kept, of_all + "time") and not re.fullmatch(kept, of_v1 + "200")
    assert not re.fullmatch(kept, of_v1.replace(";.", ";.external.") + "time")


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ({}, {"tcpSocket": {"port": 80}, "periodSeconds": 1}),
        ({"readinessProbe": {"httpGet": {"port": 80}}}, {"httpGet": {"port": 80}}),
        ({"readinessProbe": {}}, None),
    ],
)
def test_readiness_probe(template: Mapping[str, Any], expected: Mapping[str, Any] | None) -> None:
    assert container(workload(template=template)).get("readinessProbe") == expected


@pytest.mark.parametrize(
    ("template", "lifecycle", "grace"),
    [
        ({}, {"preStop": {"exec": {"command": ["sleep", "5"]}}}, 35),
        ({"drainSeconds": 20}, {"preStop": {"exec": {"command": ["sleep", "20"]}}}, 50),
        ({"drainSeconds": 0}, None, 30),
    ],
)
def test_drain(template: Mapping[str, Any], lifecycle: Mapping[str, Any] | None, grace: int) -> None:
    recording = workload(template=template)
    assert container(recording).get("lifecycle") == lifecycle
    assert pod(recording)["spec"]["terminationGracePeriodSeconds"] == grace
    assert drain_seconds(pod(recording)) == template.get("drainSeconds", 5), (
        "which the wait for what is in flight reads"
    )


@pytest.mark.parametrize(
    ("drain", "expected"),
    [
        (0, {}),
        (5, {}),
        (45, {"terminationDrainDuration": "45s"}),
        (60, {"terminationDrainDuration": "60s", "drainDuration": "60s"}),
    ],
)
def test_a_sidecar_lasts_as_long_as_the_drain(drain: int, expected: Mapping[str, str]) -> None:
    """And is as Istio has it where that is long enough, as any change rolls the pods."""
    template = pod(workload(template={"drainSeconds": drain}))
    found = json.loads(template["metadata"]["annotations"]["proxy.istio.io/config"])
    assert {key: value for key, value in found.items() if key != "proxyStatsMatcher"} == expected


def test_container_has_what_the_version_says() -> None:
    version = {
        "image": "nginx:1",
        "imagePullPolicy": "Never",
        "command": ["sh"],
        "args": ["-c", "true"],
        "env": {"A": "1"},
        "resources": {"requests": {"cpu": "10m"}},
        "livenessProbe": {"tcpSocket": {"port": 80}},
        "securityContext": {"runAsNonRoot": True},
        "drainSeconds": 0,
        "readinessProbe": {},
    }
    recording = workload(template={"env": {"A": "0", "B": "2"}}, versions={"v1": version})
    assert container(recording) == {
        "name": "bill-service",
        "image": "nginx:1",
        "imagePullPolicy": "Never",
        "command": ["sh"],
        "args": ["-c", "true"],
        "env": [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}],
        "resources": {"requests": {"cpu": "10m"}},
        "livenessProbe": {"tcpSocket": {"port": 80}},
        "securityContext": {"runAsNonRoot": True},
        "ports": [{"name": "http", "containerPort": 80}],
    }
    assert container(recording, "bill-service-v2")["image"] == "nginx", "the template's, where a version says nothing"


@pytest.mark.parametrize(("replicas", "expected"), [(None, "unset"), (0, 0), (3, 3)])
def test_replicas_are_left_to_others_unless_set(replicas: int | None, expected: object) -> None:
    recording = workload(versions={"v3": {"replicas": replicas}})
    assert recording.spec("Deployment", "bill-service-v3").get("replicas", "unset") == expected


def test_pod_template_is_laid_over_the_generated_one() -> None:
    piece = {
        "metadata": {"annotations": {"note": "x"}},
        "spec": {"nodeSelector": {"disk": "ssd"}, "terminationGracePeriodSeconds": 7},
    }
    template = pod(workload(versions={"v1": {"podTemplate": piece}}))
    assert template["metadata"]["annotations"]["note"] == "x"
    assert template["metadata"]["annotations"][names.SIDECAR]
    assert template["metadata"]["labels"]["version"] == "v1"
    assert template["spec"]["nodeSelector"] == {"disk": "ssd"}
    assert template["spec"]["terminationGracePeriodSeconds"] == 7
    assert template["spec"]["containers"]


def test_a_container_of_a_piece_is_the_generated_one_or_one_more() -> None:
    shared = {
        "containers": [{"name": "bill-service", "volumeMounts": [{"name": "data", "mountPath": "/data"}]}],
        "volumes": [{"name": "data", "emptyDir": {}}],
    }
    own = {
        "containers": [{"name": "bill-service", "lifecycle": None, "env": [{"name": "B", "value": "3"}]}],
        "initContainers": [{"name": "init", "image": "busybox"}],
        "terminationGracePeriodSeconds": None,
    }
    template = {"env": {"A": "1", "B": "2"}, "writablePaths": ["/run"], "podTemplate": {"spec": shared}}
    recording = workload(template=template, versions={"v1": {"podTemplate": {"spec": own}}})
    spec, other = pod(recording)["spec"], pod(recording, "bill-service-v2")["spec"]
    (one,), (another,) = spec["containers"], other["containers"]
    assert one["image"] == "nginx"
    assert one["env"] == [{"name": "A", "value": "1"}, {"name": "B", "value": "3"}]
    assert one["volumeMounts"] == [
        {"name": "writable-0", "mountPath": "/run"},
        {"name": "data", "mountPath": "/data"},
    ]
    assert [volume["name"] for volume in spec["volumes"]] == ["writable-0", "data"]
    assert "lifecycle" not in one
    assert "terminationGracePeriodSeconds" not in spec
    assert spec["initContainers"] == [{"name": "init", "image": "busybox"}]
    assert another["env"] == [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}]
    assert "lifecycle" in another
    assert "initContainers" not in other


def test_version_label_can_differ_from_the_version() -> None:
    changes = {"services": {"bill-service": {"versions": {"v1": {"versionLabel": "2024-1"}}}}}
    recording = made(make_workload, **changes)
    assert recording.spec("Deployment", "bill-service-v1")["selector"]["matchLabels"]["version"] == "2024-1"
    assert pod(recording)["metadata"]["labels"]["version"] == "2024-1"
    (subset,) = made(make_routing, **changes).spec("DestinationRule", "dest-bill-service-v1")["subsets"]
    assert subset == {"name": "v1", "labels": {"version": "2024-1"}}


# Routing


def test_routing_is_a_rule_for_each_subset_and_the_weights() -> None:
    recording = made(make_routing)
    assert {r.type for r in recording if "spec" in r.inputs} == {
        "kubernetes:networking.istio.io/v1beta1:DestinationRule",
        "kubernetes:networking.istio.io/v1beta1:VirtualService",
    }
    rules = {name: rule.inputs["spec"] for name, rule in recording.named("DestinationRule").items()}
    assert rules == {
        "dest-bill-service": {"host": "bill-service"},
        "dest-bill-service-v1": {
            "host": "bill-service",
            "subsets": [{"name": "v1", "labels": {"version": "v1"}}],
        },
        "dest-bill-service-v2": {
            "host": "bill-service",
            "subsets": [{"name": "v2", "labels": {"version": "v2"}}],
        },
    }
    assert recording.spec("VirtualService", "vs-bill-service") == {
        "hosts": ["bill-service"],
        "http": [
            {
                "name": "bill-service-route",
                "route": [
                    {"destination": {"host": "bill-service", "subset": "v1"}, "weight": 90},
                    {"destination": {"host": "bill-service", "subset": "v2"}, "weight": 10},
                ],
            }
        ],
    }


def test_the_proxies_know_every_subset_before_any_weight_points_to_one() -> None:
    """And by the same order, backwards: no rule is left when the command is deleted, and every subset still is."""
    extra = {"selector": {"app": "a"}, "ports": {"http": {"port": 80}}, "versions": {"v1": {"image": "a"}}}
    given = config(services={"a": extra}, routing={"a": {"weights": {"v1": 100}}})

    def program() -> None:
        rules = [Routing(service.name, RoutingArgs(service)) for service in routed(given)]
        announced = Announced("subsets", WaitArgs(given.cluster, rules))
        for rule in rules:
            rule.split(announced)

    recording = record(program)
    command = recording.one("Command")
    assert {urn for urn in command.dependencies if "DestinationRule" in urn} == {
        rule.urn for rule in recording.named("DestinationRule").values()
    }
    for weights in recording.named("VirtualService").values():
        assert command.urn in weights.dependencies
    assert set(recording.named("VirtualService")) == {"vs-a", "vs-bill-service"}
    assert command.replace_on_changes == ("stdin", "triggers[*]"), "an update would run nothing at the end"
    services = json.loads(command.inputs["stdin"])
    assert services["a"] == {"selector": {"app": "a"}, "subsets": {"v1": {"version": "v1"}}}


@pytest.mark.parametrize(
    ("weights", "expected"),
    [({"v1": 100, "v2": None}, [100, 0]), ({"v1": None, "v2": 100}, [0, 100]), ({"v1": 0, "v2": 100}, [0, 100])],
)
def test_version_that_is_not_listed_has_weight_0(weights: Mapping[str, Any], expected: list[int]) -> None:
    recording = made(make_routing, routing={"bill-service": {"weights": weights}})
    route = recording.spec("VirtualService", "vs-bill-service")["http"][0]["route"]
    assert [destination["weight"] for destination in route] == expected
    assert len(recording.named("DestinationRule")) == 3, "a weight never changes the subsets"


@pytest.mark.parametrize("kind", ["Deployment", "StatefulSet", "DaemonSet"])
def test_workload_kind_is_that_of_the_configuration(kind: str) -> None:
    recording = made(make_workload, services={"bill-service": {"workload": kind}})
    spec = recording.spec(kind, "bill-service-v1")
    assert spec["selector"]["matchLabels"]["version"] == "v1"
    assert spec.get("serviceName") == ("bill-service" if kind == "StatefulSet" else None)
    assert set(recording.named(kind)) == {"bill-service-v1", "bill-service-v2"}


def test_existing_workload_is_left_to_its_owner_and_can_be_routed_to() -> None:
    existing = {"services": {"bill-service": {"workload": "existing"}}}
    recording = made(make_workload, **existing)
    assert not [resource for resource in recording if resource.type.startswith("kubernetes:")]
    assert recording.outputs[recording.one("Workload").urn]["url"] == "http://bill-service.istio-demo:9999"
    assert len(made(make_routing, **existing).named("DestinationRule")) == 3


# The ends of destroy


@pytest.mark.parametrize("purge", [True, False])
@pytest.mark.parametrize(
    ("make", "name", "step"), [(make_purge, "mesh-leftovers", "sweep"), (make_guard, "mesh-guard", "guard")]
)
def test_purge_runs_on_delete_only(make: Make, name: str, step: str, purge: bool) -> None:
    recording = made(make, mesh={"purge": purge}, cluster={"context": "prod", "kubeconfig": "some/file"})
    command = recording.named("Command")[name].inputs
    assert set(command) == {"delete", "environment"}
    assert command["delete"].endswith(f" -m mesh.purge {step}")
    assert command["environment"] == {
        "MESH_CONTEXT": "prod",
        "MESH_KUBECONFIG": "some/file",
        "MESH_NAMESPACE": "istio-system",
        "MESH_OWNER": f"{PROJECT}/test",
        "MESH_PURGE": str(purge).lower(),
    }
