"""What a command of one stack must not change: a picture of everything in the cluster that is not that stack's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import names
from mesh.cluster.kubectl import Kubectl
from mesh.cluster.objects import Identity, identity
from mesh.program.stack import Stack

# What Kubernetes itself writes, in its own time or with every pod that comes and goes.
_RESTLESS = frozenset(
    {
        "bindings",
        "componentstatuses",
        "endpoints",
        "endpointslices.discovery.k8s.io",
        "events",
        "events.events.k8s.io",
        "ipaddresses.networking.k8s.io",
        "leases.coordination.k8s.io",
        "nodes",
        "pods",
        "replicasets.apps",
    }
)
_ELECTION = "control-plane.alpha.kubernetes.io/leader"

Picture = Mapping[Identity, tuple[str, str]]
"""Object → its uid and resourceVersion: whoever writes to it, even the same again by force, shows."""


@dataclass
class Unchanged:
    """`mine` is the stack that may change what is its own; of the other `stacks` state and file count, too."""

    kubectl: Kubectl
    mine: str
    stacks: Sequence[Stack]
    _objects: Picture = field(init=False)
    _states: Mapping[str, Any] = field(init=False)

    def __post_init__(self) -> None:
        self._kinds = self._listable()
        self._objects, self._states = self._picture(), self._stacks()

    def differences(self) -> dict[str, Any]:
        """What is not as it was when this was made: by object before and now, None for one that is not there."""
        now, states = self._picture(), self._stacks()
        changed = {
            str(one): (self._objects.get(one), now.get(one))
            for one in self._objects.keys() | now.keys()
            if self._objects.get(one) != now.get(one)
        }
        return {**changed, **{name: "its state or file" for name in states if states[name] != self._states[name]}}

    def _listable(self) -> str:
        printed = self.kubectl.run("api-resources", "--verbs=list", "--output=name")
        return ",".join(sorted(set(printed.split()) - _RESTLESS))

    def _picture(self) -> Picture:
        items = self.kubectl.items(self._kinds, "--all-namespaces", timeout=120)
        return {identity(one): _version(one["metadata"]) for one in items if not self._is_mine(one["metadata"])}

    def _is_mine(self, metadata: Mapping[str, Any]) -> bool:
        annotations = metadata.get("annotations") or {}
        return annotations.get(names.OWNER) == self.mine or _ELECTION in annotations or "ownerReferences" in metadata

    def _stacks(self) -> dict[str, Any]:
        return {stack.name: (stack.resources(), stack.file.read_bytes()) for stack in self.stacks}


def _version(metadata: Mapping[str, Any]) -> tuple[str, str]:
    return metadata["uid"], metadata["resourceVersion"]
