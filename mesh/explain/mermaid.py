"""The path as a Mermaid flowchart. https://mermaid.js.org/syntax/flowchart.html"""

from __future__ import annotations

from collections.abc import Iterator

from mesh.explain.model import Kind, Path

_CALLER = (Kind.NAME, Kind.REDIRECT, Kind.VIRTUAL_LISTENER, Kind.LISTENER, Kind.ROUTE)


def write(path: Path) -> str:
    return "\n".join(_lines(path))


def _lines(path: Path) -> Iterator[str]:
    yield "flowchart LR"
    numbers = {hop.kind: number for number, hop in enumerate(path.hops, 1)}
    before = [hop for hop in path.hops if hop.kind in _CALLER]
    yield f"  subgraph caller[{_text(f'pod {path.caller}')}]"
    for hop in before:
        yield f"    {_id(hop.kind)}[{_text(f'{numbers[hop.kind]} {hop.kind}', hop.name)}]"
    yield "  end"
    chain = [_id(hop.kind) for hop in before]
    for hop in path.hops:
        if hop.kind is Kind.KUBE_PROXY:
            yield f"  {_id(hop.kind)}[{_text(f'{numbers[hop.kind]} {hop.kind}', hop.name)}]"
            chain.append(_id(hop.kind))
    yield f"  {' --> '.join(chain)}"
    for number, branch in enumerate(path.branches):
        share = f"{branch.share * 100:.10g} %"
        if not branch.servers:
            yield f"  {chain[-1]} -- {_text(share)} --> nothing{number}[{_text(branch.name, 'no endpoint')}]:::broken"
        for index, server in enumerate(branch.servers):
            node = f"server{number}_{index}"
            what = [f"pod {server.pod or '?'}", server.address]
            what += [server.health] if server.health else []
            what += [f"{numbers[Kind.INBOUND]} Envoy, port 15006"] if server.sidecar and Kind.INBOUND in numbers else []
            yield f"  {node}[{_text(*what)}]{':::broken' if server.health else ''}"
            yield f"  {chain[-1]} -- {_text(f'{branch.name}: {share}')} --> {node}"
    if Kind.OUTSIDE in numbers:
        ends = [
            f"server{number}_{index}" for number, one in enumerate(path.branches) for index in range(len(one.servers))
        ]
        yield f"  {_id(Kind.OUTSIDE)}([{_text(f'{numbers[Kind.OUTSIDE]} {path.service}')}])"
        for end in ends or [chain[-1]]:
            yield f"  {end} --> {_id(Kind.OUTSIDE)}"
    if path.control:
        names = [step.name for step in path.control[:-2]]
        ids = [f"control{number}" for number in range(len(names))]
        for node, name in zip(ids, names, strict=True):
            yield f"  {node}([{_text(name)}])"
        yield f"  {' -.-> '.join(ids)}"
        yield f"  {ids[-1]} -. {_text('xDS')} .-> caller"
    broken = ",".join(dict.fromkeys(_id(hop.kind) for _, hop, _ in path.broken if _id(hop.kind) in (*chain, "outside")))
    yield "  classDef broken stroke:#d33,stroke-width:3px"
    if broken:
        yield f"  class {broken} broken"


def _id(kind: Kind) -> str:
    return kind.replace(" ", "_").replace("-", "_")


def _text(*lines: str) -> str:
    """A quoted label; Mermaid takes HTML's names for what would end it."""
    return '"' + "<br/>".join(line.replace('"', "#quot;") for line in lines) + '"'
