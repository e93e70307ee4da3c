"""Changes single values of a stack's file; every other byte of it stays.

A YAML library that reads and writes the whole document would set it anew in its own style, and one value laid over a
key by `pulumi up --config … --config-path` takes all else under that key away. So the place of each value is looked up
in the document and the text is changed there alone; what comes out is read again and compared before it is written.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, cast

import yaml

Leaves = Mapping[tuple[str, ...], int | str]
"""Path of keys from the top of the file → the value that it is to have."""

_PROPERTIES = re.compile(r"(?:[&!]\S*\s+)*")
"""An anchor and a tag, which stand before a value and are not changed with it."""
_PLAIN = re.compile(r"[A-Za-z][\w./-]*(?::[\w./-]+)*")


class EditError(Exception):
    """The file cannot be changed in this place alone; the message names file, key and fix. Nothing was changed."""


class _Change(NamedTuple):
    """`text` in the place of what stands from `start` to `end`, both counted in characters."""

    start: int
    end: int
    text: str


@dataclass
class _Alias(yaml.Node):
    """`*name`, which PyYAML alone would show as what it stands for, in the place of that."""

    target: yaml.Node
    start_mark: yaml.Mark
    end_mark: yaml.Mark
    tag = value = ""


class _Loader(yaml.SafeLoader):
    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        alias = self.peek_event() if self.check_event(yaml.AliasEvent) else None  # type: ignore[no-untyped-call]
        node = super().compose_node(parent, index)
        return _Alias(node, alias.start_mark, alias.end_mark) if alias and node else node


class _Values(yaml.CSafeLoader):
    """Keys are texts, as Pulumi hands them on, also where YAML 1.1 sees a number or a truth value."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        self.flatten_mapping(node)
        return {key.value: self.construct_object(inner, deep) for key, inner in node.value}


def edit(file: Path, leaves: Leaves) -> None:
    """Writes the values into the file, all of it or nothing. Raises `EditError`, and `OSError`."""
    before = read(file)
    try:
        after = edited(before, leaves)
    except EditError as error:
        raise EditError(f"{file.name}: {error}") from None
    if after != before:
        write(file, after)


def edited(text: str, leaves: Leaves) -> str:
    """`text` with these values; the rest of what it says, comments and style included, is as it was.

    Raises `EditError`.
    """
    tree = _tree(leaves)
    try:
        root, before = yaml.compose(text, Loader=_Loader), _values(text)
    except yaml.YAMLError as error:
        raise EditError(f"it is no YAML: {error}") from None
    after, line_end = text, "\r\n" if "\r\n" in text else "\n"
    # Of two in one place the inner one is told first, and is to stand first: so the outer one is put there before it.
    changes = sorted(enumerate(_changes(text, root, before, tree)), key=lambda one: (one[1].start, one[0]))
    for _, change in reversed(changes):
        after = after[: change.start] + change.text.replace("\n", line_end) + after[change.end :]
    if not _says(after, _laid_over(before, tree)):
        keys = " and ".join(".".join(path[1:]).removeprefix("istio-governance:") for path in leaves)
        raise EditError(f"{keys} cannot be set without another change in it{_shared(text)}; write it there by hand")
    return after


def value(text: str, path: tuple[str, ...]) -> Any:
    """What the file itself says there, None for nothing. Raises `EditError`."""
    try:
        found = _values(text)
    except yaml.YAMLError as error:
        raise EditError(f"it is no YAML: {error}") from None
    for key in path:
        found = found.get(key) if isinstance(found, Mapping) else None
    return found


def read(file: Path) -> str:
    """The text with its ends of lines as they are."""
    return file.read_bytes().decode()


def write(file: Path, text: str) -> None:
    """All of it or nothing, also when the machine goes down in the middle."""
    file = file.resolve()
    fresh = file.with_name(f".{file.name}.new")
    fresh.write_bytes(text.encode())
    shutil.copymode(file, fresh)
    fresh.replace(file)


def _values(text: str) -> Any:
    return yaml.load(text, Loader=_Values)  # noqa: S506, it is a safe one


def _says(text: str, wanted: object) -> bool:
    """To the letter: Python calls 1, 1.0 and true equal, and dicts in another order."""
    try:
        return json.dumps(_values(text), default=repr) == json.dumps(wanted, default=repr)
    except (yaml.YAMLError, ValueError):
        return False


def _tree(leaves: Leaves) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for path, value in leaves.items():
        inner = tree
        for key in path[:-1]:
            inner = inner.setdefault(key, {})
        inner[path[-1]] = value
    return tree


def _laid_over(value: Any, tree: Mapping[str, Any]) -> dict[Any, Any]:
    """What the document is to say."""
    result = dict(value) if isinstance(value, Mapping) else {}
    for key, new in tree.items():
        result[key] = _laid_over(result.get(key), new) if isinstance(new, Mapping) else new
    return result


def _changes(text: str, node: yaml.Node | None, value: Any, tree: Mapping[str, Any]) -> Iterator[_Change]:
    """`node` is a map, or what is to become one; `value` what it stands for."""
    match node:
        case None:
            fresh_line = "\n" if text and not text.endswith("\n") else ""
            yield _Change(len(text), len(text), f"{fresh_line}{_block(tree)}\n")
        case _Alias():
            yield _Change(node.start_mark.index, node.end_mark.index, _own(text, node.target, value, tree))
        case yaml.MappingNode():
            known = {key.value: (inner, value.get(key.value)) for key, inner in node.value}
            for name, new in tree.items():
                if name in known and isinstance(new, Mapping):
                    yield from _changes(text, *known[name], new)
                elif name in known:
                    yield _replaced(text, known[name][0], new)
            if missing := {name: new for name, new in tree.items() if name not in known}:
                yield _added(text, node, missing)
        case _ if node.tag == "tag:yaml.org,2002:null":
            yield _replaced(text, node, tree)
        case _:
            raise EditError(f"line {node.start_mark.line + 1} has no map of keys, where {', '.join(tree)} should go")


def _replaced(text: str, node: yaml.Node, new: Any) -> _Change:
    start, end = node.start_mark.index, node.end_mark.index
    if isinstance(node, yaml.CollectionNode):
        raise EditError(f"line {node.start_mark.line + 1} has more than one value, where {new} should go")
    if properties := _PROPERTIES.match(text, start, end):
        start = properties.end()
    return _Change(start, end, f"{' ' * (start == end)}{_flow(new)}")  # at the end of `key:` there is no space


def _added(text: str, node: yaml.MappingNode, missing: Mapping[str, Any]) -> _Change:
    """New keys behind the last one, in the style of the map."""
    if node.flow_style:
        end = _end(node.value[-1][1]) if node.value else node.end_mark.index - 1
        return _Change(end, end, f"{', ' * bool(node.value)}{_flow(missing)[1:-1]}")
    end = _end(node.value[-1][1])
    lines = _block(missing, " " * node.value[0][0].start_mark.column)
    if text[end - 1] == "\n":  # behind a block of text
        return _Change(end, end, f"{lines}\n")
    rest = re.compile(r"[^\r\n]*").match(text, end)  # a comment
    end = rest.end() if rest else end
    return _Change(end, end, f"\n{lines}")


def _end(node: yaml.Node) -> int:
    """Where its text ends: PyYAML lets a block end where the next thing begins, behind the comments."""
    if isinstance(node, yaml.CollectionNode) and not node.flow_style and node.value:
        last = node.value[-1]
        return _end(last[1] if isinstance(node, yaml.MappingNode) else last)
    return cast(int, node.end_mark.index)


def _own(text: str, target: yaml.Node, value: Any, tree: Mapping[str, Any]) -> str:
    """In the place of an alias: the same map with changes of its own, so that whoever else uses the anchor keeps it."""
    properties = _PROPERTIES.match(text, target.start_mark.index)
    anchor = re.search(r"&(\S+)", properties[0]) if properties else None
    if not isinstance(value, Mapping) or not anchor:
        raise EditError(f"line {target.start_mark.line + 1} has no map of keys, where {', '.join(tree)} should go")
    changed = _laid_over(value, tree)
    own = ", ".join(f"{_scalar(key)}: {_flow(changed[key])}" for key in tree)
    return f"{{<<: *{anchor[1]}, {own}}}"


def _block(tree: Mapping[str, Any], indent: str = "") -> str:
    return "\n".join(f"{indent}{_scalar(key)}: {_flow(value)}" for key, value in tree.items())


def _flow(value: Any) -> str:
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{_scalar(key)}: {_flow(inner)}' for key, inner in value.items())}}}"
    if isinstance(value, list):
        return f"[{', '.join(map(_flow, value))}]"
    return _scalar(value)


def _scalar(value: Any) -> str:
    """As it stands in a file: in quotes where YAML would take a text for something else."""
    is_plain = isinstance(value, str) and _PLAIN.fullmatch(value) and _values(value) == value
    return value if is_plain else json.dumps(value, default=str)


def _shared(text: str) -> str:
    anchors = ", ".join(sorted(set(re.findall(r"(?<!\S)&[^\s,\[\]{}]+", text))))
    return f", perhaps because several places share one of {anchors}" if anchors else ""
