"""Why sidecars do not start: by the status of their pods, by events, and by the log of the container that fails.

It takes the right to read pods, events and logs; the limits of a node take pods/exec, one call a node at most.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal

from mesh.cluster import versions
from mesh.cluster.kubectl import Kubectl, KubectlError
from mesh.cluster.objects import Identity, Object, identity

INSTANCES_EACH: Final = 3
"""inotify instances of one proxy: two of pilot-agent's, one of Envoy's; all proxies of a node are of one user."""
KERNELS_LIMIT: Final = 128
_LIMIT: Final = "fs.inotify.max_user_instances"
_CONTAINERS: Final = ("istio-init", "istio-validation", versions.SIDECAR)
_ALIVE: Final = ("Pending", "Running")
# What keeps a pod from coming to its containers. That no node has room for it is no matter of its sidecar.
_BEFORE_CONTAINERS: Final = ("FailedCreatePodSandBox", "FailedMount")
# A proxy is ready within a few seconds; one that is not by then is late.
_PATIENCE_SECONDS: Final = 60.0
_LOGS, _LINES, _SHOWN = 20, 60, 5

# What makes pods, and is told when the API server takes none.
_MAKERS: Final = "replicasets.apps,statefulsets.apps,daemonsets.apps"

PREPARE: Final = "prepare the nodes: set nodes.mode to ssh or daemonset (docs/nodes.md)"


@dataclass(frozen=True)
class Cause:
    """What a text of the container, its status or an event says, as a reason and the fix for it."""

    sign: re.Pattern[str]
    why: str
    fix: str


def _cause(sign: str, why: str, fix: str) -> Cause:
    return Cause(re.compile(sign, re.IGNORECASE), why, fix)


# The first that fits counts.
CAUSES: Final[Sequence[Cause]] = (
    _cause(
        r"inotify|too many open files",
        f"no inotify instance is left for it, of which each sidecar takes {INSTANCES_EACH}",
        f"raise {_LIMIT} there: nodes.mode ssh or daemonset does, to what nodes.sysctls says (docs/nodes.md); "
        "the pod then starts by itself",
    ),
    _cause(
        r"unable to initialize table|can't initialize ip6?tables table|ip6?tables-restore|could not fetch rule set",
        "the node lacks kernel modules for iptables",
        PREPARE,
    ),
    _cause(
        r"ErrImage|ImagePull|InvalidImageName|failed to pull",
        "its image cannot be had",
        "mesh.hub has to name a registry that the node can reach; one that asks who it is takes "
        "mesh.values.istiod.global.imagePullSecrets",
    ),
    _cause(
        r"OOMKilled",
        "it takes more memory than its limit",
        "raise mesh.values.istiod.global.proxy.resources.limits.memory",
    ),
    _cause(
        r"violates PodSecurity|forbidden by.*(NET_ADMIN|capabilit)",
        "the namespace's policy refuses the init container, which needs NET_ADMIN",
        "set mesh.cni to true: then no pod needs it",
    ),
    _cause(
        r"failed calling webhook.*istio\.io|no endpoints available for service .?istiod",
        "istiod, which injects the sidecar, does not answer",
        "kubectl describe deployment --all-namespaces -l app=istiod; once it answers the pods are made by themselves",
    ),
    _cause(
        r"istio-ca-root-cert",
        "istiod has not written its certificate into the namespace",
        "see that istiod runs, and that mesh.values.istiod.meshConfig.discoverySelectors has the namespace",
    ),
    _cause(
        r"istio-cni",
        "the CNI agent of the node does not set up its network",
        "the log of its agent says why: kubectl logs -l k8s-app=istio-cni-node, in the namespace of the mesh",
    ),
    _cause(
        r"istio-validation.*(126|exit)|iptables validation failed|127\.0\.0\.6:1500\d",
        "it started before the CNI agent of the node had set up its network",
        "delete the pod: the next one has it",
    ),
    _cause(
        r"(istiod|:15012)[^\n]*(refused|no such host|timed? ?out|unreachable|deadline exceeded)|failed to sign",
        "it does not reach istiod",
        "see that istiod is ready, and that nothing between them (a NetworkPolicy, a firewall) closes port 15012",
    ),
)


@dataclass(frozen=True)
class Failing:
    """A container of Istio's that does not start; `said` is all that the status and the events say of it.

    `container` is '' where the pod has not come as far as its containers.
    """

    pod: str
    namespace: str
    node: str
    container: str
    owner: str
    said: str


@dataclass(frozen=True)
class Trouble:
    """What does not start, or will not, for one reason; a warning where that is not certain."""

    what: str
    fix: str
    level: Literal["problem", "warning"] = "problem"


def troubles(kubectl: Kubectl, pods: Sequence[Object], events: Sequence[Object], now: datetime) -> Iterator[Trouble]:
    """What keeps sidecars from starting, each reason once. `pods` and `events` are those to look at."""
    failing = [found for pod in pods if (found := _failing(pod, events, now))]
    said = _with_logs(kubectl, failing)
    grouped: dict[tuple[str, str, str, str], list[str]] = {}
    for one in failing:
        why, fix = _explained(one, said[one])
        grouped.setdefault((one.container, one.node, why, fix), []).append(f"{one.namespace}/{one.pod}")
    for (container, node, why, fix), names in grouped.items():
        of = f"{container} of {listed(names)}" if container else f"pod {listed(names)}"
        yield Trouble(f"{of} does not start{f' on the node {node}' if node else ''}: {why}", fix)
    yield from _unmade(kubectl, events)


def _failing(pod: Object, events: Sequence[Object], now: datetime) -> Failing | None:
    """The first of Istio's containers that fails, or the pod that comes to none of them."""
    metadata, status = pod["metadata"], pod.get("status", {})
    if "deletionTimestamp" in metadata or status.get("phase") in ("Succeeded", "Failed") or not versions.has_proxy(pod):
        return None
    mine = [event for event in events if _is_about(event, pod)]
    statuses = [*status.get("initContainerStatuses", ()), *status.get("containerStatuses", ())]
    found = {one["name"]: one for one in statuses if one["name"] in _CONTAINERS}
    for name in _CONTAINERS:
        if name in found and (said := _said(found[name], now)):
            return _made(pod, name, f"{name} {said}")
    messages = [event.get("message", "") for event in mine if event.get("reason") in _BEFORE_CONTAINERS]
    waits = all("waiting" in one.get("state", {}) for one in found.values())
    return _made(pod, "", " ".join(messages)) if messages and waits else None


def _made(pod: Object, container: str, said: str) -> Failing:
    metadata = pod["metadata"]
    owner = next((str(one["name"]) for one in metadata.get("ownerReferences", ())), metadata["name"])
    node = pod["spec"].get("nodeName", "")
    return Failing(metadata["name"], metadata["namespace"], node, container, owner, said)


def _said(status: Object, now: datetime) -> str:
    """What a container's status says against it; '' for one that is well, or has only just begun."""
    state, last = status.get("state", {}), status.get("lastState", {}).get("terminated", {})
    ended = state.get("terminated", {})
    if waiting := state.get("waiting"):
        if waiting.get("reason") in (None, "PodInitializing", "ContainerCreating"):
            return ""
        return f"Waiting: {waiting['reason']} {waiting.get('message', '')} {_ending(last)}"
    if ended:
        return _ending(ended) if ended.get("exitCode") else ""
    running = state.get("running", {})
    if not running or status.get("ready"):
        return ""
    since = datetime.fromisoformat(running["startedAt"]) if "startedAt" in running else now
    if last:
        return f"Restarted: {_ending(last)}"
    return "not ready" if (now - since).total_seconds() > _PATIENCE_SECONDS else ""


def _ending(ended: Object) -> str:
    words = (ended.get("reason", ""), ended.get("message", ""), f"exit code {ended['exitCode']}" if ended else "")
    return " ".join(filter(None, words))


def _with_logs(kubectl: Kubectl, failing: Iterable[Failing]) -> dict[Failing, str]:
    """All that is said of each, with the log of one of those that fail alike: of one workload, on one node."""
    alike: dict[tuple[str, ...], list[Failing]] = {}
    for one in failing:
        alike.setdefault((one.node, one.container, one.owner), []).append(one)
    asked = [group[0] for group in alike.values() if group[0].container][:_LOGS]
    with ThreadPoolExecutor() as pool:
        logs = dict(zip(asked, pool.map(lambda one: _log(kubectl, one), asked), strict=True))
    return {one: f"{one.said}\n{logs.get(group[0], '')}" for group in alike.values() for one in group}


def _log(kubectl: Kubectl, one: Failing) -> str:
    where = (f"--namespace={one.namespace}", f"--container={one.container}", f"--tail={_LINES}")
    try:
        return kubectl.run("logs", one.pod, *where, timeout=20)
    except KubectlError:  # nothing yet, or no right to read it: the status has to do
        return ""


def _explained(one: Failing, said: str) -> tuple[str, str]:
    if cause := _told(said):
        return cause.why, cause.fix
    lines = [line for line in said.splitlines() if line.strip()]
    last = " ".join(lines[-1].split())[:300]
    verb = f"logs {one.pod} -c {one.container}" if one.container else f"describe pod {one.pod}"
    return last, f"kubectl -n {one.namespace} {verb}"


def _told(text: str) -> Cause | None:
    return next((cause for cause in CAUSES if cause.sign.search(text)), None)


def _unmade(kubectl: Kubectl, events: Sequence[Object]) -> Iterator[Trouble]:
    """Workloads whose pods the API server does not even take, for want of the injector or by a policy."""
    refused = [
        (event["involvedObject"], cause)
        for event in events
        if event.get("reason") == "FailedCreate" and "istio" in event["message"] and (cause := _told(event["message"]))
    ]
    # An event stays for an hour, whatever became of the workload since.
    waiting = {identity(item) for item in kubectl.items(_MAKERS, "--all-namespaces") if _lacks(item)} if refused else ()
    found: dict[Cause, set[str]] = {}
    for about, cause in refused:
        one = Identity(about.get("kind", ""), about.get("namespace", ""), about.get("name", ""))
        if one in waiting:
            found.setdefault(cause, set()).add(str(one))
    for cause, names in found.items():
        yield Trouble(f"no pod is made for {listed(sorted(names))}: {cause.why}", cause.fix)


def _lacks(item: Object) -> bool:
    """Whether it has fewer pods than it wants."""
    status = item.get("status", {})
    wanted = status.get("desiredNumberScheduled", item.get("spec", {}).get("replicas", 1))
    return bool(status.get("currentNumberScheduled", status.get("replicas", 0)) < wanted)


@dataclass(frozen=True)
class Crowded:
    """A node whose proxies take more inotify instances than it has; `limit` is None where nothing there tells it."""

    node: str
    proxies: int
    limit: int | None

    @property
    def trouble(self) -> Trouble:
        takes = f"the node {self.node} has {self.proxies} proxies, which take {self.proxies * INSTANCES_EACH} inotify "
        if self.limit is None:
            limit = f"instances; its {_LIMIT} could not be read, and is {KERNELS_LIMIT} unless somebody raised it"
            return Trouble(takes + limit, f"sysctl {_LIMIT} on the node; where that is too low, {PREPARE}", "warning")
        return Trouble(f"{takes}instances, and its {_LIMIT} is {self.limit}: some do not start", PREPARE)


def crowded(kubectl: Kubectl, pods: Sequence[Object]) -> list[Crowded]:
    """The nodes whose limit does not do for the proxies that they have; those with few proxies are not asked.

    One running proxy of a node tells its limit, which is the same in every container.
    """
    by_node: dict[str, list[Object]] = {}
    for pod in pods:
        if pod["spec"].get("nodeName") and versions.has_proxy(pod) and pod.get("status", {}).get("phase") in _ALIVE:
            by_node.setdefault(pod["spec"]["nodeName"], []).append(pod)
    full = {node: there for node, there in by_node.items() if len(there) * INSTANCES_EACH * 2 > KERNELS_LIMIT}
    with ThreadPoolExecutor() as pool:
        limits = list(pool.map(lambda there: limit(kubectl, there), full.values()))
    return [
        Crowded(node, len(there), known)
        for (node, there), known in zip(full.items(), limits, strict=True)
        if len(there) * INSTANCES_EACH > (KERNELS_LIMIT if known is None else known)
    ]


def limit(kubectl: Kubectl, there: Sequence[Object]) -> int | None:
    """The inotify instances that a user may have on the node of these pods, told by the first proxy that runs."""
    running = next((pod for pod in there if _proxy_runs(pod)), None)
    if running is None:
        return None
    metadata = running["metadata"]
    where = (f"--namespace={metadata['namespace']}", metadata["name"], f"--container={versions.SIDECAR}")
    try:
        said = kubectl.run("exec", *where, "--", "cat", f"/proc/sys/{_LIMIT.replace('.', '/')}", timeout=20)
    except KubectlError:  # an image without cat (distroless), or no right to
        return None
    return int(said) if said.strip().isdecimal() else None


def _proxy_runs(pod: Object) -> bool:
    status = pod.get("status", {})
    statuses = [*status.get("initContainerStatuses", ()), *status.get("containerStatuses", ())]
    return any(one["name"] == versions.SIDECAR and "running" in one.get("state", {}) for one in statuses)


def _is_about(event: Object, pod: Object) -> bool:
    about, metadata = event["involvedObject"], pod["metadata"]
    if uid := about.get("uid"):
        return bool(uid == metadata.get("uid"))
    return bool((about.get("namespace"), about.get("name")) == (metadata["namespace"], metadata["name"]))


def listed(names: Sequence[str]) -> str:
    shown = ", ".join(names[:_SHOWN])
    return shown + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
