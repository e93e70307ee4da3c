"""Mirrored requests: a proxy counts a copy as it counts a request of the version that gets it."""

from __future__ import annotations

from collections.abc import Mapping


def without_copies(requests: Mapping[str, int], version: str, share: float) -> dict[str, int]:
    """What callers sent to each version themselves, where this `share` (0 to 1) of all that is copied to `version`.

    Of n requests, m of them to other versions, `version` counts its own n - m and n · `share` copies. Exact where all
    is copied, else as expected.
    """
    others = sum(count for name, count in requests.items() if name != version)
    own = (requests.get(version, 0) - share * others) / (1 + share)
    return {**requests, version: max(0, round(own))}
