"""Why sidecars do not start, on the statuses, events and logs of a fake cluster."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mesh.check import find as check
from mesh.check import sidecars
from mesh.cluster.kubectl import KubectlError
from mesh.program.stack import Stack

from .fake_kubectl import FakeKubectl, Object, made
from .given import config

NAMESPACE = "istio-demo"


@dataclass(frozen=True)
class Cluster(FakeKubectl):
    """Pods with `logs` by name, on nodes with these `limits`; what is in neither cannot be asked."""

    logs: dict[str, str] = field(default_factory=dict)
    limits: dict[str, int] = field(default_factory=dict)

    def run(self, *args: str, timeout: float = 60, stdin: str | None = None) -> str:
        if args[0] not in ("logs", "exec"):
            return super().run(*args, timeout=timeout, stdin=stdin)
        self.calls.append(args)
        name = args[1] if args[0] == "logs" else args[2]
        if args[0] == "logs" and name in self.logs:
            return self.logs[name]
        node = next(one["spec"]["nodeName"] for one in self.objects if one["metadata"]["name"] == name)
        if args[0] == "exec" and node in self.limits:
            return f"{self.limits[node]}\n"
        raise KubectlError("forbidden")

    def asked(self, verb: str) -> int:
        return sum(call[0] == verb for call in self.calls)


WELL: Object = {"state": {"running": {"startedAt": "2026-01-01T00:00:00Z"}}, "ready": True}
CRASHES: Object = {
    "state": {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 40s restarting failed container"}},
    "lastState": {"terminated": {"exitCode": 134, "reason": "Error"}},
    "ready": False,
}
INOTIFY = "critical assert failure: inotify_fd_ >= 0. Details: Consider raising max_user_instances\nAborted\n"


def pod(
    name: str,
    *,
    node: str = "a",
    namespace: str = NAMESPACE,
    owner: str = "",
    native: bool = True,
    **containers: Any,
) -> Object:
    """A pod with a sidecar; `containers` are statuses by name, with _ for -."""
    proxy = {"name": "istio-proxy", "image": "istio/proxyv2:1.31.0"}
    app = {"name": "app", "image": "app"}
    spec: Object = {"containers": [app], "initContainers": [{"name": "istio-init", "image": "x"}], "nodeName": node}
    spec["initContainers" if native else "containers"].append(proxy)
    statuses = [{"name": key.replace("_", "-"), **status} for key, status in containers.items()]
    init = [one for one in statuses if one["name"] == "istio-init" or (native and one["name"] == "istio-proxy")]
    rest = [one for one in statuses if one not in init]
    item = made("Pod", name, namespace, spec=spec)
    item["metadata"]["ownerReferences"] = [{"kind": "ReplicaSet", "name": owner or name}]
    item["status"] = {"phase": "Pending", "initContainerStatuses": init, "containerStatuses": rest}
    return item


def event(about: Object | str, message: str, reason: str = "Failed", kind: str = "Pod") -> Object:
    name = about if isinstance(about, str) else about["metadata"]["name"]
    involved = {"kind": kind, "namespace": NAMESPACE, "name": name}
    return made("Event", f"{name}.1", NAMESPACE, involvedObject=involved, message=message, reason=reason)


def found(cluster: FakeKubectl, **changes: Any) -> list[check.Finding]:
    findings = [*check.sidecars_start(check.Situation(Stack("dev"), config(**changes), cluster))]
    assert all(finding.fix for finding in findings if finding.level != "good")
    return findings


@pytest.mark.parametrize("native", [True, False], ids=["native", "beside the application"])
def test_a_proxy_that_finds_no_inotify_instance_is_named_with_the_fix(native: bool) -> None:
    ill = pod("bill-1", istio_proxy=CRASHES, native=native)
    (finding,) = found(Cluster(objects=[ill, pod("bill-2", istio_proxy=WELL)], logs={"bill-1": INOTIFY}))
    assert (finding.level, finding.what) == (
        "problem",
        "istio-proxy of istio-demo/bill-1 does not start on the node a: no inotify instance is left for it, of which "
        "each sidecar takes 3",
    )
    assert "fs.inotify.max_user_instances" in finding.fix and "nodes.mode" in finding.fix


WAITS = {"state": {"waiting": {"reason": "PodInitializing"}}, "ready": False}
LATE = {"state": {"running": {"startedAt": "2026-01-01T00:00:00Z"}}, "ready": False}


def waiting(reason: str, message: str = "") -> Object:
    return {"state": {"waiting": {"reason": reason, "message": message}}, "ready": False}


@pytest.mark.parametrize(
    ("containers", "log", "message", "why", "fix"),
    [
        (
            {"istio_init": CRASHES, "istio_proxy": WAITS},
            "iptables-restore: unable to initialize table 'nat'",
            "",
            "lacks kernel modules for iptables",
            "nodes.mode",
        ),
        (
            {"istio_validation": WAITS, "istio_proxy": WAITS},
            "",
            "plugin type=\"istio-cni\" failed (add): unable to initialize table 'nat'",
            "lacks kernel modules for iptables",
            "nodes.mode",
        ),
        ({}, "", 'plugin type="istio-cni" failed (add): x', "the CNI agent of the node", "k8s-app=istio-cni-node"),
        ({}, "", 'configmap "istio-ca-root-cert" not found', "has not written its certificate", "discoverySelectors"),
        ({"istio_proxy": waiting("ImagePullBackOff", "nope")}, "", "", "its image cannot be had", "mesh.hub"),
        ({"istio_proxy": waiting("InvalidImageName")}, "", "", "its image cannot be had", "mesh.hub"),
        (
            {"istio_proxy": {**WAITS, "state": {"terminated": {"exitCode": 137, "reason": "OOMKilled"}}}},
            "",
            "",
            "more memory than its limit",
            "limits.memory",
        ),
        (
            {"istio_proxy": LATE},
            "dial tcp: lookup istiod.istio-system.svc on 10.96.0.10:53: no such host",
            "",
            "it does not reach istiod",
            "15012",
        ),
        (
            {"istio_proxy": LATE},
            "connect to 10.96.1.2:15012: connection refused",
            "",
            "it does not reach istiod",
            "15012",
        ),
        ({"istio_init": {**CRASHES}}, "no idea\nwhat it is\n", "", "what it is", "logs bill-1 -c istio-init"),
        ({"istio_proxy": waiting("CreateContainerError", "odd")}, "", "", "CreateContainerError odd", "logs bill-1"),
        ({}, "", "some volume is not there", "some volume is not there", "describe pod bill-1"),
    ],
)
def test_each_reason_is_told_with_its_fix(
    containers: dict[str, Any], log: str, message: str, why: str, fix: str
) -> None:
    ill = pod("bill-1", **containers)
    if "istio_validation" in containers:
        ill["status"]["initContainerStatuses"] += ill["status"].pop("containerStatuses")
    events = [event(ill, message, "FailedCreatePodSandBox")] if message else []
    (finding,) = found(Cluster(objects=[ill, *events], logs={"bill-1": log}))
    assert finding.level == "problem" and "istio-demo/bill-1" in finding.what
    assert why in finding.what and fix in finding.fix, finding


def test_a_log_that_cannot_be_read_leaves_the_status() -> None:
    (finding,) = found(Cluster(objects=[pod("bill-1", istio_proxy=CRASHES)]))
    assert "CrashLoopBackOff" in finding.what and "exit code 134" in finding.what


@pytest.mark.parametrize("injector", ["connection refused", "context deadline exceeded"])
def test_workloads_that_get_no_pods_for_want_of_the_injector_are_named(injector: str) -> None:
    message = f'failed calling webhook "namespace.sidecar-injector.istio.io": failed to call webhook: Post: {injector}'
    told = event("bill-7", message, "FailedCreate", "ReplicaSet")

    def replicas(wanted: int, made_: int) -> Object:
        return made("ReplicaSet", "bill-7", NAMESPACE, spec={"replicas": wanted}, status={"replicas": made_})

    (finding,) = found(Cluster(objects=[told, replicas(2, 0)]))
    assert finding.what == (
        "no pod is made for ReplicaSet istio-demo/bill-7: istiod, which injects the sidecar, does not answer"
    )
    # It has its pods by now, or wants none, or is gone: the event is old.
    for workload in ([replicas(2, 2)], [replicas(0, 0)], []):
        assert found(Cluster(objects=[told, *workload]))[0].level == "good"


def test_what_starts_or_is_on_its_way_is_no_finding() -> None:
    just_now = {"state": {"running": {"startedAt": datetime.now(UTC).isoformat()}}, "ready": False}
    going = pod("going", istio_proxy=CRASHES)
    going["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    done = pod("done", istio_proxy=CRASHES)
    done["status"]["phase"] = "Succeeded"
    plain = pod("plain", istio_proxy=CRASHES)
    plain["spec"]["initContainers"].clear()
    fresh, app = pod("fresh", istio_proxy=just_now), pod("app", istio_proxy=WELL, app=waiting("ImagePullBackOff"))
    pods = [pod("well", istio_init={"state": {"terminated": {"exitCode": 0}}}, istio_proxy=WELL)]
    pods += [going, done, plain, fresh, app, pod("new", istio_init=WAITS, istio_proxy=WAITS)]
    unschedulable = event("new", "0/1 nodes are available", "FailedScheduling")
    old = event("well", "unable to initialize table", "FailedCreatePodSandBox")
    cluster = Cluster(objects=[*pods, unschedulable, old])
    assert [finding.level for finding in found(cluster)] == ["good"]
    assert not cluster.asked("logs") and not cluster.asked("exec")


def test_of_an_existing_mesh_only_the_stacks_own_pods_are_looked_at() -> None:
    cluster = Cluster(objects=[pod("bill-1", namespace="other", istio_proxy=CRASHES)], logs={"bill-1": INOTIFY})
    assert "other/bill-1" in found(cluster)[0].what
    assert found(cluster, mesh={"mode": "existing"})[0].level == "good"
    assert found(cluster, mesh={"mode": "off"}, routing={}) == []


def test_many_pods_that_fail_alike_are_one_finding_and_one_log() -> None:
    pods = [pod(f"bill-{number}", owner="bill", istio_proxy=CRASHES) for number in range(20)]
    cluster = Cluster(objects=pods, logs={"bill-0": INOTIFY})
    (finding,) = found(cluster)
    assert "istio-demo/bill-4 and 15 more" in finding.what and cluster.asked("logs") == 1


@given(
    statuses=st.lists(st.sampled_from([WELL, CRASHES, WAITS, LATE, waiting("ImagePullBackOff")]), max_size=30),
    nodes=st.integers(1, 5),
)
@settings(max_examples=50, deadline=None)
def test_each_pod_is_named_once_with_bounded_questions(statuses: list[Object], nodes: int) -> None:
    pods = [pod(f"bill-{at}", node=f"n{at % nodes}", istio_proxy=status) for at, status in enumerate(statuses)]
    cluster = Cluster(objects=pods)
    now = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(hours=1)
    told = [*sidecars.troubles(cluster, pods, [], now)]
    ill = {f"bill-{at}" for at, status in enumerate(statuses) if status not in (WELL, WAITS)}
    assert cluster.asked("logs") <= min(20, len(ill))
    assert bool(told) == bool(ill)
    named = [name for trouble in told for name in trouble.what.replace(",", "").split() if "/bill-" in name]
    assert len(named) == len(set(named)) and {name.partition("/")[2] for name in named} <= ill


# Limits of the nodes


def crowd(count: int, node: str = "a") -> list[Object]:
    pods = [pod(f"{node}-{number}", node=node, istio_proxy=WELL) for number in range(count)]
    for one in pods:
        one["status"]["phase"] = "Running"
    return pods


def test_a_node_whose_limit_does_not_do_is_named() -> None:
    pods = [*crowd(43), *crowd(43, "b"), *crowd(3, "c")]
    cluster = Cluster(objects=pods, limits={"a": 128, "b": 8192})
    (finding,) = found(cluster)
    assert finding.level == "problem" and "nodes.mode" in finding.fix
    assert "the node a has 43 proxies, which take 129 inotify instances" in finding.what
    assert "fs.inotify.max_user_instances is 128" in finding.what
    assert cluster.asked("exec") == 2, "one question a node, and none where few proxies are"


def test_a_limit_that_cannot_be_read_is_a_warning_only_where_the_kernels_own_would_not_do() -> None:
    (finding,) = found(Cluster(objects=crowd(43)))
    assert finding.level == "warning" and "could not be read" in finding.what
    assert [finding.level for finding in found(Cluster(objects=crowd(42)))] == ["good"]


@given(counts=st.lists(st.integers(0, 60), min_size=1, max_size=4), limit=st.integers(1, 300))
@settings(max_examples=50, deadline=None)
def test_crowded_are_just_the_nodes_that_have_more_than_they_can_take(counts: list[int], limit: int) -> None:
    pods = [one for node, count in enumerate(counts) for one in crowd(count, f"n{node}")]
    cluster = Cluster(objects=pods, limits={f"n{node}": limit for node in range(len(counts))})
    told = {one.node for one in sidecars.crowded(cluster, pods)}
    assert told == {f"n{node}" for node, count in enumerate(counts) if count * 3 > limit and count * 6 > 128}
    assert cluster.asked("exec") <= len(counts)
