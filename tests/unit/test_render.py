"""What `mesh render` makes of a recording; the charts themselves are rendered in tests/parity."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from pulumi_kubernetes.helm.v3 import Release

from mesh import cli
from mesh.__main__ import mesh
from mesh.declared import declared
from mesh.program import helm, render
from mesh.program.recorder import Recording, record

CHART = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: b, namespace: elsewhere}
spec: {since: 2026-01-31, count: 3}
---
apiVersion: v1
kind: Secret
metadata: {name: token}
data: {key: c2VjcmV0}
stringData: {other: secret}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: a}
---
# nothing but a comment
"""


@pytest.fixture
def release(monkeypatch: pytest.MonkeyPatch) -> Recording:
    monkeypatch.setattr(helm, "template", lambda *_args, **_keywords: CHART)
    return record(lambda: Release("r", name="r", chart="c", namespace="here", values={}, skip_await=False))


def test_objects_of_a_chart_come_in_an_order_that_can_be_applied(release: Recording) -> None:
    assert [render.identity(found) for found in render.rendered(release)] == [
        ("", "Secret", "here", "token"),
        ("rbac.authorization.k8s.io", "ClusterRole", "", "a"),
        ("apps", "Deployment", "elsewhere", "b"),
    ]


def test_no_secret_is_shown(release: Recording) -> None:
    text = render.as_yaml(render.rendered(release))
    assert "c2VjcmV0" not in text
    assert yaml.safe_load_all(text).__next__()["stringData"] == {"other": "[secret]"}


def test_values_are_kept_as_kubernetes_reads_them(release: Recording) -> None:
    *_, deployment = render.rendered(release)
    assert deployment["spec"] == {"since": "2026-01-31", "count": 3}
    assert list(yaml.safe_load_all(render.as_yaml([deployment]))) == [deployment]


def test_the_program_s_own_objects_have_whole_numbers_and_no_plugins_among_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(helm, "template", lambda *_args, **_keywords: "")
    objects = {render.identity(found)[1::2]: found for found in render.rendered(declared("dev"))}
    (port,) = objects["Service", "bill-service"]["spec"]["ports"]
    assert str(port["port"]) == "9999"
    assert {kind for kind, _ in objects} == {
        *("Namespace", "ServiceAccount", "Service", "Deployment", "DestinationRule", "VirtualService")
    }


def test_a_missing_helm_is_told_with_the_place_to_get_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("sys.argv", ["mesh", "render", "--stack", "dev"])
    assert cli.run(mesh) == cli.Exit.USAGE
    assert "https://helm.sh/docs/intro/install/" in capsys.readouterr().err


def test_charts_that_are_not_there_are_told_before_helm_is_asked(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr("config.files.PROJECT", tmp_path)  # where no .cluster/charts is
    monkeypatch.setattr("sys.argv", ["mesh", "render", "--stack", "local"])
    assert cli.run(mesh) == cli.Exit.USAGE
    error = capsys.readouterr().err
    assert "the configuration has 4 problems" in error
    assert 'mesh.charts = ".cluster/charts"' in error


def test_texts_of_several_lines_stay_readable() -> None:
    document: Any = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "c"},
        "data": {"mesh": "a: 1\nb: 2\n"},
    }
    assert "  mesh: |\n    a: 1\n    b: 2\n" in render.as_yaml([document])
