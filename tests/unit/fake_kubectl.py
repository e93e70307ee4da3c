"""A cluster that is nothing but a list of objects, behind the interface of `Kubectl`."""

from __future__ import annotations

import base64
import gzip
import json
import re
from dataclasses import dataclass, field
from typing import Any

from mesh.cluster.kubectl import Kubectl, KubectlError

Object = dict[str, Any]

_SHORT = {"crd": "customresourcedefinitions", "configmap": "configmaps", "secret": "secrets"}
_BUILT_IN = (".apps", ".policy", ".networking.k8s.io")


def made(kind: str, name: str, namespace: str = "", annotations: dict[str, str] | None = None, **fields: Any) -> Object:
    """An object as kubectl prints it."""
    metadata: Object = {"name": name}
    if namespace:
        metadata["namespace"] = namespace
    if annotations:
        metadata["annotations"] = annotations
    return {"kind": kind, "metadata": metadata, **fields}


def crd(plural: str, group: str) -> Object:
    return made("CustomResourceDefinition", f"{plural}.{group}", spec={"group": group})


def helm_record(name: str, status: str = "deployed", **kept: Any) -> Object:
    """The Secret in which Helm has `kept` the first revision of a release of the mesh."""
    packed = base64.b64encode(base64.b64encode(gzip.compress(json.dumps({"config": {}, **kept}).encode()))).decode()
    labels = {"owner": "helm", "name": name, "version": "1", "status": status}
    metadata = {"name": f"sh.helm.release.v1.{name}.v1", "namespace": "istio-system", "labels": labels}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "data": {"release": packed}}


@dataclass(frozen=True)
class FakeKubectl(Kubectl):
    """Answers what the program asks and sends, and fails with `error` if that is set; after `patience` changes it
    fails, too, as if the program had been killed there. Of selectors it knows those for a label with any value."""

    objects: list[Object] = field(default_factory=list)
    calls: list[tuple[str, ...]] = field(default_factory=list)
    changes: list[tuple[str, ...]] = field(default_factory=list)
    patience: int | None = None
    error: str = ""

    def run(self, *args: str, timeout: float = 60, stdin: str | None = None) -> str:
        assert timeout > 0
        self.calls.append(args)
        if self.error:
            raise KubectlError(self.error)
        if args[0] not in ("get", "api-resources"):
            if self.patience is not None and len(self.changes) >= self.patience:
                raise KubectlError("killed")
            self.changes.append(args)
        if stdin is not None:
            named = json.loads(stdin)["items"]
            assert args[1] == "--filename=-"
            return self._named(named) if args[0] == "get" else self._change(args, named)
        verb, *words = [arg for arg in args if not arg.startswith("--")]
        if verb == "api-resources":
            return "\n".join({_plural(item["kind"]) for item in self.objects if "namespace" in item["metadata"]})
        if verb == "get":
            return self._get(words[0].split(","), args)
        if verb == "annotate":
            return ""
        assert verb == "delete"
        return self._delete(words[0], words[1:], _namespace(args))

    @property
    def left(self) -> set[tuple[str, str]]:
        return {(item["kind"], item["metadata"]["name"]) for item in self.objects}

    def _get(self, kinds: list[str], args: tuple[str, ...]) -> str:
        namespace = _namespace(args)
        for kind in kinds:
            if "." in kind and not kind.endswith(_BUILT_IN) and not self._has_crd(kind):
                raise KubectlError(f'error: the server doesn\'t have a resource type "{kind}"')
        items = [
            item
            for item in self.objects
            if any(_is(item, kind) for kind in kinds)
            and (item["metadata"].get("namespace", namespace) == namespace or "--all-namespaces" in args)
            and _has_labels(item, args)
        ]
        if not items and "--ignore-not-found" in args:
            return ""
        return json.dumps({"kind": "List", "items": items})

    def _named(self, wanted: list[Object]) -> str:
        """Those that are there, as `get --filename=-` prints them; an unknown kind is an error."""
        kinds = {(item["apiVersion"], item["kind"]) for item in wanted if "istio.io" in item["apiVersion"]}
        for version, kind in sorted(kinds):
            if not any(item.get("apiVersion") == version and item["kind"] == kind for item in self.objects):
                raise KubectlError(f'resource mapping not found: no matches for kind "{kind}" in version "{version}"')
        names = [(item["kind"], item["metadata"]) for item in wanted]
        found = [
            item
            for item in self.objects
            if any(
                kind == item["kind"] and all(item["metadata"].get(key) == metadata[key] for key in metadata)
                for kind, metadata in names
            )
        ]
        return json.dumps(found[0] if len(wanted) == 1 else {"kind": "List", "items": found}) if found else ""

    def _change(self, args: tuple[str, ...], named: list[Object]) -> str:
        names = {(item["kind"], item["metadata"].get("namespace", ""), item["metadata"]["name"]) for item in named}
        for item in self.objects:
            metadata = item["metadata"]
            if (item["kind"], metadata.get("namespace", ""), metadata["name"]) not in names:
                continue
            if args[0] == "patch":
                patch = next(arg for arg in args if arg.startswith("--patch=")).removeprefix("--patch=")
                given = json.loads(patch)["metadata"]
                metadata["managedFields"] = given["managedFields"]
            else:
                marks = dict(arg.split("=", 1) for arg in args[1:] if not arg.startswith("--"))
                given = {"labels" if args[0] == "label" else "annotations": marks}
            for part in given.keys() & {"labels", "annotations"}:
                metadata[part] = {**metadata.get(part, {}), **given[part]}
        return ""

    def _delete(self, kind: str, names: list[str], namespace: str) -> str:
        for name in names:
            for item in [i for i in self.objects if _is(i, kind) and i["metadata"]["name"] == name]:
                if item["metadata"].get("namespace", namespace) == namespace:
                    self.objects.remove(item)
            if kind == "crd":  # and with it every object of its kind
                self.objects[:] = [i for i in self.objects if not _is(i, name)]
        return ""

    def _has_crd(self, name: str) -> bool:
        return ("CustomResourceDefinition", name) in self.left


def _is(item: Object, kind: str) -> bool:
    """Whether `item` is one of `kind`: `services`, `deployments.apps`, `crd`, …"""
    plural = kind.split(".")[0]
    return _plural(item["kind"]) == _SHORT.get(plural, plural)


def _plural(kind: str) -> str:
    return re.sub("([rc])ys$", r"\1ies", f"{kind.lower()}s")


def _has_labels(item: Object, args: tuple[str, ...]) -> bool:
    wanted = [arg.removeprefix("--selector=") for arg in args if arg.startswith("--selector=") and arg.count("=") == 1]
    return all(label in item["metadata"].get("labels", {}) for label in wanted if label)


def _namespace(args: tuple[str, ...]) -> str:
    return next((arg.removeprefix("--namespace=") for arg in args if arg.startswith("--namespace=")), "default")
