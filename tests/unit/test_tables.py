"""Tables keep every word whole, whatever the width."""

from __future__ import annotations

import io

from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console

from mesh.tables import table

WORDS = st.text(st.characters(categories=["L", "N", "P"], include_characters="–·"), min_size=1, max_size=30)
CELLS = st.lists(WORDS, max_size=6).map(" ".join)


def printed(headings: list[str], rows: list[list[str]], width: int) -> list[str]:
    file = io.StringIO()
    Console(file=file, width=width, highlight=False, markup=False).print(
        table(headings, rows, width, right=headings[1:2]), soft_wrap=True
    )
    return file.getvalue().splitlines()


@given(st.integers(1, 6), st.integers(20, 200), st.data())
def test_no_word_is_cut_or_lost(columns: int, width: int, data: st.DataObject) -> None:
    headings = data.draw(st.lists(WORDS, min_size=columns, max_size=columns))
    rows = data.draw(st.lists(st.lists(CELLS, min_size=columns, max_size=columns), min_size=1, max_size=5))
    lines = printed(headings, rows, width)
    words = [word for line in lines for word in line.split()]
    for word in (word for row in rows for cell in row for word in cell.split()):
        assert word in words
    for line in lines:
        assert cell_len(line) <= width or len(line.split()) == 1, line


def test_what_fits_stands_in_columns_and_what_does_not_in_blocks() -> None:
    headings, rows = ["service", "weight", "note"], [["cart", "5 %", "a note"], ["catalog", "95 %", "–"]]
    assert printed(headings, rows, 40) == [
        "service  weight  note",
        "cart        5 %  a note",
        "catalog    95 %  –",
    ]
    assert printed(headings, rows, 20) == [
        "cart",
        "  weight 5 %",
        "  note a note",
        "catalog",
        "  weight 95 %",
        "  note –",
    ]
