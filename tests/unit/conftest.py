"""What every unit test runs with."""

from __future__ import annotations

import pytest
from hypothesis import settings

# The same examples in every run: a change is judged by what it does, not by the day's luck.
# To look further: pytest --hypothesis-profile=explore
settings.register_profile("repeatable", deadline=None, derandomize=True, max_examples=100)
settings.register_profile("explore", deadline=None, max_examples=2000)
settings.load_profile("repeatable")


@pytest.fixture(autouse=True)
def nobodys_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same answers on a laptop and in CI."""
    for name in ("CI", "PULUMI_CONFIG", "PULUMI_CONFIG_SECRET_KEYS"):
        monkeypatch.delenv(name, raising=False)
