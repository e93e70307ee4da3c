"""The rules on the cluster and the mesh."""

from __future__ import annotations

from collections.abc import Iterator

from config import versions
from config.problems import MISSING, Problem
from config.rules.raw import Raw, map_at


def names_a_cluster(raw: Raw) -> Iterator[Problem]:
    cluster = map_at(raw, "cluster")
    if not cluster.get("context") and not cluster.get("kubeconfig"):
        yield Problem(
            "cluster",
            MISSING,
            "a context or a kubeconfig: a stack never goes to whatever context is current",
            "pulumi config set --path cluster.context <name>; kubectl config get-contexts lists them",
        )


def supported_version(raw: Raw) -> Iterator[Problem]:
    mesh = map_at(raw, "mesh")
    version = mesh.get("version", "")
    allowed = f"a version from {versions.OLDEST_MINOR} to {versions.NEWEST_MINOR}"
    if mesh.get("mode", "managed") == "managed" and version == "":
        yield Problem("mesh.version", MISSING, allowed, "say which Istio to install, or set mesh.mode")
    elif isinstance(version, str) and version[:1].isdigit() and version.count(".") >= 2:
        try:
            supported = versions.is_supported(version)
        except ValueError:
            return  # the model says so
        if not supported:
            yield Problem(
                "mesh.version", version, allowed, f"take a supported one, {versions.NEWEST_MINOR}.0 for instance"
            )


def namespaces_differ(raw: Raw) -> Iterator[Problem]:
    mesh, namespace = map_at(raw, "mesh"), map_at(raw, "namespace")
    workloads = namespace.get("name", "istio-demo")
    if (
        mesh.get("mode", "managed") == "managed"
        and namespace.get("create", True)
        and workloads == mesh.get("namespace", "istio-system")
    ):
        yield Problem(
            "namespace.name",
            workloads,
            "another namespace than the mesh's, which this stack makes too",
            "choose another namespace.name or another mesh.namespace",
        )


RULES = (supported_version, namespaces_differ)
