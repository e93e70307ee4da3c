"""Which versions of Istio run in a cluster, read from the images."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from mesh.cluster.kubectl import Kubectl

Object = Mapping[str, Any]

SIDECAR = "istio-proxy"


@dataclass(frozen=True)
class ControlPlane:
    """One istiod. `revision` is `default` for the one without a name; `ready` and `replicas` count pods."""

    revision: str
    namespace: str
    version: str
    ready: int
    replicas: int


@dataclass(frozen=True)
class Agent:
    """The CNI node agent or a gateway: `ready` of `wanted` pods."""

    name: str
    namespace: str
    version: str
    ready: int
    wanted: int


@dataclass(frozen=True)
class Proxies:
    """The running pods with a sidecar of one version and revision, counted by namespace."""

    version: str
    revision: str
    namespaces: Mapping[str, int]

    @property
    def count(self) -> int:
        return sum(self.namespaces.values())


@dataclass(frozen=True)
class Versions:
    """Everything of Istio that has a version; `cni` is None where there is none."""

    control_planes: list[ControlPlane]
    cni: Agent | None
    gateways: list[Agent]
    proxies: list[Proxies]

    def as_data(self) -> dict[str, Any]:
        return asdict(self)


def read(kubectl: Kubectl) -> Versions:
    """By two questions to the API server. Raises `KubectlError`."""
    workloads = kubectl.items("deployments.apps,daemonsets.apps", "--all-namespaces")
    pods = running_pods(kubectl)
    return Versions(
        [_control_plane(item) for item in workloads if _labels(item).get("app") == "istiod"],
        next((_agent(item) for item in workloads if _labels(item).get("k8s-app") == "istio-cni-node"), None),
        [_agent(item, pods) for item in workloads if _is_gateway(item)],
        _proxies(pods),
    )


def running_pods(kubectl: Kubectl) -> list[dict[str, Any]]:
    """Those of all namespaces that run and are not going. Raises `KubectlError`."""
    running = kubectl.items("pods", "--all-namespaces", "--field-selector=status.phase=Running")
    return [pod for pod in running if "deletionTimestamp" not in pod["metadata"]]


def has_proxy(pod: Object) -> bool:
    """Whether a pod is a gateway or has a sidecar."""
    return bool(_image(pod["spec"], SIDECAR))


def version_of(image: str) -> str:
    """`docker.io/istio/pilot:1.31.0-distroless` → 1.31.0; a digest where the image has no tag."""
    name, _, digest = image.partition("@")
    tag = name.rpartition("/")[2].partition(":")[2]
    return tag.removesuffix("-distroless").removesuffix("-debug") or digest or "unknown"


def _control_plane(item: Object) -> ControlPlane:
    status = item.get("status", {})
    return ControlPlane(
        _labels(item).get("istio.io/rev", "default"),
        item["metadata"]["namespace"],
        version_of(_image(item["spec"]["template"]["spec"], "discovery")),
        status.get("readyReplicas", 0),
        item["spec"].get("replicas", 1),
    )


def _agent(item: Object, pods: Iterable[Object] = ()) -> Agent:
    """A gateway's own image is `auto`: its pods have the real one."""
    metadata, status, spec = item["metadata"], item.get("status", {}), item["spec"]
    selected = [pod for pod in pods if _is_selected(pod, item)]
    images = {_image(pod["spec"], SIDECAR) for pod in selected} or {spec["template"]["spec"]["containers"][0]["image"]}
    return Agent(
        metadata["name"],
        metadata["namespace"],
        ", ".join(sorted(version_of(image) for image in images)),
        status.get("numberReady", status.get("readyReplicas", 0)),
        status.get("desiredNumberScheduled", spec.get("replicas", 1)),
    )


def _is_gateway(item: Object) -> bool:
    annotations: Mapping[str, str] = item["spec"]["template"]["metadata"].get("annotations", {})
    return annotations.get("inject.istio.io/templates") == "gateway"


def _is_selected(pod: Object, item: Object) -> bool:
    wanted: Mapping[str, str] = item["spec"]["selector"].get("matchLabels", {})
    namespace: str = item["metadata"]["namespace"]
    return namespace == pod["metadata"]["namespace"] and wanted.items() <= _labels(pod).items()


def _proxies(pods: Iterable[Object]) -> list[Proxies]:
    found: dict[tuple[str, str], Counter[str]] = {}
    for pod in pods:
        image = _image(pod["spec"], SIDECAR)
        alone = len(pod["spec"]["containers"]) == 1 and pod["spec"]["containers"][0]["name"] == SIDECAR
        if image and not alone:
            revision = pod["metadata"].get("annotations", {}).get("istio.io/rev", "default")
            key = (version_of(image), revision)
            found.setdefault(key, Counter())[pod["metadata"]["namespace"]] += 1
    return [Proxies(*key, namespaces=dict(counts)) for key, counts in sorted(found.items())]


def _image(spec: Object, container: str) -> str:
    """The image of a container by its name, native sidecars included; '' where there is none."""
    containers = [*spec["containers"], *spec.get("initContainers", [])]
    return next((str(found["image"]) for found in containers if found["name"] == container), "")


def _labels(item: Object) -> Mapping[str, str]:
    labels: Mapping[str, str] = item["metadata"].get("labels", {})
    return labels
