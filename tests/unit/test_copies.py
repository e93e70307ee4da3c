"""What is left of the counts when copies are taken out."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mesh.traffic.copies import without_copies

COUNTS = st.integers(0, 1_000_000)


@given(stable=COUNTS, canary=COUNTS, percent=st.integers(1, 100))
def test_copies_are_taken_out(stable: int, canary: int, percent: int) -> None:
    """As many as the share says, of the requests of all versions."""
    copies = round((stable + canary) * percent / 100)
    found = without_copies({"stable": stable, "canary": canary + copies}, "canary", percent / 100)
    assert found["stable"] == stable and abs(found["canary"] - canary) <= 1


def test_what_cannot_be_is_nothing() -> None:
    assert without_copies({"stable": 100, "canary": 3}, "canary", 1.0) == {"stable": 100, "canary": 0}
    assert without_copies({}, "canary", 0.5) == {"canary": 0}
