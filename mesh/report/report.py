"""The report on one stack: all that the writers need, and nothing that must not be shown."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Literal

from mesh.program import render
from mesh.program.helm import HelmError
from mesh.report import effects, meanwhile, model
from mesh.report.changes import Change, changes
from mesh.report.effects import Effect
from mesh.report.risk import MANDATORY, Risk, pods, refusals, risk
from mesh.report.states import Comparison, State
from mesh.report.words import Sentence, sentences
from policy import rules

Verdict = Literal["wrong", "refused", "none", "changes"]


@dataclass(frozen=True)
class ObjectDiff:
    """One resource, or one object that a chart makes: `sign` is +, -, ~ or ± (replaced), `diff` a unified diff."""

    sign: str
    name: str
    diff: str


@dataclass(frozen=True)
class Report:
    """`problems` is the text that the program ends with when the configuration is wrong: then there is no more."""

    stack: str
    before: str
    after: str
    problems: str = ""
    refusals: tuple[str, ...] = ()
    words: tuple[Sentence, ...] = ()
    risk: Risk = field(default_factory=lambda: Risk("none"))
    resources: tuple[ObjectDiff, ...] = ()
    unchanged: int = 0
    rendered: tuple[ObjectDiff, ...] = ()
    not_rendered: str = ""

    @property
    def verdict(self) -> Verdict:
        if self.problems:
            return "wrong"
        if self.refusals:
            return "refused"
        return "changes" if self.resources else "none"


_SIGNS: Mapping[str, str] = {"create": "+", "delete": "-", "update": "~", "replace": "±"}


def report(stack: str, comparison: Comparison) -> Report:
    before, after = comparison.before, comparison.after
    if after.problems or before.problems:
        wrong = after.problems or (
            f"{before.name} is wrong itself, so there is nothing to compare with; {after.name} is right\n\n"
            f"{before.problems}"
        )
        return Report(stack, before.name, after.name, problems=wrong.strip())
    found = changes(comparison)
    mesh, not_rendered = _rendered(found, before, after)
    return Report(
        stack,
        before.name,
        after.name,
        refusals=tuple(refusals(found)),
        words=tuple(sentences(found)),
        risk=risk(
            found,
            list(_effects(before, after)),
            [one.name for one in mesh if one.restarts] or _unknown(not_rendered),
            _policy(before, after),
        ),
        resources=tuple(
            ObjectDiff(_SIGNS[change.operation], f"{change.kind} {change.name}", _diff(change.old, change.new))
            for change in found
        ),
        unchanged=len(after.resources) - sum(change.operation != "delete" for change in found),
        rendered=tuple(ObjectDiff(one.sign, one.name, _diff(one.old, one.new)) for one in mesh),
        not_rendered=not_rendered,
    )


def _effects(before: State, after: State) -> Iterator[Effect]:
    meshed = all(model.mesh(state).mode != "off" for state in (before, after))
    yield from effects.of_services(model.services(before), model.services(after), meshed)
    yield from meanwhile.of_states(before, after)


@dataclass(frozen=True)
class _Rendered:
    """An object of the mesh that changes; {} where there is none."""

    name: str
    old: render.Object
    new: render.Object

    @property
    def sign(self) -> str:
        return "~" if self.old and self.new else "+" if self.new else "-"

    @property
    def restarts(self) -> bool:
        return bool(self.old and self.new) and pods(self.old) != pods(self.new)


def _rendered(found: Sequence[Change], before: State, after: State) -> tuple[list[_Rendered], str]:
    """What changes inside the changed Helm releases, object by object; or why that cannot be said."""
    releases = [change.resource.line for change in found if change.kind == "Release"]
    try:
        old, new = (_objects(releases, state) for state in (before, after))
    except HelmError as error:
        return [], str(error)
    return [
        _Rendered(f"{kind} {namespace}/{name}" if namespace else f"{kind} {name}", old.get(key, {}), new.get(key, {}))
        for key in {**old, **new}
        if old.get(key) != new.get(key)
        for _, kind, namespace, name in [key]
    ], ""


def _policy(before: State, after: State) -> list[str]:
    """What the policy pack finds in `after` and did not find in `before`."""
    old, new = (set(_findings(state)) for state in (before, after))
    return sorted(new - old, reverse=True)


def _findings(state: State) -> Iterator[str]:
    proposed = [rules.Proposed(one.urn, one.type, one.name, one.inputs) for one in state.resources.values()]
    for verdict in rules.verdicts(proposed):
        level = MANDATORY if verdict.mandatory else "advice"
        yield f"{level}, {verdict.finding.resource.name}: {verdict.finding.message}"


def _unknown(not_rendered: str) -> list[str]:
    return ["what the Helm releases change, which could not be rendered"] if not_rendered else []


def _objects(releases: Sequence[str], state: State) -> dict[tuple[str, str, str, str], render.Object]:
    """Of those of the releases that are in `state`."""
    found = [state.resources[line] for line in releases if line in state.resources]
    with ThreadPoolExecutor() as pool:
        rendered = pool.map(lambda release: render.of_release(release, state.folder), found)
        return {render.identity(one): one for objects in rendered for one in objects}


def _diff(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    """A unified diff of both as YAML, without the heading that names files."""
    lines = difflib.unified_diff(_lines(old), _lines(new), lineterm="", n=2)
    return "\n".join(list(lines)[2:])


def _lines(value: Mapping[str, Any]) -> list[str]:
    return render.as_yaml([dict(value)]).splitlines()[1:] if value else []
