"""Where everything lies in the drawing of a path; `page.html.j2` draws it. Lengths are in the units of its view box."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from mesh.explain.model import Branch, Hop, Kind, Path, Server

WIDTH = 1180
_TOP = 132
_STAGE, _GAP = 50, 14
_STAGES = (Kind.VIRTUAL_LISTENER, Kind.LISTENER, Kind.ROUTE, Kind.KUBE_PROXY)
_CLUSTER = 38
_CARD = 92
_SERVERS_X = 800
# So many pods of a version are drawn; the others are counted.
_MOST = 4


@dataclass(frozen=True)
class Box:
    """A rectangle with up to two lines of text, and the number of the hop that it stands for (0: none)."""

    x: float
    y: float
    width: float
    height: float
    title: str
    text: str = ""
    number: int = 0
    broken: bool = False
    colour: int = 0

    @property
    def middle(self) -> float:
        return self.y + self.height / 2

    @property
    def right(self) -> float:
        return self.x + self.width


@dataclass(frozen=True)
class Ribbon:
    """A share of the requests on its way to one pod: as broad as the share is large."""

    start: tuple[float, float]
    end: tuple[float, float]
    breadth: float
    colour: int
    broken: bool

    @property
    def path(self) -> str:
        (x, y), (to_x, to_y) = self.start, self.end
        middle = (x + to_x) / 2
        return f"M{x:g} {y:g} C{middle:g} {y:g} {middle:g} {to_y:g} {to_x:g} {to_y:g}"


@dataclass(frozen=True)
class Label:
    """The share of a branch, on its ribbons."""

    x: float
    y: float
    text: str
    colour: int


@dataclass(frozen=True)
class Drawing:
    """`group` is the Envoy of the caller, or the kernel of its node where there is none.

    `redirect` and `inside` are the numbers of the hops on the arrows to the caller's Envoy and from the server's.
    """

    height: float
    control: tuple[Box, ...]
    caller: Box
    program: Box
    redirect: int
    redirect_broken: bool
    group: Box
    stages: tuple[Box, ...]
    clusters: tuple[Box, ...]
    ribbons: tuple[Ribbon, ...]
    labels: tuple[Label, ...]
    servers: tuple[Box, ...]
    inbound: tuple[tuple[Box, ...], ...]
    inside: int

    @property
    def width(self) -> float:
        return WIDTH


def draw(path: Path) -> Drawing:
    numbers = {hop.kind: number for number, hop in enumerate(path.hops, 1)}
    broken = {hop.kind for _, hop, _ in path.broken}
    top = _TOP if path.control else 24
    stages = tuple(_stages(path, top + 64))
    bottom = stages[-1].y + stages[-1].height + _GAP if stages else top + 64
    clusters = tuple(_clusters(path, numbers, broken, bottom))
    end = max([bottom, *(box.y + box.height + _GAP for box in clusters)])
    shown = [(number, branch, tuple(_drawn(branch))) for number, branch in enumerate(path.branches)]
    count = sum(len(servers) for _, _, servers in shown) or 1
    height = max(end + 26, top + 30 + count * (_CARD + 16))
    free = height - top - 30 - count * (_CARD + 16)
    y = top + 30 + free / 2
    cards, inside, ribbons, labels = [], [], [], []
    for number, branch, servers in shown:
        ys = []
        for server in servers:
            card = Box(_SERVERS_X, y, WIDTH - _SERVERS_X - 12, _CARD, server.pod or branch.name, server.address)
            bad = bool(server.health) or not server.address
            cards.append(_changed(card, colour=number, broken=bad, number=numbers.get(Kind.ENDPOINT, 0)))
            inside.append(tuple(_inside(path, card, server, numbers, broken)))
            ys.append((card.middle, bad))
            y += _CARD + 16
        origin = clusters[number] if number < len(clusters) else None
        start = (origin.right, origin.middle) if origin else (500.0, y)
        for middle, bad in ys:
            breadth = max(2.5, 34 * branch.share / len(ys))
            ribbons.append(Ribbon(start, (_SERVERS_X, middle), breadth, number, bad))
        if ys:
            centre = sum(middle for middle, _ in ys) / len(ys)
            labels.append(Label(654, (start[1] + centre) / 2, f"{branch.share * 100:.10g} %", number))
    program = Box(32, top + 64, 154, 76, path.source.partition("/")[0], f"asks for {path.service}", 1)
    inner = path.proxied
    return Drawing(
        height=height + 12,
        control=tuple(_control(path)),
        caller=Box(16, top, 516 if inner else 200, height - top, f"pod {path.caller}"),
        program=_changed(program, broken=Kind.NAME in broken),
        redirect=numbers.get(Kind.REDIRECT, 0),
        redirect_broken=Kind.REDIRECT in broken,
        group=Box(248, top + 32, 268, end - top - 32, "Envoy" if inner else "kernel of the node"),
        stages=stages,
        clusters=clusters,
        ribbons=tuple(ribbons),
        labels=tuple(labels),
        servers=tuple(cards),
        inbound=tuple(inside),
        inside=numbers.get(Kind.INBOUND_CLUSTER, 0),
    )


def _control(path: Path) -> Iterator[Box]:
    """The way of the rules, up to istiod; xDS is the line from there to the proxies."""
    captions = ("weights, in git", "makes objects", "keeps them in etcd", "computes for each proxy")
    for number, (step, caption) in enumerate(zip(path.control, captions, strict=False)):
        yield Box(16 + number * 222, 16, 180, 54, step.name, caption)


def _stages(path: Path, y: float) -> Iterator[Box]:
    for number, hop in enumerate(path.hops, 1):
        if hop.kind in _STAGES:
            height = _STAGE + (18 if hop.kind in {Kind.ROUTE, Kind.KUBE_PROXY} else 0)
            yield Box(264, y, 236, height, _title(hop), _subtitle(hop), number, bool(hop.problems))
            y += height + _GAP


def _title(hop: Hop) -> str:
    return {Kind.VIRTUAL_LISTENER: "virtual listener", Kind.KUBE_PROXY: "KUBE-SERVICES"}.get(hop.kind, str(hop.kind))


def _subtitle(hop: Hop) -> str:
    if hop.kind is Kind.ROUTE:
        return hop.name.split(" / ")[-1]
    if hop.kind is Kind.KUBE_PROXY:
        return next((row[2].removeprefix("→ ") for row in hop.rows if len(row) > 2), hop.name)
    return hop.name.rpartition(", ")[2] if hop.kind is Kind.VIRTUAL_LISTENER else hop.name


def _clusters(path: Path, numbers: dict[Kind, int], broken: set[Kind], y: float) -> Iterator[Box]:
    number = numbers.get(Kind.CLUSTER, 0)
    hop = next((hop for hop in path.hops if hop.kind is Kind.CLUSTER), None)
    missing = {row[0] for row in hop.rows if "not there" in row} if hop else set()
    for index, branch in enumerate(path.branches):
        what = f"cluster {branch.name}" if path.proxied else f"version {branch.name}"
        bad = branch.name in missing and Kind.CLUSTER in broken
        yield Box(264, y, 236, _CLUSTER, what, "", number, bad, index)
        y += _CLUSTER + 10


def _drawn(branch: Branch) -> Iterator[Server]:
    yield from branch.servers[:_MOST]
    if len(branch.servers) > _MOST:
        yield Server(f"and {len(branch.servers) - _MOST} more", "", " ")
    if not branch.servers:
        yield Server("no endpoint", "", "")


def _inside(path: Path, card: Box, server: Server, numbers: dict[Kind, int], broken: set[Kind]) -> Iterator[Box]:
    if not server.address.strip():
        return
    y, x = card.y + 40, card.x + 28
    if server.sidecar:
        bad = Kind.INBOUND in broken
        yield Box(x, y, 152, 40, "Envoy", "0.0.0.0:15006", numbers.get(Kind.INBOUND, 0), bad)
        x += 152 + 36
    number = numbers.get(Kind.CONTAINER) or numbers.get(Kind.OUTSIDE, 0)
    bad = Kind.OUTSIDE in broken
    yield Box(x, y, card.right - 12 - x, 40, path.service, _port(path), number, bad)


def _port(path: Path) -> str:
    hop = next((hop for hop in path.hops if hop.kind in {Kind.CONTAINER, Kind.OUTSIDE}), None)
    return hop.name.rpartition(", ")[2] if hop else ""


def _changed(box: Box, **changes: int) -> Box:
    return Box(**{**box.__dict__, **changes})
