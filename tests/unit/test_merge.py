"""How pieces of a pod template are laid over each other and over the generated one."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from config.merge import MERGE_KEYS, key_of, keys_of, merged, patched, settled

from .given import config

Piece = dict[str, Any]


def spec(**fields: Any) -> Piece:
    return {"spec": fields}


def container(**fields: Any) -> Piece:
    return spec(containers=[{"name": "cart", **fields}])


@pytest.mark.parametrize(
    ("below", "above", "expected"),
    [
        (container(image="a"), container(tty=True), container(image="a", tty=True)),
        (container(image="a"), container(image="b"), container(image="b")),
        (container(image="a", tty=True), container(tty=None), container(image="a")),
        (
            container(image="a"),
            spec(containers=[{"name": "log", "image": "b"}]),
            spec(containers=[{"name": "cart", "image": "a"}, {"name": "log", "image": "b"}]),
        ),
        (
            spec(containers=[{"name": "cart"}, {"name": "log"}]),
            spec(containers=[{"name": "log", "$patch": "delete"}]),
            spec(containers=[{"name": "cart"}]),
        ),
        (container(), spec(containers=[]), container()),
        # The key of each list is its own.
        (
            container(volumeMounts=[{"name": "a", "mountPath": "/a"}]),
            container(volumeMounts=[{"name": "a", "mountPath": "/b"}, {"name": "c", "mountPath": "/a"}]),
            container(volumeMounts=[{"name": "c", "mountPath": "/a"}, {"name": "a", "mountPath": "/b"}]),
        ),
        (
            container(ports=[{"name": "http", "containerPort": 80}]),
            container(ports=[{"containerPort": 80, "name": "web", "protocol": "TCP"}]),
            container(ports=[{"name": "web", "containerPort": 80, "protocol": "TCP"}]),
        ),
        (
            container(ports=[{"name": "dns", "containerPort": 53}]),
            container(ports=[{"name": "dns-udp", "containerPort": 53, "protocol": "UDP"}]),
            container(
                ports=[
                    {"name": "dns", "containerPort": 53},
                    {"name": "dns-udp", "containerPort": 53, "protocol": "UDP"},
                ]
            ),
        ),
        (
            spec(hostAliases=[{"ip": "10.0.0.1", "hostnames": ["a"]}]),
            spec(hostAliases=[{"ip": "10.0.0.1", "hostnames": ["b"]}]),
            spec(hostAliases=[{"ip": "10.0.0.1", "hostnames": ["b"]}]),
        ),
        (
            spec(
                topologySpreadConstraints=[{"topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule", "maxSkew": 1}]
            ),
            spec(topologySpreadConstraints=[{"topologyKey": "zone", "whenUnsatisfiable": "ScheduleAnyway"}]),
            spec(
                topologySpreadConstraints=[
                    {"topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule", "maxSkew": 1},
                    {"topologyKey": "zone", "whenUnsatisfiable": "ScheduleAnyway"},
                ]
            ),
        ),
        # Other lists are whole values.
        (container(args=["a", "b"]), container(args=["c"]), container(args=["c"])),
        (spec(tolerations=[{"key": "a"}]), spec(tolerations=[{"key": "b"}]), spec(tolerations=[{"key": "b"}])),
        # Of some things there is one: what is said last.
        (
            container(env=[{"name": "A", "value": "1"}]),
            container(env=[{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}}]),
            container(env=[{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}}]),
        ),
        (
            container(readinessProbe={"tcpSocket": {"port": 80}, "periodSeconds": 1}),
            container(readinessProbe={"httpGet": {"port": 80}}),
            container(readinessProbe={"periodSeconds": 1, "httpGet": {"port": 80}}),
        ),
        (
            spec(volumes=[{"name": "data", "emptyDir": {}}, {"name": "tls", "secret": {"secretName": "a"}}]),
            spec(volumes=[{"name": "data", "configMap": {"name": "b"}}, {"name": "tls", "secret": {"optional": True}}]),
            spec(
                volumes=[
                    {"name": "data", "configMap": {"name": "b"}},
                    {"name": "tls", "secret": {"secretName": "a", "optional": True}},
                ]
            ),
        ),
    ],
)
def test_lists_with_keys_are_merged_by_them(below: Piece, above: Piece, expected: Piece) -> None:
    assert settled(patched(below, above)) == expected


def test_what_a_piece_removes_goes_at_every_level() -> None:
    """Also from the generated template, which the levels of the configuration do not know."""
    shared = {"containers": [{"name": "log", "image": "a", "tty": True}], "hostAliases": [{"ip": "10.0.0.1"}]}
    template = {"terminationGracePeriodSeconds": None, "nodeName": "a", "hostNetwork": True}
    own = {"nodeName": None, "containers": [{"name": "log", "image": "b", "tty": None}]}
    version = {"v1": {"podTemplate": {"spec": own}}}
    service = config(
        template={"podTemplate": {"spec": shared}},
        services={"bill-service": {"template": {"podTemplate": {"spec": template}}, "versions": version}},
    ).services["bill-service"]
    generated = spec(terminationGracePeriodSeconds=35, containers=[{"name": "bill-service"}])
    assert settled(patched(generated, service.version("v1").pod_template))["spec"] == {
        "containers": [{"name": "bill-service"}, {"name": "log", "image": "b"}],
        "hostAliases": [{"ip": "10.0.0.1"}],
        "hostNetwork": True,
    }


# Properties

KEYED = {name: fields for name, (fields, *_) in MERGE_KEYS.items()}
NAMES = st.sampled_from(["a", "b", "c", "d"])


def item(fields: tuple[str, ...]) -> st.SearchStrategy[Piece]:
    keys = {field: st.sampled_from(["TCP", "UDP"]) if field == "protocol" else NAMES for field in fields}
    more = {"x": st.integers(0, 3), "nested": st.dictionaries(NAMES, st.integers(0, 3), max_size=2)}
    return st.fixed_dictionaries(keys, optional=more)


def keyed(name: str) -> st.SearchStrategy[list[Piece]]:
    fields = KEYED[name]
    return st.lists(item(fields), max_size=4, unique_by=lambda one: key_of(one, fields))


PIECES: st.SearchStrategy[Piece] = st.fixed_dictionaries(
    {},
    optional={**{name: keyed(name) for name in KEYED}, "args": st.lists(NAMES), "map": st.dictionaries(NAMES, NAMES)},
)


@given(below=PIECES, above=PIECES)
def test_what_is_not_named_stays_and_order_is_kept(below: Piece, above: Piece) -> None:
    before = copy.deepcopy((below, above))
    result = patched(below, above)
    assert (below, above) == before
    for name in KEYED:
        under, over, found = (keys_of(name, piece.get(name, [])) for piece in (below, above, result))
        assert found == [*under, *(key for key in over if key not in under)]
        for key, one in zip(under, below.get(name, []), strict=True):
            if key not in over:
                assert one in result[name]
        for key, one in zip(over, above.get(name, []), strict=True):
            assert result[name][found.index(key)].items() >= {k: v for k, v in one.items() if k == "x"}.items()
    assert result.get("args") == above.get("args", below.get("args"))


@given(below=PIECES, above=PIECES)
def test_merging_twice_is_merging_once(below: Piece, above: Piece) -> None:
    once = patched(below, above)
    assert patched(once, above) == once
    assert patched({}, below) == patched(below, {}) == patched(below, below) == below
    assert settled(once) == once


@given(first=PIECES, second=PIECES, third=PIECES)
def test_levels_can_be_merged_in_any_grouping(first: Piece, second: Piece, third: Piece) -> None:
    """So that it does not matter that the configuration lays them over each other before the generated one is there."""
    assert patched(patched(first, second), third) == patched(first, patched(second, third))


@given(below=PIECES, above=PIECES, name=st.sampled_from(sorted(KEYED)))
def test_what_is_deleted_is_gone_from_whatever_is_below(below: Piece, above: Piece, name: str) -> None:
    deleting = {name: [{**one, "$patch": "delete"} for one in above.get(name, [])], "map": None}
    result = settled(patched(below, deleting))
    gone = keys_of(name, above.get(name, []))
    assert keys_of(name, result.get(name, [])) == [key for key in keys_of(name, below.get(name, [])) if key not in gone]
    assert "map" not in result


@given(below=PIECES, above=PIECES)
def test_layers_of_a_configuration_merge_their_pieces_so(below: Piece, above: Piece) -> None:
    layers: list[Mapping[str, Any]] = [{"v1": {"podTemplate": piece}} for piece in (below, above)]
    assert merged(*layers) == {"v1": {"podTemplate": patched(below, above)}}
