"""Helm's releases as it keeps them in the cluster, read without Helm.

https://helm.sh/docs/topics/advanced/#storage-backends
"""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import yaml

import names
from mesh.cluster.kubectl import Kubectl
from mesh.cluster.objects import CLUSTER_SCOPED, Loader


@dataclass(frozen=True)
class Release:
    """One revision of a release. `status` is deployed, superseded, failed, uninstalling or pending-…; `secret` holds
    it."""

    name: str
    namespace: str
    revision: int
    status: str
    secret: str
    record: Mapping[str, Any]

    def __str__(self) -> str:
        return f"the Helm release {self.namespace}/{self.name} ({self.status})"

    @property
    def values(self) -> Mapping[str, Any]:
        """What the user set, without the chart's defaults."""
        return self.record.get("config") or {}

    @property
    def chart(self) -> str:
        metadata = self.record["chart"]["metadata"]
        return f"{metadata['name']}-{metadata['version']}"

    @cached_property
    def objects(self) -> list[dict[str, Any]]:
        """Everything that Helm applied, with what it adds to say that it owns it."""
        documents = yaml.load_all(self.record["manifest"], Loader=Loader)
        return [self._owned(document) for document in documents if document]

    def _owned(self, document: Mapping[str, Any]) -> dict[str, Any]:
        metadata = dict(document["metadata"])
        if document["kind"] not in CLUSTER_SCOPED:
            metadata.setdefault("namespace", self.namespace)
        return {**document, "metadata": {**metadata, **owned_by(self.name, self.namespace, metadata)}}


def owned_by(name: str, namespace: str, metadata: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    """The labels and annotations of an object that belongs to a release."""
    owner = {"meta.helm.sh/release-name": name, "meta.helm.sh/release-namespace": namespace}
    return {
        "labels": {**(metadata.get("labels") or {}), names.MANAGED_BY: "Helm"},
        "annotations": {**(metadata.get("annotations") or {}), **owner},
    }


def releases(kubectl: Kubectl, namespace: str) -> list[Release]:
    """Every revision of every release in the namespace, by name, the newest last."""
    secrets = kubectl.items("secrets", f"--namespace={namespace}", "--selector=owner=helm")
    return sorted((_release(secret) for secret in secrets), key=lambda release: (release.name, release.revision))


def deployed(found: Iterable[Release]) -> dict[tuple[str, str], Release]:
    """The revision of each release that is in force, by namespace and name."""
    return {(release.namespace, release.name): release for release in found if release.status == "deployed"}


def _release(secret: Mapping[str, Any]) -> Release:
    labels, metadata = secret["metadata"]["labels"], secret["metadata"]
    packed = base64.b64decode(base64.b64decode(secret["data"]["release"]))
    record = json.loads(gzip.decompress(packed))
    return Release(
        labels["name"], metadata["namespace"], int(labels["version"]), labels["status"], metadata["name"], record
    )
