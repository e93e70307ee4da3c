"""Gateway charts that refuse themselves: which, how they are made usable, and what is checked instead of a schema."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from config import Mesh
from istio import charts, schemas
from mesh.program import copies

REFUSING = b'{"$ref": "#/$defs/values", "additionalProperties": false, "$defs": {"values": {"type": "object"}}}'
HEALTHY = b'{"$ref": "#/$defs/values", "$defs": {"values": {"type": "object", "additionalProperties": false}}}'
FILES = {
    "gateway/Chart.yaml": b"name: gateway\nversion: 1.25.0\n",
    "gateway/values.yaml": b"{}\n",
    "gateway/values.schema.json": REFUSING,
    "gateway/templates/service.yaml": b"kind: Service\n",
    "gateway/charts/inner/values.schema.json": b"{}",
}


@pytest.mark.parametrize(
    ("version", "refused"),
    [
        *((version, False) for version in ("1.17.1", "1.20.8", "1.25.5", "1.26.4", "1.27.1", "1.28.0", "1.31.0")),
        *((version, True) for version in ("1.21.0", "1.22.8", "1.24.6", "1.25.0", "1.25.4", "1.26.3", "1.27.0")),
    ],
)
def test_which_released_charts_refuse_themselves(version: str, refused: bool) -> None:
    assert schemas.is_refused(version) == refused
    found = {chart.key: chart for chart in charts.charts(Mesh(version=version, profile="demo"))}
    for key in ("ingress", "egress"):
        own, copy = (charts.OFFICIAL_CHARTS, "gateway", version), f".mesh/charts/gateway-{version}.tgz"
        chart = found[key]
        assert (chart.repository, chart.chart, chart.version) == ((None, copy, None) if refused else own)
    assert all(found[key].made_from is None for key in ("base", "istiod", "cni"))


@pytest.mark.parametrize(
    ("schema", "refuses"),
    [
        (REFUSING, True),
        (b'{"$ref": "#/$defs/values", "additionalProperties": false}', True),
        (b'{"$schema": "http://json-schema.org/draft-07/schema#", "$ref": "#", "additionalProperties": false}', False),
        (HEALTHY, False),
        (b"", False),
        (b"[]", False),
        (b"{", False),
    ],
)
def test_which_files_refuse_everything(schema: bytes, refuses: bool) -> None:
    assert schemas.refuses(schema) == refuses


def folder(place: Path) -> Path:
    for name, content in FILES.items():
        file = place / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
    return place


def packed() -> bytes:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz") as archive:
        for name, data in FILES.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return content.getvalue()


class Registry(BaseHTTPRequestHandler):
    """A stand-in for a chart repository, and for a registry that wants a token, which everybody gets."""

    chart = packed()
    digest = f"sha256:{hashlib.sha256(chart).hexdigest()}"
    version = "1.25.0"

    def do_GET(self) -> None:
        url = f"http://{self.headers['Host']}"
        manifest = {"layers": [{"mediaType": copies._CHART, "digest": self.digest}]}
        entry = {"version": self.version, "urls": ["packed/gateway.tgz"], "digest": self.digest[7:]}
        index = {"entries": {"gateway": [{"version": "1.24.0"}, entry]}}
        answers = {
            "/charts/index.yaml": yaml.safe_dump(index).encode(),
            "/charts/packed/gateway.tgz": self.chart,
            "/token?service=here&scope=repository%3Aistio%2Fgateway%3Apull": b'{"token": "everybody"}',
            f"/v2/istio/gateway/manifests/{self.version}": json.dumps(manifest).encode(),
            f"/v2/istio/gateway/blobs/{self.digest}": self.chart,
        }
        refused = self.path.startswith("/v2/") and self.headers["Authorization"] != "Bearer everybody"
        self.send_response(401 if refused else 200 if self.path in answers else 404)
        if refused:
            scope = "repository:istio/gateway:pull"
            self.send_header("WWW-Authenticate", f'Bearer realm="{url}/token",service="here",scope="{scope}"')
        self.end_headers()
        self.wfile.write(b"" if refused else answers.get(self.path, b""))

    def log_message(self, *_: Any) -> None:
        """Says nothing."""


@pytest.fixture
def served() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Registry) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def made(mesh: Mesh, project: Path) -> bytes:
    copies.make(mesh, project)
    return (project / ".mesh/charts/gateway-1.25.0.tgz").read_bytes()


def test_wherever_a_chart_lies_the_copy_is_the_same_to_the_byte(served: str, tmp_path: Path) -> None:
    unpacked = folder(tmp_path / "unpacked")
    (tmp_path / "packed").mkdir()
    (tmp_path / "packed" / "gateway-1.25.0.tgz").write_bytes(packed())
    found = {
        place: made(Mesh(version="1.25.0", profile="demo", charts=place), tmp_path / f"project-{number}")
        for number, place in enumerate(
            (str(unpacked), str(tmp_path / "packed"), f"http://{served}/charts", f"oci://{served}/istio")
        )
    }
    assert len(set(found.values())) == 1
    with tarfile.open(fileobj=io.BytesIO(next(iter(found.values())))) as archive:
        kept = {name: archive.extractfile(name) for name in archive.getnames()}
        assert {name: file.read() for name, file in kept.items() if file} == {
            name: content for name, content in FILES.items() if name != "gateway/values.schema.json"
        }


def test_a_copy_follows_the_chart_in_a_folder_and_one_of_a_release_is_made_once(served: str, tmp_path: Path) -> None:
    unpacked = folder(tmp_path / "unpacked")
    local = Mesh(version="1.25.0", profile="demo", charts=str(unpacked))
    before = made(local, tmp_path)
    (unpacked / "gateway/values.yaml").write_bytes(b"replicaCount: 2\n")
    assert made(local, tmp_path) != before
    remote = Mesh(version="1.25.0", profile="demo", charts=f"http://{served}/charts")
    first = made(remote, tmp_path / "other")
    gone = remote.model_copy(update={"charts": "http://127.0.0.1:1/charts"})
    assert made(gone, tmp_path / "other") == first


def test_a_copy_that_cannot_be_made_is_told_with_the_way_out(served: str, tmp_path: Path) -> None:
    for place in (f"http://{served}/elsewhere", f"oci://{served}/elsewhere", "http://127.0.0.1:1/charts"):
        with pytest.raises(copies.CopyError, match=r"(?s)refuses its own values.*fix: helm pull .* set mesh.charts"):
            copies.make(Mesh(version="1.25.0", profile="demo", charts=place), tmp_path)
    assert not (tmp_path / ".mesh").exists()


def test_what_is_not_what_its_digest_says_is_not_taken(
    served: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Registry, "chart", b"something else")
    for place in (f"http://{served}/charts", f"oci://{served}/istio"):
        with pytest.raises(copies.CopyError, match="not what its digest says"):
            copies.make(Mesh(version="1.25.0", profile="demo", charts=place), tmp_path)


def test_it_is_said_once_and_only_where_it_is_so() -> None:
    assert copies.note(Mesh(version="1.31.0", profile="demo")) == ""
    text = copies.note(Mesh(version="1.25.0", profile="demo"))
    assert text.count("istio#57354") == 1 and "gateway chart 1.25.0" in text


@pytest.mark.parametrize(
    ("own", "told"),
    [
        (
            {"replicaCount": 2, "labels": {"a": "b"}, "unprivilegedPort": True, "unknown": 1},
            "a key of the gateway chart",
        ),
        ({"replicaCout": 2}, "did you mean 'replicaCount'?"),
        ({"replicaCount": "2"}, "a value of type number"),
        ({"replicaCount": True}, "a value of type number"),
        ({"service": []}, "a value of type object"),
        ({"service": {"type": "NodePort"}}, ""),
    ],
)
def test_values_are_checked_in_the_place_of_the_schema(own: dict[str, Any], told: str, tmp_path: Path) -> None:
    for version, checked in (("1.25.0", True), ("1.31.0", True), ("1.28.0", False)):
        mesh = Mesh(version=version, profile="demo", values={"egress": own})
        found = [*charts.problems(mesh, tmp_path)]
        assert len(found) == bool(told and checked), found
        assert all(problem.key.startswith("mesh.values.egress.") for problem in found)
        assert all(told in f"{problem.allowed} {problem.fix}" for problem in found)


def test_what_is_generated_for_these_charts_would_pass_the_check() -> None:
    for version in ("1.21.0", "1.24.0", "1.27.0", "1.31.0"):
        for chart in charts.charts(Mesh(version=version, profile="demo", image_pull_secrets=("one",))):
            if chart.key in ("ingress", "egress"):
                assert [*schemas.problems("", chart.values, version)] == []
