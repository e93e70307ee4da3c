"""`mesh version`: which Istio is declared, and which runs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import click
from rich.text import Text

from config import Mesh, files
from mesh import cli, tables
from mesh.cluster import versions
from mesh.cluster.versions import Agent, Versions

NONE = "none"


@dataclass(frozen=True)
class Row:
    """What runs of one part of the mesh; `declared` is '' where the stack does not manage it."""

    part: str
    declared: str
    version: str
    detail: str = ""

    @property
    def differs(self) -> bool:
        return bool(self.declared) and self.declared != self.version


@click.command(epilog="Example: mesh version --stack dev")
@cli.stack_option
@cli.json_option
def command(stack: str, as_json: bool) -> int:
    """Show the declared version of Istio beside those that run: control planes, CNI, gateways, and sidecars by count.

    Control planes and sidecars come by revision. Where somebody else manages the mesh, sidecars are held against their
    control plane.

    Exit codes: 0 all are as declared, 1 some differ, 2 the cluster cannot be read.
    """
    mesh = files.effective(stack).mesh
    found = versions.read(cli.cluster(stack))
    rows = [*_rows(mesh, found)]
    differ = any(row.differs for row in rows)
    if as_json:
        cli.print_json({"declared": _declared(mesh), **found.as_data(), "differ": differ})
    else:
        shown = [(row.part, row.declared or "–", _running(row), row.detail) for row in rows]
        tables.show(("part", "declared", "running", "where"), shown)
    return cli.Exit.FAILED if differ else cli.Exit.GOOD


def _running(row: Row) -> Text:
    return Text(f"{row.version} ≠", "bold red") if row.differs else Text(row.version)


def _declared(mesh: Mesh) -> dict[str, str]:
    """Revision → version; nothing where the stack does not manage the mesh."""
    return {name: plane.version for name, plane in mesh.control_planes.items()} if mesh.mode == "managed" else {}


def _rows(mesh: Mesh, found: Versions) -> Iterator[Row]:
    declared = _declared(mesh)
    undeclared = NONE if declared else ""
    for plane in found.control_planes:
        detail = f"{plane.ready} of {plane.replicas} ready, in {plane.namespace}"
        yield Row(_plane(plane.revision), declared.get(plane.revision, undeclared), plane.version, detail)
    running = {plane.revision: plane.version for plane in found.control_planes}
    for revision in declared.keys() - running.keys() or ([] if running else [""]):
        yield Row(_plane(revision), declared.get(revision, undeclared), NONE)
    if found.cni:
        wanted = (mesh.oldest.version if mesh.cni else NONE) if declared else ""
        yield Row("CNI", wanted, found.cni.version, _agent(found.cni))
    for gateway in found.gateways:
        yield Row("gateway", mesh.current.version if declared else "", gateway.version, _agent(gateway))
    for proxies in found.proxies:
        where = ", ".join(f"{namespace} {count}" for namespace, count in sorted(proxies.namespaces.items()))
        wanted = (declared or running).get(proxies.revision, NONE)
        yield Row(f"sidecars of {proxies.revision}", wanted, proxies.version, f"{proxies.count} ({where})")


def _plane(revision: str) -> str:
    return f"control plane {revision}".rstrip()


def _agent(agent: Agent) -> str:
    return f"{agent.ready} of {agent.wanted} ready, {agent.name} in {agent.namespace}"
