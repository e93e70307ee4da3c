"""The components as a package: what they take is the configuration's own, and its schema breaks nobody."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pulumi
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pulumi.runtime import rpc

from components import commands
from mesh.program.offline import offline
from mesh.program.recorder import Recording, record
from package import generate, parts, pieces, vocabulary
from package.breaking import breaking
from package.host import VERSION, provider
from tests.unit.given import VALID

Args = dict[str, Any]
CLUSTER = {"context": "test"}
ENV = {"PASSWORD": {"secret": "password"}}
GOOD: Mapping[str, Args] = {
    "Istio": {"cluster": CLUSTER, "mesh": {"version": "1.31.0"}},
    "NodePrep": {"cluster": CLUSTER, "nodes": {"mode": "daemonset"}},
    "WorkloadNamespace": {"cluster": CLUSTER, "namespace": {"name": "shop"}},
    "Workload": {
        "cluster": CLUSTER,
        "namespace": "shop",
        "ports": {"http": {"port": 80}},
        "template": {"image": "nginx", "env": ENV},
        "versions": {"v1": {"replicas": 2.0}, "v2": {}},
        "secrets": {"password": "a-secret-text"},
    },
    "Routing": {
        "cluster": CLUSTER,
        "namespace": "shop",
        "ports": {"http": {"port": 80.0}},
        "weights": {"v1": 90.0, "v2": 10.0},
    },
    "Application": {key: value for key, value in VALID.items() if key != "mesh"},
    "Guard": {"cluster": CLUSTER},
}


def made(component: str, args: Args, name: str = "web") -> Recording:
    """What Pulumi's own host would have the component register."""

    def construct() -> None:
        with offline():
            provider().construct(name, f"istio-governance:index:{component}", args)

    return record(construct)


def refused(component: str, args: Args, name: str = "web") -> pieces.RefusedError:
    with pytest.raises(pieces.RefusedError) as error:
        made(component, args, name)
    assert error.value.errors == []
    return error.value


def problems(component: str, args: Args, name: str = "web") -> dict[str, str]:
    """Key → what is said of it, of all that the component says is wrong."""
    return {one.key: str(one) for one in refused(component, args, name).problems}


# What lies here


def test_what_is_generated_is_up_to_date() -> None:
    """Else: python -m package.generate"""
    assert generate.INPUTS.read_text() == generate.inputs()
    schema = generate.schema()
    assert generate.SCHEMA.read_text() == schema
    assert generate.PAGE.read_text() == generate.page(json.loads(schema))


def test_the_schema_breaks_no_program_unless_its_version_says_so() -> None:
    """package/released.json is the schema of the last release."""
    released, now = (json.loads((generate.FOLDER / name).read_text()) for name in ("released.json", "schema.json"))
    assert now["version"] == VERSION
    if VERSION.split(".")[0] == released["version"].split(".")[0]:
        assert breaking(released, now) == []


SCHEMA = json.loads(generate.SCHEMA.read_text())
ROUTING = "istio-governance:index:Routing"


def without(path: str) -> dict[str, Any]:
    changed: dict[str, Any] = copy.deepcopy(SCHEMA)
    *way, last = path.split("/")
    at = changed
    for key in way:
        at = at[key]
    del at[last]
    return changed


def test_what_breaks_a_program_is_told() -> None:
    assert breaking(SCHEMA, without(f"resources/{ROUTING}")) == [f"{ROUTING} is gone"]
    assert breaking(SCHEMA, without(f"resources/{ROUTING}/inputProperties/match")) == [f"{ROUTING}: match is gone"]
    port = "istio-governance:index:Port"
    assert breaking(SCHEMA, without(f"types/{port}/properties/port")) == [f"{port}: port is gone"]
    changed = copy.deepcopy(SCHEMA)
    changed["types"][port]["properties"]["port"]["type"] = "string"
    changed["types"][port]["required"].append("targetPort")
    changed["types"]["istio-governance:index:RuleMtls"]["enum"].pop()
    changed["resources"][ROUTING]["required"] = []
    assert breaking(SCHEMA, changed) == [
        f"{ROUTING}: the output weights is not always there any more",
        f"{port}: port is of another type",
        f"{port}: targetPort is required now",
        "istio-governance:index:RuleMtls: the value DISABLE is gone",
    ]


def test_what_breaks_no_program_is_not_told() -> None:
    """More inputs, a type more, other words."""
    changed = copy.deepcopy(SCHEMA)
    changed["resources"][ROUTING]["inputProperties"]["more"] = {"type": "string"}
    changed["resources"][ROUTING]["requiredInputs"] = []
    changed["types"]["istio-governance:index:More"] = {"type": "object"}
    changed["types"]["istio-governance:index:Port"]["properties"]["port"]["description"] = "other words"
    assert breaking(SCHEMA, changed) == []


# What they make


@pytest.mark.parametrize("component", GOOD)
def test_a_component_makes_what_the_program_would(component: str) -> None:
    recording = made(component, GOOD[component])
    (own,) = (one for one in recording if one.type == f"istio-governance:index:{component}")
    inside = [one for one in recording if one is not own and one.kind != "Stack"]
    assert inside and all(one.parent for one in inside)
    assert recording.outputs[own.urn].keys() == SCHEMA["resources"][own.type].get("properties", {}).keys()


def test_a_name_that_no_service_can_have_is_told() -> None:
    assert "the component's name" in problems("Routing", dict(GOOD["Routing"]), "Web")


@pytest.mark.parametrize("key", ["secrets", "sshPrivateKey", "bastionPrivateKey"])
@pytest.mark.parametrize("value", [{"password": 5.0, "a-secret-text": 1.0}, ["a-secret-text"], 5.0, {"pass": ""}])
def test_no_word_of_a_secret_is_told(key: str, value: Any) -> None:
    component = "Workload" if key == "secrets" else "NodePrep"
    said = refused(component, {**GOOD[component], key: value}).message
    assert "a-secret-text" not in said.replace("secrets.a-secret-text", "") and "5" not in said, said


def test_a_secret_that_the_common_template_names_is_given() -> None:
    template = {"image": "nginx", "env": {"PASSWORD": {"secret": "password"}, "GREETING": "hello"}}
    args = {**GOOD["Application"], "template": template, "secrets": {"password": "a-secret-text"}}
    assert made("Application", args).named("Secret")


def test_pulumis_own_protection_reaches_the_objects() -> None:
    def construct() -> None:
        with offline():
            provider().construct("web", ROUTING, dict(GOOD["Routing"]), pulumi.ResourceOptions(protect=True))

    assert all(one.protect for one in record(construct) if one.kind not in ("Stack", "Provider"))


def test_a_guard_of_one_component_is_for_its_namespace_and_no_crds() -> None:
    mesh = {"version": "1.31.0", "purge": True}
    guard = made("WorkloadNamespace", {**GOOD["WorkloadNamespace"], "mesh": mesh}).one("Command").inputs
    assert (guard["triggers"], guard["environment"]["MESH_GUARDS"]) == (["shop"], "shop")
    assert guard["environment"]["MESH_PURGE"] == "false"
    guard = made("Istio", {"cluster": CLUSTER, "mesh": mesh}).named("Command")["mesh-web-guard"].inputs
    assert (guard["environment"]["MESH_GUARDS"], guard["environment"]["MESH_PURGE"]) == ("istio-system", "true")
    assert "MESH_GUARDS" not in made("Guard", {"cluster": CLUSTER}).one("Command").inputs["environment"]


def test_the_rule_is_that_of_the_program() -> None:
    rule = made("Routing", GOOD["Routing"]).one("VirtualService")
    weights = [one["weight"] for one in rule.inputs["spec"]["http"][0]["route"]]
    assert (rule.inputs["metadata"]["namespace"], weights) == ("shop", [90, 10])


def test_two_rules_in_one_program_have_different_names() -> None:
    def construct() -> None:
        with offline():
            for name in ("web", "cart"):
                provider().construct(name, ROUTING, dict(GOOD["Routing"]))

    commands_made = record(construct).named("Command")
    assert set(commands_made) == {"web-subsets-announced", "cart-subsets-announced"}


def test_a_secret_stays_one() -> None:
    recording = made("Workload", GOOD["Workload"])
    secret = recording.one("Secret").inputs["data"]
    assert "a-secret-text" not in json.dumps([one.inputs for one in recording if one.kind != "Secret"], default=str)
    assert rpc.is_rpc_secret(secret["password"])


# What they refuse


@pytest.mark.parametrize(
    ("component", "change", "key", "said"),
    [
        ("Routing", {"weights": {"v1": 90.0, "v2": 20.0}}, "weights", "100"),
        ("Routing", {"tiemout": "3s"}, "tiemout", "did you mean 'timeout'?"),
        ("Routing", {"ports": {"http": {"port": 80.0, "tragetPort": 1.0}}}, "ports.http.tragetPort", "targetPort"),
        ("Routing", {"ports": {"http": {"port": 80.5}}}, "ports.http.port", "a whole number from 1 to 65535"),
        ("Routing", {"namespace": "Shop"}, "namespace", "a DNS label"),
        ("Routing", {"cluster": {}}, "cluster", "fix:     set cluster.context;"),
        ("Routing", {"match": [{"name": "a", "weights": {"v9": 100.0}}]}, "match.0.weights.v9", "a version of web"),
        ("Workload", {"versions": {"v1": {"replicas": -1.0}}}, "versions.v1.replicas", "0 or more"),
        ("Workload", {"template": {"env": ENV}}, "versions.v1.image", "template.image"),
        ("Workload", {"secrets": {}}, "template.env.PASSWORD.secret", "password"),
        ("Workload", {"secrets": {"password": 12345.0}}, "secrets.password", "a text that is not empty"),
        ("Workload", {"secrets": {"password": "a-secret-text", "pass": "b"}}, "secrets.pass", "a key that a variable"),
        ("Workload", {"secrets": "a-secret-text"}, "secrets", "a map of texts by key"),
        ("Workload", {"secret": {}}, "secret", "did you mean 'secrets'?"),
        ("Workload", {"workload": "existing", "template": None, "secrets": None, "versions": {"v1": {}}}, "workload",
         "leave this component out"),
        ("Workload", {"revision": "b"}, "revision", "mesh.revision"),
        ("Workload", {"namespace": {"name": "shop"}}, "namespace", "set 'namespace' to a DNS label"),
        ("Routing", {"prots": {}}, "prots", "did you mean 'ports'?"),
        ("Routing", {"protect": True}, "protect", "a known input"),
        ("Routing", {"mesh": {"mode": "off"}}, "mesh.mode", "managed or existing"),
        ("Istio", {"nodes": {"mode": "daemonset"}}, "nodes", "a known input"),
        ("NodePrep", {"sshPrivateKey": {}}, "sshPrivateKey", "a text that is not empty"),
        ("WorkloadNamespace", {"namespace": {"defaultDeny": True}}, "namespace.defaultDeny", "false in this component"),
        ("Istio", {"mesh": {"version": "1.3.0"}}, "mesh.version", "1.31"),
        ("Istio", {"mesh": None}, "mesh", "add 'mesh'"),
        ("Istio", {"mesh": {"mode": "existing"}}, "mesh.mode", "managed"),
        ("NodePrep", {"nodes": {}}, "nodes.mode", "ssh, daemonset or local"),
        ("NodePrep", {"nodes": {"mode": "ssh"}}, "nodes.hosts", "nodes.hosts.<name>.address"),
        ("WorkloadNamespace", {"namespace": {"keep": True, "create": False}}, "namespace.keep", "create"),
        ("Application", {"services": {"web": {"versions": {}}}}, "services.web.versions", "at least one"),
    ],
)  # fmt: skip
def test_a_wrong_input_is_told_as_the_user_wrote_it(component: str, change: Args, key: str, said: str) -> None:
    found = problems(component, {**GOOD[component], **change})
    assert key in found, found
    assert said in found[key] and "allowed:" in found[key] and "fix:" in found[key], found[key]
    if component != "Application":
        assert not any(part.startswith(("services.", "routing.")) for part in found), found


def test_all_that_is_wrong_is_told_at_once() -> None:
    wrong = {**GOOD["Routing"], "timeout": "3", "weights": {"v1": 1.0}, "cluster": {"context": 3.0}}
    assert {"timeout", "weights", "cluster.context"} <= problems("Routing", wrong).keys()
    strange = {**GOOD["Routing"], "tiemout": "3s", "prots": {}, "weights": None}
    assert problems("Routing", strange).keys() == {"tiemout", "prots", "weights"}


def test_what_only_the_update_knows_is_refused_without_a_word_of_it() -> None:
    def construct() -> None:
        late = pulumi.Output.secret("a-secret-text")
        with offline(), pytest.raises(pieces.RefusedError) as error:
            inputs = {**GOOD["Routing"], "namespace": late, "ports": {"http": {"port": late}}}
            provider().construct("web", ROUTING, inputs)
        told = {one.key: str(one) for one in error.value.problems}
        assert told.keys() == {"namespace", "ports"} and "dependsOn" in told["ports"]
        assert "a-secret-text" not in error.value.message

    record(construct)


def numbers() -> st.SearchStrategy[Any]:
    whole = st.integers(-(2**40), 2**40)
    return st.recursive(whole | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner))


def floats(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: floats(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [floats(inner) for inner in value]
    return float(value) if isinstance(value, int) else value


@given(numbers())
def test_whole_numbers_come_back_from_pulumis_floats(value: Any) -> None:
    back = pieces.whole(floats(value))
    assert back == value and json.dumps(back) == json.dumps(value)


# How commands find this code


@pytest.mark.parametrize(
    ("home", "program", "words"),
    [
        (
            "/home/me/governance",
            "/home/me/shop",
            "env PYTHONPATH=../governance ../governance/venv/bin/python -m mesh.wait",
        ),
        ("/home/me/a b", "/home/me/shop", "env PYTHONPATH='../a b' '../a b/venv'/bin/python -m mesh.wait"),
        (
            "/home/me/.pulumi/plugins/resource-x-v1",
            "/home/me/shop",
            'env PYTHONPATH="${PULUMI_HOME:-$HOME/.pulumi}/plugins"/resource-x-v1 '
            '"${PULUMI_HOME:-$HOME/.pulumi}/plugins"/resource-x-v1/venv/bin/python -m mesh.wait',
        ),
    ],
)
def test_the_commands_name_no_folder_of_one_machine(
    home: str, program: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commands, "_python", "")
    monkeypatch.setenv("PULUMI_HOME", "/home/me/.pulumi")
    commands.live_in(Path(home), Path(home) / "venv", Path(program))
    assert commands.python("-m mesh.wait") == words


def test_the_vocabulary_has_every_component() -> None:
    assert [one.__name__ for one in parts.COMPONENTS] == [*vocabulary.INPUTS]
