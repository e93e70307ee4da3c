"""Tables for a terminal of any width and for a log: what does not fit goes on below its row, and no word is cut."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

from rich.cells import cell_len
from rich.console import Console, RenderableType
from rich.text import Text

Cell = str | Text
_GAP = "  "


def show(headings: Sequence[str], rows: Sequence[Sequence[Cell]], right: Collection[str] = (), keys: int = 1) -> None:
    """Prints them as `table` lays them out for this terminal, or for 80 columns where there is none."""
    console = Console(highlight=False, markup=False)
    console.print(table(headings, rows, console.width, right, keys), soft_wrap=True)


def table(
    headings: Sequence[str],
    rows: Sequence[Sequence[Cell]],
    width: int,
    right: Collection[str] = (),
    keys: int = 1,
) -> RenderableType:
    """Columns for the rows that fit into `width`, where these are most; any other row is a block: the first `keys`
    cells, and below them the others with their headings. Those in `right` are set to the right. Only a single longer
    word exceeds `width`.
    """
    texts = [[_text(cell) for cell in row] for row in rows]
    heads = [Text(heading, style="bold") for heading in headings]
    short = _short(heads, texts, width)
    if 2 * len(short) < len(texts):
        short = []
    widths = _widths((heads, *short))
    is_right = [heading in right for heading in headings]
    lines = [_aligned(heads, widths, is_right)] if short or not texts else []
    for row in texts:
        lines += [_aligned(row, widths, is_right)] if row in short else _block(heads, row, width, keys)
    return Text("\n").join(lines)


def _short(heads: Sequence[Text], rows: Sequence[Sequence[Text]], width: int) -> list[Sequence[Text]]:
    """Those that fit into columns together: those with the longest cells are left out until they do."""
    short = sorted(rows, key=lambda row: max(cell_len(cell.plain) for cell in row))
    while short and not _fits(_widths((heads, *short)), width):
        short.pop()
    return short


def grid(rows: Sequence[Sequence[str]], width: int) -> Text:
    """Cells without headings: in columns where they fit, else each row on as many lines as it takes.

    The first cell of a row is not empty.
    """
    count = max(map(len, rows), default=0)
    texts = [[Text(cell) for cell in (*row, *[""] * (count - len(row)))] for row in rows]
    if texts and _fits(widths := _widths(texts), width):
        return Text("\n").join(_aligned(row, widths, [False] * count) for row in texts)
    lines = []
    for row in texts:
        first, *more = _filled([cell for cell in row if cell.plain], width - 2 * len(_GAP), "")
        lines += [first, *(Text.assemble(_GAP * 2, line) for line in more)]
    return Text("\n").join(lines)


def block(headings: Sequence[str], row: Sequence[str], width: int, keys: int = 1) -> list[str]:
    """A row as `table` lays it out where it does not fit, line by line."""
    return [line.plain for line in _block([Text(one) for one in headings], [Text(one) for one in row], width, keys)]


def fits(headings: Sequence[str], rows: Sequence[Sequence[Cell]], width: int) -> bool:
    """Whether `table` gives columns."""
    return _fits(_widths([[_text(cell) for cell in row] for row in (headings, *rows)]), width)


def _text(cell: Cell) -> Text:
    return cell if isinstance(cell, Text) else Text(cell)


def _widths(rows: Sequence[Sequence[Text]]) -> list[int]:
    return [max(cell_len(cell.plain) for cell in column) for column in zip(*rows, strict=True)]


def _fits(widths: Sequence[int], width: int) -> bool:
    return sum(widths) + len(_GAP) * (len(widths) - 1) <= width


def _aligned(row: Sequence[Text], widths: Sequence[int], right: Sequence[bool]) -> Text:
    cells = []
    for cell, width, is_right in zip(row, widths, right, strict=True):
        pad = " " * (width - cell_len(cell.plain))
        cells.append(Text.assemble(pad, cell) if is_right else Text.assemble(cell, pad))
    line = Text(_GAP).join(cells)
    line.rstrip()
    return line


def _block(heads: Sequence[Text], row: Sequence[Text], width: int, keys: int) -> Iterator[Text]:
    yield from _filled([cell for cell in row[:keys] if cell.plain], width, "")
    pairs = zip(heads[keys:], row[keys:], strict=True)
    yield from _filled([Text.assemble(head, " ", cell) for head, cell in pairs if cell.plain], width, _GAP)


def _filled(parts: Sequence[Text], width: int, indent: str) -> Iterator[Text]:
    """As many parts on a line as fit; one that fits on no line is broken between its words."""
    line = Text()
    for part in parts:
        if line.plain and cell_len(f"{indent}{line.plain}{_GAP}{part.plain}") > width:
            yield Text.assemble(indent, line)
            line = Text()
        if not line.plain and cell_len(f"{indent}{part.plain}") > width:
            *full, line = _broken(part, width - len(indent))
            yield from (Text.assemble(indent, one) for one in (*full, line))
            line = Text()
        else:
            line = Text(_GAP).join([line, part]) if line.plain else part
    if line.plain:
        yield Text.assemble(indent, line)


def _broken(part: Text, width: int) -> list[Text]:
    lines, words = [], part.split(" ")
    line = words[0]
    for word in words[1:]:
        if cell_len(line.plain) + 1 + cell_len(word.plain) > width:
            lines.append(line)
            line = word
        else:
            line = Text(" ").join([line, word])
    return [*lines, line]
