"""What a request passes on its way, as the writers need it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from mesh.cluster.dump import Delivery


class Kind(StrEnum):
    """The kinds of hops, in the order in which a request passes them."""

    NAME = "name"
    KUBE_PROXY = "kube-proxy"
    REDIRECT = "redirect"
    VIRTUAL_LISTENER = "virtual listener"
    LISTENER = "listener"
    ROUTE = "route"
    CLUSTER = "cluster"
    ENDPOINT = "endpoint"
    INBOUND = "inbound listener"
    INBOUND_CLUSTER = "inbound cluster"
    CONTAINER = "container"
    EXIT_LISTENER = "gateway listener"
    EXIT_ROUTE = "gateway route"
    EXIT_CLUSTER = "gateway cluster"
    OUTSIDE = "outside"


@dataclass(frozen=True)
class Problem:
    """Why a request cannot pass a hop, or not as it is declared, and what mends it."""

    what: str
    fix: str


@dataclass(frozen=True)
class Source:
    """An object that a hop was made from; `key` and `origin` (file:line) say what declares it, or are ''."""

    object: str
    key: str = ""
    origin: str = ""


@dataclass(frozen=True)
class Hop:
    """One step. `place` is where it happens, `name` what Envoy or Kubernetes calls it, `why` one plain sentence.

    `rows` are lines of cells, such as one for each endpoint; `fields` are for who wants to know more. `derived` is ''
    for what was read, and otherwise says what the hop was derived from.
    """

    kind: Kind
    place: str
    name: str
    why: str
    rows: tuple[tuple[str, ...], ...] = ()
    sources: tuple[Source, ...] = ()
    delivery: Delivery | None = None
    derived: str = ""
    fields: Mapping[str, str] = field(default_factory=dict)
    problems: tuple[Problem, ...] = ()


@dataclass(frozen=True)
class Server:
    """A pod at the end of the path. `health` is '' while it gets requests, else why it gets none."""

    pod: str
    version: str
    address: str
    health: str = ""
    sidecar: bool = False


@dataclass(frozen=True)
class Branch:
    """A share of the requests, 0 to 1, and the servers that it goes to."""

    name: str
    share: float
    servers: tuple[Server, ...]


@dataclass(frozen=True)
class Step:
    """One step of the way that rules take to the proxies."""

    name: str
    why: str


@dataclass(frozen=True)
class Path:
    """The way of a request from `caller` (a pod) to `service`:`port`, and of the rules to the proxies on it."""

    source: str
    target: str
    namespace: str
    stack: str
    caller: str
    service: str
    port: int
    proxied: bool
    hops: tuple[Hop, ...]
    branches: tuple[Branch, ...]
    control: tuple[Step, ...]
    notes: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        return f"{self.source} → {self.target}"

    @property
    def broken(self) -> tuple[tuple[int, Hop, Problem], ...]:
        """Each problem with its hop and that hop's number, which begins at 1."""
        return tuple((number, hop, problem) for number, hop in enumerate(self.hops, 1) for problem in hop.problems)
