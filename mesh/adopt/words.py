"""A plan as people and machines read it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

from mesh import tables
from mesh.adopt.find import Candidate, Plan, Refusal, is_of_the_cluster
from mesh.cluster.objects import identity
from mesh.drift import words
from mesh.drift.compare import Difference

_SHOWN = 3
_WIDTH = 80


def plan(found: Plan, stack: str) -> Iterator[str]:
    """The objects, what comes with it, and what stands in the way, line by line."""
    if found.candidates:
        yield f"To be taken over by the stack {stack}:"
        yield ""
        for row, lines in _rows(found.candidates):
            yield from tables.block(("", "made by", "pulumi up changes"), row, _WIDTH)
            yield from (f"    {line}" for line in lines)
    for name in sorted({record.name for record in found.records}):
        yield f"\nHelm's record of the release {name} gives way; `pulumi up` installs it over its own objects."
    if found.leftovers:
        yield "\nOf the mesh that is there, and in no chart of the stack. It stays until `pulumi destroy`;"
        yield "after `pulumi up` nobody needs it any more:"
        yield from (f"  {_delete(item)}" for item in found.leftovers)
    if found.inhabitants:
        yield "\nIn a namespace that the stack would own: `pulumi destroy` deletes it with the namespace:"
        yield from (f"  {one}" for one in found.inhabitants)
    if found.refusals:
        yield "\nCannot be taken over:"
        for number, refusal in enumerate(found.refusals, 1):
            yield f"  {number}. {_refused(refusal)}"
            yield f"     fix: {refusal.fix}"


def as_data(found: Plan, stack: str) -> dict[str, Any]:
    return {
        "stack": stack,
        "objects": [
            {
                **one.drift.expected.identity._asdict(),
                "release": one.release,
                "madeBy": one.made_by,
                "changes": [difference.field for difference in one.changes],
                "stays": [difference.field for difference in one.stays],
                "restarts": one.restarts,
            }
            for one in found.candidates
        ],
        "releases": sorted({record.name for record in found.records}),
        "leftovers": [identity(item)._asdict() for item in found.leftovers],
        "inhabitants": [one._asdict() for one in found.inhabitants],
        "refusals": [
            {"what": one.what, "fix": one.fix, "objects": [name._asdict() for name in one.objects]}
            for one in found.refusals
        ],
    }


def _rows(candidates: Iterable[Candidate]) -> Iterator[tuple[tuple[str, str, str], list[str]]]:
    """A row for each object with the changes below it; those of a release of which nothing but labels changes share
    one."""
    alike: Counter[tuple[str, str]] = Counter()
    for one in candidates:
        if one.release and not _fields(one):
            alike[one.release, one.made_by] += 1
        else:
            yield (words.title(one.drift), one.made_by, _changed(one)), _details(one)
    for (release, made_by), count in alike.items():
        yield (f"{count} other objects (in the Helm release {release})", made_by, "labels and annotations at most"), []


def _changed(one: Candidate) -> str:
    fields = _fields(one)
    if not fields:
        return "labels and annotations" if one.changes else "nothing"
    what = "one field" if len(fields) == 1 else f"{len(fields)} fields"
    return f"{what}; its pods restart" if one.restarts else what


def _fields(one: Candidate) -> list[Difference]:
    """What changes beside the object's own labels and annotations."""
    return [found for found in one.changes if found.path[0] != "metadata"]


def _details(one: Candidate) -> list[str]:
    lines = [*words.changes(replace(one.drift, differences=_fields(one)))]
    if len(lines) > _SHOWN:
        lines = [*lines[: _SHOWN - 1], f"… and {len(lines) - _SHOWN + 1} more"]
    return [*lines, *(f"{difference.field} is not declared and stays" for difference in one.stays)]


def _delete(item: Any) -> str:
    name = identity(item)
    where = "" if is_of_the_cluster(item) else f" -n {name.namespace}"
    return f"kubectl delete {name.kind.lower()} {name.name}{where}"


def _refused(refusal: Refusal) -> str:
    if not refusal.objects:
        return refusal.what
    shown = ", ".join(str(one) for one in refusal.objects[:_SHOWN])
    more = f" and {len(refusal.objects) - _SHOWN} more" if len(refusal.objects) > _SHOWN else ""
    return f"{refusal.what}: {shown}{more}"
