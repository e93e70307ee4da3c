"""A stand-in for the callers of a mesh: proxies that have one configuration after the other."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count

import pytest

from mesh.cluster.dump import Destination, Route
from mesh.cluster.envoy import Proxy
from mesh.cluster.istiod import Connection
from mesh.cluster.kubectl import Kubectl, KubectlError
from mesh.routes import callers
from mesh.routes.callers import Callers, Known
from mesh.routes.model import Caller, Config, Connections, VirtualHost

NUMBERS = count()


@dataclass
class Scripted:
    """One caller; its last configuration, and the last push that it acknowledged, stay. None cannot be asked.

    A sidecar of its own template, unless `template` says which. `behind` is how many more looks find that it has not
    acknowledged all.
    """

    caller: Caller
    configs: list[Config | None]
    pushes: list[int] = field(default_factory=lambda: [1])
    behind: int = 0
    template: str = ""
    gone: bool = False
    asked: int = 0

    @property
    def known(self) -> Known:
        proxy = Proxy(Kubectl(), self.caller.namespace, self.caller.name) if self.caller.has_pod else None
        return Known(self.caller, proxy, self.connection, (self.template or self.caller.name,))

    @property
    def connection(self) -> Connection:
        stale = ("route",) if self.behind else ()
        return Connection(self.caller.name, self.caller.namespace, "istiod-1", stale, "", {"route": self.pushes[0]})


@dataclass(frozen=True)
class Standing(Callers):
    """All of the mesh, as the stand-ins say."""

    scripts: Mapping[Caller, Scripted] = field(default_factory=dict)

    def configs(
        self, among: Iterable[Known] | None = None, *, tcp: Collection[int] | None = (), endpoints: bool = False
    ) -> dict[Caller, Config | KubectlError]:
        del tcp, endpoints
        found: dict[Caller, Config | KubectlError] = {}
        for group in self.groups(among):
            script = self.scripts[group[0].caller]
            script.asked += 1
            config = script.configs.pop(0) if len(script.configs) > 1 else script.configs[0]
            found |= {one.caller: config or KubectlError("no such container") for one in group}
        return found

    def connections(self) -> Mapping[tuple[str, str], Connection]:
        for script in self.scripts.values():
            if len(script.pushes) > 1:
                script.pushes.pop(0)
            script.behind = max(0, script.behind - 1)
        return {script.known.key: script.connection for script in self.scripts.values()}


def caller(
    *configs: Config | None,
    namespace: str = "istio-demo",
    template: str = "",
    pushes: Sequence[int] = (1,),
    gone: bool = False,
) -> Scripted:
    made = Caller(namespace, f"pod-{next(NUMBERS)}", {})
    return Scripted(made, list(configs), list(pushes), template=template, gone=gone)


def calling(monkeypatch: pytest.MonkeyPatch, *scripts: Scripted) -> None:
    """These are the callers of the mesh; one that is gone is there at the first look alone."""
    looks = count()

    def read(kubectl: Kubectl) -> Standing:
        there = scripts if next(looks) == 0 else [script for script in scripts if not script.gone]
        known = [script.known for script in there]
        return Standing(kubectl, known, None, "", {script.caller: script for script in scripts})

    monkeypatch.setattr(callers, "read", read)


def config(
    clusters: Sequence[str] | Mapping[str, str] = (),
    routes: Mapping[str, Sequence[Route]] | None = None,
    reached: Iterable[str] | None = None,
    connections: Sequence[Connections] = (),
) -> Config:
    """`clusters` may say which DestinationRule each is from; `routes`: the name of a virtual host → its routes."""
    named = dict(clusters) if isinstance(clusters, Mapping) else dict.fromkeys(clusters, "")
    hosts = tuple(
        VirtualHost(name, (name, name.partition(":")[0]), tuple(some)) for name, some in (routes or {}).items()
    )
    return Config(hosts, tuple(connections), named, None if reached is None else frozenset(reached))


def route(name: str, rule: str, shares: Mapping[str, float], mirrors: Sequence[str] = (), match: str = "") -> Route:
    """`rule` is the object that it comes from; `shares`: cluster → share."""
    return Route(name, match, rule, tuple(Destination(*each) for each in shares.items()), {}, tuple(mirrors))
