"""Which pod templates are refused before anything changes, where the API server would refuse them half-way."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from config import ConfigError, Problem, load, merged

from .given import NO_DEFAULTS, VALID, config
from .test_config_properties import JSON

BILL = "services.bill-service"
V1 = f"{BILL}.versions.v1"
SPEC = f"{V1}.podTemplate.spec"
OURS = f"{SPEC}.containers.0"
ZONES = {"topologyKey": "zone"}
OTHER, DATA = {"name": "log", "image": "nginx"}, {"name": "data", "mountPath": "/data"}


def problems(change: Mapping[str, Any]) -> Sequence[Problem]:
    with pytest.raises(ConfigError) as refused:
        load(merged(VALID, change), defaults=NO_DEFAULTS)
    return refused.value.problems


def bill(**service: Any) -> dict[str, Any]:
    return {"services": {"bill-service": service}}


def piece(**fields: Any) -> dict[str, Any]:
    return bill(versions={"v1": {"podTemplate": fields}})


def spec(**fields: Any) -> dict[str, Any]:
    return piece(spec=fields)


def ours(**fields: Any) -> dict[str, Any]:
    """Something more in the generated container."""
    return spec(containers=[{"name": "bill-service", **fields}])


BAD: Sequence[tuple[Mapping[str, Any], str, str]] = [
    # Shapes.
    (piece(containers=[]), f"{V1}.podTemplate.containers", "a known key: metadata, spec"),
    (piece(spec=[]), SPEC, "a map, as in a pod template"),
    (piece(metadata={"annotations": {"port": 9090}}), f"{V1}.podTemplate.metadata.annotations.port", '"9090"'),
    (piece(metadata={"labels": {"a": True}}), f"{V1}.podTemplate.metadata.labels.a", "write it in quotes"),
    (spec(containers={"bill-service": {}}), f"{SPEC}.containers", "a list of maps, each with its name"),
    (spec(containers=[{"image": "nginx"}]), f"{SPEC}.containers", "write it as `- name: …`"),
    (spec(volumes=["data"]), f"{SPEC}.volumes", "a list of maps, each with its name"),
    (spec(hostAliases=[{"hostnames": ["a"]}]), f"{SPEC}.hostAliases", "each with its ip"),
    (spec(topologySpreadConstraints=[{"topologyKey": "a"}]), f"{SPEC}.topologySpreadConstraints", "whenUnsatisfiable"),
    (ours(volumeMounts=[{"name": "data"}]), f"{OURS}.volumeMounts", "each with its mountPath"),
    (ours(ports=[{"name": "web"}]), f"{OURS}.ports", "each with its containerPort"),
    (ours(env={"A": "1"}), f"{OURS}.env", "a list of maps, each with its name"),
    (spec(container=[OTHER]), f"{SPEC}.container", "did you mean 'containers'?"),
    (spec(init_containers=[OTHER]), f"{SPEC}.init_containers", "did you mean 'initContainers'?"),
    (ours(volumeMount=[]), f"{OURS}.volumeMount", "did you mean 'volumeMounts'?"),
    (spec(containers=[{"$patch": "replace", **OTHER}]), f"{OURS}.$patch", "$patch: delete"),
    # Twice.
    (spec(volumes=[{"name": "a"}, {"name": "a", "emptyDir": {}}]), f"{SPEC}.volumes", "put these together: a"),
    (spec(containers=[OTHER, OTHER]), f"{SPEC}.containers", "no two items with one name"),
    (spec(containers=[OTHER], initContainers=[OTHER]), f"{SPEC}.initContainers.0.name", "no other container"),
    (spec(initContainers=[{**OTHER, "name": "bill-service"}]), f"{SPEC}.initContainers.0.name", "no other container"),
    (ours(env=[{"name": "A", "value": "1"}, {"name": "A", "value": "2"}]), f"{OURS}.env", "put these together: A"),
    (ours(ports=[{"containerPort": 1}, {"containerPort": 1, "protocol": "TCP"}]), f"{OURS}.ports", "containerPort"),
    (ours(ports=[{"containerPort": 81, "name": "http"}]), f"{OURS}.ports.0.name", "no other port of the container"),
    (
        ours(volumeMounts=[{"name": "a", "mountPath": "/a"}, {"name": "b", "mountPath": "/a"}]),
        f"{OURS}.volumeMounts",
        "put these together: /a",
    ),
    (
        bill(template={"writablePaths": ["/a", "/b", "/a"]}),
        f"{BILL}.template.writablePaths",
        "take one of these out: /a",
    ),
    (
        bill(
            template={
                "spread": [{"topologyKey": "zone"}, {"topologyKey": "zone", "whenUnsatisfiable": "ScheduleAnyway"}]
            }
        ),
        f"{BILL}.template.spread.1.topologyKey",
        "no other has with the same whenUnsatisfiable",
    ),
    # What refers to nothing, or says too little or too much.
    (spec(containers=[{"name": "bill-servce", "tty": True}]), f"{OURS}.image", "did you mean 'bill-service'?"),
    (spec(initContainers=[{"name": "init"}]), f"{SPEC}.initContainers.0.image", "an image"),
    (ours(image=None), f"{OURS}.image", "an image"),
    (spec(containers=None), f"{SPEC}.containers", "at least one container"),
    (spec(containers=[{"name": "bill-service", "$patch": "delete"}]), f"{SPEC}.containers", "at least one container"),
    (ours(volumeMounts=[DATA]), f"{OURS}.volumeMounts.0.name", "add it to podTemplate.spec.volumes"),
    (ours(volumeMounts=[{"mountPath": "/a"}]), f"{OURS}.volumeMounts.0.name", "the name of a volume"),
    (
        merged(spec(volumes=[{"name": "dta"}]), ours(volumeMounts=[DATA])),
        f"{OURS}.volumeMounts.0.name",
        "did you mean 'dta'?",
    ),
    (
        spec(volumes=[{"name": "data", "emptyDir": {}, "secret": {"secretName": "a"}}]),
        f"{SPEC}.volumes.0",
        "keep one of emptyDir, secret",
    ),
    (spec(volumes=[{"name": "my_data"}]), f"{SPEC}.volumes.0.name", "a DNS label"),
    (spec(containers=[{**OTHER, "name": "Log"}]), f"{OURS}.name", "a DNS label"),
    (ours(env=[{"name": "A", "value": 1}]), f"{OURS}.env.0.value", 'write it in quotes: "1"'),
    (
        ours(env=[{"name": "A", "value": "1", "valueFrom": {"fieldRef": {}}}]),
        f"{OURS}.env.0",
        "either value or valueFrom",
    ),
    (ours(ports=[{"containerPort": "80"}]), f"{OURS}.ports.0.containerPort", "a whole number from 1 to 65535"),
    (ours(ports=[{"containerPort": 81, "name": "too_long"}]), f"{OURS}.ports.0.name", "a port name"),
    (ours(livenessProbe={"periodSeconds": 3}), f"{OURS}.livenessProbe", "one of exec, grpc, httpGet"),
    (
        ours(startupProbe={"exec": {"command": ["a"]}, "tcpSocket": {"port": 80}}),
        f"{OURS}.startupProbe",
        "keep one of exec, tcpSocket",
    ),
    (ours(lifecycle={"postStart": {}}), f"{OURS}.lifecycle.postStart", "one of exec, grpc, httpGet"),
    (ours(readinessProbe={"httpGet": {"port": "htp"}}), f"{OURS}.readinessProbe.httpGet.port", "did you mean 'http'?"),
    (bill(template={"readinessProbe": {"periodSeconds": 3}}), f"{BILL}.template.readinessProbe", "one of exec, grpc"),
    ({"template": {"livenessProbe": {"periodSeconds": 3}}}, "template.livenessProbe", "one of exec, grpc"),
    (
        bill(
            ports={"admin": {"port": 8081, "targetPort": 80}},
            versions={"v1": {"readinessProbe": {"httpGet": {"port": "admin"}}}},
        ),
        f"{V1}.readinessProbe.httpGet.port",
        "the name of a port of the container",
    ),
    (ours(resources={"request": {"cpu": 1}}), f"{OURS}.resources.request", "requests or limits"),
    (ours(resources={"limits": {"memory": "64MB"}}), f"{OURS}.resources.limits.memory", "an amount such as"),
    (ours(resources={"limits": {"cpu": -1}}), f"{OURS}.resources.limits.cpu", "an amount such as"),
    (
        bill(template={"resources": {"requests": {"memory": "1Gi"}, "limits": {"memory": "1000Mi"}}}),
        f"{BILL}.template.resources.requests.memory",
        "at most the limit, 1000Mi",
    ),
    (
        {"template": {"resources": {"limits": {"cpu": "100m"}}}} | ours(resources={"requests": {"cpu": 1}}),
        f"{OURS}.resources.requests.cpu",
        "at most the limit, 100m",
    ),
    (spec(restartPolicy="OnFailure"), f"{SPEC}.restartPolicy", "Always"),
    (spec(activeDeadlineSeconds=60), f"{SPEC}.activeDeadlineSeconds", "where pods are to stay"),
    (
        piece(metadata={"labels": {"version": "v9"}}),
        f"{V1}.podTemplate.metadata.labels.version",
        "v1, as the pods are found by it",
    ),
    (
        {"template": {"podTemplate": {"metadata": {"labels": {"service": None}}}}},
        "template.podTemplate.metadata.labels.service",
        "bill-service, as the pods are found by it",
    ),
]


@pytest.mark.parametrize(("change", "key", "text"), BAD, ids=[f"{key}: {text}" for _, key, text in BAD])
def test_refused_with_key_and_fix(change: Mapping[str, Any], key: str, text: str) -> None:
    told = {problem.key: str(problem) for problem in problems(change)}
    assert set(told) == {key}
    assert text in told[key]


def test_a_mistake_of_all_services_is_told_once_and_where_it_is_written() -> None:
    wrong = {"spec": {"volumes": [{"name": "data", "emptyDir": {}, "configMap": {"name": "a"}}]}}
    (problem,) = problems({"template": {"podTemplate": wrong}})
    assert problem.key == "template.podTemplate.spec.volumes.0"


COMPLETE: Mapping[str, Any] = {
    "metadata": {"labels": {"tier": "back"}, "annotations": {"note": "x"}},
    "spec": {
        "containers": [
            {
                "name": "bill-service",
                "env": [{"name": "NODE", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}}],
                "ports": [{"name": "metrics", "containerPort": 9090}, {"containerPort": 53, "protocol": "UDP"}],
                "volumeMounts": [
                    {"name": "data", "mountPath": "/data"},
                    {"name": "writable-0", "mountPath": "/also", "subPath": "a"},
                ],
                "readinessProbe": {"periodSeconds": 5},
                "livenessProbe": {"httpGet": {"port": "metrics"}},
                "lifecycle": {"preStop": {"httpGet": {"port": 80}}, "postStart": None},
                "resources": {"requests": {"cpu": "10m", "memory": "1e3"}, "limits": {"cpu": 0.5}},
                "imagePullPolicy": "Always",
            },
            {"name": "log", "image": "nginx"},
        ],
        "initContainers": [{"name": "init", "image": "nginx", "volumeDevices": [{"name": "disk", "devicePath": "/a"}]}],
        "volumes": [
            {"name": "data", "emptyDir": {}},
            {"name": "none"},
            {"name": "disk", "persistentVolumeClaim": {"claimName": "a"}},
        ],
        "hostAliases": [{"ip": "10.0.0.1", "hostnames": ["a"]}],
        "topologySpreadConstraints": [{"topologyKey": "a", "whenUnsatisfiable": "DoNotSchedule", "maxSkew": 1}],
        "imagePullSecrets": [{"name": "pull"}],
        "restartPolicy": "Always",
        "terminationGracePeriodSeconds": None,
    },
}


def with_piece(value: Mapping[str, Any]) -> dict[str, Any]:
    return bill(
        template={"writablePaths": ["/tmp"], "livenessProbe": {"tcpSocket": {"port": 80}}},  # noqa: S108
        versions={"v1": {"podTemplate": value}},
    )


@pytest.mark.parametrize(
    "value", [COMPLETE, {}, {"metadata": {"annotations": None}}, {"spec": {"fieldOfTomorrow": {"a": 1}}}]
)
def test_what_the_api_server_takes_is_taken(value: Mapping[str, Any]) -> None:
    assert config(**with_piece(value))


def places(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """Of every map, list and value inside of `value`."""
    inner = value.items() if isinstance(value, Mapping) else enumerate(value) if isinstance(value, list) else ()
    for key, one in inner:
        yield (*path, key)
        yield from places(one, (*path, key))


@given(path=st.sampled_from(list(places(COMPLETE))), value=JSON)
@example(path=("spec", "containers", 0, "name"), value=["bill-service"])
@example(path=("spec", "containers", 0, "lifecycle"), value={"preStop": ["a"]})
@example(path=("spec", "volumes", 0), value={"name": "data", "$patch": "delete"})
def test_anything_in_a_pod_template_is_taken_or_refused(path: tuple[str | int, ...], value: Any) -> None:
    changed: Any = copy.deepcopy(COMPLETE)
    *above, last = path
    inner = changed
    for step in above:
        inner = inner[step]
    inner[last] = value
    try:
        assert config(**with_piece(changed))
    except ConfigError as error:
        assert all(problem.key.startswith(f"{V1}.podTemplate") for problem in error.problems)
        assert all(problem.allowed and problem.fix for problem in error.problems)
