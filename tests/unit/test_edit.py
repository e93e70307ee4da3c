"""What stack files keep when something edits them: everything but the values that it names."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from config.edit import EditError, edit, edited, value
from mesh.shift.file import set_weights, take_back

ROUTING = ("config", "istio-governance:routing")
COMMENT = "# it was agreed: 90 % {at most}, 'quoted' &not *one"

SHOP = """\
# The stack's own words.
encryptionsalt: v1:abc=
config:
  istio-governance:dbPassword:
    secure: AAABAI2x
  istio-governance:namespace: {name: shop}   # flow
  istio-governance:routing:
    cart:

      # Never above 30 %.
      weights: {v1: 70, v2: 30}
      match:
        - {name: testers, headers: {x-user: {exact: jason}}, weights: {v2: 100}}
        - name: from-web
          weights: {v2: 100}
      expose: { hosts: [ cart.example.com ],  port: "http" }
    catalog:
      weights:
        stable: 95
        canary: 5   # with a copy of everything
      timeout: 3s
    search: {weights: {v1: 100}} # the last one
"""


def leaves(service: str, **weights: int) -> dict[tuple[str, ...], int]:
    return {(*ROUTING, service, "weights", version): weight for version, weight in weights.items()}


def test_named_values_change_and_nothing_else() -> None:
    after = edited(SHOP, leaves("cart", v1=50, v2=50))
    assert after == SHOP.replace("{v1: 70, v2: 30}", "{v1: 50, v2: 50}")
    after = edited(SHOP, leaves("catalog", stable=1, canary=99))
    assert after == SHOP.replace("stable: 95", "stable: 1").replace("canary: 5 ", "canary: 99 ")


def test_a_version_may_look_like_a_number() -> None:
    text = "config:\n  istio-governance:routing:\n    cart:\n      weights:\n        1: 90\n        on: 10\n"
    assert edited(text, {(*ROUTING, "cart", "weights", key): weight for key, weight in (("1", 40), ("on", 60))}) == (
        text.replace("1: 90", "1: 40").replace("on: 10", "on: 60")
    )


def test_what_is_not_there_is_added_in_the_style_of_its_place() -> None:
    after = edited(SHOP, leaves("search", v2=0) | leaves("catalog", third=1) | leaves("new", v1=100))
    assert after == SHOP.replace("{v1: 100}}", "{v1: 100, v2: 0}}").replace(
        "a copy of everything\n", "a copy of everything\n        third: 1\n"
    ).replace("# the last one\n", "# the last one\n    new: {weights: {v1: 100}}\n")
    for text in (
        "",
        "# nothing yet\n",
        "config:\n",
        "config: {}\n",
        "config:\n  a:b: c",
        "---\nconfig:\n  a:b: |\n    c\n",
    ):
        assert value(edited(text, leaves("cart", v1=100)), (*ROUTING, "cart")) == {"weights": {"v1": 100}}, text


ANCHORED = """\
config:
  istio-governance:routing:
    a: &rule
      weights: &half {v1: 50, v2: 50}
      timeout: 3s
    b: *rule
    c: {weights: *half}
    d: {weights: {v1: &w 60, v2: 40}}
"""


def test_whoever_shares_an_anchor_keeps_what_it_has() -> None:
    after = edited(ANCHORED, leaves("b", v1=90, v2=10))
    assert after == ANCHORED.replace("b: *rule", "b: {<<: *rule, weights: {v1: 90, v2: 10}}")
    after = edited(ANCHORED, leaves("c", v2=10))
    assert after == ANCHORED.replace("{weights: *half}", "{weights: {<<: *half, v2: 10}}")
    assert edited(after, leaves("c", v1=90)) == after.replace("v2: 10}}", "v2: 10, v1: 90}}")
    assert edited(ANCHORED, leaves("d", v1=70)) == ANCHORED.replace("&w 60", "&w 70")
    with pytest.raises(EditError, match=r"routing.a.weights.v1 cannot be set without another change.*&half"):
        edited(ANCHORED, leaves("a", v1=90))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("config: [", "it is no YAML"),
        ("config:\n  istio-governance:routing: '{}'\n", "line 2 has no map of keys, where cart should go"),
        ("config:\n  istio-governance:routing: {cart: {weights: [1]}}\n", "line 2 has no map of keys"),
        ("config:\n  istio-governance:routing: {cart: {weights: {v1: {a: 1}}}}\n", "line 2 has more than one value"),
        ("config: &a {b: *a}\n", "cannot be set without another change"),
        ("config:\n  istio-governance:routing: {cart: {weights: {v1: 1, v1: 2}}}\n---\n", "it is no YAML"),
    ],
)
def test_what_cannot_be_edited_stays_as_it_is(text: str, told: str, tmp_path: Path) -> None:
    file = tmp_path / "Pulumi.dev.yaml"
    file.write_text(text)
    with pytest.raises(EditError, match=rf"Pulumi.dev.yaml: .*{told}"):
        edit(file, leaves("cart", v1=50))
    assert file.read_text() == text and [*tmp_path.iterdir()] == [file]


def test_mode_and_link_of_the_file_stay(tmp_path: Path) -> None:
    file, link = tmp_path / "real.yaml", tmp_path / "Pulumi.dev.yaml"
    file.write_bytes(SHOP.replace("\n", "\r\n").encode())
    file.chmod(0o640)
    link.symlink_to(file)
    edit(link, leaves("cart", v1=50, v2=50) | leaves("search", v2=0))
    assert sorted(tmp_path.iterdir()) == [link, file]
    assert link.is_symlink() and file.stat().st_mode & 0o777 == 0o640
    assert file.read_bytes().count(b"\r\n") == file.read_bytes().count(b"\n") == SHOP.count("\n")


# Files of all styles


NAMES = st.sampled_from(["v1", "v2", "stable", "canary", "1", "on", "v-3", "no", "1.5"])
SERVICES = st.sampled_from(["cart", "catalog", "ledger", "search", "web", "y"])
SCALARS = st.sampled_from(["3s", "http", "a: b", "#no", "'", '"', "*", "&a", "", "{", "- x", "5", "ü", 7, True, 0.5])
OTHERS = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abcd"), inner, max_size=3),
    max_leaves=6,
)
WEIGHTS = st.dictionaries(NAMES, st.integers(0, 100), min_size=1, max_size=4)
RULE = st.fixed_dictionaries({"weights": WEIGHTS}, optional={"match": OTHERS, "timeout": OTHERS, "expose": OTHERS})


class Writer:
    """Somebody who writes a stack file in a style that changes from line to line."""

    def __init__(self, draw: st.DrawFn, anchors: bool) -> None:
        self._draw, self._anchors = draw, anchors
        self._names: dict[str, str] = {}

    def block(self, data: Mapping[str, Any], column: int = 0) -> str:
        """With comments and empty lines where they may stand."""
        lines, step = [], self._one(2, 4)
        for key, inner in data.items():
            lines += self._one([], [], [""], [" " * column + COMMENT], [COMMENT])
            after, name = self._one("", "", f"  {COMMENT}"), f"{' ' * column}{self._scalar(str(key))}:"
            if isinstance(inner, Mapping) and inner and self._one(True, False):
                anchor = self._anchor(inner)
                if anchor.startswith("*"):
                    lines.append(f"{name} {anchor}{after}")
                else:
                    lines += [f"{name} {anchor}".rstrip() + after, self.block(inner, column + step).rstrip("\n")]
            else:
                lines.append(f"{name}{self._one(' ', '   ')}{self._flow(inner)}{after}")
        return "\n".join(lines) + "\n"

    def _flow(self, inner: Any) -> str:
        anchor = self._anchor(inner)
        if anchor.startswith("*"):
            return f"{anchor} "
        space, comma = self._one("", "", " "), self._one(", ", ", ", ",", f", {COMMENT}\n{' ' * 30}")
        if isinstance(inner, Mapping):
            listed = comma.join(f"{self._scalar(str(key))}: {self._flow(one)}" for key, one in inner.items())
            return f"{anchor}{{{space}{listed}{space}}}"
        if isinstance(inner, list):
            return f"{anchor}[{space}{comma.join(map(self._flow, inner))}{space}]"
        return anchor + self._scalar(inner)

    def _anchor(self, inner: Any) -> str:
        """Before a value, or in the place of one that has been written before."""
        key = json.dumps(inner)
        if not self._anchors or not self._one(True, False):
            return ""
        if key in self._names:
            return f"*{self._names[key]}"
        self._names[key] = f"anchor{len(self._names)}"
        return f"&{self._names[key]} "

    def _scalar(self, text: object) -> str:
        """In the quotes that somebody happened to choose, or in none where none are needed."""
        style = self._one(None, "'", '"') if isinstance(text, str) else None
        shown: str = yaml.safe_dump(text, default_style=style, allow_unicode=True, width=10_000)
        return shown.removesuffix("...\n").strip()

    def _one(self, *choices: Any) -> Any:
        return self._draw(st.sampled_from(choices))


@st.composite
def documents(draw: st.DrawFn, anchors: bool = False) -> tuple[str, dict[str, Any]]:
    """A stack file in some style, and its rules."""
    some = st.sampled_from(draw(st.lists(RULE, min_size=1, max_size=3)))
    rules = draw(st.dictionaries(SERVICES, some, min_size=1, max_size=4))
    other = {"istio-governance:mesh": {"mode": "existing"}, "istio-governance:dbPassword": {"secure": "AAAB+x/="}}
    parts = draw(st.permutations([("istio-governance:routing", rules), *other.items()]))
    text = Writer(draw, anchors).block({"encryptionsalt": "v1:a=", "config": dict(parts)})
    return text.replace("\n", draw(st.sampled_from(["\n", "\r\n"]))), rules


def only(data: Any, path: tuple[str, ...], weights: Mapping[str, int]) -> Any:
    """`data` with these weights and nothing else changed."""
    if not path:
        return {**data, **weights}
    return {**data, path[0]: only(data.get(path[0], {}), path[1:], weights)}


def subsequence(part: str, whole: str) -> bool:
    rest = iter(whole)
    return all(character in rest for character in part)


@given(documents(), st.data())
def test_an_edit_changes_what_it_names_alone(document: tuple[str, dict[str, Any]], data: st.DataObject) -> None:
    text, rules = document
    service = data.draw(st.sampled_from(sorted(rules)))
    old = rules[service]["weights"]
    new = {version: data.draw(st.integers(0, 100)) for version in old}
    after = edited(text, leaves(service, **new))
    path = (*ROUTING, service, "weights")
    assert _texts(yaml.safe_load(after)) == only(_texts(yaml.safe_load(text)), path, new)
    assert after.count(COMMENT) == text.count(COMMENT)
    pairs = zip(text.splitlines(), after.splitlines(), strict=True)
    assert sum(one != other for one, other in pairs) <= len(old)
    assert edited(after, leaves(service, **old)) == text


@given(documents(anchors=True), st.data())
def test_with_anchors_an_edit_changes_what_it_names_alone_or_nothing(
    document: tuple[str, dict[str, Any]], data: st.DataObject
) -> None:
    text, rules = document
    service = data.draw(st.sampled_from(sorted(rules)))
    new = {version: data.draw(st.integers(0, 100)) for version in rules[service]["weights"]}
    try:
        after = edited(text, leaves(service, **new))
    except EditError as error:
        assert "*anchor" in text and "share" in str(error)
        return
    wanted = only(_texts(yaml.safe_load(text)), (*ROUTING, service, "weights"), new)
    assert _texts(yaml.safe_load(after)) == wanted
    assert after.count(COMMENT) == text.count(COMMENT) and after.count("&anchor") == text.count("&anchor")


@given(documents(), st.dictionaries(NAMES, st.integers(0, 100), min_size=1), SERVICES)
def test_an_edit_that_adds_takes_nothing_away(
    document: tuple[str, dict[str, Any]], new: dict[str, int], service: str
) -> None:
    text, rules = document
    missing = {
        version: w for version, w in new.items() if version not in rules.get(service, {"weights": {}})["weights"]
    }
    after = edited(text, leaves(service, **missing))
    assert (
        _texts(yaml.safe_load(after)) == only(_texts(yaml.safe_load(text)), (*ROUTING, service, "weights"), missing)
        or not missing
    )
    assert subsequence(text, after)
    assert ("\r" in text) == ("\r" in after) and after.replace("\r\n", "").count("\r") == 0


@given(document=documents(), data=st.data(), meanwhile=st.booleans())
def test_a_shift_changes_its_weights_and_takes_them_back(
    document: tuple[str, dict[str, Any]], data: st.DataObject, meanwhile: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """By steps, whatever of the weights the file inherits from the shared defaults."""
    text, rules = document
    service = data.draw(st.sampled_from(sorted(rules)))
    start = {"inherited": 20, **rules[service]["weights"]}
    file = tmp_path_factory.mktemp("stack") / "Pulumi.dev.yaml"
    file.write_bytes(text.encode())

    def weights() -> dict[str, int]:
        return {"inherited": 20, **value(file.read_bytes().decode(), (*ROUTING, service, "weights"))}

    for _ in range(data.draw(st.integers(1, 3))):
        step = {version: data.draw(st.integers(0, 100)) for version in start}
        set_weights(file, service, step, start)
        assert _texts(weights()) == step
    if meanwhile:  # somebody has worked at the file
        file.write_bytes(file.read_bytes() + b"# later\n")
    take_back(file, text, service, start)
    assert _texts(weights()) == start
    assert file.read_bytes().endswith(b"# later\n") if meanwhile else file.read_bytes().decode() == text


def _texts(data: Any) -> Any:
    """With keys as Pulumi hands them on."""
    if isinstance(data, Mapping):
        return {str(key): _texts(inner) for key, inner in data.items()}
    return [_texts(inner) for inner in data] if isinstance(data, list) else data
