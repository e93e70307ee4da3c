"""What the workflows run, and what no workflow may do."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from ci import comment, lint, stacks
from ci.stacks import ORDER, touched
from harness.github import TOKEN, GitHub, Workflow, github
from mesh.report.markdown import marker

from .given import ROOT

WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
ACTIONS = [*WORKFLOWS, *(ROOT / ".github" / "actions").rglob("*.yml")]


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ([], []),
        (["README.md", "docs/a.md", "tests/unit/test_ci.py"], []),
        (["Pulumi.dev.yaml"], ["dev"]),
        (["Pulumi.prod.yaml", "README.md"], ["prod"]),
        (["Pulumi.local.yaml"], []),
        (["defaults.yaml"], ["dev", "staging", "prod"]),
        (["components/routing.py"], ["dev", "staging", "prod"]),
        (["Pulumi.dev.yaml", "requirements.txt"], ["dev", "staging", "prod"]),
        (["docs/config/page.md"], []),
    ],
)
def test_a_change_touches(changed: list[str], expected: list[str]) -> None:
    assert touched(changed, ORDER) == expected


def test_what_every_stack_is_made_from_exists() -> None:
    assert all((ROOT / name).exists() for name in stacks._PROGRAM)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    (tmp_path / "ci").symlink_to(ROOT / "ci")
    for stack in ("prod", "dev", "local"):
        (tmp_path / f"Pulumi.{stack}.yaml").write_text("config: {}\n")
    git(tmp_path, "init", "--quiet")
    git(tmp_path, "add", "--all")
    git(tmp_path, "commit", "--quiet", "--message", "first")
    return tmp_path


def git(folder: Path, *args: str) -> None:
    who = ("-c", "user.name=test", "-c", "user.email=test@example.com")
    subprocess.run(["git", *who, *args], cwd=folder, check=True, capture_output=True)


@pytest.mark.parametrize("base", ["0" * 40, ""])
def test_without_a_base_every_stack_is_touched(repository: Path, base: str) -> None:
    assert printed(repository, base) == ["dev", "prod"]


def test_the_commits_of_a_branch_are_looked_at(repository: Path) -> None:
    (repository / "Pulumi.prod.yaml").write_text("config: {a: 1}\n")
    git(repository, "commit", "--quiet", "--all", "--message", "second")
    assert printed(repository, "HEAD~") == ["prod"]


def printed(repository: Path, base: str) -> list[str]:
    """By Python alone, as nothing is installed yet when it runs."""
    done = subprocess.run(
        [
            sys.executable,
            "-I",
            "-c",
            f"import sys; sys.path.insert(0, '.'); from ci import stacks; stacks.main({base!r})",
        ],
        cwd=repository,
        capture_output=True,
        text=True,
        check=True,
    )
    name, _, value = done.stdout.strip().partition("=")
    assert name == "stacks"
    found: list[str] = json.loads(value)
    return found


@pytest.fixture
def api() -> Iterator[GitHub]:
    with github() as found:
        yield found


def report(stack: str, text: str, folder: Path) -> str:
    file = folder / "report.md"
    file.write_text(f"{marker(stack)}\n{text}\n")
    return str(file)


def test_one_comment_a_stack_is_kept_up_to_date(
    api: GitHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    api.comments += [{"id": number, "body": "somebody says"} for number in range(150)]  # two pages
    for name, value in api.environment.items():
        monkeypatch.setenv(name, value)
    for stack, text in (("dev", "first"), ("prod", "other"), ("dev", "second")):
        comment.main(report(stack, text, tmp_path))
    assert capsys.readouterr().out.split("\n")[:3] == [
        "the comment was made",
        "the comment was made",
        "the comment was updated",
    ]
    assert [one["body"].splitlines()[1] for one in api.comments[150:]] == ["second", "other"]


def test_a_comment_that_cannot_be_made_is_told_without_the_token(
    api: GitHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {**api.environment, "PULL_REQUEST": "8"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SystemExit, match="cannot be put on pull request 8: HTTP Error 404") as error:
        comment.main(report("dev", "text", tmp_path))
    assert TOKEN not in str(error.value)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """With a stand-in for `mesh` that prints its arguments and ends with the code in CODE."""
    (tmp_path / "ci").mkdir()
    for file in (ROOT / "ci").iterdir():
        if file.is_file():
            (tmp_path / "ci" / file.name).write_bytes(file.read_bytes())
            (tmp_path / "ci" / file.name).chmod(0o755)
    programs = tmp_path / ".venv" / "bin"
    programs.mkdir(parents=True)
    (programs / "mesh").write_text('#!/bin/sh\necho "<!-- stand-in -->\n$@"\nexit "$CODE"\n')
    (programs / "mesh").chmod(0o755)
    (programs / "python").symlink_to(sys.executable)
    return tmp_path


def ran(checkout: Path, script: str, *args: str, **environment: str) -> tuple[int, str]:
    """Exit code and job summary."""
    summary = checkout / "summary.md"
    variables = {"PATH": "/usr/bin:/bin", "GITHUB_STEP_SUMMARY": str(summary), **environment}
    done = subprocess.run([checkout / "ci" / script, *args], env=variables, capture_output=True, text=True, check=False)
    return done.returncode, summary.read_text()


@pytest.mark.parametrize(("code", "expected"), [("0", 0), ("1", 0), ("2", 2)])
def test_the_preview_fails_only_where_there_is_nothing_to_review(checkout: Path, code: str, expected: int) -> None:
    assert ran(checkout, "preview", "dev", "--against", "main", CODE=code) == (
        expected,
        "<!-- stand-in -->\ndiff --markdown --stack dev --against main\n",
    )


def test_the_preview_comments_where_it_may(checkout: Path, api: GitHub) -> None:
    assert ran(checkout, "preview", "dev", CODE="2", **api.environment)[0] == 2
    assert api.comments[0]["body"] == "<!-- stand-in -->\ndiff --markdown --stack dev\n"


@pytest.mark.parametrize("code", [0, 1, 2])
def test_drift_is_told_and_fails(checkout: Path, code: int) -> None:
    exit_code, summary = ran(checkout, "drift", "dev", CODE=str(code))
    assert exit_code == code
    assert summary.startswith("## `dev`: drift\n")
    assert "drift --stack dev" in summary


def test_without_go_the_check_of_the_workflows_says_not_run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("shutil.which", lambda *_, **__: None)
    assert lint.main() == 0
    assert "NOT RUN" in capsys.readouterr().err


def steps(document: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    for job in document.get("jobs", {}).values():
        yield from job.get("steps", [])
    yield from document.get("runs", {}).get("steps", [])


@pytest.mark.parametrize("file", ACTIONS, ids=lambda file: str(file.relative_to(ROOT / ".github")))
def test_actions_are_pinned_and_texts_of_others_never_become_code(file: Path) -> None:
    for step in steps(yaml.safe_load(file.read_text())):
        uses = step.get("uses", "./")
        assert uses.startswith("./") or re.fullmatch(r"[\w./-]+@[0-9a-f]{40}", uses), uses
        # An expression is pasted in before the shell reads it: environment variables are not.
        assert "${{" not in step.get("run", "")


@pytest.mark.parametrize("file", WORKFLOWS, ids=lambda file: file.stem)
def test_tokens_can_do_the_least(file: Path) -> None:
    text, document = file.read_text(), yaml.safe_load(file.read_text())
    assert "pull_request_target" not in text
    assert document["permissions"] in ({}, {"contents": "read"})
    writing = {
        (name, scope)
        for name, job in document["jobs"].items()
        for scope, access in job.get("permissions", {}).items()
        if access == "write"
    }
    assert writing == ({("report", "pull-requests")} if file.stem == "preview" else set())
    for step in steps(document):
        if step.get("uses", "").startswith("actions/checkout@"):
            assert step["with"]["persist-credentials"] is False


def test_a_fork_gets_no_secret_and_no_token() -> None:
    jobs = Workflow(ROOT, "preview").document["jobs"]
    assert "head.repo.full_name != github.repository" in jobs["report-offline"]["if"]
    assert "head.repo.full_name == github.repository" in jobs["report"]["if"]
    assert not re.search(r"secrets\.|github\.token|environment:", yaml.safe_dump(jobs["report-offline"]))


def test_environments_follow_each_other() -> None:
    jobs = Workflow(ROOT, "deploy").document["jobs"]
    assert tuple(jobs)[1:] == ORDER
    for number, stack in enumerate(ORDER):
        assert jobs[stack]["with"] == {"stack": stack}
        needs = jobs[stack]["needs"]
        assert set([needs] if isinstance(needs, str) else needs) >= {"stacks", *ORDER[max(number - 1, 0) : number]}
    assert Workflow(ROOT, "drift").document["jobs"]["drift"]["strategy"]["matrix"]["stack"] == list(ORDER)
