"""What the preparation of nodes adds to `pulumi up` where the nodes are prepared already."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from bench.measure import Comparison, in_turn, seconds
from bench.peers import PeerError, Program
from components.nodes import SCRIPT
from config import load
from istio.kernel import modules
from localcluster import build, prerequisites
from localcluster.vm import Vm

PAIRS = 7


def comparisons(ours: Program, folder: Path) -> Iterator[Comparison]:
    """The rows of the table; `ours` is installed already."""
    with _machines(folder) as machines:
        pair = _Pair.of(ours, machines)
        script = f"sh -s -- prepare {' '.join(modules(load(ours.config)))}"
        up, shift, prepared, shift_prepared, bare = in_turn(
            PAIRS,
            {
                "up, nothing to do": pair.up_without,
                "weights, without nodes": pair.shift_without,
                "up, two hosts to prepare": pair.up_with,
                "weights, with nodes": pair.shift_with,
                "the script by ssh on both hosts": lambda _turn: _by_ssh(machines, script),
            },
        ).values()
    added = [with_hosts - without for with_hosts, without in zip(prepared, up, strict=True)]
    yield Comparison("(g) two hosts that are prepared", "the same without nodes", prepared, up)
    yield Comparison("    what they add", "the same script by ssh", added, bare)
    yield Comparison("    a change of weights there", "the same without nodes", shift_prepared, shift)


@dataclass(frozen=True)
class _Pair:
    """One stack by turns without nodes and with them. Its methods are called in their order, turn after turn."""

    without: Program
    prepared: Program

    @classmethod
    def of(cls, program: Program, machines: Sequence[Vm]) -> _Pair:
        """`machines` as the nodes; they have their modules from here on."""
        hosts = {
            f"machine-{at}": {"address": "127.0.0.1", "port": machine.port, "hostKey": machine.host_key()}
            for at, machine in enumerate(machines, start=1)
        }
        key = program.stack.encrypted("sshPrivateKey", machines[0].private_key)
        nodes = {"nodes": {"mode": "ssh", "hosts": hosts}, "sshPrivateKey": key}
        pair = cls(program, replace(program, config={**program.config, **nodes}))
        pair.prepared.begin()
        pair.prepared.up()
        return pair

    def up_without(self, turn: int) -> float:
        self.without.weigh(turn + 1)
        self.without.up()
        return self.without.up()

    def shift_without(self, turn: int) -> float:
        return self.without.shift(turn)

    def up_with(self, turn: int) -> float:
        self.prepared.weigh(turn)
        took = self.prepared.up()
        changes = self.prepared.stack.changes()
        if set(changes) != {"same", "create"}:
            raise PeerError(f"a preparation should only create resources, but the changes were {changes}")
        return took

    def shift_with(self, turn: int) -> float:
        return self.prepared.shift(turn + 1)


def _by_ssh(machines: Sequence[Vm], command: str) -> float:
    """What no program can be quicker than, on these machines: their processors are emulated."""
    with ThreadPoolExecutor() as pool:
        return seconds(lambda: list(pool.map(lambda machine: machine.run(command, stdin=SCRIPT), machines)))


@contextmanager
def _machines(folder: Path) -> Iterator[list[Vm]]:
    """Two machines with a kernel of their own that have booted."""
    prerequisites.check_vm()
    build.build(["vm"])
    machines = [Vm(build.vm_image(), 22000 + at, folder / f"machine-{at}.log") for at in (1, 2)]
    try:
        for machine in machines:
            machine.start()
        for machine in machines:
            machine.wait()
        yield machines
    finally:
        for machine in machines:
            machine.stop()
