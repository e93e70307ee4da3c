"""The configuration reference is that of the model."""

from config.reference import PAGE, page


def test_the_reference_is_current() -> None:
    assert PAGE.read_text() == page(), "run `.venv/bin/python -m config.reference`"


def test_every_key_says_what_is_allowed() -> None:
    rows = [line for line in page().splitlines() if line.startswith("| `")]
    assert len(rows) > 30
    assert not [row for row in rows if row.endswith("|  |")]
