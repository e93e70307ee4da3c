"""Whether Istio can go in place from the versions that run to those in the configuration.

The old version is read from the pods, as these say what really runs: from an istiod's image, and from the annotation
that gateways and workloads of a stack carry. So after an upgrade that failed half way both versions are found, and the
way back is open; after one that is complete only the new one is.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import names
from config import Mesh
from config.mesh import DEFAULT_REVISION
from config.versions import minor

Pods = Sequence[Mapping[str, Any]]

_ISTIO_IMAGE = re.compile(r"/(?:pilot|proxyv2):([0-9]+\.[0-9]+\.[0-9]+)")
_VERSION = re.compile(r"[0-9]+\.[0-9]+\.[0-9]+")


def refusals(mesh: Mesh, mesh_pods: Pods, workload_pods: Callable[[], Pods]) -> Iterator[str]:
    """Why not, and what to do, for each control plane of a managed `mesh`.

    `mesh_pods` are those in its namespace; `workload_pods` reads those of this stack's services, for the rare case
    that they matter. One minor version at a time, and none back:
    https://istio.io/latest/docs/setup/upgrade/in-place/
    """
    istiods = [pod for pod in _staying(mesh_pods) if _labels(pod).get("app") == "istiod"]
    running = [version for pod in istiods if (version := _version(pod))]
    if not running:
        return
    oldest = min(running, key=minor)
    for revision, plane in mesh.control_planes.items():
        if minor(plane.version) > _next(minor(oldest)):
            yield (
                f"Istio {oldest} runs in {mesh.namespace}, and {_key(mesh, revision)} is {plane.version}: "
                "Istio supports an upgrade of one minor version at a time\n"
                f"     fix: take {'.'.join(map(str, _next(minor(oldest))))} first, `pulumi up`, then go on from there"
            )
        here = [version for pod in istiods if _revision(pod) == revision and (version := _version(pod))]
        if here and minor(plane.version) < minor(min(here, key=minor)):
            proxies = [pod for pod in _staying([*mesh_pods, *workload_pods()]) if pod not in istiods]
            if not any(_is_as_old_as(pod, plane.version) for pod in proxies if _revision(pod) == revision):
                yield (
                    f"Istio {min(here, key=minor)} runs in {mesh.namespace}, and {_key(mesh, revision)} is "
                    f"{plane.version}: Istio supports no way back to an older minor version once an upgrade is "
                    "complete\n"
                    "     fix: set it back, or install the older one beside it, by mesh.revisions"
                )


def _staying(pods: Pods) -> Pods:
    return [pod for pod in pods if "deletionTimestamp" not in pod["metadata"]]


def _key(mesh: Mesh, revision: str) -> str:
    return f"mesh.revisions.{revision}.version" if mesh.revisions else "mesh.version"


def _next(version: tuple[int, int]) -> tuple[int, int]:
    return version[0], version[1] + 1


def _is_as_old_as(pod: Mapping[str, Any], version: str) -> bool:
    found = _version(pod)
    return found is not None and minor(found) <= minor(version)


def _labels(pod: Mapping[str, Any]) -> Mapping[str, str]:
    labels: Mapping[str, str] = pod["metadata"].get("labels") or {}
    return labels


def _revision(pod: Mapping[str, Any]) -> str:
    return _labels(pod).get(names.REVISION, DEFAULT_REVISION)


def _version(pod: Mapping[str, Any]) -> str | None:
    """That of the Istio in a pod; None for one without, or with an image that does not say."""
    annotation = (pod["metadata"].get("annotations") or {}).get(names.SIDECAR, "")
    if found := _VERSION.match(annotation):
        return found[0]
    for container in pod["spec"]["containers"]:
        if image := _ISTIO_IMAGE.search(container["image"]):
            return image[1]
    return None
