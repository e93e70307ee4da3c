"""The one wait for callers: until what they do with requests is as it should be."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from mesh.cluster.istiod import Connection
from mesh.cluster.kubectl import Kubectl, KubectlError
from mesh.routes import callers, judge
from mesh.routes.callers import Known
from mesh.routes.look import counts
from mesh.routes.model import Caller, Config, Expected

PAUSE = 0.1
# Far more than a change that istiod has taken in waits there for its push to a proxy, and to the last of a thousand.
_QUEUE_SECONDS, _LONG_QUEUE_SECONDS = 3.0, 15.0
# As long as a proxy may take for its acknowledgement before it is asked itself, and how many of these at once.
_PATIENCE, _ASKED_ONE_BY_ONE = 2.0, 20
_LISTED = 20

Configs = Mapping[Caller, Config | KubectlError]
Wrong = Callable[[Caller, Config], str]
"""What a caller does that it should not, in words; '' when all is well."""


@dataclass(frozen=True)
class Waited:
    """For how many callers, and how long."""

    callers: int
    seconds: float


class LateError(Exception):
    """Some callers still did something else when the time was over; the message names them."""

    def __init__(self, late: Mapping[Caller, str], waited: Waited) -> None:
        lines = [f"  {caller}: {what}" for caller, what in [*late.items()][:_LISTED]]
        more = [f"  and {len(late) - _LISTED} more"] if len(late) > _LISTED else []
        first = f"after {waited.seconds:.0f} s {len(late)} of {waited.callers} proxies are not as they should be:"
        super().__init__("\n".join([first, *lines, *more]))


def until_enforced(
    kubectl: Kubectl, services: Sequence[Expected], seconds: float, excepted: Collection[Caller] = ()
) -> Waited:
    """Waits until all callers treat the `services` as they should, but those `excepted`.

    One that cannot see a service at all counts as none of its callers. Raises `KubectlError` and `LateError`.
    """

    def wrong(caller: Caller, config: Config) -> str:
        for service in services:
            if counts(caller, config, service) and judge.sees(config, service):
                for one in judge.differences(config, caller, service):
                    return f"{service.service} {one.where}: {one.what}"
        return ""

    def sees(caller: Caller, config: Config) -> bool:
        return all(counts(caller, config, service) and judge.sees(config, service) for service in services)

    ports = {port for one in services for port in one.tcp}
    return until(kubectl, wrong, seconds, excepted, sees, tcp=ports)


def until(
    kubectl: Kubectl,
    wrong: Wrong,
    seconds: float,
    excepted: Collection[Caller] = (),
    sees: Callable[[Caller, Config], bool] = lambda *_: False,
    *,
    tcp: Collection[int] | None = (),
    endpoints: bool = False,
) -> Waited:
    """Waits until nothing is `wrong` with any caller but those `excepted`; what of it is read is as of `configs`.

    One proxy of each template shows it by its own configuration. The others have it when they have acknowledged at
    least the push that this one has: a change is pushed to all of them alike. So nobody counts as done because nothing
    speaks against it, and one that is late, or connects anew, is asked for itself a moment later. Those without a pod
    are measured by any that has one and `sees` what the change is about. Raises `KubectlError` and `LateError`.
    """
    start = time.monotonic()
    seen = callers.read(kubectl)
    waiting = [one for one in seen.known if one.caller not in excepted]
    count = len(waiting)
    behind: dict[tuple[str, str], float] = {}
    proofs: dict[str, Connection | None] = {}
    while True:
        # Whoever is about to acknowledge a push need not be asked for himself: of many there are always some.
        now = time.monotonic()
        behind = {one.key: behind.get(one.key, now) for one in waiting if one.is_behind}
        since = sorted((behind[one.key], one.key) for one in waiting if one.is_behind and one.proxy)
        late = {key for when, key in since[:_ASKED_ONE_BY_ONE] if now - when > _PATIENCE}
        behind |= dict.fromkeys(late, now)  # next time it is the turn of others
        asked = [one for one in waiting if one.key in late or one.key not in behind]
        configs = seen.configs(asked, tcp=tcp, endpoints=endpoints)
        pushed = seen.connections()
        passed = time.monotonic() - start
        groups = seen.groups(asked)
        for istiod, proof in _proofs(groups, configs, wrong, sees, pushed):
            proofs[istiod] = proofs.get(istiod) or proof
        done = {one.caller for group in groups for one in _done(group, configs, wrong, pushed, proofs, passed)}
        waiting = [replace(one, connection=pushed.get(one.key)) for one in waiting if one.caller not in done]
        if not waiting:
            return Waited(count, passed)
        if passed > seconds:
            raise LateError(
                {one.caller: _late(one, configs, wrong) for one in waiting},
                Waited(count, passed),
            )
        time.sleep(PAUSE)
        if any(isinstance(configs.get(one.caller), KubectlError) for one in waiting):
            # A pod that has gone asks nobody any more.
            seen = callers.read(kubectl)
            there = {one.caller for one in seen.known}
            waiting = [one for one in waiting if one.caller in there]


def _proofs(
    groups: Sequence[Sequence[Known]],
    configs: Configs,
    wrong: Wrong,
    sees: Callable[[Caller, Config], bool],
    pushed: Mapping[tuple[str, str], Connection],
) -> Iterator[tuple[str, Connection | None]]:
    """For the istiod of each whose own configuration would show the change: what he has acknowledged, if it does."""
    for first, *_ in groups:
        at, config = pushed.get(first.key), configs[first.caller]
        if first.proxy and at and isinstance(config, Config) and sees(first.caller, config):
            yield at.istiod, None if at.stale or wrong(first.caller, config) else at


def _done(
    group: Sequence[Known],
    configs: Configs,
    wrong: Wrong,
    pushed: Mapping[tuple[str, str], Connection],
    proofs: Mapping[str, Connection | None],
    passed: float,
) -> Iterator[Known]:
    """Those of a group that have what its first one shows, if nothing is wrong with that."""
    first = group[0]
    if _said(first.caller, configs, wrong):
        return
    if first.caller.has_pod:
        yield first
    shown = pushed.get(first.key)
    for one in group:
        has = pushed.get(one.key)
        if not (shown and has) or shown.stale or has.stale:
            continue
        # Without a pod there is nobody to ask but istiod, which says what it means to send.
        proof = shown if first.caller.has_pod else proofs.get(has.istiod)
        queued = passed < (_LONG_QUEUE_SECONDS if has.istiod in proofs else _QUEUE_SECONDS)
        if (proof and has.is_as_new_as(proof)) or not (first.caller.has_pod or queued):
            yield one


def _late(one: Known, configs: Configs, wrong: Wrong) -> str:
    refused = f"; Envoy refuses: {one.connection.error}" if one.connection and one.connection.error else ""
    return (_said(one.caller, configs, wrong) or "has not taken the newest") + refused


def _said(caller: Caller, configs: Configs, wrong: Wrong) -> str:
    """'' as well for one that was not asked."""
    config = configs.get(caller)
    if config is None:
        return ""
    return f"cannot be asked: {config}" if isinstance(config, KubectlError) else wrong(caller, config)
