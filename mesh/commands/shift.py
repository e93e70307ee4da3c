"""`mesh shift`: new weights, in the stack's file and in the cluster alike, by steps that a gate watches."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from importlib import import_module

import click

import names
from config import edit, files
from config.routing import Shift
from config.types import seconds
from mesh import cli
from mesh.calls import caller_of, live_service, url_of
from mesh.cluster.envoy import each
from mesh.cluster.objects import Object
from mesh.cluster.service import LiveService
from mesh.program import checkout
from mesh.program.stack import PulumiError, Stack
from mesh.shift.plan import Outcome, Plan, Weights, run
from mesh.shift.world import (
    BusyError,
    Interrupts,
    Journal,
    LiveWorld,
    Watch,
    declared_weights,
    edited_leaves,
    set_weights,
    take_back,
)
from mesh.traffic.gate import requests_needed
from mesh.traffic.weights import aimed, described, rising, without_zeros

EXIT = {
    Outcome.DONE: cli.Exit.GOOD,
    Outcome.HELD: cli.Exit.INCONCLUSIVE,
    Outcome.ROLLED_BACK: cli.Exit.FAILED,
    Outcome.LOST: cli.Exit.FAILED,
    Outcome.INTERRUPTED: cli.Exit.INTERRUPTED,
}

_CHANGES = "no changes were expected"
"""What Pulumi says of a preview with changes."""


@click.command(epilog="Example: mesh shift bill-service v2=50 --steps 10,25,50,100 --interval 1m")
@click.argument("service")
@click.argument("weights", nargs=-1, metavar="VERSION=WEIGHT...")
@click.option("--steps", default="", help="Percent of the way, rising: 10,25,50,100. A gate is at each.")
@click.option("--interval", default="", help="How long each step is watched, such as 90s.")
@click.option("--probe", "probes", type=click.IntRange(0, 1_000_000), default=0, help="Send so many requests a step.")
@click.option("--from", "workload", default="", help="The workload that sends them; default: the first with curl.")
@click.option("--path", default="/", show_default=True, help="The path that they ask for.")
@click.option("--now", is_flag=True, help="At once and without a gate, whatever the configuration says.")
@click.option("--back", is_flag=True, help="Take back a shift that was killed.")
@click.option("--message", "-m", default="", help="Why; it stands in `pulumi stack history`.")
@click.option("--pr", is_flag=True, help="Change nothing: print the branch and the commit.")
@click.option("--file-only", is_flag=True, help="Write the weights into the stack's file, and apply nothing.")
@click.option(
    "--yes", is_flag=True, help="Needed for production (a stack prod, prod-…, production…), or with protect: true."
)
@cli.stack_option
@cli.json_option
def command(
    service: str,
    weights: tuple[str, ...],
    steps: str,
    interval: str,
    probes: int,
    workload: str,
    path: str,
    now: bool,
    back: bool,
    message: str,
    pr: bool,
    file_only: bool,
    yes: bool,
    stack: str,
    as_json: bool,
) -> int:
    """Shift SERVICE's requests: v2=50 gives version v2 50 %, and the rest to the others in proportion.

    The weights go into the stack's file and to the cluster, and every proxy that calls the service has them before this
    ends. With routing.SERVICE.shift in the configuration, or with --steps, --interval or --probe, it goes step by step,
    and a gate looks at the versions that get more: at failures and times as the callers see them. When a gate fails,
    on Ctrl-C or when something cannot be applied it goes back to where it began. Exit code 0: done; 1: not begun or
    rolled back; 3: the gate could not decide, by too few requests for instance, held at its step; 4: another shift is
    under way; 130: interrupted, and rolled back.
    """
    live, driver = live_service(files.effective(stack), service), Stack(stack, shielded=True)
    if service not in live.config.weights:
        raise cli.Failure(f"{service} has no routing.{service}.weights, or the mesh is off", cli.Exit.USAGE)
    start = live.config.weights[service]
    aim = start if back else _aim(start, weights)
    say: Callable[[str], None] = lambda text: click.echo(text, err=as_json)  # noqa: E731
    if pr:
        _print_pull_request(driver, service, start, aim, message)
        return cli.Exit.GOOD
    _require_editable(driver, service, start, aim)
    if file_only:
        set_weights(driver.file, service, aim, start)
        say(f"{driver.file.name}: {service} {described(aim)}; nothing is applied yet")
        return cli.Exit.GOOD
    if names.is_production(stack) or live.config.protect:
        _require_current(driver, yes)
    shift = _how(live, steps, interval, probes, now)
    try:
        with Journal(driver) as journal:
            if back:
                return _take_back(driver, journal, say)
            if left := journal.left:
                raise cli.Failure(
                    f"the shift of {left['service']} from {described(left['start'])} to {described(left['aim'])} was "
                    f"killed; take it back: mesh shift {left['service']} --back --stack {stack}"
                )
            return _shift(driver, live, journal, Plan.of(start, aim, shift.steps if shift else ()), shift, say,
                          probes=probes, workload=workload, path=path, message=message, as_json=as_json)  # fmt: skip
    except BusyError as error:
        raise cli.Failure(str(error), cli.Exit.BUSY) from None


def _aim(start: Weights, weights: Sequence[str]) -> dict[str, int]:
    wanted: dict[str, int] = {}
    for text in weights:
        if not (found := re.fullmatch(r"([^=]+)=(\d{1,3})%?", text)):
            raise cli.Failure(f"{text!r} is no version with its weight: v2=50", cli.Exit.USAGE)
        wanted[found[1]] = int(found[2])
    if not wanted:
        raise cli.Failure("say which version gets how much: v2=50", cli.Exit.USAGE)
    try:
        return aimed(start, wanted)
    except ValueError as error:
        raise cli.Failure(str(error), cli.Exit.USAGE) from None


def _how(live: LiveService, steps: str, interval: str, probes: int, now: bool) -> Shift | None:
    """None for a shift at once."""
    rule = live.config.routing[live.name]
    if now or not (steps or interval or probes or "shift" in rule.model_fields_set):
        return None
    shift = rule.shift
    if steps:
        numbers = [int(step) if step.strip().isdecimal() else 0 for step in steps.split(",")]
        if numbers != sorted(set(numbers)) or not all(1 <= number <= 100 for number in numbers):
            raise cli.Failure("--steps are rising whole numbers from 1 to 100: 10,25,50,100", cli.Exit.USAGE)
        shift = shift.model_copy(update={"steps": tuple(numbers)})
    if interval:
        if not re.fullmatch(r"(?=.)([0-9]+h)?([0-9]+m)?([0-9]+s)?", interval):
            raise cli.Failure("--interval is a duration such as 90s or 5m", cli.Exit.USAGE)
        shift = shift.model_copy(update={"interval": interval})
    return shift


def _require_editable(stack: Stack, service: str, start: Weights, aim: Weights) -> None:
    """The weights can be set in the stack's file, and nothing else changes there."""
    try:
        text = edit.read(stack.file)
        edit.edited(text, edited_leaves(text, service, aim, start))
    except edit.EditError as error:
        raise cli.Failure(f"nothing was changed. {stack.file.name}: {error}", cli.Exit.USAGE) from None


def _require_current(stack: Stack, yes: bool) -> None:
    if not yes:
        raise cli.Failure(f"the stack {stack.name} is protected: add --yes, or --pr for a pull request", cli.Exit.USAGE)
    if found := list(checkout.problems(stack.folder)):
        listed = "; ".join(found)
        raise cli.Failure(
            f"the stack {stack.name} is protected, and this checkout will not do: {listed}", cli.Exit.USAGE
        )


def _shift(
    driver: Stack,
    live: LiveService,
    journal: Journal,
    plan: Plan,
    shift: Shift | None,
    say: Callable[[str], None],
    *,
    probes: int,
    workload: str,
    path: str,
    message: str,
    as_json: bool,
) -> int:
    say(f"{live.name}: {described(plan.start)} → {described(plan.aim)}")
    _require_fit(driver, live, plan)
    if not plan.steps:
        say("that is what it has")
        return cli.Exit.GOOD
    watch = None
    if shift:
        _require_applied(driver, live, rising(plan.start, plan.aim))
        caller = caller_of(live, workload, "") if probes else None
        restarts = {version: pods.restarts for version, pods in live.pods(live.look()).items()}
        watch = Watch(shift.gate, seconds(shift.interval), probes, url_of(live, path), caller, restarts)
        say(f"the gate needs {requests_needed(shift.gate)} requests or more of the new version at each step")
    text = edit.read(driver.file)
    message = message or f"{live.name}: {described(plan.start)} → {described(plan.aim)}"
    journal.begin(live.name, plan.start, plan.aim, text)
    with Interrupts(say) as interrupts:
        world = LiveWorld(driver, live, plan.start, text, message, watch, interrupts, say)
        outcome = run(plan, world)
    if outcome is not Outcome.LOST:
        journal.end()
    ended = declared_weights(driver, live.name)
    say(f"{live.name}: {outcome.value}; {described(ended)}")
    if outcome is Outcome.LOST:
        say(f"the file has the old weights, the cluster may not: mesh shift {live.name} --back --stack {driver.name}")
    if outcome is Outcome.HELD:
        say("the gate could not decide: wait, or send requests by --probe, and run it again; or shift back")
    if edit.read(driver.file) != text:
        say(_commit(driver, message))
    if as_json:
        cli.print_json(
            {
                "service": live.name,
                "outcome": outcome.name.lower(),
                "start": dict(plan.start),
                "aim": dict(plan.aim),
                "weights": ended,
                "steps": [
                    {**asdict(step), "findings": [{**asdict(f), "verdict": f.verdict.value} for f in step.findings]}
                    for step in world.steps
                ],
                "error": world.error,
            }
        )
    return cli.Exit.BUSY if world.busy else EXIT[outcome]


def _require_fit(driver: Stack, live: LiveService, plan: Plan) -> None:
    """The cluster is the stack's and has the declared weights, and the versions that are to get more can take it: each
    is rolled out, has a ready pod, and every caller knows one."""
    with ThreadPoolExecutor() as pool:
        pool.submit(import_module, "mesh.program.inline")  # with Pulumi's SDK it takes as long as kubectl
        seen = live.look()
        endpoints = pool.submit(each, live.clients(seen), lambda proxy: proxy.endpoints(live.name, live.namespace))
        require_ours(driver, live, seen)
        _require_as_declared(live.weights(seen), plan.start)
        require_same_rule(live, seen)
    pods, rollouts = live.pods(seen), live.rollouts(seen)
    for version in rising(plan.start, plan.aim):
        if not pods[version].ready:
            raise cli.Failure(f"{live.name} {version} has no ready pod: every request to it would fail")
        if rollout := rollouts.get(version):
            raise cli.Failure(
                f"the roll-out of {live.name} {version} is not over: {rollout}, and older ones may still answer. Wait, "
                "or mend what holds it up and `pulumi up`"
            )
        for proxy, known in endpoints.result().items():
            if known and not any(one.healthy and one.cluster.subset == version for one in known):
                raise cli.Failure(f"the proxy of {proxy.pod} knows no healthy pod of {live.name} {version}")


def require_ours(driver: Stack, live: LiveService, seen: Sequence[Object]) -> None:
    """What the program would look at first for itself, as far as the one rule goes that a shift touches."""
    from mesh import preflight  # and with it Pulumi's SDK, which other ways to use this command do without
    from mesh.program.recorder import PROJECT

    found = {(one["kind"], one["metadata"]["name"]): one for one in seen}
    rule = {("VirtualService", names.virtual_service(live.name))}
    if others := preflight.in_the_way(live.config, found, rule, f"{PROJECT}/{driver.name}"):
        raise cli.Failure(
            "\n".join(["the cluster has objects in the way that this stack does not own; nothing was changed", *others])
        )


def _require_as_declared(found: Weights, declared: Weights) -> None:
    if without_zeros(found) != without_zeros(declared):
        shown = described(found) if found else "no rule"
        raise cli.Failure(
            f"declared is {described(declared)}, but the cluster has {shown}: run `pulumi up` to bring them together "
            "first"
        )


def require_same_rule(live: LiveService, seen: Sequence[Object]) -> None:
    """A shift applies the whole rule: what the file asks for beside the weights would go along with them, unseen."""
    from istio.rules import routed
    from mesh.drift import compare

    [declared] = [one.weights for one in routed(live.config) if one.name == live.name]
    rules = [one for one in seen if (one["kind"], one["metadata"]["name"]) == (declared.kind, declared.name)]
    body = {"apiVersion": names.ROUTING_API, "kind": declared.kind, "spec": declared.spec}
    if fields := [difference.field for rule in rules for difference in compare.differences(body, rule)]:
        raise cli.Failure(
            f"{declared.kind} {declared.name} is not as declared in {', '.join(fields)}, which a shift would change "
            "along with the weights: run `pulumi up` first (mesh diff and mesh drift show what differs)"
        )


def _require_applied(driver: Stack, live: LiveService, new: Sequence[str]) -> None:
    """What the gate is to judge is what the file asks for, and so what is committed with the weights."""
    if live.config.services[live.name].workload == "existing":
        return
    from mesh.program import inline  # as Pulumi's SDK takes its time to import

    workloads = [f"--target=**::{names.workload(live.name, version)}" for version in new]
    try:
        inline.pulumi(driver, "preview", "--expect-no-changes", *workloads)
    except PulumiError as error:
        if _CHANGES not in str(error):
            raise cli.Failure(str(error)) from None
        raise cli.Failure(
            f"{driver.file.name} asks for other pods of {live.name} {', '.join(new)} than those that run, and that the "
            "gate would judge: `pulumi up` first (mesh diff shows what it changes)"
        ) from None


def _take_back(driver: Stack, journal: Journal, say: Callable[[str], None]) -> int:
    left = journal.left
    if not left:
        raise cli.Failure("no shift of this stack was killed", cli.Exit.USAGE)
    start = left["start"]
    try:
        take_back(driver.file, left["text"], left["service"], start)
    except edit.EditError as error:
        raise cli.Failure(f"the weights {described(start)} cannot be put back: {error}") from None
    live = live_service(files.effective(driver.name, driver.folder), left["service"])
    with Interrupts(say) as interrupts:
        world = LiveWorld(driver, live, start, edit.read(driver.file), "mesh shift --back", None, interrupts, say)
        outcome = run(Plan(start, start, [start]), world)
    if outcome is not Outcome.DONE:
        return cli.Exit.BUSY if world.busy else cli.Exit.FAILED
    journal.end()
    say(f"{live.name}: taken back; {described(start)}")
    return cli.Exit.GOOD


def _commit(stack: Stack, message: str) -> str:
    return f"to keep it: git commit --message {shlex.quote(message)} -- {stack.file.name}"


def _print_pull_request(stack: Stack, service: str, start: Weights, aim: Weights, message: str) -> None:
    named = "-".join(f"{version}-{weight}" for version, weight in aim.items())
    message = message or f"{service}: {described(start)} → {described(aim)}"
    click.echo(f"git switch --create shift-{service}-{named}")
    pairs = (f"{version}={weight}" for version, weight in aim.items())
    click.echo(shlex.join(["mesh", "shift", service, *pairs, "--file-only", f"--stack={stack.name}"]))
    click.echo(f"git commit --message {shlex.quote(message)} -- {stack.file.name}")
    click.echo(f"git push --set-upstream origin shift-{service}-{named}")
