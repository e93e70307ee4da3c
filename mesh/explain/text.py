"""The path as text, for a terminal: one screen, or all fields."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from mesh import tables
from mesh.explain.model import Hop, Path

_INDENT = 4


def write(path: Path, console: Console, full: bool = False) -> None:
    """Prints to `console`; `full` adds the fields of each hop."""
    read = "as the live proxies have it" if path.proxied else "as Kubernetes balances it, without a proxy"
    console.print(Text.assemble((path.title, "bold"), (f"  in {path.namespace}, {read}", "dim")))
    for number, hop in enumerate(path.hops, 1):
        console.print(_heading(number, hop))
        console.print(Padding(_words(hop.why), (0, 0, 0, _INDENT)))
        if hop.rows:
            grid = tables.grid(hop.rows, console.width - _INDENT - 2)
            console.print(Padding(grid, (0, 0, 0, _INDENT + 2), expand=False), soft_wrap=True)
        if from_ := " · ".join(_sources(path, hop)):
            console.print(Padding(_words(from_, "dim"), (0, 0, 0, _INDENT)))
        if full:
            for name, value in _fields(hop):
                console.print(
                    Padding(Text.assemble((f"{name}: ", "dim"), value, overflow="ignore"), (0, 0, 0, _INDENT + 2))
                )
        for problem in hop.problems:
            console.print(Padding(_words(f"BROKEN  {problem.what}", "bold red"), (0, 0, 0, _INDENT)))
            console.print(Padding(_words(f"fix     {problem.fix}", "green"), (0, 0, 0, _INDENT)))
    if path.control:
        console.print(_control(path, full))
    for note in path.notes:
        console.print(Text(f"note: {note}", style="yellow"))


def _words(text: str, style: str = "") -> Text:
    """Broken between words alone."""
    return Text(text, style=style, overflow="ignore")


def _heading(number: int, hop: Hop) -> Text:
    mark, style = ("✗", "bold red") if hop.problems else (f"{number:2}", "bold cyan")
    return Text.assemble((f"{mark:>2}  ", style), (f"{hop.kind}", "bold"), "  ", hop.name, overflow="ignore")


def _sources(path: Path, hop: Hop) -> Iterator[str]:
    kinds: dict[str, dict[str, list[str]]] = {}
    for source in hop.sources:
        kind, _, name = source.object.partition(" ")
        origins = kinds.setdefault(kind, {}).setdefault(name.removeprefix(f"{path.namespace}/"), [])
        origins += [source.origin] if source.origin else []
    for kind, objects in kinds.items():
        yield f"{kind} " + ", ".join(
            f"{name} ({_lines(origins)})" if origins else name for name, origins in objects.items()
        )
    if hop.delivery:
        yield f"by {hop.delivery.type}{f' at {hop.delivery.updated[11:19]}' if hop.delivery.updated else ''}"
    if hop.derived:
        yield "derived, not read"


def _lines(origins: list[str]) -> str:
    """`a.yaml:3`, `a.yaml:4`, `b.yaml:1` → a.yaml:3,4 b.yaml:1."""
    files: dict[str, list[str]] = {}
    for origin in origins:
        file, _, line = origin.rpartition(":")
        files.setdefault(file, []).append(line)
    return " ".join(f"{file}:{','.join(lines)}" for file, lines in files.items())


def _fields(hop: Hop) -> Iterator[tuple[str, str]]:
    yield "where", hop.place
    for source in hop.sources:
        if source.key:
            yield "declared by", f"{source.key} in {source.origin}"
    if hop.delivery:
        when = hop.delivery.updated or "Envoy keeps no time for it"
        version = f", version {hop.delivery.version}" if hop.delivery.version else ""
        yield "carried by", f"{hop.delivery.type}, {when}{version}"
    if hop.derived:
        yield "derived from", hop.derived
    for name, value in hop.fields.items():
        yield name, f"\n{value}" if "\n" in value else value


def _control(path: Path, full: bool) -> Text | Table:
    """How the rules got to the proxies; explained once."""
    if not full:
        way = " → ".join(step.name for step in path.control)
        return Text.assemble(("How the rules got there: ", "bold"), way, (" (--full explains each step)", "dim"))
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0), title="How the rules got there")
    table.title_justify = "left"
    for step in path.control:
        table.add_row(Text(step.name, style="bold"), step.why)
    return table
