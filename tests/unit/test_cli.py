"""The command line as a whole, and `mesh config`."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from mesh import cli
from mesh.__main__ import Commands, mesh


def test_every_command_has_help_with_an_example() -> None:
    listed = CliRunner().invoke(mesh, ["--help"]).output
    for name in Commands(name="mesh").list_commands(None):  # type: ignore[arg-type]
        shown = CliRunner().invoke(mesh, [name, "--help"])
        assert shown.exit_code == 0 and f"\n  {name} " in listed
        assert "Example" in shown.output and f"mesh {name}" in shown.output
        assert "--stack" in shown.output or name == "profiles"


def test_config_says_where_each_value_comes_from() -> None:
    shown = CliRunner().invoke(mesh, ["config", "--stack", "local", "--json"])
    rows = {row["key"]: row for row in json.loads(shown.output)}
    assert rows["routing.bill-service.weights.v1"]["value"] == 90
    assert rows["routing.bill-service.weights.v1"]["from"].startswith("Pulumi.local.yaml:")
    assert rows["mesh.version"]["from"].startswith("defaults.yaml:")
    assert rows["mesh.cni"] == {"key": "mesh.cni", "value": True, "from": "default"}


def test_config_of_one_part() -> None:
    shown = CliRunner().invoke(mesh, ["config", "--stack", "local", "routing.bill-service.weights"])
    assert "routing.bill-service.weights.v2" in shown.output and "mesh.version" not in shown.output


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["config", "--stack", "nowhere"], "the file of a stack"),
        (["config", "--stack", "local", "no.such.key"], "there is no key no.such.key"),
        (["config", "--no-such-option"], "no-such-option"),
        (["no-such-command"], "no-such-command"),
    ],
)
def test_wrong_use_is_2_and_a_message(
    arguments: list[str], text: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["mesh", *arguments])
    assert cli.run(mesh) == cli.Exit.USAGE
    told = capsys.readouterr().err
    assert text in told and "Traceback" not in told
