"""`mesh shift`: new weights, in the stack's file and in the cluster alike, by steps that a gate watches."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Sequence
from dataclasses import asdict

import click

import names
from config import edit, files
from config.routing import Shift
from config.types import seconds
from mesh import cli
from mesh.calls import caller_of, live_service, url_of
from mesh.cluster.service import LiveService
from mesh.program.stack import Stack
from mesh.shift import fit
from mesh.shift.file import declared_weights, set_weights, take_back
from mesh.shift.interrupts import Interrupts
from mesh.shift.journal import BusyError, Journal
from mesh.shift.plan import Outcome, Plan, Weights, run
from mesh.shift.watch import Watch
from mesh.shift.world import LiveWorld
from mesh.traffic.gate import requests_needed
from mesh.traffic.weights import aimed, described, rising

EXIT = {
    Outcome.DONE: cli.Exit.GOOD,
    Outcome.HELD: cli.Exit.INCONCLUSIVE,
    Outcome.ROLLED_BACK: cli.Exit.FAILED,
    Outcome.LOST: cli.Exit.FAILED,
    Outcome.INTERRUPTED: cli.Exit.INTERRUPTED,
}


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
    try:
        fit.require_editable(driver, service, start, aim)
        if file_only:
            set_weights(driver.file, service, aim, start)
            say(f"{driver.file.name}: {service} {described(aim)}; nothing is applied yet")
            return cli.Exit.GOOD
        if names.is_production(stack) or live.config.protect:
            if not yes:
                asked = f"the stack {stack} is protected: add --yes, or --pr for a pull request"
                raise cli.Failure(asked, cli.Exit.USAGE)
            fit.require_current(driver)
        fit.require_pulumi(driver)
        shift = _how(live, steps, interval, probes, now)
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
    except fit.NotFitError as error:
        raise cli.Failure(str(error), cli.Exit.USAGE if error.usage else cli.Exit.FAILED) from None
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
    excepted = fit.require_fit(driver, live, plan, say)
    if not plan.steps:
        say("that is what it has")
        return cli.Exit.GOOD
    watch = None
    if shift:
        fit.require_applied(driver, live, rising(plan.start, plan.aim))
        caller = caller_of(live, workload, "") if probes else None
        restarts = {version: pods.restarts for version, pods in live.pods(live.look()).items()}
        watch = Watch(shift.gate, seconds(shift.interval), probes, url_of(live, path), caller, restarts)
        say(f"the gate needs {requests_needed(shift.gate)} requests or more of the new version at each step")
        for version in _mirrored(live, rising(plan.start, plan.aim)):
            say(f"copies that are mirrored to {version} count like its requests: the proxies tell no difference")
    text = edit.read(driver.file)
    message = message or f"{live.name}: {described(plan.start)} → {described(plan.aim)}"
    journal.begin(live.name, plan.start, plan.aim, text)
    with Interrupts(say) as interrupts:
        world = LiveWorld(driver, live, plan.start, text, message, watch, interrupts, say, excepted)
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
                "back": world.back,
                "error": world.error,
            }
        )
    return cli.Exit.BUSY if world.busy else EXIT[outcome]


def _mirrored(live: LiveService, new: Sequence[str]) -> list[str]:
    """Those of the `new` versions that get copies among what is counted; Istio's metrics leave these out."""
    rule = live.config.routing[live.name]
    copied = {one.copies.version for one in (rule, *rule.match) if one.copies}
    return [] if live.config.mesh.prometheus else [version for version in new if version in copied]


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
