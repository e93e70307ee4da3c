"""The one wait for callers: until what they do with requests to services is as it should be."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace

from mesh.cluster.istiod import Connection
from mesh.cluster.kubectl import Kubectl, KubectlError
from mesh.routes import callers, judge
from mesh.routes.callers import Known
from mesh.routes.look import counts
from mesh.routes.model import Caller, Config, Expected

PAUSE = 0.1
# Far more than a change that istiod has taken in waits there for its push to a proxy.
_QUEUE_SECONDS = 3.0
_LISTED = 10

Configs = Mapping[Caller, Config | KubectlError]


class NotEnforcedError(Exception):
    """Some callers still did something else when the time was over; the message names them."""


def until_enforced(
    kubectl: Kubectl, services: Sequence[Expected], seconds: float, excepted: Collection[Caller] = ()
) -> float:
    """Waits until all callers treat the `services` as they should, but those `excepted`; says how long that took.

    One proxy of each template shows it by its own configuration. The others have it when they have acknowledged at
    least the push that this one has: a change is pushed to all of them alike. So nobody counts as done because nothing
    speaks against it, and one that is late, or connects anew, is asked for itself a moment later. Raises `KubectlError`
    and `NotEnforcedError`.
    """
    start = time.monotonic()
    seen = callers.read(kubectl)
    waiting = [one for one in seen.known if one.caller not in excepted]
    while True:
        configs = seen.configs(waiting)
        pushed = seen.connections()
        passed = time.monotonic() - start
        done = {one.caller for group in seen.groups(waiting) for one in _done(group, configs, services, pushed, passed)}
        waiting = [replace(one, connection=pushed.get(one.key)) for one in waiting if one.caller not in done]
        if not waiting:
            return time.monotonic() - start
        if passed > seconds:
            raise NotEnforcedError(_said(waiting, configs, services, seconds))
        time.sleep(PAUSE)
        if any(isinstance(configs[one.caller], KubectlError) for one in waiting):
            # A pod that has gone asks nobody any more.
            seen = callers.read(kubectl)
            there = {one.caller for one in seen.known}
            waiting = [one for one in waiting if one.caller in there]


def _done(
    group: Sequence[Known],
    configs: Configs,
    services: Sequence[Expected],
    pushed: Mapping[tuple[str, str], Connection],
    passed: float,
) -> Iterator[Known]:
    """Those of a group that have what its first one shows, if that is as it should be."""
    first = group[0]
    if any(_differences(first.caller, configs, services)):
        return
    if first.caller.has_pod:
        yield first
    shown = pushed.get(first.key)
    for one in group:
        has = pushed.get(one.key)
        if not (shown and has) or shown.stale or has.stale:
            continue
        # Without a pod there is nobody to ask but istiod, which says what it means to send.
        if has.is_as_new_as(shown) if first.caller.has_pod else passed > _QUEUE_SECONDS:
            yield one


def _differences(caller: Caller, configs: Configs, services: Sequence[Expected]) -> Iterator[str]:
    config = configs[caller]
    if isinstance(config, KubectlError):
        yield f"cannot be asked: {config}"
        return
    for service in services:
        if counts(caller, config, service) and judge.sees(config, service):
            yield from (
                f"{service.service} {one.where}: {one.what}" for one in judge.differences(config, caller, service)
            )


def _said(waiting: Sequence[Known], configs: Configs, services: Sequence[Expected], seconds: float) -> str:
    lines = [
        f"  {one.caller}: {next(_differences(one.caller, configs, services), 'has not acknowledged the newest')}"
        for one in waiting[:_LISTED]
    ]
    more = [f"  and {len(waiting) - _LISTED} more"] if len(waiting) > _LISTED else []
    return "\n".join([f"after {seconds:.0f} s {len(waiting)} callers do not do as the rule says:", *lines, *more])
