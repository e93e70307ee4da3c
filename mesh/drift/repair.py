"""Puts right what drift found, so that neither Pulumi nor Helm sees a change afterwards.

The stack's own objects are applied server-side by the field manager that Pulumi gave them, which takes the fields back
from whoever holds them: without that the next `pulumi up` would end in a conflict. What lies inside a Helm release is
patched field by field, as Helm itself does it.
https://kubernetes.io/docs/reference/using-api/server-side-apply/#conflicts
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from mesh.cluster.kubectl import Kubectl, KubectlError
from mesh.drift import compare
from mesh.drift.compare import ABSENT, Difference, Key, Object
from mesh.drift.find import RELEASE, Drift
from mesh.program.stack import Stack

_ROLLED_OUT = ("Deployment", "DaemonSet", "StatefulSet")
_ROLLOUT_SECONDS = 180
# For a moment after istiod is back its webhook cannot be reached yet.
_WEBHOOK_SECONDS = 20


def hindrance(drift: Drift) -> str:
    """Why this cannot be put right, and what to do instead; '' when it can."""
    if drift.is_going:
        return "it is being deleted; wait until it is gone (what holds it: metadata.finalizers), then run this again"
    if drift.stranger:
        return (
            f"it {drift.stranger}, and only has the name of this stack's, which is gone: rename or remove it, then run "
            "this again"
        )
    if drift.expected.body["kind"] == RELEASE:
        return (
            "only Helm can change a release; take it into the state and install it again: "
            f"pulumi up --refresh --target '{drift.expected.urn}'"
        )
    if drift.is_missing and drift.expected.is_patch:
        return "it is not this stack's to make; ask its owner for it, or set namespace.create to true"
    return ""


@dataclass
class Repair:
    """One run. `done` is told each object as it is put right."""

    kubectl: Kubectl
    done: Callable[[Drift], None]
    _unready: list[Object] = field(default_factory=list)

    def run(self, drifts: Iterable[Drift]) -> list[tuple[Drift, str]]:
        """Puts everything right that can be, in the order in which it depends on each other: istiod before the rules
        that its webhook checks. Returns what failed, with what the API server said."""
        failed = []
        for drift in drifts:
            if hindrance(drift):
                continue
            try:
                self._one(drift)
            except KubectlError as error:
                failed.append((drift, str(error)))
            else:
                self.done(drift)
        return failed

    def _one(self, drift: Drift) -> None:
        body = drift.expected.body
        if compare.is_istio(body):
            self._wait()
        if drift.expected.release:
            self._as_helm(drift)
        else:
            self._as_pulumi(drift)
        if body["kind"] in (*_ROLLED_OUT, "CustomResourceDefinition"):
            self._unready.append(body)

    def _as_pulumi(self, drift: Drift) -> None:
        wanted = drift.expected.body
        if drift.live is not None:
            # What nobody declared is not taken away by an apply.
            self._patch(drift, [found for found in drift.differences if found.declared is ABSENT])
            wanted = _with_what_stays(drift)
        arguments = ("--server-side", "--force-conflicts", f"--field-manager={drift.expected.manager}")
        self._patiently("apply", *arguments, "--filename=-", stdin=json.dumps(wanted))

    def _as_helm(self, drift: Drift) -> None:
        if drift.live is None:
            manager = f"--field-manager={drift.expected.manager}"
            self._patiently("create", manager, "--filename=-", stdin=json.dumps(drift.expected.body))
        else:
            self._patch(drift, drift.differences)

    def _patch(self, drift: Drift, found: list[Difference]) -> None:
        operations = [_operation(drift.live, difference) for difference in reversed(found)]
        if operations:
            body = drift.expected.body
            named = json.dumps({key: body[key] for key in ("apiVersion", "kind")} | {"metadata": _name(body)})
            patch = ("--type=json", f"--patch={json.dumps(operations)}")
            self._patiently("patch", "--filename=-", *patch, f"--field-manager={drift.expected.manager}", stdin=named)

    def _patiently(self, *command: str, stdin: str) -> None:
        end = time.monotonic() + _WEBHOOK_SECONDS
        while True:
            try:
                self.kubectl.run(*command, stdin=stdin)
            except KubectlError as error:
                if "failed calling webhook" not in str(error) or time.monotonic() > end:
                    raise
                time.sleep(1)
            else:
                return

    def _wait(self) -> None:
        """Until everything that was put right so far is ready."""
        while self._unready:
            body = self._unready.pop(0)
            if body["kind"] == "CustomResourceDefinition":
                self.kubectl.run("wait", "--for=condition=Established", f"crd/{body['metadata']['name']}")
                continue
            what = f"{body['kind'].lower()}/{body['metadata']['name']}"
            where = f"--namespace={body['metadata']['namespace']}"
            timeout = f"--timeout={_ROLLOUT_SECONDS}s"
            self.kubectl.run("rollout", "status", what, where, timeout, timeout=_ROLLOUT_SECONDS + 10)


def refresh(stack: Stack, drifts: Iterable[Drift]) -> None:
    """Takes back what an earlier `pulumi refresh` took into the state of somebody's edits. Raises `PulumiError`."""
    urns = [drift.expected.urn for drift in drifts if _is_in_state(drift)]
    if urns:
        stack.pulumi("refresh", "--yes", "--skip-preview", *(f"--target={urn}" for urn in urns))


def _is_in_state(drift: Drift) -> bool:
    applied = drift.expected.applied
    return any(
        not compare.same(difference.declared, compare.at(applied, difference.path)) for difference in drift.differences
    )


def _with_what_stays(drift: Drift) -> Object:
    """What is declared, with what is only not applied yet, or a known writer's, left as it is."""
    wanted = drift.expected.body
    for difference in (*drift.pending, *(difference for difference, _ in drift.allowed)):
        wanted = compare.replaced(wanted, difference.path, difference.live)
    return wanted


def _operation(live: Any, difference: Difference) -> dict[str, Any]:
    """https://datatracker.ietf.org/doc/html/rfc6902"""
    path = "".join(f"/{step}" for step in _pointer(live, difference))
    if difference.declared is ABSENT:
        return {"op": "remove", "path": path}
    return {"op": "add" if difference.live is ABSENT else "replace", "path": path, "value": difference.declared}


def _pointer(live: Any, difference: Difference) -> Iterator[str]:
    for step in difference.path:
        inner = compare.at(live, (step,))
        if isinstance(step, Key):
            yield "-" if inner is ABSENT else str(live.index(inner))
        elif isinstance(step, int):
            yield "-" if inner is ABSENT else str(step)
        else:
            yield step.replace("~", "~0").replace("/", "~1")
        live = inner


def _name(body: Object) -> dict[str, str]:
    return {key: body["metadata"][key] for key in ("name", "namespace") if body["metadata"].get(key)}
