"""`mesh render` as a user runs it, with the real helm and Istio's charts."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from config import merged
from config.files import NAMESPACE, PROJECT
from mesh import cli
from mesh.__main__ import mesh
from mesh.declared import declared
from mesh.program import render


@pytest.fixture
def project(tmp_path: Path, charts: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout whose stack dev takes the charts that are here; commands run as if in it."""
    for entry in PROJECT.iterdir():
        (tmp_path / entry.name).symlink_to(entry)
    configure(tmp_path, mesh={"charts": str(charts)})
    monkeypatch.setattr("mesh.declared.declared.__defaults__", (tmp_path,))
    return tmp_path


def configure(project: Path, **changes: Mapping[str, Any]) -> None:
    file = project / "Pulumi.dev.yaml"
    document = yaml.safe_load(file.read_text())
    document["config"] = merged(document["config"], {NAMESPACE + key: value for key, value in changes.items()})
    file.unlink()
    file.write_text(yaml.safe_dump(document))


def objects(project: Path) -> dict[tuple[str, str, str, str], render.Object]:
    return {render.identity(found): found for found in render.rendered(declared("dev", project), project)}


def run(monkeypatch: pytest.MonkeyPatch, *args: str) -> int:
    monkeypatch.setattr("sys.argv", ["mesh", *args])
    return cli.run(mesh)


def test_the_same_bytes_come_each_time(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert run(monkeypatch, "render", "--stack=dev") == cli.Exit.GOOD
    printed = capsys.readouterr().out
    assert run(monkeypatch, "render", "--stack=dev", f"--output={tmp_path / 'dev.yaml'}") == cli.Exit.GOOD
    assert (tmp_path / "dev.yaml").read_text() == printed
    again = list(yaml.safe_load_all(printed))
    assert again == render.rendered(declared("dev", project), project)
    assert {"Namespace", "CustomResourceDefinition", "DaemonSet", "Deployment", "VirtualService"} <= {
        found["kind"] for found in again
    }


def test_a_change_of_a_mesh_value_shows_as_changed_objects(project: Path) -> None:
    before = objects(project)
    configure(project, mesh={"values": {"istiod": {"meshConfig": {"accessLogFile": "/dev/stderr"}}}})
    after = objects(project)
    assert before.keys() == after.keys()
    assert {key[1:] for key, found in after.items() if before[key] != found} == {
        ("ConfigMap", "istio-system", "istio"),
        ("ConfigMap", "istio-system", "values"),
    }


def test_a_relative_folder_of_charts_begins_in_the_project(project: Path, charts: Path) -> None:
    before = objects(project)
    shutil.copytree(charts, project / "my-charts")
    configure(project, mesh={"charts": "my-charts"})
    assert objects(project) == before
