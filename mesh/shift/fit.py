"""Whether a shift may begin: the file, the checkout, the cluster, the proxies and the versions that are to get more."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module

import names
from config import edit
from mesh.cluster.envoy import Endpoint, Proxy, each
from mesh.cluster.objects import Object
from mesh.cluster.service import LiveService
from mesh.program import checkout
from mesh.program.stack import PulumiError, Stack
from mesh.routes import callers
from mesh.routes.callers import Callers
from mesh.routes.look import Live, look
from mesh.routes.model import Caller
from mesh.shift.file import edited_leaves
from mesh.shift.plan import Plan, Weights
from mesh.traffic.weights import rising, undeclared

_CHANGES = "no changes were expected"
"""What Pulumi says of a preview with changes."""
_ROLLOUT_SECONDS, _PAUSE = 5.0, 0.5


class NotFitError(Exception):
    """Nothing was changed; the message says what would help. `usage`: it is the command's user who has to do it."""

    def __init__(self, message: str, *, usage: bool = False) -> None:
        super().__init__(message)
        self.usage = usage


def require_editable(stack: Stack, service: str, start: Weights, aim: Weights) -> None:
    """The weights can be set in the stack's file, and nothing else changes there."""
    try:
        text = edit.read(stack.file)
        edit.edited(text, edited_leaves(text, service, aim, start))
    except edit.EditError as error:
        raise NotFitError(f"nothing was changed. {stack.file.name}: {error}", usage=True) from None


def require_pulumi(stack: Stack) -> None:
    """Without it nothing could be applied, nor taken back."""
    if not shutil.which("pulumi", path=stack.variables.get("PATH")):
        raise NotFitError(
            "nothing was changed: pulumi is not on PATH; https://www.pulumi.com/docs/install/", usage=True
        )


def require_current(stack: Stack) -> None:
    """A protected stack is shifted from a clean checkout of what everybody has."""
    if found := list(checkout.problems(stack.folder)):
        listed = "; ".join(found)
        raise NotFitError(f"the stack {stack.name} is protected, and this checkout will not do: {listed}", usage=True)


def require_fit(driver: Stack, live: LiveService, plan: Plan, say: Callable[[str], None]) -> set[Caller]:
    """The cluster is the stack's and has the declared weights, and the versions that are to get more can take it: each
    is rolled out, has a ready pod, and every caller knows one. The callers of other namespaces for whom a rule of
    somebody else decides are returned: a shift does not reach them."""
    with ThreadPoolExecutor() as pool:
        pool.submit(import_module, "mesh.program.inline")  # with Pulumi's SDK it takes as long as kubectl
        reading = pool.submit(callers.read, live.kubectl)
        seen = live.look()
        require_ours(driver, live, seen)
        if what := undeclared(live.weights(seen), plan.start):
            raise NotFitError(f"{what}: run `pulumi up` to bring them together first")
        require_same_rule(live, seen)
        known = reading.result()
        endpoints = pool.submit(_endpoints, live, known)
        found = look(live.config, live.kubectl, [live.name], seen, known)[live.name]
    excepted = _excepted(live, found, say)
    unreached = {(caller.namespace, caller.name) for caller in excepted}
    end = time.monotonic() + _ROLLOUT_SECONDS
    while _is_rolling(live, seen, plan) and time.monotonic() < end:
        # Pulumi is done when the new pods are there, and the old ones leave a moment later.
        time.sleep(_PAUSE)
        seen = live.look()
    pods, rollouts = live.pods(seen), live.rollouts(seen)
    for version in rising(plan.start, plan.aim):
        if not pods[version].ready:
            raise NotFitError(f"{live.name} {version} has no ready pod: every request to it would fail")
        if rollout := rollouts.get(version):
            raise NotFitError(
                f"the roll-out of {live.name} {version} is not over: {rollout}, and older ones may still answer. Wait, "
                "or mend what holds it up and `pulumi up`"
            )
        for proxy, some in endpoints.result().items():
            if (proxy.namespace, proxy.pod) in unreached or not some:
                continue
            if not any(one.healthy and one.cluster.subset == version for one in some):
                raise NotFitError(f"the proxy of {proxy.pod} knows no healthy pod of {live.name} {version}")
    return excepted


def _is_rolling(live: LiveService, seen: Sequence[Object], plan: Plan) -> bool:
    rollouts = live.rollouts(seen)
    return any(not rollouts[version].failed for version in rising(plan.start, plan.aim) if version in rollouts)


def _endpoints(live: LiveService, known: Callers) -> dict[Proxy, list[Endpoint]]:
    """As one proxy of each template has them."""
    proxies = [group[0].proxy for group in known.groups() if group[0].proxy]
    return each(proxies, lambda proxy: proxy.endpoints(live.name, live.namespace))


def _excepted(live: LiveService, found: Live, say: Callable[[str], None]) -> set[Caller]:
    refused = [one for one in found.findings if any(caller.namespace == live.namespace for caller in one.callers)]
    if refused:
        listed = "\n".join(f"  {number}. {one}\n     fix: {one.fix}" for number, one in enumerate(refused, 1))
        raise NotFitError(f"the weights of {live.name} do not reach its callers; nothing was changed\n\n{listed}")
    for one in found.findings:
        say(f"! the shift does not reach {one}\n  fix: {one.fix}")
    return {caller for one in (*found.findings, *found.accepted) for caller in one.callers}


def require_ours(driver: Stack, live: LiveService, seen: Sequence[Object]) -> None:
    """What the program would look at first for itself, as far as the one rule goes that a shift touches."""
    from mesh import preflight  # and with it Pulumi's SDK, which other ways to use this command do without
    from mesh.program.recorder import PROJECT

    found = {(one["kind"], one["metadata"]["name"]): one for one in seen}
    rule = {("VirtualService", names.virtual_service(live.name))}
    if others := preflight.in_the_way(live.config, found, rule, f"{PROJECT}/{driver.name}"):
        raise NotFitError(
            "\n".join(["the cluster has objects in the way that this stack does not own; nothing was changed", *others])
        )


def require_same_rule(live: LiveService, seen: Sequence[Object]) -> None:
    """A shift applies the whole rule: what the file asks for beside the weights would go along with them, unseen."""
    from istio.rules import routed
    from mesh.drift import compare

    [declared] = [one.weights for one in routed(live.config) if one.name == live.name]
    rules = [one for one in seen if (one["kind"], one["metadata"]["name"]) == (declared.kind, declared.name)]
    body = {"apiVersion": names.ROUTING_API, "kind": declared.kind, "spec": declared.spec}
    if fields := [difference.field for rule in rules for difference in compare.differences(body, rule)]:
        raise NotFitError(
            f"{declared.kind} {declared.name} is not as declared in {', '.join(fields)}, which a shift would change "
            "along with the weights: run `pulumi up` first (mesh diff and mesh drift show what differs)"
        )


def require_applied(driver: Stack, live: LiveService, new: Sequence[str]) -> None:
    """What the gate is to judge is what the file asks for, and so what is committed with the weights."""
    if live.config.services[live.name].workload == "existing":
        return
    from mesh.program import inline  # as Pulumi's SDK takes its time to import

    workloads = [f"--target=**::{names.workload(live.name, version)}" for version in new]
    try:
        inline.pulumi(driver, "preview", "--expect-no-changes", *workloads)
    except PulumiError as error:
        if _CHANGES not in str(error):
            raise NotFitError(str(error)) from None
        raise NotFitError(
            f"{driver.file.name} asks for other pods of {live.name} {', '.join(new)} than those that run, and that the "
            "gate would judge: `pulumi up` first (mesh diff shows what it changes)"
        ) from None
