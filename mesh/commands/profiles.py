"""`mesh profiles`: the profiles of Istio, and what they mean here."""

from __future__ import annotations

from typing import Any

import click
import yaml

from config import Mesh, files, versions
from config.problems import nearest
from istio.charts import charts
from istio.profiles import PROFILES, Profile
from mesh import cli, tables


@click.command(epilog="Example: mesh profiles demo --version 1.17.1")
@click.argument("name", default="")
@click.option("--version", help=f"An Istio version; by default that of the stack, or {versions.NEWEST_MINOR}.0.")
@click.option("--stack", help="Show the stack's own mesh with that profile: its version, values and all.")
@cli.json_option
def command(name: str, version: str | None, stack: str | None, as_json: bool) -> None:
    """List the profiles of Istio, and say why some are refused here.

    NAME shows the charts and the values that a profile means. The counterpart of `istioctl profile list` and
    `istioctl profile dump`.
    """
    mesh = files.effective(stack).mesh.current if stack else Mesh()
    version = version or mesh.version or f"{versions.NEWEST_MINOR}.0"
    if version.count(".") != 2 or not version.replace(".", "").isdigit() or not versions.is_supported(version):
        known = f"{versions.OLDEST_MINOR} to {versions.NEWEST_MINOR}"
        raise cli.Failure(f"{version} is no version from {known}, such as {versions.NEWEST_MINOR}.0", cli.Exit.USAGE)
    found = {profile.name: profile for profile in PROFILES if profile.is_in(version)}
    if not name:
        _list(list(found.values()), as_json)
        return
    if name not in found:
        raise cli.Failure(f"Istio {version} has no profile {name}; {nearest(name, found)}", cli.Exit.USAGE)
    if found[name].refused:
        raise cli.Failure(f"{name} is not supported: {found[name].refused}", cli.Exit.USAGE)
    meant = _meant(mesh.model_copy(update={"profile": name, "version": version}))
    if as_json:
        cli.print_json(meant)
    else:
        click.echo(yaml.safe_dump(meant, sort_keys=False), nl=False)


def _meant(mesh: Mesh) -> dict[str, Any]:
    return {
        "profile": mesh.profile,
        "version": mesh.version,
        "charts": {
            chart.key: {"chart": chart.chart, "repository": chart.repository, "values": dict(chart.values)}
            for chart in charts(mesh)
        },
    }


def _list(found: list[Profile], as_json: bool) -> None:
    if as_json:
        cli.print_json(
            [{"name": p.name, "about": p.about, "supported": not p.refused, "reason": p.refused} for p in found]
        )
        return
    rows = [(one.name, f"no: {one.refused}" if one.refused else "yes", one.about) for one in found]
    tables.show(("profile", "supported", "what it installs"), rows)
