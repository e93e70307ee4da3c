"""The rules on the preparation of the nodes."""

from __future__ import annotations

from collections.abc import Iterator

from config.nodes import SYSCTL_LIMITS
from config.problems import MISSING, Problem
from config.rules.raw import Raw, map_at

_KEY_FIX = (
    "`ssh-keyscan -t ecdsa{port} {address}` prints it after the host's name; compare it with what the machine itself "
    "says in /etc/ssh/ssh_host_ecdsa_key.pub, on its console (docs/nodes.md)"
)


def keys_have_an_effect(raw: Raw) -> Iterator[Problem]:
    nodes = map_at(raw, "nodes")
    if nodes.get("sysctls") and nodes.get("mode", "none") == "none":
        yield Problem(
            "nodes.sysctls",
            MISSING,
            "nothing where nodes.mode is none, as nobody sets them",
            "set nodes.mode to ssh, daemonset or local, or take nodes.sysctls out",
        )
    for key in ("hosts", "bastion", "reboot"):
        if nodes.get(key) and nodes.get("mode", "none") != "ssh":
            yield Problem(
                f"nodes.{key}",
                MISSING,
                "nothing unless nodes.mode is ssh, which alone reads it",
                f"set nodes.mode to ssh, or take nodes.{key} out",
            )
    if raw.get("bastionPrivateKey") and not nodes.get("bastion"):
        yield Problem(
            "bastionPrivateKey", MISSING, "nothing without nodes.bastion", "add nodes.bastion, or take the key out"
        )


def ssh_can_log_in(raw: Raw) -> Iterator[Problem]:
    nodes = map_at(raw, "nodes")
    if nodes.get("mode") != "ssh":
        return
    if not map_at(nodes, "hosts"):
        yield Problem(
            "nodes.hosts", MISSING, "at least one host, by name", "add nodes.hosts.<name>.address and .hostKey"
        )
    if not raw.get("sshPrivateKey"):
        yield Problem(
            "sshPrivateKey",
            MISSING,
            "a secret: the private key that opens the hosts",
            "pulumi config set --secret sshPrivateKey < FILE",
        )


def machines_prove_themselves(raw: Raw) -> Iterator[Problem]:
    """Without a host key the plugin would talk to whoever answers (pulumi-command#755)."""
    nodes = map_at(raw, "nodes")
    machines = {f"nodes.hosts.{name}": map_at(nodes, "hosts", name) for name in map_at(nodes, "hosts")}
    if nodes.get("bastion"):
        machines["nodes.bastion"] = map_at(nodes, "bastion")
    for path, machine in machines.items():
        if not machine.get("hostKey"):
            port = f" -p {machine['port']}" if machine.get("port", 22) != 22 else ""
            fix = _KEY_FIX.format(port=port, address=machine.get("address", "HOST"))
            yield Problem(f"{path}.hostKey", MISSING, "the machine's public host key", fix)


def addresses_differ(raw: Raw) -> Iterator[Problem]:
    """One machine under two names would be prepared twice at once; all hosts have the same bastion or none."""
    seen: dict[str, str] = {}
    for name, host in map_at(raw, "nodes", "hosts").items():
        host = map_at(host)
        address, port = str(host.get("address", "")), host.get("port", 22)
        # A new machine may well have the address of one that is there no more.
        if not address or host.get("gone") is True:
            continue
        first = seen.setdefault(f"{address.lower().removesuffix('.')}:{port}", name)
        if first != name:
            yield Problem(
                f"nodes.hosts.{name}.address",
                address,
                f"an address that no other host has on port {port}",
                f"nodes.hosts.{first} has the same: correct one, take it out, or set gone to true where it is",
            )


def sysctls_are_possible(raw: Raw) -> Iterator[Problem]:
    for name, value in map_at(raw, "nodes", "sysctls").items():
        least, most = SYSCTL_LIMITS.get(name, (0, 0))
        if least and isinstance(value, int) and not isinstance(value, bool) and not least <= value <= most:
            yield Problem(
                f"nodes.sysctls.{name}",
                value,
                f"a whole number from {least}, the kernel's own default, to {most}, the most that it takes",
                f"set it to a number in between, or take it out: {name}: null",
            )


RULES = (keys_have_an_effect, ssh_can_log_in, machines_prove_themselves, addresses_differ, sysctls_are_possible)
