"""Which object a hop comes from, and which line declares it."""

from __future__ import annotations

from collections.abc import Iterable

from mesh.explain.live import Pod, Snapshot
from mesh.explain.model import Source


def of_service(snapshot: Snapshot, *key: str) -> tuple[Source, ...]:
    """The Service, by its port or by another `key` below it."""
    name = f"Service {snapshot.namespace}/{snapshot.service}"
    key = key or ("ports", snapshot.port.name)
    return (snapshot.declared.source(name, "services", snapshot.service, *key),)


def of_pod(snapshot: Snapshot, pod: Pod, *key: str) -> tuple[Source, ...]:
    return (snapshot.declared.source(f"Pod {snapshot.namespace}/{pod.name}", *key),)


def of_versions(snapshot: Snapshot, versions: Iterable[str]) -> tuple[Source, ...]:
    """What makes the pods; nothing for pods that somebody else makes."""
    if not snapshot.workload:
        return ()
    return merged(
        snapshot.declared.source(
            f"{snapshot.workload} {snapshot.namespace}/{snapshot.service}-{version}",
            *("services", snapshot.service, "versions", version),
        )
        for version in dict.fromkeys(versions)
        if version
    )


def merged(sources: Iterable[Source]) -> tuple[Source, ...]:
    """One for each object and line, in order, with all the keys that this line declares: a file may have a map on one.

    An object whose line is known is not named again without one.
    """
    keys: dict[tuple[str, str], dict[str, None]] = {}
    for source in sources:
        keys.setdefault((source.object, source.origin), {})[source.key] = None
    placed = {name for name, origin in keys if origin}
    return tuple(
        Source(name, ", ".join(filter(None, found)), origin)
        for (name, origin), found in keys.items()
        if origin or name not in placed
    )
