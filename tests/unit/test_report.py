"""The report on a change: a table of kinds of change, each with the words that a reviewer must find."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from config import ConfigError, merged
from mesh import preflight
from mesh.commands import diff
from mesh.recorder import Resource
from mesh.report import markdown, states, text
from mesh.report.report import ObjectDiff, Report, report
from mesh.report.states import Comparison, State

from .given import ROOT, program


@pytest.fixture(autouse=True)
def no_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preflight, "check", lambda _config, owner: None)  # noqa: ARG005


@pytest.fixture(autouse=True)
def no_helm(monkeypatch: pytest.MonkeyPatch) -> None:
    """The charts of these tests lie where no test goes; tests/parity renders real ones."""
    monkeypatch.setattr("mesh.render.of_release", lambda _release, _folder: [])


def compared(before: Mapping[str, Any], after: Mapping[str, Any]) -> Report:
    """The report on the stack dev with the changes `after` instead of `before`."""
    old, new = (states.of(program("dev", **changes), name) for name, changes in (("old", before), ("new", after)))
    return report("dev", Comparison(old, new))


def bill(**service: Any) -> dict[str, Any]:
    return {"services": {"bill-service": service}}


def weighted(**weights: int | None) -> dict[str, Any]:
    return {"routing": {"bill-service": {"weights": weights}}}


def other(name: str) -> dict[str, Any]:
    """One more service."""
    versions = {"v1": {"image": "cart:1"}}
    return {"services": {name: {"ports": {"http": {"port": 80}}, "versions": versions}}}


NOTHING: dict[str, Any] = {}
V3 = bill(versions={"v3": {"image": "nginx:1.29", "replicas": 2}})
TWO_PORTS = {
    **bill(ports={"admin": {"port": 9998, "targetPort": 80}}),
    "routing": {"bill-service": {"expose": {"hosts": ["bills.example.com"], "port": "http"}}},
}

# What changes → what it was, what it is, and what must be in the comment (and, after !, what must not).
CASES: Mapping[str, tuple[Mapping[str, Any], Mapping[str, Any], tuple[str, ...]]] = {
    "nothing": (NOTHING, NOTHING, ("## `dev`: no changes", "!Risk", "!<details>")),
    "a weight": (
        NOTHING,
        weighted(v1=50, v2=50),
        (
            "- **bill-service**: v1 90 % → 50 %, v2 10 % → 50 %; affects only VirtualService vs-bill-service\n",
            "## `dev`: 1 resource changes",
            "Risk: low",
            "40 % of the requests to bill-service move from v1 to v2",
            "restarts: no pod",
            "deleted: nothing",
            "-      weight: 90\n+      weight: 50",
        ),
    ),
    "much traffic at once": (
        NOTHING,
        weighted(v1=0, v2=100),
        ("v1 90 % → 0 %, v2 10 % → 100 %", "Risk: medium", "90 % of the requests"),
    ),
    "a weight of an exposed service with several ports": (
        TWO_PORTS,
        merged(TWO_PORTS, weighted(v1=50, v2=50)),
        (
            "- **bill-service**: v1 90 % → 50 %, v2 10 % → 50 %; affects only VirtualService vs-bill-service\n",
            "## `dev`: 1 resource changes",
            "40 % of the requests to bill-service move from v1 to v2",
        ),
    ),
    "an image": (
        NOTHING,
        bill(template={"image": "nginx:1.29"}),
        (
            "image of v1 and v2 nginx:alpine → nginx:1.29; "
            "affects only Deployment bill-service-v1 and Deployment bill-service-v2",
            "restarts: Deployment bill-service-v1, Deployment bill-service-v2",
            "Risk: medium",
            "traffic: none moves",
        ),
    ),
    "an image of one version": (
        NOTHING,
        bill(versions={"v2": {"image": "nginx:1.29"}}),
        ("image of v2 nginx:alpine → nginx:1.29; affects only Deployment bill-service-v2\n",),
    ),
    "a new version": (
        NOTHING,
        V3,
        ("new version v3 (nginx:1.29, 2 replicas)", "v3 0 %", "+ Deployment bill-service-v3", "!restarts: Deployment"),
    ),
    "a removed version": (
        V3,
        NOTHING,
        ("version v3 is removed; affects", "Risk: high", "deleted: ", "Deployment bill-service-v3", "!still gets"),
    ),
    "a removed version that has traffic": (
        V3 | weighted(v1=80, v2=10, v3=10),
        NOTHING,
        ("v1 80 % → 90 %", "version v3 is removed", "bill-service v3 still gets 10 % and is removed"),
    ),
    "replicas": (
        bill(versions={"v1": {"replicas": 2}}),
        bill(versions={"v1": {"replicas": 3}}),
        ("replicas of v1 2 → 3; affects only Deployment bill-service-v1", "Risk: low", "restarts: no pod"),
    ),
    "env": (
        bill(template={"env": {"LEVEL": "info"}}),
        bill(template={"env": {"LEVEL": "debug"}}),
        ("env LEVEL of v1 and v2 info → debug", "restarts: Deployment bill-service-v1"),
    ),
    "a new env": (NOTHING, bill(template={"env": {"LEVEL": "debug"}}), ("env LEVEL of v1 and v2 unset → debug",)),
    "a port": (
        NOTHING,
        bill(ports={"http": {"port": 8888}}),
        ("port http 9999 → 8888; affects only Service bill-service", "Risk: high", "calls bill-service:9999 fails from now on"),
    ),
    "a target port": (
        NOTHING,
        bill(ports={"http": {"targetPort": 8080}}),
        (
            "targetPort of port http 80 → 8080",
            "readiness probe of v1 and v2: tcpSocket.port 80 → 8080",
            "Deployment bill-service-v1",
            "requests to bill-service:9999 fail until its Service and all its pods have changed from 80 to 8080",
            "Risk: high",
        ),
    ),
    "a first disruption budget": (
        NOTHING,
        bill(disruptionBudget={"maxUnavailable": 1}),
        ("PodDisruptionBudget bill-service-v1 is new", "Risk: low", "restarts: no pod"),
    ),
    "a disruption budget": (
        bill(disruptionBudget={"maxUnavailable": 1}),
        bill(disruptionBudget={"maxUnavailable": 2}),
        ("maxUnavailable of bill-service-v1 and bill-service-v2 1 → 2; affects only PodDisruptionBudget",),
    ),
    "network policies": (
        NOTHING,
        {"namespace": {"defaultDeny": True}},
        ("**network**: NetworkPolicy bill-service-callers is new, NetworkPolicy default-deny is new",),
    ),
    "who may call": (
        {"namespace": {"defaultDeny": True}},
        {"namespace": {"defaultDeny": True}, **bill(ports={"http": {"targetPort": 8080}})},
        ("**network**: who may call the pods is another; affects only NetworkPolicy bill-service-callers",),
    ),
    "protection": (
        NOTHING,
        {"protect": True},
        ("Service bill-service is now protected", "Namespace istio-demo is now protected", "restarts: no pod"),
    ),
    "spread": (
        NOTHING,
        bill(template={"spread": [{"topologyKey": "zone"}]}),
        ("spread over nodes of v1 and v2 is another", "restarts: Deployment bill-service-v1"),
    ),
    "a probe": (
        NOTHING,
        bill(versions={"v1": {"readinessProbe": {"httpGet": {"path": "/", "port": 80}}}}),
        ("readiness probe of v1: tcpSocket.port 80 → unset", "readiness probe of v1: httpGet.path unset → /"),
    ),
    "resources": (
        NOTHING,
        bill(versions={"v1": {"resources": {"limits": {"memory": "1Gi"}}}}),
        ("limits.memory of v1 unset → 1Gi; affects only Deployment bill-service-v1",),
    ),
    "a label": (
        NOTHING,
        bill(template={"labels": {"team": "shop"}}),
        ("label team unset → shop", "restarts: Deployment bill-service-v1, Deployment bill-service-v2"),
    ),
    "a selector": (
        NOTHING,
        bill(selector={"service": "billing"}),
        ("## `dev`: refused", "the selector of Deployment bill-service-v1 cannot change", "add a version instead"),
    ),
    "the namespace": (
        NOTHING,
        {"namespace": {"name": "shop"}},
        (
            "namespace istio-demo → shop",
            "replaced: ",
            "with the Namespace istio-demo everything in it goes",
            "Risk: high",
            "Namespace shop is new",
        ),
    ),
    "a new service": (
        NOTHING,
        other("cart"),
        ("- **cart**: a new service, new version v1 (cart:1); affects only ServiceAccount cart, ", "Risk: low"),
    ),
    "a removed service": (
        other("cart"),
        NOTHING,
        ("- **cart**: the service is removed, with v1", "Risk: high", "Deployment cart-v1"),
    ),
    "a renamed service": (
        other("cart"),
        other("basket"),
        (
            "- **basket**: the new name of cart: Kubernetes cannot rename, so cart is deleted, and whoever calls it ",
            "- **cart**: the service is removed",
        ),
    ),
    "rules taken away": (
        NOTHING,
        {"routing": None},
        ("no rules any more, so all its pods are balanced evenly", "the split of bill-service ends", "Risk: high"),
    ),
    "first rules": (
        {"routing": None},
        NOTHING,
        ("- **bill-service**: v1 90 %, v2 10 %; affects only ", "the split of bill-service begins"),
    ),
    "a mesh value": (
        NOTHING,
        {"mesh": {"values": {"istiod": {"traceSampling": 50}}}},
        ("- **mesh**: value traceSampling of istiod unset → 50; affects only Release istiod\n",),
    ),
    "the mesh's version": (
        {"mesh": {"version": "1.30.1"}},
        NOTHING,
        (
            "- **mesh**: Istio 1.30.1 → 1.31.0",
            "bill-service**: pods of v1 and v2 restart with the sidecar of 1.31.0",
            "front-tomcat**: pods of v1 restart",
            "!refused",
        ),
    ),
    "the mesh's version, too far": (
        {"mesh": {"version": "1.28.0"}},
        NOTHING,
        ("## `dev`: refused", "Istio 1.28.0 → 1.31.0 skips minor versions: go to 1.29 first"),
    ),
    "the mesh's profile": (
        NOTHING,
        {"mesh": {"profile": "default"}},
        ("profile demo → default", "istio-egressgateway is removed", "deleted: Release istio-egressgateway"),
    ),
    "the mesh off": (
        NOTHING,
        {"mesh": {"mode": "off"}},
        (
            "Istio 1.31.0 is removed (istio-egressgateway",
            "pods of v1 and v2 restart without a sidecar",
            "sidecars by the default control plane → as each pod says",
            "no rules any more",
            "go when no proxy uses them any more; affects only Command subsets-announced",
            "Risk: high",
        ),
    ),
    "the mesh on": (
        {"mesh": {"mode": "off"}},
        NOTHING,
        ("Istio 1.31.0 is installed (istio-base, ", "pods of v1 and v2 restart with the sidecar of 1.31.0"),
    ),
    "purge": (
        NOTHING,
        {"mesh": {"purge": False}},
        ("purge on destroy true → false", "Risk: low", "deleted: nothing"),
    ),
    "the cluster": (
        NOTHING,
        {"cluster": {"context": "other"}},
        ("context dev → other, so everything goes to another cluster", "would leave the cluster", "Risk: high"),
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_a_comment_says(case: str) -> None:
    before, after, expected = CASES[case]
    found = compared(before, after)
    comment, printed = markdown.write(found), text.write(found)
    for words in expected:
        assert (words[1:] not in comment) if words.startswith("!") else (words in comment), comment
    assert comment.startswith("<!-- mesh diff: dev -->\n## `dev`: ")
    assert comment.count("<details>") == comment.count("</details>")
    # The terminal has the same words, in lines that it can show.
    told = found.verdict != "none"
    flat = " ".join(printed.split())
    for sentence in (*map(str, found.words), *found.refusals, *markdown.risk_lines(found.risk)):
        assert (sentence in flat, sentence in comment.replace("**", "")) == (told, told), sentence
    for line in printed.partition("\nResources: ")[0].splitlines():
        assert len(line) <= text.WIDTH or " " not in line.strip(), line


def test_every_changed_resource_is_in_exactly_one_sentence() -> None:
    found = compared(NOTHING, {"mesh": {"mode": "off"}})
    affected = sorted(name for sentence in found.words for name in sentence.affected)
    assert affected == sorted(resource.name for resource in found.resources)


def only(before: Mapping[str, Any], after: Mapping[str, Any], kind: str = "Deployment", **fields: Any) -> Report:
    """The report on one object, given by its inputs; {} is none."""
    line = f"kubernetes:core/v1:{kind}"

    def state(inputs: Mapping[str, Any], protect: bool) -> State:
        urn = f"urn:pulumi:dev::istio-governance::{line}::one"
        one = Resource(urn, line, "one", "", frozenset(), "", inputs, (), {}, protect)
        return states.of([one] if inputs else [], "a state")

    return report("dev", Comparison(state(before, fields.get("protect", False)), state(after, False)))


def test_what_has_no_words_of_its_own_is_told_by_its_path() -> None:
    found = only({"spec": {"limits": {"cpu": 1}}}, {"spec": {"limits": {"cpu": 2.0}}}, kind="Quota")
    assert str(found.words[0]) == "one: limits.cpu of Quota one 1 → 2; affects only Quota one"


def test_secret_values_are_never_shown() -> None:
    signature = {"4dabf18193072939515e22adb298388d": "1b47061264138c4ac30d75fd1eb44270", "value": "hunter2"}
    before = {"stringData": {"password": "hunter1"}, "data": {"a": "aHVudGVyMQ=="}}
    after = {"stringData": {"password": "hunter2"}, "data": {"a": "aHVudGVyMg=="}, "spec": {"env": signature}}
    found = only(before, after, kind="Secret")
    for written in (markdown.write(found), text.write(found), str(found)):
        assert "[secret]" in written
        assert not any(secret in written for secret in ("hunter", "aHVu"))


@pytest.mark.parametrize(("after", "what"), [({}, "deleted"), ({"metadata": {"name": "other"}}, "replaced")])
def test_what_is_protected_stays(after: Mapping[str, Any], what: str) -> None:
    found = only({"metadata": {"name": "one"}}, after, kind="Namespace", protect=True)
    assert found.verdict == "refused"
    assert f"Namespace one is protected and would be {what}" in found.refusals[0]


def test_protection_that_is_taken_away_is_told() -> None:
    found = only({"metadata": {"name": "one"}}, {"metadata": {"name": "one"}}, kind="Namespace", protect=True)
    assert found.words[0].parts == ("Namespace one is no longer protected",)
    assert found.risk.level == "high"


def test_policy_findings_that_the_change_brings_are_part_of_the_risk() -> None:
    comment = markdown.write(compared(NOTHING, bill(versions={"v2": {"image": "nginx:latest"}})))
    assert "- policy: advice, bill-service-v2: the image nginx:latest may be another one tomorrow" in comment
    assert "front-tomcat" not in comment
    assert "Risk: medium" in comment
    privileged = bill(versions={"v2": {"securityContext": {"privileged": True}}})
    comment = markdown.write(compared(NOTHING, privileged))
    assert "- policy: mandatory, bill-service-v2: " in comment
    assert "Risk: high" in comment


def test_a_long_report_is_cut_below_the_limit() -> None:
    spec = {str(number): "x" * 60 for number in range(5000)}
    comment = markdown.write(only({"metadata": {"name": "one"}}, {"metadata": {"name": "one"}, "spec": spec}))
    assert 60_000 < len(comment) <= markdown.LIMIT
    assert "… cut" in comment
    assert comment.count("```") % 2 == 0
    assert comment.rstrip().endswith("</details>")


def test_many_resources_are_cut_below_the_limit() -> None:
    diffs = tuple(ObjectDiff("+", f"ConfigMap {number}", "+x\n" * 900) for number in range(200))
    comment = markdown.write(Report("dev", "old", "new", resources=diffs, rendered=diffs))
    assert len(comment) <= markdown.LIMIT
    assert "Cut here" in comment
    assert comment.count("<details>") == comment.count("</details>")


def test_a_diff_cannot_leave_its_fence() -> None:
    comment = markdown.write(only({"data": "```\n</details>"}, {"data": "```\n# injected\n</details>"}))
    assert comment.count("```") == 2
    assert "\n# injected" not in comment


def step(operation: str, **states_: Any) -> dict[str, Any]:
    """As `pulumi preview --json` prints it; a replacement is three steps of one resource."""
    urn = "urn:pulumi:dev::istio-governance::kubernetes:apps/v1:Deployment::one"
    sides = {
        side: {"urn": urn, "type": "kubernetes:apps/v1:Deployment", "inputs": inputs}
        for side, inputs in states_.items()
    }
    return {"op": operation, "urn": urn, **sides}


def test_a_preview_knows_best_what_is_replaced() -> None:
    both = {"oldState": {"spec": {"a": 1.0}}, "newState": {"spec": {"a": 2.0}}}
    steps = [step("create-replacement", **both), step("replace", **both), step("delete-replaced", oldState={})]
    found = report("dev", states.previewed({"steps": steps}, "live", ROOT))
    assert found.risk.replaced == ("Deployment one",)
    (changed,) = report("dev", states.previewed({"steps": [step("update", **both)]}, "live", ROOT)).resources
    assert changed.sign == "~"


def test_a_preview_that_changes_nothing() -> None:
    same = {"spec": {"a": 1}}
    found = report("dev", states.previewed({"steps": [step("same", oldState=same, newState=same)]}, "live", ROOT))
    assert found.verdict == "none"
    assert found.unchanged == 1


def test_a_secret_that_only_pulumi_can_compare() -> None:
    hidden = {"stringData": {"password": "[secret]"}}
    both = {"oldState": hidden, "newState": hidden}
    changed = step("update", **both)
    for side in ("oldState", "newState"):
        changed[side]["type"] = "kubernetes:core/v1:Secret"
    found = report("dev", states.previewed({"steps": [changed]}, "live", ROOT))
    assert found.words[0].parts == ("the values of Secret one change",)


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository of its own with this program in it."""
    folder = tmp_path_factory.mktemp("checkout")
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    for name in listed.stdout.splitlines():
        if (ROOT / name).is_file() and not name.startswith(("localcluster/", "tests/")):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, folder / name)
    git(folder, "init", "--quiet")
    commit(folder)
    return folder


@pytest.fixture(autouse=True)
def as_committed(request: pytest.FixtureRequest) -> Iterator[None]:
    yield
    if "checkout" in request.fixturenames:
        git(request.getfixturevalue("checkout"), "checkout", "--quiet", ".")


def git(folder: Path, *args: str) -> None:
    subprocess.run(["git", *args], cwd=folder, check=True, capture_output=True)


def commit(folder: Path) -> None:
    git(folder, "add", "--all")
    git(folder, "-c", "user.name=test", "-c", "user.email=test@example.com", "commit", "--quiet", "--message", "test")


def edit(file: Path, old: str, new: str) -> None:
    assert old in file.read_text()
    file.write_text(file.read_text().replace(old, new))


def test_two_checkouts_are_compared_each_with_its_own_code(checkout: Path) -> None:
    edit(checkout / "Pulumi.dev.yaml", "v1: 90, v2: 10", "v1: 50, v2: 50")
    edit(checkout / "names.py", 'return f"vs-{service}"', 'return f"rules-{service}"')
    found = report("dev", states.offline("dev", "HEAD", checkout))
    assert found.before.startswith("HEAD (")
    assert {"+ VirtualService rules-bill-service", "- VirtualService vs-bill-service"} == {
        f"{one.sign} {one.name}" for one in found.resources
    }


def test_a_wrong_configuration_is_the_whole_report(checkout: Path) -> None:
    edit(checkout / "Pulumi.dev.yaml", "v2: 10", "v2: 20")
    found = report("dev", states.offline("dev", "HEAD", checkout))
    assert found.verdict == "wrong"
    for written in (markdown.write(found), text.write(found)):
        assert "cannot be compared" in written
        assert "weights that add up to 100; these add up to 110" in written
        assert "Risk" not in written


def test_a_configuration_that_was_wrong_is_said_to_be(checkout: Path) -> None:
    edit(checkout / "Pulumi.dev.yaml", "v2: 10", "v2: 20")
    commit(checkout)
    edit(checkout / "Pulumi.dev.yaml", "v2: 20", "v2: 10")
    try:
        assert "is wrong itself" in report("dev", states.offline("dev", "HEAD", checkout)).problems
    finally:
        git(checkout, "reset", "--quiet", "--hard", "HEAD~")


def test_a_new_stack_is_new_in_every_resource(checkout: Path) -> None:
    shutil.copyfile(checkout / "Pulumi.dev.yaml", checkout / "Pulumi.new.yaml")
    try:
        found = report("new", states.offline("new", "HEAD", checkout))
        assert {one.sign for one in found.resources} == {"+"}
    finally:
        (checkout / "Pulumi.new.yaml").unlink()


def test_a_commit_that_git_does_not_know(checkout: Path) -> None:
    with pytest.raises(states.StateError, match="git does not know no-such-commit"):
        states.offline("dev", "no-such-commit", checkout)


def test_code_that_cannot_run_is_an_error_and_no_comparison(checkout: Path) -> None:
    edit(checkout / "names.py", "def workload", "def wrkld")
    with pytest.raises(states.StateError, match="the working tree cannot say what it declares: AttributeError"):
        states.offline("dev", "HEAD", checkout)


def ran(monkeypatch: pytest.MonkeyPatch, found: Comparison, *args: str) -> tuple[int, str]:
    monkeypatch.setattr(
        states, "offline", lambda stack, revision: found if (stack, revision) == ("dev", "main") else None
    )
    done = CliRunner().invoke(diff.command, ["--stack", "dev", "--against", "main", *args], standalone_mode=False)
    return done.return_value, done.output


@pytest.mark.parametrize(
    ("case", "code", "verdict"), [("nothing", 0, "none"), ("a weight", 1, "changes"), ("a selector", 2, "refused")]
)
def test_the_exit_code_and_the_json(monkeypatch: pytest.MonkeyPatch, case: str, code: int, verdict: str) -> None:
    before, after, _ = CASES[case]
    found = Comparison(states.of(program("dev", **before), "old"), states.of(program("dev", **after), "new"))
    assert ran(monkeypatch, found, "--markdown") == (code, markdown.write(report("dev", found)))
    exit_code, printed = ran(monkeypatch, found, "--json")
    assert exit_code == code
    assert json.loads(printed)["verdict"] == verdict


def test_a_wrong_configuration_ends_with_two(monkeypatch: pytest.MonkeyPatch) -> None:
    code, printed = ran(monkeypatch, Comparison(State("old"), State("new", problems="3 problems")), "--markdown")
    assert code == 2
    assert "3 problems" in printed


def test_a_stack_without_a_file() -> None:
    done = CliRunner().invoke(diff.command, ["--stack", "dve"], standalone_mode=False)
    assert isinstance(done.exception, ConfigError)
    assert "did you mean 'dev'?" in str(done.exception)


def test_a_comparison_that_cannot_be_made_is_a_report_too() -> None:
    done = CliRunner().invoke(
        diff.command, ["--stack", "dev", "--against", "no-such-commit", "--markdown"], standalone_mode=False
    )
    assert done.return_value == 2
    assert done.output.startswith("<!-- mesh diff: dev -->\n## `dev`: cannot be compared\n")
    assert "git does not know no-such-commit" in done.output
