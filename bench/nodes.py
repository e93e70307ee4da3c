"""What the preparation of nodes adds to `pulumi up` where the nodes are prepared already.

The nodes are hosts in namespaces, no proof that modules get loaded: that is in tests/e2e/test_nodes.py, on machines
with a kernel of their own. Those are emulated, and what is measured on them is mostly the emulation.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from bench.host import Host
from bench.measure import Comparison, in_turn, seconds
from bench.peers import PeerError, Program
from components.nodes import SCRIPT
from config import load
from config.nodes import SYSCTLS
from istio.kernel import modules
from localcluster import build, prerequisites

PAIRS = 7
HOSTS = 2


def comparisons(ours: Program, folder: Path) -> Iterator[Comparison]:
    """The rows of the table; `ours` is installed already."""
    with _hosts(folder) as hosts:
        pair = _Pair.of(ours, hosts)
        words = [*modules(load(ours.config)), *(f"{name}={least}" for name, least in sorted(SYSCTLS.items()))]
        script = f"sh -s -- prepare {' '.join(words)}"
        up, shift, prepared, shift_prepared, bare = in_turn(
            PAIRS,
            {
                "up, nothing to do": pair.up_without,
                "weights, without nodes": pair.shift_without,
                f"up, {HOSTS} hosts to prepare": pair.up_with,
                "weights, with nodes": pair.shift_with,
                f"the script by ssh on {HOSTS} hosts": lambda _turn: _by_ssh(hosts, script),
            },
        ).values()
        pair.up_without(PAIRS)  # while the hosts still answer, as they have to for that
    added = [with_hosts - without for with_hosts, without in zip(prepared, up, strict=True)]
    yield Comparison(f"(g) {HOSTS} hosts that are prepared", "the same without nodes", prepared, up)
    yield Comparison("    what they add", "the same script by ssh", added, bare)
    yield Comparison("    a change of weights there", "the same without nodes", shift_prepared, shift)


@dataclass(frozen=True)
class _Pair:
    """One stack by turns without nodes and with them. Its methods are called in their order, turn after turn."""

    without: Program
    prepared: Program

    @classmethod
    def of(cls, program: Program, hosts: Sequence[Host]) -> _Pair:
        """`hosts` as the nodes; they are prepared from here on."""
        listed = {f"host-{host.number}": {"address": host.address, "hostKey": host.host_key} for host in hosts}
        key = program.stack.encrypted("sshPrivateKey", hosts[0].private_key)
        nodes = {"nodes": {"mode": "ssh", "hosts": listed}, "sshPrivateKey": key}
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


def _by_ssh(hosts: Sequence[Host], command: str) -> float:
    """What no program can be quicker than: the script on all hosts at once."""
    with ThreadPoolExecutor(len(hosts)) as pool:
        return seconds(lambda: list(pool.map(lambda host: host.run(command, stdin=SCRIPT), hosts)))


@contextmanager
def _hosts(folder: Path) -> Iterator[list[Host]]:
    prerequisites.check_vm()
    build.build(["vm"])
    hosts = [Host(number, folder / f"host-{number}") for number in range(1, HOSTS + 1)]
    try:
        for host in hosts:
            host.start()
        yield hosts
    finally:
        for host in hosts:
            host.stop()
