"""What is somebody else's stays as it is, whatever a stack is told to do.

Three stacks on one cluster: one that owns Istio, one that uses it, and one that declares an Istio of its own where the
first one's is, and is never applied. Beside them is what somebody made by hand, some of it under a name of the stacks.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

import names
from harness.stack import PulumiError, Stack
from harness.unchanged import Unchanged
from mesh.cluster.kubectl import Kubectl
from mesh.program.recorder import PROJECT

NAMESPACE = "market"
CART = {
    "ports": {"http": {"port": 8080, "targetPort": 80}},
    "template": {"image": "localhost/istio-governance/nginx:debian-12"},
    "versions": {"v1": {}, "v2": {}},
}

Config = dict[str, Any]


def service(name: str) -> str:
    """One that somebody made by hand."""
    return json.dumps(
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": name, "namespace": NAMESPACE},
            "spec": {"selector": {"app": "theirs"}, "ports": [{"name": "http", "port": 8080}]},
        }
    )


def mesh(stack: Stack, *args: str, code: int = 0) -> str:
    """What the command of this checkout prints."""
    done = subprocess.run(
        [str(stack.folder / ".venv/bin/python"), "-m", "mesh", *args, f"--stack={stack.name}"],
        cwd=stack.folder,
        env=stack.variables,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def owner(stack: Stack) -> Stack:
    """Of Istio, and of everything that the story has."""
    stack.up()
    return stack


@pytest.fixture(scope="module")
def declared(config: Config) -> Config:
    """A stack that uses the owner's Istio."""
    return {
        "cluster": config["cluster"],
        "mesh": {"mode": "existing"},
        "namespace": {"name": NAMESPACE},
        "services": {"front-tomcat": None, "bill-service": None, "cart": CART},
        "routing": {"bill-service": None, "cart": {"weights": {"v1": 70, "v2": 30}}},
    }


@pytest.fixture(scope="module")
def user(owner: Stack, declared: Config, kubectl: Kubectl, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    stack = Stack("user", tmp_path_factory.mktemp("user"), owner.environment)
    stack.configure(declared)
    stack.select()
    stack.up()
    kubectl.run("apply", "--filename=-", stdin=service("legacy"))
    try:
        yield stack
    finally:
        kubectl.run("delete", "namespace", NAMESPACE, "--ignore-not-found", timeout=120)


@pytest.fixture(scope="module")
def second(owner: Stack, config: Config, tmp_path_factory: pytest.TempPathFactory) -> Stack:
    """It would own the same mesh."""
    stack = Stack("second", tmp_path_factory.mktemp("second"), owner.environment)
    stack.configure({**config, "namespace": {"name": "elsewhere"}})
    stack.select()
    return stack


@pytest.fixture
def others(owner: Stack, user: Stack, kubectl: Kubectl) -> Iterator[Unchanged]:
    """What is not the user's; made by hand or by another stack."""
    unchanged = Unchanged(kubectl, f"{PROJECT}/{user.name}", [owner])
    yield unchanged
    assert unchanged.differences() == {}


def test_adopt_takes_nothing_of_others(user: Stack, others: Unchanged) -> None:
    del others
    assert "Nothing to take over" in mesh(user, "adopt", "--yes")


@pytest.mark.parametrize(
    ("command", "code", "says"),
    [
        (("check",), 1, "another Istio is there: istiod"),
        (("recover", "--yes"), 0, "left alone: the Helm release istio-system/istiod (deployed)"),
        (("drift",), 0, "No drift"),
        (("repair", "--yes"), 0, "No drift"),
        (("adopt", "--yes"), 1, f"managed by the stack {PROJECT}/test-owners"),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else "",
)
def test_a_stack_that_would_own_the_same_mesh_touches_nothing(
    owner: Stack, user: Stack, second: Stack, kubectl: Kubectl, command: tuple[str, ...], code: int, says: str
) -> None:
    everything = Unchanged(kubectl, "nobody", [owner, user])
    printed = mesh(second, *command, code=code)
    assert says in printed and "left behind by a killed" not in printed, printed
    assert everything.differences() == {}


def test_its_up_is_refused_and_its_destroy_has_nothing_to_do(
    owner: Stack, user: Stack, second: Stack, kubectl: Kubectl
) -> None:
    everything = Unchanged(kubectl, "nobody", [owner, user])
    with pytest.raises(PulumiError, match="Namespace istio-system belongs to the stack"):
        second.up()
    second.destroy()
    assert everything.differences() == {}


def test_what_took_the_name_of_ours_is_named_and_stays(user: Stack, owner: Stack, kubectl: Kubectl) -> None:
    cart = ("service", "cart", f"--namespace={NAMESPACE}")
    kubectl.run("delete", *cart)
    kubectl.run("apply", "--filename=-", stdin=service("cart"))
    others = Unchanged(kubectl, f"{PROJECT}/{user.name}", [owner])
    assert "what has its name now was not made by a stack" in mesh(user, "drift", code=1)
    assert "only has the name of this stack's" in mesh(user, "repair", "--yes", code=1)
    with pytest.raises(PulumiError, match=f"Service {NAMESPACE}/cart"):
        user.destroy()
    with pytest.raises(PulumiError, match="Service cart was not made by a stack"):
        user.up()
    assert others.differences() == {}
    kubectl.run("delete", *cart)
    user.up("--refresh")


def test_a_mark_that_was_edited_away_is_drift_and_put_back(user: Stack, others: Unchanged, kubectl: Kubectl) -> None:
    del others
    mesh(user, "repair", "--yes")
    kubectl.run("annotate", "service", "cart", f"--namespace={NAMESPACE}", f"{names.OWNER}-")
    assert "what has its name now" not in mesh(user, "drift", code=1)
    mesh(user, "repair", "--yes")


def test_a_namespace_with_others_in_it_is_given_up_only_by_keeping_it(
    user: Stack, declared: Config, others: Unchanged, kubectl: Kubectl
) -> None:
    del others
    with pytest.raises(PulumiError, match=f"Service {NAMESPACE}/legacy"):
        user.destroy()
    user.configure({**declared, "namespace": {"name": NAMESPACE, "create": False}})
    with pytest.raises(PulumiError, match=r"set namespace\.keep"):
        user.up()
    user.configure({**declared, "namespace": {"name": NAMESPACE, "keep": True}})
    user.up()
    user.configure({**declared, "namespace": {"name": NAMESPACE, "create": False}})
    user.up()
    assert "No drift" in mesh(user, "drift")
    user.destroy()
    assert not kubectl.items("deployments", f"--namespace={NAMESPACE}")
    assert kubectl.items("service", "legacy", f"--namespace={NAMESPACE}")
