"""A pull request from its first push to the deployment after its merge: the steps of the workflows, in order.

GitHub's API and its runner are the stand-ins of harness/github.py, and the policy pack has the stand-in of
harness/policy.py; the repository, the commands, Pulumi and the cluster are real.
"""

from __future__ import annotations

import copy
import json
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from config.files import NAMESPACE, effective
from harness.github import GitHub, Workflow, github
from harness.policy import stand_in_pack
from harness.stack import PROJECT
from localcluster import EmbeddedCluster
from mesh.cluster.kubectl import Kubectl
from mesh.program.stack import Stack
from mesh.recover import recover

STACK = "dev"
NO_COMMIT = "0" * 40
CALL = ["exec", "deploy/front-tomcat-v1", "--namespace=istio-demo", "--", "curl", "-s", "bill-service:9999"]


def as_in_production(config: Mapping[str, Any]) -> dict[str, Any]:
    """What the API server has to take; the embedded cluster's network plugin enforces no NetworkPolicy."""
    services = copy.deepcopy(config["services"])
    services["bill-service"]["disruptionBudget"] = {"maxUnavailable": 1}
    services["bill-service"]["template"] |= {
        "spread": [{"topologyKey": "kubernetes.io/hostname"}],
        "securityContext": {"readOnlyRootFilesystem": True},
        "writablePaths": ["/run", "/tmp", "/var/lib/nginx", "/var/log/nginx", "/usr/share/nginx/html"],  # noqa: S108
    }
    return {"services": services, "namespace": {"defaultDeny": True}}


@dataclass
class Repository:
    """A git repository with this checkout's files and a stack file of its own."""

    stack: Stack
    environment: Mapping[str, str]
    api: GitHub

    def git(self, *args: str) -> str:
        who = ("-c", "user.name=test", "-c", "user.email=test@example.com")
        done = subprocess.run(["git", *who, *args], cwd=self.stack.folder, check=True, capture_output=True, text=True)
        return done.stdout.strip()

    def commit(self, weights: Mapping[str, int]) -> None:
        document = yaml.safe_load(self.stack.file.read_text())
        document["config"][f"{NAMESPACE}routing"]["bill-service"]["weights"] = dict(weights)
        self.stack.file.write_text(yaml.safe_dump(document, sort_keys=False))
        self.git("commit", "--quiet", "--all", "--message", f"Split bill-service {weights}")

    def run(self, workflow: str, job: str, **expressions: str) -> None:
        """The steps of a job, of which none may fail; its job summary and outputs go to the files of the runner."""
        known = {
            "matrix.stack": STACK,
            "inputs.stack": STACK,
            "github.event.pull_request.number": "7",
            "github.token": self.api.environment["GITHUB_TOKEN"],
            "secrets.PULUMI_BACKEND_URL": self.environment["PULUMI_BACKEND_URL"],
            "secrets.PULUMI_CONFIG_PASSPHRASE": self.environment["PULUMI_CONFIG_PASSPHRASE"],
        }
        done = Workflow(self.stack.folder, workflow).run(job, {**known, **expressions}, self.environment)
        assert done
        assert [(step.returncode, step.stdout + step.stderr) for step in done if step.returncode] == []

    def touched(self, workflow: str, **expressions: str) -> list[str]:
        """What the job `stacks` hands to those after it."""
        output = Path(self.environment["GITHUB_OUTPUT"])
        output.write_text("")
        self.run(workflow, "stacks", **expressions)
        stacks: list[str] = json.loads(output.read_text().removeprefix("stacks="))
        return stacks

    def push(self) -> str:
        """The report of the workflow for pull requests, on what is checked out; the comment that it leaves."""
        assert self.touched("preview", **{"github.event.pull_request.base.sha": self.git("rev-parse", "main")}) == [
            STACK
        ]
        self.run("preview", "report")
        (comment,) = self.api.comments
        body: str = comment["body"]
        return body

    def deploy(self, before: str) -> None:
        assert STACK in self.touched("deploy", **{"github.event.before": before})
        self.run("deploy-stack", "up")


@pytest.fixture(scope="module")
def repository(
    cluster: EmbeddedCluster, config: dict[str, Any], kubectl: Kubectl, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Repository]:
    folder = tmp_path_factory.mktemp("pull-request") / "shop"
    left_out = shutil.ignore_patterns(".git", ".venv", ".cluster", ".hypothesis", ".*_cache", "__pycache__")
    shutil.copytree(PROJECT, folder, ignore=left_out)
    stack = Stack(STACK, folder, cluster.environment)
    values = {NAMESPACE + key: value for key, value in {**config, **as_in_production(config)}.items()}
    stack.file.write_text(yaml.safe_dump({"config": values}, sort_keys=False))
    with github() as api:
        pack = stand_in_pack(stack)
        files = {name: str(folder.parent / name.lower()) for name in ("GITHUB_OUTPUT", "GITHUB_STEP_SUMMARY")}
        environment = {
            **stack.variables,
            **{name: api.environment[name] for name in ("GITHUB_API_URL", "GITHUB_REPOSITORY")},
            **files,
            "POLICY_PACK": str(pack),
        }
        made = Repository(stack, environment, api)
        made.git("init", "--quiet", "--initial-branch=main")
        for name in (".venv", ".cluster"):
            (folder / name).symlink_to((PROJECT / name).resolve())
        (folder / ".git/info/exclude").write_text(f".venv\n.cluster\n{pack.name}\n")
        stack.pulumi("stack", "init")
        made.git("add", "--all")
        made.git("commit", "--quiet", "--message", "Start")
        try:
            yield made
        finally:
            recover(stack, kubectl, effective(stack.name, stack.folder).mesh)
            stack.destroy()


def test_a_weight_goes_from_the_pull_request_to_the_cluster(repository: Repository, kubectl: Kubectl) -> None:
    repository.deploy(NO_COMMIT)
    assert kubectl.run(*CALL).startswith("this is bill-service-v")
    made = kubectl.items("networkpolicies,poddisruptionbudgets", "--namespace=istio-demo")
    assert {one["metadata"]["name"] for one in made if one["kind"] == "NetworkPolicy"} == {
        "bill-service-callers",
        "default-deny",
    }
    budgets = {
        one["metadata"]["name"]: one["status"]["expectedPods"] for one in made if one["kind"] == "PodDisruptionBudget"
    }
    assert budgets == {"bill-service-v1": 1, "bill-service-v2": 1}

    repository.git("switch", "--quiet", "--create", "shift")
    repository.commit({"v1": 50, "v2": 50})
    comment = repository.push()
    assert comment.startswith(f"<!-- mesh diff: {STACK} -->\n## `{STACK}`: 1 resource changes\n")
    assert (
        "- **bill-service**: v1 90 % → 50 %, v2 10 % → 50 %; affects only VirtualService vs-bill-service\n" in comment
    )
    assert "**Risk: low**\n" in comment
    assert "- traffic: 40 % of the requests to bill-service move from v1 to v2\n" in comment
    assert "- restarts: no pod\n- deleted: nothing\n- replaced: nothing\n" in comment
    assert "<summary>Resources: 1 changed, " in comment
    assert f"<sub>the live stack {STACK} → the working tree</sub>" in comment

    repository.commit({"v1": 30, "v2": 70})  # a second push
    assert "v1 90 % → 30 %, v2 10 % → 70 %;" in repository.push()
    assert len(repository.api.comments) == 1

    before = repository.git("rev-parse", "main")
    repository.git("switch", "--quiet", "main")
    repository.git("merge", "--quiet", "shift")
    repository.deploy(before)  # ends with `mesh verify`

    route = kubectl.json("get", "virtualservice", "vs-bill-service", "--namespace=istio-demo")["spec"]["http"][0][
        "route"
    ]
    assert {one["destination"]["subset"]: one["weight"] for one in route} == {"v1": 30, "v2": 70}
    diff = subprocess.run(
        [str(repository.stack.folder / ".venv/bin/mesh"), "diff", f"--stack={STACK}"],
        cwd=repository.stack.folder,
        env=repository.stack.variables,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (diff.returncode, diff.stdout.splitlines()[0]) == (0, f"{STACK}: no changes"), diff.stdout + diff.stderr
