"""The rules on the cluster and the mesh."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TypeGuard

from config import versions
from config.problems import MISSING, Problem, nearest
from config.rules.raw import Raw, each_service, map_at


def names_a_cluster(raw: Raw) -> Iterator[Problem]:
    cluster = map_at(raw, "cluster")
    if not cluster.get("context") and not cluster.get("kubeconfig"):
        yield Problem(
            "cluster",
            MISSING,
            "a context or a kubeconfig: a stack never goes to whatever context is current",
            "pulumi config set --path cluster.context <name>; kubectl config get-contexts lists them",
        )


_ALLOWED = f"a version from {versions.OLDEST_MINOR} to {versions.NEWEST_MINOR}"


def has_a_version(raw: Raw) -> Iterator[Problem]:
    mesh = map_at(raw, "mesh")
    if _managed(mesh) and mesh.get("version", "") == "" and not mesh.get("revisions"):
        yield Problem("mesh.version", MISSING, _ALLOWED, "say which Istio to install, or set mesh.mode")


def supported_versions(raw: Raw) -> Iterator[Problem]:
    mesh = map_at(raw, "mesh")
    for key, version in {"mesh.version": mesh.get("version"), **_revision_versions(mesh)}.items():
        if _is_version(version) and not versions.is_supported(version):
            age = "older" if versions.minor(version) < versions.minor(f"{versions.OLDEST_MINOR}.0") else "newer"
            fix = f"take {versions.NEWEST_MINOR}.0 for instance: what the charts of {age} ones read is not known"
            yield Problem(key, version, _ALLOWED, fix)


def platform_is_known(raw: Raw) -> Iterator[Problem]:
    """https://istio.io/latest/news/releases/1.24.x/announcing-1.24/change-notes/"""
    mesh = map_at(raw, "mesh")
    found = [version for version in (mesh.get("version"), *_revision_versions(mesh).values()) if _is_version(version)]
    if mesh.get("platform") and any(versions.minor(version) < (1, 24) for version in found):
        yield Problem(
            "mesh.platform",
            mesh["platform"],
            "unset: the charts have platforms from 1.24 on",
            "leave it out, as older charts cannot keep AKS from their webhooks; what it adds to them is no drift"
            if mesh["platform"] == "aks"
            else "say in mesh.values what your platform needs, or take a newer mesh.version",
        )


def either_version_or_revisions(raw: Raw) -> Iterator[Problem]:
    mesh = map_at(raw, "mesh")
    if _managed(mesh) and mesh.get("version") and mesh.get("revisions"):
        yield Problem(
            "mesh.version",
            mesh["version"],
            "no version beside mesh.revisions, which has one for each control plane",
            "take it out; in a stack file `version: null` takes out the one in defaults.yaml",
        )
    if mesh.get("mode") == "existing" and mesh.get("revisions"):
        yield Problem(
            "mesh.revisions",
            MISSING,
            "no control planes of this stack where mesh.mode is existing",
            "name the one to use in mesh.revision, or those of single services in services.<s>.revision",
        )


def revisions_are_known(raw: Raw) -> Iterator[Problem]:
    mesh = map_at(raw, "mesh")
    known = map_at(mesh, "revisions")
    if not _managed(mesh):
        return  # somebody else's, which only the cluster knows
    named = {f"services.{name}.revision": service.get("revision") for name, service, _ in each_service(raw)}
    for key, revision in {"mesh.revision": mesh.get("revision"), **named}.items():
        if not isinstance(revision, str | None) or revision in known:
            continue  # the model speaks about other types
        if revision and not known:
            yield Problem(
                key,
                revision,
                "one of mesh.revisions, and there are none",
                f"take it out, or write mesh.revisions: {{{revision}: {{version: …}}}} in the place of mesh.version",
            )
        elif revision:
            yield Problem(key, revision, f"one of mesh.revisions: {', '.join(known)}", nearest(revision, known))
        elif known and key == "mesh.revision":
            yield Problem(
                key,
                MISSING,
                f"one of mesh.revisions: {', '.join(known)}",
                "say which one injects the sidecars where no service has another",
            )


def revisions_lie_close_together(raw: Raw) -> Iterator[Problem]:
    """The one CNI node agent works with control planes of its own minor version and of the next."""
    found = [version for version in _revision_versions(map_at(raw, "mesh")).values() if _is_version(version)]
    minors = sorted({versions.minor(version) for version in found})
    if minors and minors[-1] not in (minors[0], (minors[0][0], minors[0][1] + 1)):
        yield Problem(
            "mesh.revisions",
            {name: map_at(revision).get("version") for name, revision in map_at(raw, "mesh", "revisions").items()},
            "versions that are at most one minor version apart",
            "go on in steps of one minor version: take the oldest out first",
        )


def _managed(mesh: Raw) -> bool:
    return bool(mesh.get("mode", "managed") == "managed")


def _revision_versions(mesh: Raw) -> dict[str, object]:
    """Key → version, whatever that is."""
    revisions = map_at(mesh, "revisions")
    return {f"mesh.revisions.{name}.version": map_at(revision).get("version") for name, revision in revisions.items()}


def _is_version(value: object) -> TypeGuard[str]:
    """Whether it has the shape of a version; where it has not the model says so."""
    return isinstance(value, str) and re.match(r"[0-9]{1,4}\.[0-9]{1,4}\.[0-9]", value) is not None


def namespaces_differ(raw: Raw) -> Iterator[Problem]:
    mesh, namespace = map_at(raw, "mesh"), map_at(raw, "namespace")
    workloads = namespace.get("name", "istio-demo")
    if _managed(mesh) and namespace.get("create", True) and workloads == mesh.get("namespace", "istio-system"):
        yield Problem(
            "namespace.name",
            workloads,
            "another namespace than the mesh's, which this stack makes too",
            "choose another namespace.name or another mesh.namespace",
        )


RULES = (
    has_a_version,
    supported_versions,
    platform_is_known,
    either_version_or_revisions,
    revisions_are_known,
    revisions_lie_close_together,
    namespaces_differ,
)
