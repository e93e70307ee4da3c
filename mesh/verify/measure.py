"""Sends requests from a caller, and counts which version gets how many."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mesh.cluster.probe import Caller
from mesh.cluster.service import LiveService
from mesh.routes import callers
from mesh.routes.look import look, service
from mesh.routes.model import Kind
from mesh.routes.others import Finding
from mesh.routes.wait import LateError, until_enforced
from mesh.traffic.split import Split, judge
from mesh.traffic.weights import undeclared

_SECONDS = 30.0
"""How long a caller may take to have what the rule says."""


class NotMeasurableError(Exception):
    """There is nothing to compare with, or to count by; `usage`: it is the command's user who can change that."""

    def __init__(self, message: str, *, usage: bool = False) -> None:
        super().__init__(message)
        self.usage = usage


@dataclass(frozen=True)
class Measured:
    """What was sent, who got it, and what should have been.

    `findings` are why this caller's requests are not treated as the rule says. `mirrored`: the version that got copies,
    and how many; they are not among the counts. `by_connection`: connections were counted, and not requests.
    """

    caller: str
    balanced_by: str
    failed: int
    split: Split
    findings: Sequence[Finding] = ()
    mirrored: tuple[str, int] | None = None
    by_connection: bool = False


def require_declared(live: LiveService, caller: Caller) -> list[Finding]:
    """That the rule in the cluster is as declared and the caller has it, or what decides for it in the rule's place.

    Raises `NotMeasurableError`.
    """
    declared = live.config.weights.get(live.name)
    if declared is None:
        return []
    seen, known = live.look(), callers.read(live.kubectl)
    if what := undeclared(live.weights(seen), declared):
        raise NotMeasurableError(f"{what}; run `pulumi up`")
    truth = look(live.config, live.kubectl, [live.name], seen, known)[live.name]
    own = [one for one in truth.findings if caller.key in {(by.namespace, by.name) for by in one.callers}]
    if any(one.kind is Kind.LATE for one in own):
        others = [one.caller for one in known.known if (one.caller.namespace, one.caller.name) != caller.key]
        try:
            until_enforced(live.kubectl, [service(live.config, live.kubectl, live.name, declared)], _SECONDS, others)
        except LateError as error:
            raise NotMeasurableError(str(error)) from None
    return [one for one in own if one.kind is not Kind.LATE]


def measure(live: LiveService, caller: Caller, requests: int, url: str, body: str) -> Measured:
    """Raises `NotMeasurableError`."""
    findings, meshed = require_declared(live, caller), live.config.mesh.on
    name, port = next(iter(live.config.services[live.name].ports.items()))
    by_connection = port.traffic(name) == "tcp"
    by_body = bool(body) or not meshed
    before = Counter[str]() if by_body else live.answered(caller.proxy)
    answers = caller.send(url, requests, bodies=by_body, new_connections=not meshed or by_connection)
    if by_body:
        counts = _by_body(answers.bodies, live.versions, body)
        mirrored = None
    else:
        counts = live.answered(caller.proxy)
        counts.subtract(before)
        mirrored = _without_copies(live, counts, requests)
        if answers.requests > answers.failed and not sum(counts.values()):
            findings = findings or [_uncounted(live)]
    # What answers over TCP need not be HTTP, so it is the connections that count.
    failed = max(0, requests - sum(counts.values())) if by_connection else answers.failed
    counts = Counter({version: count for version, count in counts.items() if count})
    split = judge(_expected(live), counts)
    return Measured(caller.pod, _balancer(live), failed, split, findings, mirrored, by_connection)


def _without_copies(live: LiveService, counts: Counter[str], requests: int) -> tuple[str, int] | None:
    """Takes what was mirrored out of the counts: a copy counts as a request of the version that gets it, so its own are
    what the others have left."""
    rule = live.config.routing.get(live.name)
    if not rule or not rule.copies:
        return None
    version = rule.copies.version
    own = max(0, requests - sum(count for name, count in counts.items() if name != version))
    copies = max(0, counts[version] - own)
    counts[version] -= copies
    return version, copies


def _uncounted(live: LiveService) -> Finding:
    what = "its requests went past the mesh, where nobody counts them by version"
    return Finding(live.name, Kind.HIDDEN, "", "", what, "mesh status names who does not know the service, and why")


def _balancer(live: LiveService) -> str:
    if live.name in live.config.weights:
        return "the declared weights"
    return "Envoy, alike for every ready pod" if live.config.mesh.on else "kube-proxy, alike for every ready pod"


def _expected(live: LiveService) -> dict[str, float]:
    if live.name in live.config.weights:
        return {version: weight / 100 for version, weight in live.config.weights[live.name].items()}
    pods = {version: len(pods.ready) for version, pods in live.pods(live.look()).items()}
    if not sum(pods.values()):
        raise NotMeasurableError(f"{live.name} has no ready pod")
    return {version: count / sum(pods.values()) for version, count in pods.items()}


def _by_body(bodies: tuple[str, ...], versions: Mapping[str, str], pattern: str) -> Counter[str]:
    named = re.compile(pattern or rf"\b({'|'.join(map(re.escape, versions))})\b")
    if pattern and not named.groups:
        raise NotMeasurableError("--body needs a group that is the version, as in 'bill-service-(v[0-9]+)'", usage=True)
    counts = Counter(found[1] for text in bodies if (found := named.search(text)))
    if not counts and bodies:
        first = bodies[0].strip()[:80]
        raise NotMeasurableError(
            f"no answer names its version; the first one is {first!r}. Say by --body where it stands", usage=True
        )
    return counts
