"""A live object against a declared one, field by field, with the eyes of the API server.

Only what is declared is compared: what the server or a controller adds is nobody's edit. Lists are compared by the
merge key that the API gives them, and a value in another spelling (`1000m` and `1`, `80` and `"80"`) is the same value.
https://kubernetes.io/docs/reference/using-api/server-side-apply/#merge-strategy
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final

from config.merge import key_of, keys_of
from config.quantity import quantity

Object = Mapping[str, Any]


class _Absent:
    def __repr__(self) -> str:
        return "absent"


ABSENT: Final = _Absent()
"""What a field has that is not there."""


@dataclass(frozen=True)
class Key:
    """One item of a list whose items have names, such as the container `discovery`."""

    fields: tuple[tuple[str, Any], ...]

    def __str__(self) -> str:
        return str(self.fields[0][1])


Path = tuple[str | int | Key, ...]
"""Names of fields, numbers of list items, and keys of named list items."""


@dataclass(frozen=True)
class Difference:
    """`declared` is ABSENT for what may not be there, `live` for what is missing."""

    path: Path
    declared: Any
    live: Any

    @property
    def field(self) -> str:
        """As people write it: `spec.template.spec.containers[discovery].image`."""
        return "".join(_step(step) for step in self.path).removeprefix(".")


@dataclass(frozen=True)
class Writer:
    """Who last wrote a field, by the name that the API server keeps for it; `time` is RFC 3339."""

    manager: str
    time: str


WEBHOOKS = ("ValidatingWebhookConfiguration", "MutatingWebhookConfiguration")

_QUANTITIES = frozenset({"limits", "requests", "divisor", "sizeLimit", "averageValue", "hard"})
_UNITS: Mapping[str, Decimal] = {
    "h": Decimal(3600),
    "m": Decimal(60),
    "s": Decimal(1),
    "ms": Decimal("1e-3"),
    "us": Decimal("1e-6"),
    "ns": Decimal("1e-9"),
}
_DURATION = re.compile(r"(?:\d+(?:\.\d+)?(?:h|ms|us|ns|m|s))+")


def differences(declared: Object, live: Object) -> list[Difference]:
    """Where `live` is not what `declared` says; both in the same API version."""
    declared = _readable(declared)
    found: list[Difference] = []
    for name, value in declared.items():
        if name == "metadata":
            for part in ("labels", "annotations"):
                found += _walk((name, part), value.get(part), live[name].get(part, ABSENT), exact=False)
        elif name not in ("apiVersion", "kind", "status"):
            # Nothing adds defaults to Istio's own objects, or to Helm's values: a field too many is an edit.
            exact = (name == "spec" and is_istio(declared)) or name == "values"
            found += _walk((name,), value, live.get(name, ABSENT), exact)
    return [difference for difference in found if not _is_istiods(declared["kind"], difference.path)]


def is_istio(item: Object) -> bool:
    """Whether this is one of Istio's own kinds, such as a VirtualService."""
    return str(item["apiVersion"]).partition("/")[0].endswith(".istio.io")


def writer(live: Object, path: Path) -> Writer | None:
    """The last to write the field at `path`, None when the API server does not say."""
    writers = [
        Writer(_manager(entry), entry.get("time", ""))
        for entry in live["metadata"].get("managedFields", [])
        if _owns(entry.get("fieldsV1", {}), path)
    ]
    return max(writers, key=lambda found: found.time, default=None)


def at(value: Any, path: Path) -> Any:
    """The value at `path`, or ABSENT."""
    for step in path:
        if isinstance(step, str) and isinstance(value, Mapping):
            value = value.get(step, ABSENT)
        elif isinstance(step, int) and isinstance(value, Sequence) and step < len(value):
            value = value[step]
        elif isinstance(step, Key) and isinstance(value, Sequence):
            value = next((item for item in value if _key_of(item, step) == step), ABSENT)
        else:
            return ABSENT
    return value


def replaced(value: Any, path: Path, new: Any) -> Any:
    """A copy of `value` with `new` at `path`; ABSENT takes away what is there."""
    if not path:
        return new
    step, rest = path[0], path[1:]
    inner = at(value, (step,))
    changed = replaced(inner if inner is not ABSENT or not rest else {}, rest, new)
    if isinstance(step, str):
        kept = {name: item for name, item in value.items() if name != step or changed is not ABSENT}
        return kept if changed is ABSENT else {**kept, step: changed}
    items = [changed if item is inner else item for item in value]
    if inner is ABSENT:
        items.append(changed)
    return [item for item in items if item is not ABSENT]


def exactly(before: Any, after: Any) -> list[Difference]:
    """Where two values are not the same, what only one of them has included."""
    return [*_walk((), before, after, exact=True)]


def same(one: Any, other: Any) -> bool:
    return one is other or not exactly(one, other)


def _walk(path: Path, declared: Any, live: Any, exact: bool) -> Iterator[Difference]:
    if declared is None or (live is ABSENT and declared in ("", {}, [])):
        return
    if isinstance(declared, Mapping) and isinstance(live, Mapping):
        for name, value in declared.items():
            yield from _walk((*path, str(name)), value, live.get(str(name), ABSENT), exact)
        for name in live.keys() - {str(name) for name in declared} if exact else ():
            if live[name] != {}:  # the provider leaves an empty map out of the state
                yield Difference((*path, name), ABSENT, live[name])
    elif isinstance(declared, list) and isinstance(live, list):
        yield from _walk_list(path, declared, live, exact)
    elif not _is_same(path, declared, live, exact):
        yield Difference(path, declared, live)


def _walk_list(path: Path, declared: list[Any], live: list[Any], exact: bool) -> Iterator[Difference]:
    keys = [] if exact or not path else [Key(fields) for fields in keys_of(str(path[-1]), declared)]
    if keys:
        for key, item in zip(keys, declared, strict=True):
            yield from _walk((*path, key), item, at(live, (key,)), exact)
    elif all(isinstance(item, Mapping) for item in [*declared, *live]):
        for number in range(max(len(declared), len(live))):
            if number >= len(declared):
                yield Difference((*path, number), ABSENT, live[number])
            else:
                yield from _walk((*path, number), declared[number], at(live, (number,)), exact)
    elif len(declared) != len(live) or not all(
        _is_same(path, one, other, exact) for one, other in zip(declared, live, strict=True)
    ):
        yield Difference(path, declared, live)


def _key_of(item: Any, example: Key) -> Key | None:
    fields = key_of(item, [name for name, _ in example.fields])
    return Key(fields) if fields else None


def _is_same(path: Path, declared: Any, live: Any, exact: bool) -> bool:
    if declared == live and isinstance(declared, bool) == isinstance(live, bool):
        return True
    if not isinstance(declared, str | int | float) or not isinstance(live, str | int | float):
        return False
    if isinstance(declared, bool) or isinstance(live, bool):
        return False
    one, other = str(declared), str(live)
    if not _QUANTITIES.isdisjoint(path) and (amount := quantity(one)) is not None:
        return amount == quantity(other)
    if exact and _DURATION.fullmatch(one) and _DURATION.fullmatch(other):
        return _seconds(one) == _seconds(other)
    return one == other


def _seconds(text: str) -> Decimal:
    return sum((Decimal(n) * _UNITS[unit] for n, unit in re.findall(r"([\d.]+)(h|ms|us|ns|m|s)", text)), Decimal(0))


def _readable(declared: Object) -> Object:
    """A Secret's `stringData` as the server keeps it."""
    if declared["kind"] != "Secret" or "stringData" not in declared:
        return declared
    encoded = {name: base64.b64encode(text.encode()).decode() for name, text in declared["stringData"].items()}
    rest = {name: value for name, value in declared.items() if name != "stringData"}
    return {**rest, "data": {**declared.get("data", {}), **encoded}}


def _is_istiods(kind: str, path: Path) -> bool:
    """istiod puts its CA into the webhooks, and lets the validating ones fail closed as soon as it can answer."""
    return kind in WEBHOOKS and (path[-1] == "caBundle" or (path[-1] == "failurePolicy" and kind == WEBHOOKS[0]))


def _manager(entry: Mapping[str, Any]) -> str:
    return f"{entry['manager']} ({entry['subresource']})" if entry.get("subresource") else str(entry["manager"])


def _owns(fields: Mapping[str, Any], path: Path) -> bool:
    """https://kubernetes.io/docs/reference/using-api/server-side-apply/#field-management"""
    for step in path:
        if set(fields) <= {"."}:
            return bool(path)  # a leaf: a list or a map that has one owner as a whole
        if isinstance(step, str):
            inner = fields.get(f"f:{step}")
        elif isinstance(step, Key):
            named = (
                value
                for name, value in fields.items()
                if name.startswith("k:") and json.loads(name[2:]) == dict(step.fields)
            )
            inner = next(named, None)
        else:
            inner = {}
        if inner is None:
            return False
        fields = inner
    return True


def _step(step: str | int | Key) -> str:
    if isinstance(step, str):
        return f".{step}" if re.fullmatch(r"[\w-]+", step) else f"[{step}]"
    return f"[{step}]"
