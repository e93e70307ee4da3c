"""What holds for every configuration, and for everything that is none."""

from __future__ import annotations

import copy
import datetime
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pytest
import yaml
from hypothesis import assume, example, given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from config import ConfigError, StackConfig, load, merged
from config.types import SECRET
from istio import kernel
from istio.charts import charts
from istio.values import sidecar
from mesh import preflight

from .given import NO_DEFAULTS, VALID

OUTLIERS = {
    "consecutive5xxErrors": 3,
    "consecutiveGatewayErrors": 2,
    "interval": "5s",
    "baseEjectionTime": "1m",
    "maxEjectionPercent": 50,
    "minHealthPercent": 30,
}
MACHINE = {"address": "10.0.0.1", "port": 2222, "user": "admin", "hostKey": "ssh-ed25519 AAAA"}
POOL = {
    "tcp": {"maxConnections": 100, "connectTimeout": "500ms"},
    "http": {
        "http1MaxPendingRequests": 10,
        "http2MaxRequests": 100,
        "maxRequestsPerConnection": 1,
        "maxRetries": 3,
        "idleTimeout": "1h",
    },
}
COMPLETE: Mapping[str, Any] = {
    "schemaVersion": 1,
    "protect": True,
    "cluster": {"context": "dev", "kubeconfig": "some/file"},
    "mesh": {
        "mode": "managed",
        "version": "1.31.0",
        "profile": "demo",
        "cni": True,
        "purge": True,
        "namespace": "mesh-system",
        "revision": "",
        "revisions": {},
        "platform": "gke",
        "ingress": True,
        "egress": True,
        "prometheus": "http://prometheus.monitoring:9090",
        "values": {"istiod": {"pilot": {"env": {"A": "1"}}}},
        "charts": "oci://example.com/charts",
        "hub": "example.com/istio",
        "images": {"pilot": "example.com/istio/pilot@sha256:0"},
        "accept": ["Sidecar office/default"],
        "imagePullSecrets": ["pull"],
    },
    "nodes": {
        "mode": "ssh",
        "hosts": {"worker": {**MACHINE, "node": "worker-1", "gone": False}},
        "bastion": {**MACHINE, "address": "bastion.example.com"},
        "modules": ["nf_nat"],
        "sysctls": {"fs.inotify.max_user_instances": 16384, "fs.file-max": 1 << 40},
        "ipFamilies": ["IPv4", "IPv6"],
        "reboot": True,
        "image": "example.com/kmod",
    },
    "sshPrivateKey": SECRET,
    "bastionPrivateKey": SECRET,
    "dbPassword": SECRET,
    "template": {"drainSeconds": 7},
    "namespace": {"name": "shop", "create": True, "keep": False, "defaultDeny": True},
    "services": {
        "bill-service": {
            "selector": {"service": "bill-service"},
            "labels": {"team": "bills"},
            "ports": {"http": {"port": 9999, "targetPort": 80, "appProtocol": "http"}},
            "revision": "",
            "template": {"image": "nginx"},
            "workload": "Deployment",
            "timeout": "90s",
            "disruptionBudget": {"maxUnavailable": "50%"},
            "versions": {
                "v1": {
                    "image": "nginx:1",
                    "imagePullPolicy": "Always",
                    "command": ["sh"],
                    "args": ["-c", "true"],
                    "env": {
                        "A": "1",
                        "PASSWORD": {"secret": "dbPassword"},
                        "TOKEN": {"secretKeyRef": {"name": "tokens", "key": "bills"}},
                    },
                    "replicas": 2,
                    "labels": {"tier": "back"},
                    "versionLabel": "one",
                    "resources": {"requests": {"cpu": "10m"}},
                    "readinessProbe": {"tcpSocket": {"port": 80}},
                    "livenessProbe": {"tcpSocket": {"port": 80}},
                    "securityContext": {"runAsNonRoot": True},
                    "writablePaths": ["/var/cache"],
                    "spread": [{"topologyKey": "zone", "maxSkew": 2, "whenUnsatisfiable": "DoNotSchedule"}],
                    "drainSeconds": 3,
                    "podTemplate": {
                        "metadata": {"annotations": {"note": "x"}},
                        "spec": {
                            "nodeSelector": {"disk": "ssd"},
                            "containers": [
                                {
                                    "name": "log",
                                    "image": "nginx",
                                    "ports": [{"containerPort": 80}],
                                    "env": [{"name": "A", "value": "1"}],
                                    "volumeMounts": [{"name": "data", "mountPath": "/data"}],
                                    "resources": {"requests": {"cpu": "10m"}, "limits": {"cpu": 1}},
                                    "readinessProbe": {"httpGet": {"port": 80}},
                                    "lifecycle": {"preStop": {"exec": {"command": ["a"]}}},
                                }
                            ],
                            "volumes": [{"name": "data", "emptyDir": {}}],
                        },
                    },
                },
                "v2": {},
            },
        }
    },
    "routing": {
        "bill-service": {
            "weights": {"v1": 100},
            "timeout": "3s",
            "retries": {"attempts": 2, "perTryTimeout": "250ms", "retryOn": ["5xx", "503"]},
            "faults": {
                "delay": {"percentage": 1, "fixedDelay": "1s"},
                "abort": {"percentage": 0.5, "httpStatus": 503},
            },
            "mirror": {"version": "v2", "percentage": 10},
            "match": [
                {
                    "name": "testers",
                    "headers": {"x-user": {"exact": "jason"}, "x-any": {}},
                    "uri": {"prefix": "/bills"},
                    "method": {"exact": "GET"},
                    "query": {"canary": {"regex": "1|true"}},
                    "sourceLabels": {"app": "front-tomcat"},
                    "weights": {"v2": 100},
                    "timeout": "0s",
                    "retries": {"attempts": 0},
                    "faults": {},
                    "mirror": {"version": "v1", "percentage": 0},
                }
            ],
            "outlierDetection": OUTLIERS,
            "connectionPool": POOL,
            "mtls": "STRICT",
            "sticky": {"cookie": {"name": "USER", "ttl": "1h", "path": "/"}},
            "expose": {"hosts": ["bills.example.com"], "tlsSecret": "bills-tls", "port": "http"},
            "shift": {
                "steps": [1, 10, 100],
                "interval": "30s",
                "gate": {
                    "successRate": 99.9,
                    "latency": {"p50": "50ms", "p90": "100ms", "p99": "1s"},
                    "baseline": {"successRate": 0.5, "p50": 2, "p90": 2, "p99": 3},
                    "confidence": 99,
                    "requests": 500,
                },
            },
        }
    },
    "egress": {
        "api.example.com": {
            "protocol": "HTTP",
            "port": 8080,
            "addresses": ["192.0.2.1"],
            "outlierDetection": OUTLIERS,
            "connectionPool": POOL,
        }
    },
}
"""A value for every key that there is, but for those that cannot stand beside another."""
PARTIAL = {"disruptionBudget", "PASSWORD", "TOKEN", "template", "v2", "sticky", "expose"}

Path = tuple[str, ...]


def read(document: Any) -> StackConfig:
    return load(document, defaults=NO_DEFAULTS)


def keys(document: Mapping[str, Any], path: Path = ()) -> Iterator[Path]:
    """The paths of all keys, with a map before its own."""
    for key, value in document.items():
        yield (*path, key)
        if isinstance(value, Mapping):
            yield from keys(value, (*path, key))


def at(document: Any, path: Sequence[str]) -> Any:
    for key in path:
        document = document[key]
    return document


def replaced(path: Path, value: Any) -> dict[str, Any]:
    """The complete configuration with another value at `path`."""
    document: dict[str, Any] = copy.deepcopy(dict(COMPLETE))
    *above, last = path
    at(document, above)[last] = value
    return document


def models(value: Any, path: Path = ()) -> Iterator[tuple[Path, BaseModel]]:
    """Every model inside of a loaded configuration, and where it stands."""
    if isinstance(value, BaseModel):
        yield path, value
        for name, field in type(value).model_fields.items():
            yield from models(getattr(value, name), (*path, field.alias or name))
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield from models(inner, (*path, key))


LOADED = read(COMPLETE)
PATHS = list(keys(COMPLETE))
MODELS = dict(models(LOADED))

# What YAML and JSON can say, more often than not with the words that mean something here.
WORDS = st.sampled_from(sorted({key for path in PATHS for key in path} | {"", "[key]", "off", "1.31", "x" * 64}))
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | WORDS | st.integers(-1, 101)
JSON = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS | st.text(max_size=9), inner, max_size=4)
)
YAML_KEYS = WORDS | st.integers() | st.booleans() | st.floats() | st.dates() | st.none()
YAML = st.recursive(
    SCALARS | st.dates() | st.datetimes() | st.binary(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(YAML_KEYS, inner, max_size=4),
)


@pytest.fixture(scope="module")
def defaults(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    return tmp_path_factory.mktemp("defaults") / "defaults.yaml"


def never_crashes(document: Any, defaults: pathlib.Path = NO_DEFAULTS) -> None:
    """Either it is refused, with keys and words, or all that the program asks of it has an answer."""
    try:
        config = load(document, defaults=defaults)
    except ConfigError as error:
        assert error.problems
        for problem in error.problems:
            assert problem.allowed
            assert problem.fix
        assert str(error).startswith("the configuration has ")
        return
    for name, service in config.services.items():
        assert config.selector(name)
        assert sidecar(config.mesh_of(name)) or not config.mesh.on
        for version in service.versions:
            assert service.version(version).image
            assert service.version_label(version)
    for weights in config.weights.values():
        assert sum(weights.values()) == 100
    if config.mesh.mode == "managed":
        assert {"base", "istiod"} <= {chart.key for chart in charts(config.mesh)}
    if config.nodes.mode == "ssh":
        assert all(host.host_key for host in config.nodes.hosts.values())
    assert kernel.modules(config)
    assert preflight.declared(config)


def test_complete_configuration_says_something_for_every_key() -> None:
    """So that a key that is added to the schema is added here, and everything below looks at it too."""
    for path, model in MODELS.items():
        fields = {field.alias or name for name, field in type(model).model_fields.items()}
        if not PARTIAL & set(path[-1:]):
            assert fields == set(at(COMPLETE, path)) - {"dbPassword"}, path


@given(path=st.sampled_from(PATHS), value=JSON)
@example(path=("mesh", "version"), value="²." * 3)
@example(path=("mesh", "version"), value="9" * 5000 + ".1.0")
@example(path=("services", "bill-service", "template", "image"), value=float("nan"))
def test_any_value_at_any_key(path: Path, value: Any) -> None:
    never_crashes(replaced(path, value))


@given(document=st.dictionaries(WORDS | st.text(max_size=9), JSON, max_size=5))
def test_any_document(document: Any) -> None:
    never_crashes(document)


@given(document=st.fixed_dictionaries({}, optional=dict.fromkeys(COMPLETE, JSON)))
def test_any_document_with_the_right_keys(document: Any) -> None:
    never_crashes(merged(VALID, document))


@given(path=st.sampled_from(PATHS), value=YAML)
@example(path=("services", "bill-service", "versions"), value={1: {}, datetime.date(2024, 1, 1): {}})
@example(path=("services",), value={1.5: {}, None: {}, True: {}})
def test_any_yaml_in_the_defaults(defaults: pathlib.Path, path: Path, value: Any) -> None:
    """YAML has more than JSON: dates, bytes, and keys that are no text."""
    defaults.write_text(yaml.safe_dump(replaced(path, value)))
    never_crashes({"routing": {"bill-service": {"weights": {"v11": 1}}}}, defaults)


# Weights


@st.composite
def shares(draw: st.DrawFn, total: int = 100) -> dict[str, int]:
    """A composition of `total` over one to eight versions."""
    cuts = sorted(draw(st.lists(st.integers(0, total), max_size=7)))
    parts = [after - before for before, after in zip([0, *cuts], [*cuts, total], strict=True)]
    return {f"v{number}": part for number, part in enumerate(parts)}


def with_weights(versions: Mapping[str, int], listed: Mapping[str, int]) -> dict[str, Any]:
    """The valid configuration with these versions, and rules with the weights in `listed`."""
    document: dict[str, Any] = copy.deepcopy(dict(VALID))
    document["services"]["bill-service"]["versions"] = {version: {} for version in versions}
    document["routing"] = {"bill-service": {"weights": dict(listed)}}
    return document


@given(weights=shares(), data=st.data())
def test_weights_come_back_and_add_up_to_100(weights: dict[str, int], data: st.DataObject) -> None:
    left_out = data.draw(st.sets(st.sampled_from(sorted(weights))))
    listed = {version: weight for version, weight in weights.items() if weight or version not in left_out}
    assert read(with_weights(weights, listed)).weights == {"bill-service": weights}


@given(weights=st.dictionaries(st.sampled_from(["v1", "v2", "v3"]), st.integers(), min_size=1))
def test_whole_numbers_that_do_not_add_up_are_refused(weights: dict[str, int]) -> None:
    assume(sum(weights.values()) != 100)
    with pytest.raises(ConfigError) as refused:
        read(with_weights(dict.fromkeys(["v1", "v2", "v3"], 0), weights))
    told = {problem.key: str(problem) for problem in refused.value.problems}
    assert f"these add up to {sum(weights.values())}" in told["routing.bill-service.weights"]


@given(weights=shares(), wrong=st.floats() | st.text() | st.booleans() | st.lists(st.integers()))
def test_anything_but_a_whole_number_is_no_weight(weights: dict[str, int], wrong: object) -> None:
    with pytest.raises(ConfigError) as refused:
        read(with_weights(weights, {**weights, "v0": wrong}))  # type: ignore[dict-item]
    assert "routing.bill-service.weights.v0" in {problem.key for problem in refused.value.problems}


# Keys


def aliases(model: BaseModel) -> list[str]:
    return [field.alias or name for name, field in type(model).model_fields.items()]


@given(
    path=st.sampled_from(list(MODELS)),
    key=st.text(max_size=12) | WORDS | st.sampled_from(sorted(StackConfig.model_fields)),
    value=JSON.filter(lambda value: value is not None),
)
def test_unknown_key_is_named(path: Path, key: str, value: Any) -> None:
    assume(key not in aliases(MODELS[path]))
    with pytest.raises(ConfigError) as refused:
        read(replaced((*path, key), value))
    assert ".".join((*path, key)) in {problem.key for problem in refused.value.problems}


@given(path=st.sampled_from([path for path in MODELS if max(map(len, aliases(MODELS[path]))) > 3]), data=st.data())
def test_forgotten_letter_is_found(path: Path, data: st.DataObject) -> None:
    key = data.draw(st.sampled_from([alias for alias in aliases(MODELS[path]) if len(alias) > 3]))
    cut = data.draw(st.integers(0, len(key) - 1))
    typo = key[:cut] + key[cut + 1 :]
    assume(typo not in aliases(MODELS[path]))
    with pytest.raises(ConfigError) as refused:
        read(replaced((*path, typo), "x"))
    fixes = {problem.key: problem.fix for problem in refused.value.problems}
    assert fixes[".".join((*path, typo))] == f"did you mean '{key}'?"


@pytest.mark.parametrize("path", MODELS, ids=".".join)
def test_models_are_frozen_and_closed(path: Path) -> None:
    model = MODELS[path]
    assert type(model).model_config["extra"] == "forbid"
    for name in type(model).model_fields:
        with pytest.raises(ValidationError, match="frozen"):
            setattr(model, name, getattr(model, name))


# Merging


def documents(leaves: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """Maps in which a capital letter always stands for a map and a small one never does."""
    small = st.dictionaries(st.sampled_from("abc"), leaves, max_size=3)
    return st.recursive(
        small,
        lambda inner: st.builds(
            lambda low, high: {**low, **high}, small, st.dictionaries(st.sampled_from("ABC"), inner, max_size=2)
        ),
        max_leaves=8,
    )


PLAIN = documents(st.integers() | st.lists(st.integers(), max_size=2))
WITH_NULLS = documents(st.none() | st.integers())


@given(document=PLAIN, other=PLAIN)
def test_merging_again_changes_nothing(document: dict[str, Any], other: dict[str, Any]) -> None:
    once = merged(document, other)
    assert merged({}, document) == merged(document, {}) == merged(document, document) == document
    assert merged(once, other) == once


@given(first=PLAIN, second=PLAIN, third=PLAIN)
def test_layers_of_one_shape_can_be_merged_in_any_grouping(
    first: dict[str, Any], second: dict[str, Any], third: dict[str, Any]
) -> None:
    assert merged(merged(first, second), third) == merged(first, merged(second, third))


@given(below=PLAIN, above=WITH_NULLS)
def test_merging_leaves_no_null_and_no_trace(below: dict[str, Any], above: dict[str, Any]) -> None:
    before = copy.deepcopy((below, above))
    result = merged(below, above)
    assert (below, above) == before
    assert None not in {at(result, path) for path in keys(result) if not isinstance(at(result, path), dict | list)}
    for path in keys(above):
        if at(above, path) is None:
            assert path not in set(keys(result))
