"""Laying one value over another, as a stack file over the shared defaults, and a piece of a pod template over another.

Kubernetes' own strategic merge is the measure for pod templates, so that nobody has to learn another.
https://kubernetes.io/docs/tasks/manage-kubernetes-objects/update-api-object-kubectl-patch/
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

POD_TEMPLATE: Final = "podTemplate"
"""The key that holds a piece of a pod template, at each level of the configuration."""

# The lists of the built-in kinds whose items have keys, by the name of the list.
# https://kubernetes.io/docs/reference/generated/kubernetes-api/v1.34/ ("patch merge key")
MERGE_KEYS: Final[Mapping[str, tuple[tuple[str, ...], ...]]] = {
    "containers": (("name",),),
    "initContainers": (("name",),),
    "volumes": (("name",),),
    "env": (("name",),),
    "imagePullSecrets": (("name",),),
    "resourceClaims": (("name",),),
    "schedulingGates": (("name",),),
    "secrets": (("name",),),
    "webhooks": (("name",),),
    "volumeMounts": (("mountPath",),),
    "volumeDevices": (("devicePath",),),
    "hostAliases": (("ip",),),
    "topologySpreadConstraints": (("topologyKey", "whenUnsatisfiable"),),
    "ports": (("containerPort", "protocol"), ("port", "protocol")),
}
_KEY_DEFAULTS: Final = {"protocol": "TCP"}

# Of each of these a map has one at most.
HANDLERS: Final = frozenset({"exec", "grpc", "httpGet", "sleep", "tcpSocket"})
_ONE_OF: Final = (HANDLERS, frozenset({"value", "valueFrom"}))
_DELETED: Final = ("$patch", "delete")

Key = tuple[tuple[str, Any], ...]
"""What tells one item of a list from the others: (("containerPort", 80), ("protocol", "TCP"))."""


def merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """`above` laid over `below`: maps are merged, anything else replaces, `null` removes. Pieces of pod templates are
    `patched`."""
    result = dict(below)
    for key, value in above.items():
        if value is None:
            result.pop(key, None)
        elif not isinstance(value, Mapping):
            result[key] = value
        else:
            under = result.get(key)
            lay = patched if key == POD_TEMPLATE else merged
            result[key] = lay(under if isinstance(under, Mapping) else {}, value)
    return result


def patched(below: Mapping[str, Any], above: Mapping[str, Any], of: str = "") -> dict[str, Any]:
    """`above` laid over `below`, two pieces of a pod template, or two items of its list `of`: lists whose items have
    keys are merged by them, in the order of `below`, and new items come last.

    What removes, `null` or an item with `$patch: delete`, is still in there, as the result may be laid over another
    one; `settled` ends that.
    """
    result = {key: value for key, value in below.items() if key not in _replaced_kinds(below, above, of)}
    for key, value in above.items():
        under = result.get(key)
        if isinstance(value, Mapping) and isinstance(under, Mapping):
            result[key] = patched(under, value)
        elif isinstance(value, list) and isinstance(under, list):
            result[key] = _patched_list(key, under, value)
        else:
            result[key] = value
    return result


def settled(value: Any) -> Any:
    """`value` without what is removed and what removes it."""
    if isinstance(value, Mapping):
        return {key: settled(inner) for key, inner in value.items() if inner is not None}
    return [settled(item) for item in value if not _is_deleted(item)] if isinstance(value, list) else value


def keys_of(name: str, items: Sequence[object]) -> list[Key]:
    """The keys of the items of the list `name`; [] when it has none, or not for each item another."""
    for fields in MERGE_KEYS.get(name, ()):
        keys = [key for item in items if (key := key_of(item, fields))]
        if len(keys) == len(items) == len(set(keys)):
            return keys
    return []


def key_of(item: object, fields: Iterable[str]) -> Key | None:
    """None where the item lacks one of the `fields`."""
    if not isinstance(item, Mapping):
        return None
    key = tuple((field, item.get(field, _KEY_DEFAULTS.get(field))) for field in fields)
    return key if all(isinstance(value, str | int | float) for _, value in key) else None


def _patched_list(name: str, below: list[Any], above: list[Any]) -> list[Any]:
    under, over = keys_of(name, below), keys_of(name, above)
    if len(under) < len(below) or len(over) < len(above) or name not in MERGE_KEYS:
        return above
    items = dict(zip(under, below, strict=True))
    for key, item in zip(over, above, strict=True):
        merges = key in items and not _is_deleted(item) and not _is_deleted(items[key])
        items[key] = patched(items[key], item, name) if merges else item
    return list(items.values())


def _replaced_kinds(below: Mapping[str, Any], above: Mapping[str, Any], of: str) -> set[str]:
    """What has to go from `below` because `above` has another of its kind: the API server takes no two of them."""
    groups: Sequence[frozenset[str]] = _ONE_OF
    if of == "volumes":
        groups = [frozenset(below.keys() | above.keys()) - {"name"}]
    said = {key for key, value in above.items() if value is not None}
    return {key for group in groups if group & said for key in group - said if key in below and below[key] is not None}


def _is_deleted(item: object) -> bool:
    return isinstance(item, Mapping) and item.get(_DELETED[0]) == _DELETED[1]
