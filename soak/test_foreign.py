"""Rules of others, in and out again by the dozen: each is named while it is there, and nothing is left of it after."""

from __future__ import annotations

import json
import time
from collections.abc import Callable

import pytest

from harness.stack import Stack
from harness.unchanged import Unchanged
from harness.waiting import eventually
from mesh.cluster.kubectl import Kubectl
from soak.test_shifts import TRIES
from tests.e2e.test_foreign_rules import FOREIGN, as_declared, put_in, world

__all__ = ["world"]


@pytest.mark.parametrize("number", TRIES)
def test_a_rule_of_others_is_named_and_holds_a_shift_up(
    number: int, world: Stack, others: Unchanged, kubectl: Kubectl, record_property: Callable[[str, object], None]
) -> None:
    del others
    foreign, text = FOREIGN[number % len(FOREIGN)], world.file.read_bytes()
    as_declared(world)
    began = time.monotonic()
    with put_in(kubectl, foreign.document):

        def seen() -> None:
            shown = world.mesh("status", "search", "--json")
            found = [one["object"] for row in json.loads(shown.stdout) for one in row["findings"]]
            assert (shown.returncode, set(found)) == (1, {foreign.name}), shown.stdout + shown.stderr

        eventually(seen)
        record_property("milliseconds until named", round(1000 * (time.monotonic() - began)))
        shifted = world.mesh("shift", "search", "v2=20", "--now")
        assert shifted.returncode == (1 if foreign.is_ours else 0), shifted.stdout + shifted.stderr
        record_property("shifts refused" if foreign.is_ours else "shifts that name whom they do not reach", 1)
        if not foreign.is_ours:
            assert foreign.caller in shifted.stdout
            assert world.mesh("shift", "search", "v2=0", "--now").returncode == 0
    as_declared(world)
    assert world.file.read_bytes() == text
