"""Objects of the Kubernetes API: which one it is, and how it is read from the cluster."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any, Final, NamedTuple

import yaml

from mesh.cluster.kubectl import Kubectl, KubectlError

Object = Mapping[str, Any]

CLUSTER_SCOPED: Final = frozenset(
    {
        "ClusterRole",
        "ClusterRoleBinding",
        "CustomResourceDefinition",
        "MutatingWebhookConfiguration",
        "Namespace",
        "ValidatingAdmissionPolicy",
        "ValidatingAdmissionPolicyBinding",
        "ValidatingWebhookConfiguration",
    }
)
"""The kinds without a namespace that Istio's charts make."""

_NO_SUCH_KIND = re.compile(r'no matches for kind "(\w+)" in version "([^"]+)"')


class Identity(NamedTuple):
    """`namespace` is '' for an object of the whole cluster."""

    kind: str
    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind} {self.namespace}/{self.name}" if self.namespace else f"{self.kind} {self.name}"


def identity(item: Object) -> Identity:
    metadata = item["metadata"]
    return Identity(item["kind"], metadata.get("namespace", ""), metadata["name"])


def live(kubectl: Kubectl, wanted: Iterable[Object]) -> dict[Identity, dict[str, Any]]:
    """Those of `wanted` that are there, each in the API version in which it is wanted, with their managed fields."""
    wanted = list(wanted)
    while wanted:
        try:
            printed = kubectl.run(
                "get",
                "--filename=-",
                "--output=json",
                "--ignore-not-found",
                "--show-managed-fields",
                stdin=listed(wanted),
            )
        except KubectlError as error:
            unknown = {(version, kind) for kind, version in _NO_SUCH_KIND.findall(str(error))}
            if not unknown:
                raise
            wanted = [item for item in wanted if (item["apiVersion"], item["kind"]) not in unknown]
        else:
            answer = json.loads(printed or "{}")
            return {identity(item): item for item in answer.get("items", [answer] if answer else [])}
    return {}


def conditions(item: Object) -> dict[str, str]:
    """Type → status of what an object says of itself: `Ready` → `True`."""
    return {condition["type"]: condition["status"] for condition in item.get("status", {}).get("conditions", ())}


def is_ready(item: Object) -> bool:
    return conditions(item).get("Ready") == "True"


def listed(items: Iterable[Object]) -> str:
    """Their names alone, as kubectl's `--filename=-` takes them."""
    return json.dumps({"apiVersion": "v1", "kind": "List", "items": [_named(item) for item in items]})


def named(kind: str, name: str, namespace: str) -> Object:
    """One of the core kinds, to look for by `live`."""
    return {"apiVersion": "v1", "kind": kind, "metadata": {"name": name, "namespace": namespace}}


def _named(item: Object) -> dict[str, Any]:
    metadata = {key: item["metadata"][key] for key in ("name", "namespace") if item["metadata"].get(key)}
    return {"apiVersion": item["apiVersion"], "kind": item["kind"], "metadata": metadata}


class Loader(yaml.CSafeLoader):
    """YAML as Kubernetes reads it: a date is a text."""


Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.CSafeLoader.yaml_implicit_resolvers.items()
}
