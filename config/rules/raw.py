"""Reading raw values: whatever has the wrong shape counts as empty, as the model reports it already."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

Raw = Mapping[str, Any]


def map_at(raw: object, *path: str) -> Raw:
    """The map at `path`, or {} where there is none."""
    for key in path:
        raw = raw.get(key) if isinstance(raw, Mapping) else None
    return raw if isinstance(raw, Mapping) else {}


def each_service(raw: Raw) -> Iterator[tuple[str, Raw, Raw]]:
    """Name, service and versions."""
    for name, service in map_at(raw, "services").items():
        yield name, map_at(service), map_at(service, "versions")


def each_of(raw: object) -> Iterator[tuple[int, Raw]]:
    """The maps in a list, by index."""
    for index, item in enumerate(raw) if isinstance(raw, list | tuple) else ():
        if isinstance(item, Mapping):
            yield index, item


def is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def inherited(service: Raw, version: str, key: str) -> object:
    own = map_at(service, "versions", version)
    return own[key] if key in own else map_at(service, "template").get(key)
