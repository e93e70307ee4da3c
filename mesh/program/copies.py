"""Charts that refuse themselves, without the file that does it: the same chart else, byte for byte the same each time.

Made where and when they are needed, in a folder of the project: so a state names no machine, and another one makes the
same file again. See istio/schemas.py for which charts these are.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import re
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final
from urllib.error import URLError
from urllib.parse import urlencode, urljoin, urlsplit
from urllib.request import Request, urlopen

import yaml

from config import Mesh
from istio import schemas
from istio.charts import Place, charts

_SECONDS: Final = 30
_MANIFEST: Final = "application/vnd.oci.image.manifest.v1+json"
# https://helm.sh/blog/helm-oci-mediatypes/
_CHART: Final = "application/vnd.cncf.helm.chart.content.v1.tar+gzip"


class CopyError(Exception):
    """A chart cannot be had; the message says which, why, and what to do."""


def note(mesh: Mesh) -> str:
    """What a reader of a preview has to know of it; '' as a rule."""
    copied = {chart.made_from: chart for chart in charts(mesh) if chart.made_from}
    return "".join(
        f"Istio's gateway chart {chart.chart.rpartition('-')[2].removesuffix('.tgz')} is installed without its "
        f"{schemas.FILE}, which refuses the chart's own values (istio#57354)"
        for chart in copied.values()
    )


def make(mesh: Mesh, project: Path) -> None:
    """Makes what `charts` wants and is not there yet, or comes from a folder and has changed. Raises `CopyError`."""
    for source, chart in {chart.made_from: chart for chart in charts(mesh) if chart.made_from}.items():
        assert source is not None  # noqa: S101
        file, is_remote = project / chart.chart, source.version is not None
        if is_remote and file.exists():
            continue
        try:
            packed = _packed(_files(source, project))
            if not file.exists() or file.read_bytes() != packed:
                _write(file, packed)
        except (OSError, ValueError, KeyError, tarfile.TarError, yaml.YAMLError) as error:
            where = f"--version {source.version}" if is_remote else ""
            repository = f"--repo {source.repository}" if source.repository else ""
            pull = " ".join(f"helm pull {source.chart} {repository} {where} --destination FOLDER".split())
            raise CopyError(
                f"the gateway chart cannot be had without its schema, which refuses its own values: {error}\n"
                f"     fix: {pull}, and the other charts alike; then set mesh.charts to that FOLDER"
            ) from None


def _write(file: Path, content: bytes) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    fresh = file.with_name(f".{file.name}.new")
    fresh.write_bytes(content)
    fresh.replace(file)


def _files(source: Place, project: Path) -> dict[str, bytes]:
    """The chart's files by their path in it."""
    if source.chart.startswith("oci://"):
        return _unpacked(_from_registry(source.chart.removeprefix("oci://"), source.version or ""))
    if source.repository:
        return _unpacked(_from_repository(source.repository, source.chart, source.version or ""))
    place = project / source.chart
    if place.is_file():
        return _unpacked(place.read_bytes())
    found = (file for file in place.rglob("*") if file.is_file())
    return {f"{place.name}/{file.relative_to(place)}": file.read_bytes() for file in found}


def _unpacked(packed: bytes) -> dict[str, bytes]:
    with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
        return {member.name: _content(archive, member) for member in archive if member.isfile()}


def _content(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file = archive.extractfile(member)
    return file.read() if file else b""


def _packed(files: Mapping[str, bytes]) -> bytes:
    """Without the schema of the chart itself; those of charts inside it stay."""
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name in sorted(files):
            if name.partition("/")[2] != schemas.FILE:
                member = tarfile.TarInfo(name)
                member.size = len(files[name])
                archive.addfile(member, io.BytesIO(files[name]))
    return gzip.compress(plain.getvalue(), mtime=0)


def _from_repository(repository: str, name: str, version: str) -> bytes:
    """https://helm.sh/docs/topics/chart_repository/#the-index-file"""
    base = f"{repository.rstrip('/')}/"
    index = yaml.load(_got(urljoin(base, "index.yaml")), Loader=yaml.CSafeLoader)
    for entry in index["entries"][name]:
        if str(entry["version"]).removeprefix("v") == version:
            return _checked(_got(urljoin(base, entry["urls"][0])), str(entry.get("digest", "")))
    raise ValueError(f"{repository} has no {name} of version {version}")


def _from_registry(reference: str, version: str) -> bytes:
    """https://github.com/opencontainers/distribution-spec/blob/main/spec.md#pull"""
    host, _, name = reference.partition("/")
    scheme = "http" if urlsplit(f"//{host}").hostname in ("localhost", "127.0.0.1") else "https"
    place, token = f"{scheme}://{host}/v2/{name}", ""
    try:
        manifest = _got(f"{place}/manifests/{version}", Accept=_MANIFEST)
    except URLError as error:
        challenge = getattr(error, "headers", None)
        token = _token(challenge["WWW-Authenticate"] or "") if challenge else ""
        if not token:
            raise
        manifest = _got(f"{place}/manifests/{version}", Accept=_MANIFEST, Authorization=f"Bearer {token}")
    [digest] = [layer["digest"] for layer in json.loads(manifest)["layers"] if layer["mediaType"] == _CHART]
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    return _checked(_got(f"{place}/blobs/{digest}", **headers), digest)


def _token(challenge: str) -> str:
    """For everybody, as public registries give it: https://distribution.github.io/distribution/spec/auth/token/"""
    asked = dict(re.findall(r'(\w+)="([^"]*)"', challenge))
    if "realm" not in asked:
        return ""
    answer: Mapping[str, Any] = json.loads(_got(f"{asked.pop('realm')}?{urlencode(asked)}"))
    return str(answer.get("token") or answer.get("access_token") or "")


def _got(url: str, **headers: str) -> bytes:
    if urlsplit(url).scheme not in ("http", "https"):
        raise ValueError(f"{url} is no https address")
    with urlopen(Request(url, headers=headers), timeout=_SECONDS) as answer:  # noqa: S310, checked above
        content: bytes = answer.read()
    return content


def _checked(content: bytes, digest: str) -> bytes:
    wanted = digest.removeprefix("sha256:")
    if wanted and hashlib.sha256(content).hexdigest() != wanted:
        raise ValueError("what was sent is not what its digest says")
    return content
