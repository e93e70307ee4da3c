"""`mesh version`: which Istio is declared, and which runs."""

from __future__ import annotations

from collections.abc import Iterator

import click

from config import files
from mesh import cli, versions
from mesh.versions import Agent, Versions


@click.command(epilog="Example: mesh version --stack dev")
@cli.stack_option
@cli.json_option
def command(stack: str, as_json: bool) -> int:
    """Show the declared version of Istio beside those that run: control planes, CNI, gateways, and sidecars by count.

    Exit codes: 0 all are the declared one, 1 some differ, 2 the cluster cannot be read.
    """
    mesh = files.effective(stack).mesh
    declared = mesh.current.version if mesh.mode == "managed" else ""
    found = versions.read(cli.cluster(stack))
    differ = bool(found.seen - {declared}) if declared else len(found.seen) > 1
    if as_json:
        cli.print_json({"declared": declared or None, **found.as_data(), "differ": differ})
    else:
        click.echo(f"{'declared':<15}{declared or f'none (mesh.mode is {mesh.mode})'}")
        for part, version, detail in _rows(found):
            mark = click.style("  ≠ declared", fg="red", bold=True) if declared and version != declared else ""
            click.echo(f"{part:<15}{version:<12} {detail}{mark}")
    return cli.Exit.FAILED if differ else cli.Exit.GOOD


def _rows(found: Versions) -> Iterator[tuple[str, str, str]]:
    """Part, version and detail."""
    for plane in found.control_planes:
        detail = f"revision {plane.revision} in {plane.namespace}, {plane.ready} of {plane.replicas} ready"
        yield "control plane", plane.version, detail
    if not found.control_planes:
        yield "control plane", "none", ""
    for part, agents in (("CNI", [found.cni] if found.cni else []), ("gateway", found.gateways)):
        for agent in agents:
            yield part, agent.version, _agent(agent)
    for proxies in found.proxies:
        where = ", ".join(f"{namespace} {count}" for namespace, count in sorted(proxies.namespaces.items()))
        yield "sidecars", proxies.version, f"{proxies.count} of revision {proxies.revision} ({where})"


def _agent(agent: Agent) -> str:
    return f"{agent.name} in {agent.namespace}, {agent.ready} of {agent.wanted} ready"
