"""`mesh explain`: the path of a request, hop by hop."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

import click
from rich.console import Console

from config import files
from mesh import cli
from mesh.cluster.kubectl import Kubectl
from mesh.explain import egress, hops, live, mermaid, tables, text
from mesh.explain import html as page
from mesh.explain.live import Declared, NoPodError, Snapshot, UnknownNameError

_RAW = ("help", "config_dump", "clusters", "listeners", "server_info", "stats")
# A terminal says how wide it is; a file does not.
_WIDTH = 80


@click.command(epilog="Example: mesh explain front-tomcat bill-service --stack dev --html path.html")
@click.argument("source", metavar="FROM")
@click.argument("target", metavar="TO")
@click.option("--full", is_flag=True, help="Add the fields of each hop, and the way of the rules to the proxies.")
@click.option("--debug", is_flag=True, help="Read the iptables too, by a privileged pod that is there for seconds.")
@click.option("--debug-image", default="", help="Its image, with sh, grep and nsenter; by default that of the sidecar.")
@click.option("--html", type=click.Path(dir_okay=False, path_type=Path), help="Write one page with the drawing.")
@click.option("--mermaid", "as_mermaid", is_flag=True, help="Print the drawing as a Mermaid flowchart.")
@click.option("--raw", type=click.Choice(_RAW), help="Print what the admin interface of FROM's Envoy says.")
@cli.stack_option
@cli.json_option
def command(
    source: str,
    target: str,
    full: bool,
    debug: bool,
    debug_image: str,
    html: Path | None,
    as_mermaid: bool,
    raw: str | None,
    stack: str,
    as_json: bool,
) -> int:
    """Explain the path of a request from FROM to TO, hop by hop, read from the live proxies.

    FROM and TO are services, versions (bill-service/v2) or pods, FROM also a workload of another namespace
    (office/clerk); TO may end with a port (bill-service:9999), and may be
    a host of egress (api.example.com): then the path goes through the egress gateway, and out.
    Exit code 1 when the path is broken: the broken hop and the fix are named.
    """
    config = files.effective(stack)
    kubectl = Kubectl(config.cluster.context, config.cluster.kubeconfig)
    declared, found = Declared(files.origins(stack)), None
    try:
        if egress.is_outside(config, target):
            found = egress.read(kubectl, config, stack, source, target, declared)
        snapshot = found.at if found else live.read(kubectl, config, stack, source, target, declared)
    except UnknownNameError as error:
        raise cli.Failure(egress.unknown(config, target) or str(error), cli.Exit.USAGE) from None
    except NoPodError as error:
        raise cli.Failure(str(error)) from None
    if raw:
        if not snapshot.caller.sidecar:
            raise cli.Failure(f"the pod {snapshot.caller.name} has no sidecar, so there is no Envoy to ask")
        click.echo(live.proxy_of(snapshot.caller, kubectl, snapshot.caller.namespace).read(raw), nl=False)
        return cli.Exit.GOOD
    if debug:
        snapshot = dataclasses.replace(snapshot, tables=_tables(kubectl, snapshot, debug_image))
    path = egress.explain(dataclasses.replace(found, at=snapshot)) if found else hops.explain(snapshot)
    if html:
        html.write_text(page.write(path))
        click.echo(f"wrote {html}")
    elif as_mermaid:
        click.echo(mermaid.write(path))
    elif as_json:
        cli.print_json(dataclasses.asdict(path))
    else:
        text.write(path, Console(highlight=False, width=None if sys.stdout.isatty() else _WIDTH), full)
    return cli.Exit.FAILED if path.broken else cli.Exit.GOOD


def _tables(kubectl: Kubectl, snapshot: Snapshot, image: str) -> dict[str, str]:
    pods = [pod for pod in snapshot.pods if pod.name in snapshot.servers]
    image = image or next((pod.sidecar_image for pod in (snapshot.caller, *pods) if pod.sidecar_image), "")
    if not image:
        raise cli.Failure("no sidecar is there whose image --debug could use: add --debug-image", cli.Exit.USAGE)
    return tables.read(kubectl, snapshot.namespace, image, snapshot.caller, pods)
