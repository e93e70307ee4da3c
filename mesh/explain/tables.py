"""Reads iptables where only the node can see them: a privileged pod, for some seconds, on nodes of the path."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from mesh.cluster.kubectl import Kubectl, KubectlError
from mesh.explain.live import Pod

# In the mounts of the node, where its own iptables-save is. A pod's network is found by a process that has the pod's
# /etc/hosts, which the kubelet makes for each pod.
_NODE = ["nsenter", "--target=1", "--mount", "--", "iptables-save", "--table=nat"]
_POD = """
for info in /proc/[0-9]*/mountinfo; do
    if grep -q "/pods/$1/etc-hosts /etc/hosts " "$info" 2>/dev/null; then
        process=${info#/proc/}
        exec nsenter --target="${process%/mountinfo}" --net -- nsenter --target=1 --mount -- iptables-save --table=nat
    fi
done
echo "no process of the pod $1 runs on this node" >&2
exit 1
"""


def read(kubectl: Kubectl, namespace: str, image: str, caller: Pod, pods: Sequence[Pod]) -> dict[str, str]:
    """What `iptables-save` prints on the caller's node ('node'), and in the network of each pod, by its name.

    `image` needs `sh`, `grep` and `nsenter`. Raises `KubectlError`, also where privileged pods are not allowed.
    """
    found: dict[str, str] = {}
    wanted = {pod.name: pod for pod in (caller, *pods)}
    for node in dict.fromkeys(pod.node for pod in wanted.values()):
        with _debugger(kubectl, namespace, node, image) as execute:
            if node == caller.node:
                found["node"] = kubectl.run(*execute, *_NODE)
            for pod in wanted.values():
                if pod.node == node and pod.sidecar:
                    found[pod.name] = kubectl.run(*execute, "sh", "-c", _POD, "sh", pod.uid)
    return found


@contextmanager
def _debugger(kubectl: Kubectl, namespace: str, node: str, image: str) -> Iterator[list[str]]:
    """How to run a command in a privileged pod on `node`; the pod goes afterwards, and at once should we be killed."""
    name = f"mesh-explain-{secrets.token_hex(4)}"
    kubectl.run("create", "--filename=-", f"--namespace={namespace}", stdin=json.dumps(_pod(name, node, image)))
    try:
        kubectl.run("wait", "pod", name, f"--namespace={namespace}", "--for=condition=Ready", "--timeout=30s")
        yield ["exec", name, f"--namespace={namespace}", "--"]
    except KubectlError as error:
        raise KubectlError(f"the debug pod with the image {image} on node {node}: {error}") from None
    finally:
        kubectl.run("delete", "pod", name, f"--namespace={namespace}", "--now", "--wait=false", "--ignore-not-found")


def _pod(name: str, node: str, image: str) -> dict[str, Any]:
    container = {
        "name": "debug",
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "command": ["sleep", "60"],
        "securityContext": {"privileged": True, "runAsUser": 0},
    }
    spec = {
        "nodeName": node,
        "hostNetwork": True,
        "hostPID": True,
        "restartPolicy": "Never",
        "activeDeadlineSeconds": 90,
        "automountServiceAccountToken": False,
        "tolerations": [{"operator": "Exists"}],
        "containers": [container],
    }
    labels = {"sidecar.istio.io/inject": "false", "app.kubernetes.io/managed-by": "mesh-explain"}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": labels}, "spec": spec}
