"""The rules on each piece of a pod template: it has to look like one, or it cannot be merged with the others."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from typing import Final

from config.merge import MERGE_KEYS, POD_TEMPLATE, key_of, keys_of
from config.problems import MISSING, Problem, nearest
from config.rules.raw import Raw, each_of, each_service, map_at

# The lists with keys, and where they are: right below `spec`, and in each container.
_OF_PODS: Final = (
    "containers",
    "initContainers",
    "volumes",
    "imagePullSecrets",
    "hostAliases",
    "topologySpreadConstraints",
)
CONTAINERS: Final = ("containers", "initContainers")
_OF_CONTAINERS: Final = ("env", "ports", "volumeMounts", "volumeDevices")
# https://kubernetes.io/docs/reference/kubernetes-api/workload-resources/pod-v1/
_POD_FIELDS: Final = (
    "activeDeadlineSeconds affinity automountServiceAccountToken containers dnsConfig dnsPolicy enableServiceLinks "
    "ephemeralContainers hostAliases hostIPC hostNetwork hostPID hostUsers hostname hostnameOverride imagePullSecrets "
    "initContainers nodeName nodeSelector os overhead preemptionPolicy priority priorityClassName readinessGates "
    "resourceClaims resources restartPolicy runtimeClassName schedulerName schedulingGates securityContext "
    "serviceAccount serviceAccountName setHostnameAsFQDN shareProcessNamespace subdomain "
    "terminationGracePeriodSeconds tolerations topologySpreadConstraints volumes"
)
_CONTAINER_FIELDS: Final = (
    "args command env envFrom image imagePullPolicy lifecycle livenessProbe name ports readinessProbe resizePolicy "
    "resources restartPolicy restartPolicyRules securityContext startupProbe stdin stdinOnce terminationMessagePath "
    "terminationMessagePolicy tty volumeDevices volumeMounts workingDir"
)


def pieces_have_the_shape_of_pods(raw: Raw) -> Iterator[Problem]:
    for key, piece in _pieces(raw):
        for name in [name for name in piece if name not in ("metadata", "spec")]:
            fix = nearest(str(name), ["metadata", "spec"])
            yield Problem(f"{key}.{name}", piece[name], "a known key: metadata, spec", fix)
        for part in ("metadata", "spec"):
            if not isinstance(piece.get(part, {}), Mapping | None):
                yield Problem(f"{key}.{part}", piece[part], "a map, as in a pod template", "make it one")
        for part in ("labels", "annotations"):
            for name, value in map_at(piece, "metadata", part).items():
                if not isinstance(value, str | None):
                    at = f"{key}.metadata.{part}.{name}"
                    yield Problem(
                        at, value, "a text", f'write it in quotes, as YAML takes it for another type: "{value}"'
                    )
        yield from _directives(key, piece)
        spec = map_at(piece, "spec")
        yield from _lists(f"{key}.spec", spec, _OF_PODS)
        yield from _misspelt(f"{key}.spec", spec, _POD_FIELDS)
        for kind in CONTAINERS:
            for index, container in each_of(spec.get(kind)):
                yield from _lists(f"{key}.spec.{kind}.{index}", container, _OF_CONTAINERS)
                yield from _misspelt(f"{key}.spec.{kind}.{index}", container, _CONTAINER_FIELDS)


def _lists(key: str, holder: Raw, known: Sequence[str]) -> Iterator[Problem]:
    for name in known:
        items, fields = holder.get(name), MERGE_KEYS[name][0]
        told = " and ".join(field for field in fields if field != "protocol")
        if items is None:
            continue
        if not isinstance(items, list) or not all(key_of(item, fields) for item in items):
            allowed = f"a list of maps, each with its {told}: by that it is merged"
            yield Problem(f"{key}.{name}", items, allowed, f"write it as `- {fields[0]}: …`")
        elif not keys_of(name, items) and items:
            count = Counter(key_of(item, fields) for item in items)
            twice = ", ".join(str(one[0][1]) for one, often in count.items() if one and often > 1)
            yield Problem(f"{key}.{name}", MISSING, f"no two items with one {told}", f"put these together: {twice}")


def _misspelt(key: str, holder: Raw, known: str) -> Iterator[Problem]:
    """Almost a field that Kubernetes has; of others a newer one may know more."""
    plain = {name.lower(): name for name in known.split()}
    for name in holder:
        close = get_close_matches(re.sub("[_-]", "", str(name).lower()), plain, n=1, cutoff=0.9)
        if close and plain[close[0]] != name:
            yield Problem(
                f"{key}.{name}", MISSING, "a field that Kubernetes knows", f"did you mean '{plain[close[0]]}'?"
            )


def _directives(key: str, value: object) -> Iterator[Problem]:
    if isinstance(value, Mapping):
        for name, inner in value.items():
            if str(name).startswith("$") and (name, inner) != ("$patch", "delete"):
                yield Problem(f"{key}.{name}", inner, "$patch: delete in an item of a list, or null", "take it out")
            yield from _directives(f"{key}.{name}", inner)
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from _directives(f"{key}.{index}", inner)


def _pieces(raw: Raw) -> Iterator[tuple[str, Raw]]:
    """Every piece of a pod template, where it is written."""
    shared = map_at(raw, "template", POD_TEMPLATE)
    yield f"template.{POD_TEMPLATE}", shared
    for name, service, versions in each_service(raw):
        if (own := map_at(service, "template", POD_TEMPLATE)) != shared:
            yield f"services.{name}.template.{POD_TEMPLATE}", own
        for version in versions:
            yield f"services.{name}.versions.{version}.{POD_TEMPLATE}", map_at(versions, version, POD_TEMPLATE)


RULES = (pieces_have_the_shape_of_pods,)
