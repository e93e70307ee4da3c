"""What `mesh status` shows: each version of each service, and what its callers do."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from config import StackConfig
from mesh.cluster.envoy import Counters, Proxy, each
from mesh.cluster.kubectl import Kubectl, KubectlError
from mesh.cluster.metrics import metrics_of
from mesh.cluster.objects import Object
from mesh.cluster.service import LiveService
from mesh.cluster.service import look as look_at
from mesh.routes import callers
from mesh.routes.look import Live, look
from mesh.status.since import Counted, Memory, Since
from mesh.traffic.copies import without_copies
from mesh.traffic.counts import Traffic


@dataclass(frozen=True)
class Row:
    """One version. `declared` is its weight, None without rules; `live` are the lowest and the highest share, 0 to 1,
    that it has by the callers' proxies, None where no caller has any."""

    version: str
    declared: int | None
    live: tuple[float, float] | None
    ready: int
    traffic: Traffic
    measured: float | None
    """Its share of all requests to the service that the callers have counted."""

    @property
    def is_elsewhere(self) -> bool:
        """Whether the proxies have another weight."""
        if self.declared is None or self.live is None:
            return False
        return any(abs(share - self.declared / 100) > 1e-6 for share in self.live)

    @property
    def is_unanswered(self) -> bool:
        """Whether it has a weight, and nobody answers."""
        return bool(self.declared) and not self.ready

    @property
    def differs(self) -> bool:
        return self.is_elsewhere or self.is_unanswered

    @property
    def success(self) -> float | None:
        traffic = self.traffic
        return 1 - max(0, traffic.bad - traffic.retried) / traffic.requests if traffic.requests else None


@dataclass(frozen=True)
class Service:
    """`live` is what the callers do, None for a service without weights; `since` as of `Since`.

    `mirrored` is the version that gets copies: they are no part of `measured`, and cannot be told apart in the rest.
    """

    name: str
    rows: Sequence[Row]
    live: Live | None
    since: float = 0.0
    mirrored: str = ""

    @property
    def differs(self) -> bool:
        found = self.live and (self.live.findings or self.live.disconnected)
        return bool(found) or any(row.differs for row in self.rows)


@dataclass
class Status:
    """Looks at services of a stack again and again. With `from_now` only what comes after the first look is counted."""

    kubectl: Kubectl
    memory: Memory
    from_now: bool = False
    _before: dict[str, Counted] = field(default_factory=dict)

    def look(self, config: StackConfig, services: Collection[str]) -> list[Service]:
        """Raises `KubectlError` and `MetricsError`."""
        if not config.mesh.on:
            seen = look_at(config, self.kubectl)
            return [self._service(LiveService(config, name, self.kubectl), seen, None, {}) for name in services]
        with ThreadPoolExecutor() as pool:
            looking = pool.submit(look_at, config, self.kubectl)
            known = callers.read(self.kubectl)
            counting = pool.submit(_counters, config, [one.proxy for one in known.known if one.proxy])
            seen = looking.result()
            live = look(config, self.kubectl, services, seen, known)
        found = []
        for name in services:
            service = LiveService(config, name, self.kubectl)
            found.append(self._service(service, seen, live.get(name), _counted(service, counting.result())))
        return found

    def _service(self, service: LiveService, seen: Sequence[Object], live: Live | None, counted: Counted) -> Service:
        since = self._since(service, seen, counted)
        sent = {version: traffic.requests for version, traffic in since.counted.items()}
        rule = service.config.routing.get(service.name) if live else None
        copies = rule.copies if rule else None
        if copies:
            sent = without_copies(sent, copies.version, copies.percentage / 100)
        requests = sum(sent.values())
        declared, pods = service.config.weights.get(service.name), service.pods(seen)
        shares = list(live.shares.values()) if live else []
        rows = []
        for version in service.versions:
            traffic = since.counted.get(version, Traffic())
            found = [share.get(version, 0.0) for share in shares]
            rows.append(
                Row(
                    version,
                    declared.get(version, 0) if declared else None,
                    (min(found), max(found)) if found else None,
                    len(pods[version].ready),
                    traffic,
                    sent.get(version, 0) / requests if requests else None,
                )
            )
        return Service(service.name, rows, live, since.at, copies.version if copies else "")

    def _since(self, service: LiveService, seen: Sequence[Object], counted: Counted) -> Since:
        if self.from_now:
            before = self._before.get(service.name, {})
            self._before[service.name] = counted
            return Since(
                0.0, {version: traffic - before.get(version, Traffic()) for version, traffic in counted.items()}
            )
        return self.memory.since(service.name, service.rule(seen), counted)


def _counters(config: StackConfig, proxies: Sequence[Proxy]) -> list[Counters]:
    """Of all services at once; of a pod that went meanwhile nothing."""
    if config.mesh.prometheus:
        return []

    def ask(proxy: Proxy) -> Counters | None:
        try:
            return proxy.counters(config.namespace.name)
        except KubectlError:
            return None

    return [one for one in each(proxies, ask).values() if one]


def _counted(service: LiveService, counters: Sequence[Counters]) -> Counted:
    places = (
        metrics_of(service).snapshot()
        if service.config.mesh.prometheus
        else {place: found for one in counters for place, found in service.counted_by(one).items()}
    )
    found: dict[str, Traffic] = {}
    for versions in places.values():
        for version, traffic in versions.items():
            found[version] = found.get(version, Traffic()) + traffic
    return found
