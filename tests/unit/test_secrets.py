"""Secret values in the environment of pods: where they are, where they must not be, and what a changed one does."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pulumi
import pytest
import yaml
from click.testing import CliRunner

import names
from config import files, merged
from mesh import adopt, preflight
from mesh.adopt import words as adopt_words
from mesh.commands import config as config_command
from mesh.declared import declared
from mesh.drift import find, words
from mesh.drift.find import Applied, Report
from mesh.program import helm, render
from mesh.program.recorder import PROJECT, Recording, Resource
from mesh.report import markdown, states
from mesh.report.report import report
from mesh.report.states import Comparison

from . import given
from .fake_kubectl import FakeKubectl, made
from .given import ROOT, config
from .test_preflight import CRDS, check, refusal
from .test_preflight import live as there

SECRET_MARK, SIGNATURE = "4dabf18193072939515e22adb298388d", "1b47061264138c4ac30d75fd1eb44270"
"""How Pulumi marks a secret on its way to the engine (resource.SecretSig in its Go SDK)."""

PASSWORD = {"dbPassword": "hunter2"}
BOTH = {**PASSWORD, "apiToken": "swordfish"}
# v1 has the password, v2 the token as well; front-tomcat has none.
SERVICES: Mapping[str, Any] = {
    "bill-service": {
        "template": {"env": {"DB_PASSWORD": {"secret": "dbPassword"}, "LEVEL": "info"}},
        "versions": {"v2": {"env": {"TOKEN": {"secret": "apiToken"}}}},
    }
}


@pytest.fixture(autouse=True)
def no_cluster(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if "preflight" not in request.node.name:
        monkeypatch.setattr(preflight, "check", lambda _config, owner: None)  # noqa: ARG005


def program(secrets: Mapping[str, str], services: Mapping[str, Any] = SERVICES) -> Recording:
    """What the program registers for the stack dev when Pulumi has decrypted `secrets` for it."""
    return given.program("dev", secrets, services=services)


def opened(value: Any) -> str:
    """A value that must be a secret."""
    assert SIGNATURE in value.values()
    return str(value["value"])


def checksums(recording: Recording) -> dict[str, str]:
    """Deployment → what it has in the place of the values of its secrets."""
    annotations = {
        name: deployment.inputs["spec"]["template"]["metadata"].get("annotations", {})
        for name, deployment in recording.named("Deployment").items()
    }
    return {name: opened(found[names.SECRETS]) for name, found in annotations.items() if names.SECRETS in found}


def variables(deployment: Resource) -> dict[str, Any]:
    (container,) = deployment.inputs["spec"]["template"]["spec"]["containers"]
    return {variable.pop("name"): variable for variable in container["env"]}


ONE: Mapping[str, Any] = {"bill-service": {"template": {"env": {"DB": {"secret": "dbPassword"}}}}}


# The objects


def test_a_service_has_one_secret_with_the_values_that_it_uses_and_the_pods_refer_to_it() -> None:
    recording = program(BOTH)
    secret = recording.one("Secret")
    assert secret.name == secret.inputs["metadata"]["name"] == "bill-service-env"
    assert secret.inputs["metadata"]["annotations"] == {names.OWNER: "istio-governance/dev"}
    data = {key: base64.b64decode(opened(value)).decode() for key, value in secret.inputs["data"].items()}
    assert data == BOTH
    deployments = recording.named("Deployment")
    of_v1 = {
        "DB_PASSWORD": {"valueFrom": {"secretKeyRef": {"name": "bill-service-env", "key": "dbPassword"}}},
        "LEVEL": {"value": "info"},
    }
    assert variables(deployments["bill-service-v1"]) == of_v1
    assert variables(deployments["bill-service-v2"]) == {
        **of_v1,
        "TOKEN": {"valueFrom": {"secretKeyRef": {"name": "bill-service-env", "key": "apiToken"}}},
    }
    assert secret.urn in recording.before(deployments["bill-service-v1"])
    assert secret.urn not in recording.before(deployments["front-tomcat-v1"])


def test_a_value_of_somebody_elses_secret_is_referred_to_and_nothing_is_made() -> None:
    reference = {"name": "tokens", "key": "bills"}
    recording = program({}, {"bill-service": {"template": {"env": {"TOKEN": {"secretKeyRef": reference}}}}})
    assert variables(recording.named("Deployment")["bill-service-v1"]) == {
        "TOKEN": {"valueFrom": {"secretKeyRef": reference}}
    }
    assert not recording.named("Secret")
    assert not checksums(recording)


@pytest.mark.parametrize("kind", ["StatefulSet", "DaemonSet"])
def test_other_workloads_have_it_too(kind: str) -> None:
    services = {"bill-service": {"workload": kind, "template": {"env": {"DB_PASSWORD": {"secret": "dbPassword"}}}}}
    recording = program(PASSWORD, services)
    metadata = recording.spec(kind, "bill-service-v1")["template"]["metadata"]
    assert opened(metadata["annotations"][names.SECRETS])
    assert recording.one("Secret").urn in recording.before(recording.named(kind)["bill-service-v1"])


def test_services_have_secrets_of_their_own() -> None:
    services = merged(SERVICES, {"front-tomcat": {"template": {"env": {"DB": {"secret": "dbPassword"}}}}})
    recording = program(BOTH, services)
    assert set(recording.named("Secret")) == {"bill-service-env", "front-tomcat-env"}
    assert set(recording.named("Secret")["front-tomcat-env"].inputs["data"]) == {"dbPassword"}


def test_no_value_is_anywhere_but_in_the_secret_and_marked_there() -> None:
    for resource in program(BOTH):
        shown = json.dumps({**resource.inputs, "data": None}, default=str)
        for value in BOTH.values():
            assert value not in shown
            assert base64.b64encode(value.encode()).decode() not in shown
    assert not any(value in str(program(BOTH).outputs) for value in BOTH.values())


# The checksum


def test_a_changed_value_restarts_the_pods_that_use_it_and_no_others() -> None:
    before = checksums(program(BOTH))
    assert set(before) == {"bill-service-v1", "bill-service-v2"}
    assert checksums(program(BOTH)) == before
    token = checksums(program({**BOTH, "apiToken": "other"}))
    assert [name for name in before if token[name] != before[name]] == ["bill-service-v2"]
    password = checksums(program({**BOTH, "dbPassword": "other"}))
    assert all(password[name] != before[name] for name in before)


def test_the_checksum_is_keyed_by_what_only_the_state_has() -> None:
    recording = program(PASSWORD, ONE)
    key = recording.named("Command")["bill-service-env-key"]
    assert key.urn in recording.before(recording.named("Deployment")["bill-service-v1"])
    assert key.inputs["logging"] == "none", "pulumi-command prints what a command prints"
    assert key.ignore_changes == ("create",), "another key would restart the pods"
    assert "environment" not in key.inputs and "stdin" not in key.inputs


def test_a_changed_value_is_an_update_in_place() -> None:
    """The provider would replace the Secret, and for a moment there would be none."""
    assert program(PASSWORD, ONE).named("kubernetes")["cluster"].inputs["enableSecretMutable"] == "true"


def test_a_stack_without_secrets_makes_nothing_for_them() -> None:
    recording = program({}, {})
    assert "enableSecretMutable" not in recording.named("kubernetes")["cluster"].inputs
    assert not recording.named("Secret")
    assert not [name for name in recording.named("Command") if "env" in name]


# Offline


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project whose stack dev has encrypted values, of which nobody here has the passphrase."""
    for entry in ROOT.iterdir():
        if not entry.name.startswith("Pulumi."):
            (tmp_path / entry.name).symlink_to(entry)
    write(tmp_path, dbPassword="v1:abc", apiToken="v1:def")
    monkeypatch.setattr(helm, "template", lambda *_args, **_keywords: "")
    return tmp_path


def write(project: Path, **encrypted: str) -> None:
    document = yaml.safe_load((ROOT / "Pulumi.dev.yaml").read_text())
    document["config"][f"{PROJECT}:services"] = dict(SERVICES)
    document["config"] |= {f"{PROJECT}:{key}": {"secure": text} for key, text in encrypted.items()}
    (project / "Pulumi.dev.yaml").write_text(yaml.safe_dump(document))


def rendered(project: Path) -> str:
    return render.as_yaml(render.rendered(declared("dev", project)))


def test_the_rendering_has_a_word_in_the_place_of_each_value_and_the_same_bytes_each_time(checkout: Path) -> None:
    first = rendered(checkout)
    objects = list(yaml.safe_load_all(first))
    (secret,) = (found for found in objects if found["kind"] == "Secret")
    assert secret["data"] == {"apiToken": "[secret]", "dbPassword": "[secret]"}
    deployment = next(found for found in objects if found["metadata"]["name"] == "bill-service-v1")
    assert deployment["spec"]["template"]["metadata"]["annotations"][names.SECRETS] == "[secret]"
    write(checkout, dbPassword="v1:new", apiToken="v1:def")
    assert rendered(checkout) == first


def test_the_configuration_names_the_key_and_has_no_value(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = files.effective("dev", checkout).model_dump_json()
    assert '"secret":"dbPassword"' in shown
    assert "v1:abc" not in shown and "[secret" not in shown
    monkeypatch.setattr(files, "PROJECT", checkout)
    effective = files.effective("dev", checkout)
    monkeypatch.setattr(files, "effective", lambda _stack: effective)
    monkeypatch.setattr(files, "origins", lambda _stack: {})
    printed = CliRunner().invoke(config_command.command, ["--stack", "dev", "--json"], standalone_mode=False).output
    found = {entry["key"]: entry["value"] for entry in json.loads(printed)}
    assert found["services.bill-service.template.env.DB_PASSWORD.secret"] == "dbPassword"
    assert "v1:abc" not in printed


def comment(old: Recording, new: Recording) -> str:
    return markdown.write(report("dev", Comparison(states.of(old, "old"), states.of(new, "new"))))


def test_the_report_tells_a_secret_that_was_set_anew_and_which_pods_restart(checkout: Path) -> None:
    before = declared("dev", checkout)
    assert "no changes" in comment(before, declared("dev", checkout))
    write(checkout, dbPassword="v1:new", apiToken="v1:def")
    written = comment(before, declared("dev", checkout))
    assert "secret DB_PASSWORD of v1 and v2 changes: the pods restart; affects only Secret bill-service-env" in written
    assert "restarts: Deployment bill-service-v1, Deployment bill-service-v2" in written
    assert "Risk: medium" in written
    write(checkout, dbPassword="v1:abc", apiToken="v1:new")
    written = comment(before, declared("dev", checkout))
    assert "secret TOKEN of v2 changes: the pods restart" in written
    assert "restarts: Deployment bill-service-v2\n" in written
    for text in ("v1:abc", "v1:new", "v1:def"):
        assert text not in written


def test_the_report_tells_a_variable_that_comes_and_never_its_value() -> None:
    written = comment(program({}, {}), program(BOTH))
    assert "env DB_PASSWORD of v1 and v2 unset → Secret bill-service-env, key dbPassword" in written
    assert "env LEVEL of v1 and v2 unset → info" in written
    assert "Secret bill-service-env is new" in written
    for value in BOTH.values():
        assert value not in written
        assert base64.b64encode(value.encode()).decode() not in written


def previewed(operation: str, kind: str, paths: Mapping[str, str], **inputs: Any) -> dict[str, Any]:
    """A step as `pulumi preview --json` prints it, with all that is secret hidden on both sides."""
    group = "apps" if kind == "Deployment" else "core"
    workload = "istio-governance:workload:Workload"
    urn = f"urn:pulumi:dev::istio-governance::{workload}$kubernetes:{group}/v1:{kind}::bill-service-env"
    side = {
        "urn": urn,
        "type": f"kubernetes:{group}/v1:{kind}",
        "parent": f"urn:pulumi:dev::istio-governance::{workload}::bill-service",
        "inputs": inputs,
    }
    found = {path: {"kind": kind_, "inputDiff": False} for path, kind_ in paths.items()}
    return {"op": operation, "urn": urn, "oldState": side, "newState": side, "detailedDiff": found}


def test_the_report_on_a_live_stack_tells_what_pulumi_says_differs() -> None:
    reference = {
        "name": "DB_PASSWORD",
        "valueFrom": {"secretKeyRef": {"name": "bill-service-env", "key": "dbPassword"}},
    }
    annotation = {names.SECRETS: "[secret]"}
    template = {
        "metadata": {"labels": {"version": "v1"}, "annotations": annotation},
        "spec": {"containers": [{"name": "bill-service", "env": [reference]}]},
    }
    secret = previewed("update", "Secret", {"data.dbPassword": "update", "data.apiToken": "add"}, data="[secret]")
    path = f"spec.template.metadata.annotations.{names.SECRETS}"
    deployment = previewed("update", "Deployment", {path: "update"}, spec={"template": template})
    found = report("dev", states.previewed({"steps": [secret, deployment]}, "live", ROOT))
    assert found.words[0].parts == ("secret DB_PASSWORD of v1 changes: the pods restart",)
    assert found.risk.restarts == ("Deployment bill-service-env",)
    written = markdown.write(found)
    assert "-  dbPassword: '[secret]'" in written
    assert "+  dbPassword: '[secret, another]'" in written
    assert "+  apiToken: '[secret, another]'" in written


def test_a_component_is_no_resource_of_its_own() -> None:
    urn = "urn:pulumi:dev::istio-governance::istio-governance:workload:Workload$istio-governance:secret:EnvSecret::bill"
    state = {"urn": urn, "type": "istio-governance:secret:EnvSecret"}
    found = report("dev", states.previewed({"steps": [{"op": "delete", "urn": urn, "oldState": state}]}, "live", ROOT))
    assert found.verdict == "none"


def test_drift_compares_the_values_that_pulumi_hides_as_one() -> None:
    """The provider makes one secret of all the data."""
    recording = Recording({one.urn: one for one in program(PASSWORD, ONE) if one.kind == "Secret"})
    secret = recording.one("Secret")
    data = {"dbPassword": base64.b64encode(b"hunter2").decode()}
    hidden = {SECRET_MARK: SIGNATURE, "plaintext": json.dumps(data)}
    state = {secret.urn: {"type": secret.type, "inputs": {**secret.inputs, "data": hidden}, "outputs": {}}}
    there = {**render.plain(secret.inputs), "data": data}
    look = Applied(state, {})
    assert find(recording, look, FakeKubectl(objects=[there])) == Report([], [], 1)
    there["data"] = {"dbPassword": base64.b64encode(b"swordfish").decode()}
    report = find(recording, look, FakeKubectl(objects=[there]))
    for text in ("\n".join(words.report(report, "dev")), json.dumps(words.as_data(report, "dev"))):
        assert "dbPassword" in text and "[secret]" in text
        assert not any(value in text for value in (data["dbPassword"], there["data"]["dbPassword"]))


# The preflight


def given_reference(key: str = "bills") -> Any:
    env = {"TOKEN": {"secretKeyRef": {"name": "tokens", "key": key}}}
    return config(services={"bill-service": {"template": {"env": env}}})


NAMESPACE = there("Namespace", "istio-demo", "istio-governance/dev")


def test_preflight_misses_a_secret_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    text = refusal(monkeypatch, given_reference(), NAMESPACE)
    assert "  2. services.bill-service.versions.v2.env.TOKEN: there is no Secret tokens in the namespace" in text
    assert "kubectl -n istio-demo create secret generic tokens --from-file=bills=FILE" in text


def test_preflight_misses_a_key_and_shows_no_value(monkeypatch: pytest.MonkeyPatch) -> None:
    tokens = made("Secret", "tokens", "istio-demo", data={"bill": "aHVudGVyMg=="})
    text = refusal(monkeypatch, given_reference(), NAMESPACE, tokens)
    assert "the Secret tokens has no key bills; it has bill" in text
    assert "aHVudGVyMg==" not in text


@pytest.mark.parametrize("objects", [[], [NAMESPACE, made("Secret", "tokens", "istio-demo", data={"bills": "eA=="})]])
def test_preflight_is_content_before_the_namespace_is_made_and_with_what_is_there(
    monkeypatch: pytest.MonkeyPatch, objects: list[Any]
) -> None:
    kubectl = FakeKubectl(objects=[*CRDS, *objects])
    assert check(monkeypatch, given_reference(), kubectl) is False
    assert not any("secrets" in arg for call in kubectl.calls for arg in call), "others' Secrets are not read"


def test_preflight_refuses_a_secret_of_others_in_the_way(monkeypatch: pytest.MonkeyPatch) -> None:
    env = {"DB": {"secret": "dbPassword"}}
    given = config(services={"bill-service": {"template": {"env": env}}}, dbPassword="[secret]")
    other = made("Secret", "bill-service-env", "istio-demo", data={"x": "aHVudGVyMg=="})
    text = refusal(monkeypatch, given, NAMESPACE, other)
    assert "Secret bill-service-env was not made by a stack" in text
    assert "aHVudGVyMg==" not in text


def test_a_secret_key_is_for_what_uses_it() -> None:
    with pytest.raises(pulumi.RunError) as ended:
        program(BOTH, {})
    assert "env: {NAME: {secret: apiToken}}" in str(ended.value)
    assert not any(value in str(ended.value) for value in BOTH.values())


def test_a_secret_that_is_taken_over_is_listed_without_its_value() -> None:
    recording = Recording({one.urn: one for one in program(PASSWORD, ONE) if one.kind == "Secret"})
    secret = recording.one("Secret")
    given = config(services=ONE, dbPassword="[secret]")
    other = {**render.plain(secret.inputs), "data": {"dbPassword": base64.b64encode(b"swordfish").decode()}}
    other["metadata"] = {"name": "bill-service-env", "namespace": "istio-demo"}
    search = adopt.Search(given, "istio-governance/dev", FakeKubectl(objects=[other]), frozenset(), lambda _: [])
    found = adopt.find(recording, search)
    assert [one.body["kind"] for one in found.candidates] == ["Secret"]
    for text in ("\n".join(adopt_words.plan(found, "dev")), json.dumps(adopt_words.as_data(found, "dev"))):
        assert "data.dbPassword" in text
        assert other["data"]["dbPassword"] not in text
