"""`mesh profiles` as a user runs it."""

from __future__ import annotations

import json

import pytest
import yaml

from mesh import cli
from mesh.__main__ import mesh


def profiles(monkeypatch: pytest.MonkeyPatch, *args: str) -> int:
    monkeypatch.setattr("sys.argv", ["mesh", "profiles", *args])
    return cli.run(mesh)


def test_list_has_every_profile_of_the_version_and_says_why_some_are_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert profiles(monkeypatch, "--json") == cli.Exit.GOOD
    newest = {entry["name"]: entry for entry in json.loads(capsys.readouterr().out)}
    assert {name for name, entry in newest.items() if entry["supported"]} == {"default", "minimal", "demo"}
    assert all(entry["reason"] for entry in newest.values() if not entry["supported"])
    assert profiles(monkeypatch, "--json", "--version=1.17.1") == cli.Exit.GOOD
    old = {entry["name"] for entry in json.loads(capsys.readouterr().out)}
    assert newest.keys() - old == {"ambient", "openshift-ambient", "stable"}
    assert old - newest.keys() == {"external"}
    assert profiles(monkeypatch) == cli.Exit.GOOD
    assert "no: ambient mode has no" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("args", "charts"),
    [
        (["default"], ["base", "istiod", "cni", "ingress"]),
        (["minimal"], ["base", "istiod", "cni"]),
        (["demo", "--version=1.17.1"], ["base", "istiod", "cni", "ingress", "egress"]),
        (["demo", "--stack=local"], ["base", "istiod", "cni", "ingress", "egress"]),
    ],
)
def test_a_profile_is_shown_with_its_charts_and_values(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], args: list[str], charts: list[str]
) -> None:
    assert profiles(monkeypatch, *args) == cli.Exit.GOOD
    shown = yaml.safe_load(capsys.readouterr().out)
    assert shown["profile"] == args[0]
    assert list(shown["charts"]) == charts
    istiod = shown["charts"]["istiod"]["values"]
    assert istiod["global"]["tag"] == shown["version"]
    assert ("pilot" in istiod) == (shown["version"] == "1.17.1")
    assert ("env" in istiod) == ("--stack=local" in args), "the stack's own values are in it"


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["ambient"], "ambient is not supported: ambient mode has no sidecars"),
        (["demmo"], "did you mean 'demo'?"),
        (["ambient", "--version=1.17.1"], "Istio 1.17.1 has no profile ambient"),
        (["--version=1.16.0"], "1.16.0 is no version from 1.17 to 1.31"),
        (["--version=newest"], "newest is no version"),
    ],
)
def test_mistakes_are_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], args: list[str], message: str
) -> None:
    assert profiles(monkeypatch, *args) == cli.Exit.USAGE
    assert message in capsys.readouterr().err
