"""Every Kubernetes object that a stack would install, charts and all, without a cluster."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import yaml
from pulumi.runtime import rpc

from config.files import PROJECT, SECRET
from mesh.cluster.objects import CLUSTER_SCOPED, Loader
from mesh.program import helm
from mesh.program.recorder import Recording, Resource

Object = dict[str, Any]
"""A Kubernetes object: apiVersion, kind, metadata, …"""

# What others need comes first, as in https://github.com/helm/helm/blob/main/pkg/releaseutil/kind_sorter.go; a kind that
# is not listed comes after all these.
_ORDER: Final = (
    "Namespace",
    "NetworkPolicy",
    "ResourceQuota",
    "PodDisruptionBudget",
    "ServiceAccount",
    "Secret",
    "ConfigMap",
    "CustomResourceDefinition",
    "ClusterRole",
    "ClusterRoleBinding",
    "Role",
    "RoleBinding",
    "Service",
    "DaemonSet",
    "Deployment",
    "HorizontalPodAutoscaler",
    "StatefulSet",
    "MutatingWebhookConfiguration",
    "ValidatingWebhookConfiguration",
)


def rendered(recording: Recording, project: Path = PROJECT) -> list[Object]:
    """The objects of all releases and those that the program declares itself, in an order that can be applied.

    The same recording gives the same list. Secrets come as `[secret]`. `project` is where relative paths begin.
    Raises `helm.HelmError`.
    """
    with ThreadPoolExecutor() as pool:
        releases = pool.map(lambda release: of_release(release, project), recording.named("Release").values())
        objects = [*_declared(recording), *(found for release in releases for found in release)]
    return sorted(objects, key=_place)


def of_release(release: Resource, project: Path = PROJECT) -> list[Object]:
    """The objects of one Helm release, CRDs included."""
    inputs = plain(release.inputs)
    text = helm.template(
        inputs["name"],
        inputs["chart"],
        namespace=inputs["namespace"],
        values=inputs["values"],
        repository=inputs.get("repositoryOpts", {}).get("repo", ""),
        version=inputs.get("version", ""),
        folder=project,
    )
    found = [_without_secrets(document) for document in yaml.load_all(text, Loader) if document]
    for document in found:
        if document["kind"] not in CLUSTER_SCOPED:
            document["metadata"].setdefault("namespace", inputs["namespace"])  # where Helm would put it
    return sorted(found, key=_place)


def as_yaml(objects: Iterable[Object]) -> str:
    """One YAML document an object, with sorted keys."""
    return yaml.dump_all(objects, Dumper=_Dumper, explicit_start=True, allow_unicode=True, width=120)


def identity(document: Object) -> tuple[str, str, str, str]:
    """API group, kind, namespace and name: what makes an object one and the same."""
    group = document["apiVersion"].rpartition("/")[0]
    metadata = document["metadata"]
    return group, document["kind"], metadata.get("namespace", ""), metadata["name"]


def _place(document: Object) -> tuple[int, str, str, str]:
    _, kind, namespace, name = identity(document)
    return (_ORDER.index(kind) if kind in _ORDER else len(_ORDER)), kind, namespace, name


def _declared(recording: Recording) -> Iterator[Object]:
    for resource in recording:
        if resource.type.startswith("kubernetes:") and "apiVersion" in resource.inputs:
            yield _without_secrets(plain(resource.inputs))


def plain(value: Any) -> Any:
    """Without what Pulumi makes of values on their way to the engine: secrets are wrapped, and all numbers floats."""
    if rpc.is_rpc_secret(value):
        return SECRET
    if isinstance(value, Mapping):
        return {key: plain(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [plain(inner) for inner in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _without_secrets(document: Object) -> Object:
    if document["kind"] == "Secret":
        hidden = {key: dict.fromkeys(document[key], SECRET) for key in ("data", "stringData") if document.get(key)}
        return {**document, **hidden}
    return document


class _Dumper(yaml.CSafeDumper):
    """Texts of several lines stay readable, and nothing is written by reference."""

    def ignore_aliases(self, data: Any) -> bool:
        del data
        return True


_Dumper.add_representer(
    str,
    lambda dumper, text: dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None),
)
