"""What a stack consists of: as a checkout declares it, as it is live, and as `pulumi up` would leave it."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from config.files import PROJECT, SECRET
from config.types import is_hidden, stand_in
from mesh.program.recorder import Resource
from mesh.program.stack import Stack

_SECRET_SIGNATURE = "4dabf18193072939515e22adb298388d"  # noqa: S105 (Pulumi's mark of a secret in JSON)


class StateError(Exception):
    """A state cannot be found out; the message says why."""


@dataclass(frozen=True)
class State:
    """`resources` by the part of the URN that the program decides; `problems` in the place of them when the
    configuration is wrong. `folder` is where the relative paths in it begin."""

    name: str
    resources: Mapping[str, Resource] = field(default_factory=dict)
    problems: str = ""
    folder: Path = PROJECT


@dataclass(frozen=True)
class Comparison:
    """`operations` is what Pulumi itself says it would do, by the keys of the resources; None: nobody asked it."""

    before: State
    after: State
    operations: Mapping[str, str] | None = None


def offline(stack: str, revision: str, project: Path = PROJECT) -> Comparison:
    """A commit against the working tree, each with its own code; neither needs a cluster. Raises `StateError`."""
    with TemporaryDirectory() as folder, ThreadPoolExecutor() as pool:
        commit = _export(revision, project, Path(folder))
        before = pool.submit(_declared, stack, Path(folder), f"{revision} ({commit[:7]})", project)
        after = pool.submit(_declared, stack, project, "the working tree", project)
        return Comparison(before.result(), after.result())


def live(stack: Stack) -> Comparison:
    """The stack's state against what `pulumi up` would make of it, by one `pulumi preview`. Raises `StateError`."""
    command = stack.command("preview", "--json")
    done = subprocess.run(
        command,
        cwd=stack.folder,
        env=stack.variables,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    try:
        preview = json.loads(done.stdout)
    except ValueError:
        raise StateError(f"`{' '.join(command)}` failed:\n{done.stdout}{done.stderr}".strip()) from None
    name = f"the live stack {stack.name}"
    if done.returncode:
        return Comparison(State(name, folder=stack.folder), State("the working tree", problems=_errors(preview)))
    return previewed(preview, name, stack.folder)


def previewed(preview: Mapping[str, Any], name: str, folder: Path) -> Comparison:
    """The two states in what `pulumi preview --json` printed."""
    before, after, operations = {}, {}, {}
    for step in preview.get("steps", []):
        if not _is_real(step["urn"].split("::")[2].rpartition("$")[2]):
            continue
        old, new = (_previewed(step, side) if step.get(side) else None for side in ("oldState", "newState"))
        line = "::".join(step["urn"].split("::")[2:])
        # A replacement is three steps of one resource.
        operations[line] = "replace" if "replace" in step["op"] else step["op"]
        if old:
            before[line] = old
        if new and step["op"] != "delete":
            after[line] = new
    return Comparison(State(name, before, folder=folder), State("the working tree", after, folder=folder), operations)


def of(resources: Iterable[Resource], name: str, folder: Path = PROJECT) -> State:
    """The state of registered resources, without what must not be shown."""
    found = {one.line: _without_secrets(one, _stand_in) for one in resources if _is_real(one.type)}
    return State(name, found, folder=folder)


def _export(revision: str, project: Path, folder: Path) -> str:
    """Puts the project as of a commit into `folder` and says which commit that is."""
    try:
        commit = _git(project, "rev-parse", "--verify", "--quiet", f"{revision}^{{commit}}").decode().strip()
        prefix = _git(project, "rev-parse", "--show-prefix").decode().strip()
        archive = _git(project, "archive", "--format=tar", f"{commit}:{prefix}")
    except subprocess.CalledProcessError as error:
        said = error.stderr.decode().strip() or "no such commit; a shallow clone may lack it"
        raise StateError(f"git does not know {revision}: {said}") from None
    with tarfile.open(fileobj=io.BytesIO(archive)) as content:
        content.extractall(folder, filter="data")
    return commit


def _git(project: Path, *args: str) -> bytes:
    return subprocess.run(["git", *args], cwd=project, capture_output=True, check=True).stdout


def _declared(stack: str, checkout: Path, name: str, folder: Path) -> State:
    """With the Python packages of this checkout and the code of that one."""
    script = Path(__file__).with_name("snapshot.py")
    done = subprocess.run(
        [sys.executable, "-P", str(script), stack],
        cwd=checkout,
        env={**os.environ, "PYTHONPATH": str(checkout), "PYTHONDONTWRITEBYTECODE": "1"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise StateError(f"{name} cannot say what it declares: {last}")
    answer = json.loads(done.stdout)
    if "problems" in answer:
        return State(name, problems=answer["problems"], folder=folder)
    return of(
        (
            Resource(**{**fields, "dependencies": frozenset(fields["dependencies"])})
            for fields in map(_known_fields, answer["resources"])
        ),
        name,
        folder,
    )


def _known_fields(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Those of this checkout's `Resource`: the other checkout's may have more."""
    return {name: value for name, value in fields.items() if name in Resource.__dataclass_fields__}


def _previewed(step: Mapping[str, Any], side: str) -> Resource:
    """One side of a step. Pulumi shows no secret, but it says which of them differ: the new ones get another word."""
    resource = _resource(step[side])
    missing, word = ("add", SECRET) if side == "oldState" else ("delete", _ANOTHER)
    differing = [
        [name or number for name, number in _STEPS.findall(path)]
        for path, difference in (step.get("detailedDiff") or {}).items()
        if not difference["kind"].startswith(missing)
    ]
    inputs = dict(resource.inputs)
    if step.get("detailedDiff") and is_hidden(inputs.get("data")):  # the provider hides a Secret's as a whole
        inputs["data"] = {key: word for first, *keys in differing if first == "data" for key in keys}
    for path in differing:
        inputs = _told(inputs, path, word)
    return replace(resource, inputs=inputs)


# https://www.pulumi.com/docs/iac/concepts/miscellaneous/property-paths/
_STEPS = re.compile(r'(?:^|\.)([^.\[]+)|\["?([^\]"]+)"?\]')
_ANOTHER = "[secret, another]"


def _told(value: Any, path: Sequence[str], word: str) -> Any:
    """`value` with `word` in the place of the secret that `path` leads to, if it does."""
    if isinstance(value, Mapping) and path and path[0] in value:
        return {**value, path[0]: _told(value[path[0]], path[1:], word)}
    if isinstance(value, list) and path and path[0].isdecimal() and int(path[0]) < len(value):
        number = int(path[0])
        return [*value[:number], _told(value[number], path[1:], word), *value[number + 1 :]]
    return word if is_hidden(value) and not path else value


def _resource(state: Mapping[str, Any]) -> Resource:
    """From a state as Pulumi prints it."""
    return _without_secrets(
        Resource(
            urn=state["urn"],
            type=state["type"],
            name=state["urn"].rpartition("::")[2],
            parent=state.get("parent", ""),
            dependencies=frozenset(state.get("dependencies", [])),
            provider=state.get("provider", ""),
            inputs=state.get("inputs", {}),
            ignore_changes=(),
            timeouts={},
            protect=state.get("protect", False),
        )
    )


def _is_real(kind: str) -> bool:
    """Not a component, which has nothing of its own."""
    return not kind.startswith(("istio-governance:", "pulumi:pulumi:"))


def _errors(preview: Mapping[str, Any]) -> str:
    messages = [entry["message"] for entry in preview.get("diagnostics", []) if entry.get("severity") == "error"]
    return "\n".join(dict.fromkeys(message.strip() for message in messages)) or "the preview failed without a message"


def _without_secrets(resource: Resource, hide: Callable[[Any], str] = lambda _: SECRET) -> Resource:
    inputs = _plain(resource.inputs, hide)
    if resource.kind == "Secret":
        inputs |= {part: _hidden(inputs[part]) for part in ("data", "stringData") if inputs.get(part)}
    return replace(resource, inputs=inputs)


def _hidden(values: Any) -> Any:
    """The values of a Secret; what is hidden already says whether it is another one."""
    if not isinstance(values, Mapping):
        return SECRET
    return {key: value if is_hidden(value) else SECRET for key, value in values.items()}


def _stand_in(value: Any) -> str:
    """An offline run has no secret, only what stands for it (`files.stand_ins`): a change of that may be shown."""
    return stand_in(json.dumps(value, sort_keys=True))


def _plain(value: Any, hide: Callable[[Any], str]) -> Any:
    """Without Pulumi's marks: secrets are hidden, whole numbers are whole, and its notes on defaults are gone."""
    if isinstance(value, Mapping):
        if _SECRET_SIGNATURE in value:
            return hide(value.get("value"))
        return {key: _plain(inner, hide) for key, inner in value.items() if key != "__defaults" and inner is not None}
    if isinstance(value, list):
        return [_plain(inner, hide) for inner in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value
