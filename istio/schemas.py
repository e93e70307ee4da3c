"""Gateway charts whose own schema refuses their own values: they are installed without it.

Their `values.schema.json` has `$ref` beside `additionalProperties: false`. Helm before 3.18 let the first hide the
second; since then, and so in the provider, both count, and every value is refused: https://github.com/istio/istio/issues/57354
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from typing import Any, Final

from config import Problem
from config.versions import order

FILE: Final = "values.schema.json"

# The released charts that Helm 3.22 and 3.18.6 refused, with their own values; all others from 1.17 to 1.31 are taken.
_REFUSED: Final = (("1.21.0", "1.24.999"), ("1.25.0", "1.25.4"), ("1.26.0", "1.26.3"), ("1.27.0", "1.27.0"))

# In these nothing beside `$ref` counts, for Helm 3.22, too:
# https://json-schema.org/draft-07/draft-handrews-json-schema-01#rfc.section.8.3
_OLD_DRAFTS: Final = ("draft-04", "draft-06", "draft-07")

_TYPES: Final[Mapping[str, type | tuple[type, ...]]] = {
    "array": list,
    "boolean": bool,
    "number": (int, float),
    "object": dict,
    "string": str,
}

# The keys of those charts and what each takes, by the part of the schema that was meant to be read ($defs.values):
# https://github.com/istio/istio/blob/0044e906c2abe99c5ee36d401f8826fd9b546c96/manifests/charts/gateway/values.schema.json
_KEYS: Final[Mapping[str, tuple[str, ...]]] = {
    "affinity": ("object",),
    "annotations": ("object",),
    "autoscaling": ("object",),
    "compatibilityVersion": ("string",),
    "containerSecurityContext": ("object",),
    "env": ("object",),
    "global": ("object",),
    "imagePullPolicy": ("string",),
    "imagePullSecrets": ("array",),
    "kind": ("string",),
    "labels": ("object",),
    "lifecycle": ("object",),
    "minReadySeconds": ("number",),
    "name": ("string",),
    "networkGateway": ("string",),
    "nodeSelector": ("object",),
    "podAnnotations": ("object",),
    "podDisruptionBudget": ("object",),
    "priorityClassName": ("string",),
    "profile": ("string",),
    "rbac": ("object",),
    "readinessProbe": ("object",),
    "replicaCount": ("number",),
    "resources": ("object",),
    "revision": ("string",),
    "runAsRoot": ("boolean",),
    "securityContext": ("object",),
    "service": ("object",),
    "serviceAccount": ("object",),
    "strategy": ("object",),
    "terminationGracePeriodSeconds": ("number",),
    "tolerations": ("array",),
    "topologySpreadConstraints": ("array",),
    "unprivilegedPort": ("string", "boolean"),
    "volumeMounts": ("array",),
    "volumes": ("array",),
}


# What the gateway chart of 1.31 takes beside those, whose own schema refuses every other key.
_NEWER: Final[Mapping[str, tuple[str, ...]]] = {
    "additionalContainers": ("array",),
    "defaultRevision": ("string",),
    "dnsConfig": ("object",),
    "dnsPolicy": ("string",),
    "enabled": ("boolean",),
    "envVarFrom": ("array",),
    "initContainers": ("array",),
    "networkGatewayPorts": ("object",),
    "pilot": ("object",),
    "platform": ("string",),
}


def is_refused(version: str) -> bool:
    """Whether the released gateway chart of `version` is one that refuses itself."""
    return any(order(since) <= order(version) <= order(until) for since, until in _REFUSED)


def refuses(schema: bytes) -> bool:
    """Whether a chart with this file refuses every value."""
    try:
        read = json.loads(schema)
    except ValueError:
        return False
    if not isinstance(read, dict) or any(draft in str(read.get("$schema")) for draft in _OLD_DRAFTS):
        return False
    return "$ref" in read and read.get("additionalProperties") is False


def problems(key: str, values: Mapping[str, Any], version: str) -> Iterator[Problem]:
    """What a schema would refuse of the user's own values for the released gateway chart of `version`; `key` is theirs.

    For a chart that goes without its schema, and for 1.31, whose would speak up only when the rest is installed.
    """
    if is_refused(version):
        known = _KEYS
    elif order(version) >= (1, 31):
        known = {**_KEYS, **_NEWER}
    else:
        return
    yield from refused(key, values, known)


def refused(key: str, values: Mapping[str, Any], known: Mapping[str, tuple[str, ...]] = _KEYS) -> Iterator[Problem]:
    """Keys that are not `known`, and values of other types than those."""
    for name, value in values.items():
        if name not in known:
            meant = get_close_matches(name, known, 1)
            fix = f"did you mean '{meant[0]}'?" if meant else f"take '{name}' out"
            yield Problem(f"{key}.{name}", value, f"a key of the gateway chart: {', '.join(sorted(known))}", fix)
        elif value is not None and not any(_is(value, kind) for kind in known[name]):
            yield Problem(f"{key}.{name}", value, f"a value of type {' or '.join(known[name])}", "give it one")


def _is(value: Any, kind: str) -> bool:
    return isinstance(value, _TYPES[kind]) and (kind == "boolean") == isinstance(value, bool)
