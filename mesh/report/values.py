"""Values as a sentence has them: short, and never JSON or a hash, which no reader can compare."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from itertools import takewhile
from typing import Any

from config.types import is_hidden

MISSING: Any = object()
"""The value of a path that is not there."""

_LONGEST = 60
_DIGEST = re.compile(r"(@sha256:[0-9a-f]{12})[0-9a-f]+")
# With a letter, and with a digit where it is short: neither a plain number nor a word.
_HASH = re.compile(
    r"(?<![0-9A-Za-z])(?=[0-9]*[a-f])(?:(?=[a-f]*[0-9])[0-9a-f]{7,}|[a-f]{12,})(?![0-9A-Za-z])", re.IGNORECASE
)
_IMAGE = re.compile(r"[\w./-]+(:[0-9]+/[\w./-]+)?(:[\w.-]+)?@sha256:[0-9a-f]{64}")


def opened(value: Any) -> Any:
    """A list of named things, containers or routes for instance, as a map; a text that is JSON as what it says; the
    variables of an environment as texts."""
    if isinstance(value, str) and value[:1] in ("{", "["):
        try:
            value = json.loads(value)
        except ValueError:
            return value
    if isinstance(value, list) and value and all(isinstance(item, Mapping) and "name" in item for item in value):
        named = {str(item["name"]): _variable(item) for item in value}
        return named if len(named) == len(value) else value
    return value


def _variable(item: Mapping[str, Any]) -> Any:
    """Other things than a variable as they are. "
    "https://kubernetes.io/docs/reference/kubernetes-api/workload-resources/pod-v1/#environment-variables"""
    if set(item) == {"name", "value"} and isinstance(item["value"], str):
        return item["value"]
    if set(item) != {"name", "valueFrom"} or not isinstance(item["valueFrom"], Mapping):
        return item
    ((kind, reference),) = list(item["valueFrom"].items())[:1] or [("nothing", {})]
    if kind == "secretKeyRef":
        return f"Secret {reference.get('name')}, key {reference.get('key')}"
    return f"{kind} {' '.join(map(str, reference.values()))}"


def inside(old: Any, new: Any) -> list[tuple[str, Any, Any]]:
    """Key, old and new of what differs one level below two values, of which one may be `MISSING`; [] where a sentence
    shows them as they are."""
    old, new = opened(old), opened(new)
    sides: list[Mapping[str, Any]] = [{} if side is MISSING else side for side in (old, new)]
    if all(isinstance(side, Mapping) for side in sides) and any(sides):
        pass
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new) and not (_plain(old) or _plain(new)):
        sides = [{str(number): item for number, item in enumerate(side)} for side in (old, new)]
    else:
        return []
    found = [(key, sides[0].get(key, MISSING), sides[1].get(key, MISSING)) for key in {**sides[0], **sides[1]}]
    return [(str(key), was, now) for key, was, now in found if was is MISSING or now is MISSING or was != now]


def _plain(items: Sequence[Any]) -> bool:
    return not any(isinstance(item, Mapping | list) for item in items)


def size(value: Any) -> int:
    """How many leaves it has."""
    value = opened(value)
    if isinstance(value, Mapping):
        return sum(map(size, value.values()))
    return 0 if value is MISSING else 1


def pair(old: Any, new: Any) -> str:
    """`old → new`; two long texts from where they begin to differ."""
    texts = [_text(old), _text(new)]
    if all(len(text) > _LONGEST for text in texts):
        same = len(list(takewhile(lambda both: both[0] == both[1], zip(*texts, strict=False))))
        texts = [f"…{text[same - 10 :]}" if same > _LONGEST - 20 else text for text in texts]
    before, after = map(_cut, texts)
    return f"{before} → {'another' if before == after else after}"


def shown(value: Any) -> str:
    """One value: `unset` where there is none."""
    return _cut(_text(value))


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"


def _text(value: Any) -> str:
    value = opened(value)
    if value is MISSING:
        return "unset"
    if is_hidden(value):
        return "[secret]"
    if isinstance(value, Mapping | list) and not value:
        return "empty"
    if isinstance(value, list) and _plain(value):
        return listed([shown(item) for item in value[:4]] + ([f"{len(value) - 4} more"] if len(value) > 4 else []))
    if isinstance(value, Mapping | list):
        return count(len(value), "entry" if isinstance(value, list) else "key")
    text = " ".join((value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)).split())
    if '{"' in text or "[{" in text:
        return f"a text of {count(len(text), 'character')}"
    return clean(text)


def clean(text: str) -> str:
    """Without hashes; of an image's digest twelve digits are kept, which is what tools show."""
    kept = _IMAGE.search(text)
    if kept:
        return clean(text[: kept.start()]) + _DIGEST.sub(r"\1", kept[0]) + clean(text[kept.end() :])
    return _HASH.sub("[hash]", text)


def count(number: int, what: str) -> str:
    """`1 pod`, `2 pods`, `2 NetworkPolicies`."""
    plural = f"{what[:-1]}ies" if re.search(r"[^aeiou]y$", what) else f"{what}s"
    return f"{number} {what if number == 1 else plural}"


def listed(items: Sequence[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}" if items else "nothing"
