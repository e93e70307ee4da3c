"""`mesh config`: each effective value, and where it comes from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import click

from config import files
from mesh import cli, tables


@click.command(epilog="Example: mesh config --stack dev routing")
@click.argument("key", default="")
@cli.stack_option
@cli.json_option
def command(key: str, stack: str, as_json: bool) -> None:
    """Print each effective value, and the file and line that set it.

    KEY shows only what lies below that key, such as services.bill-service.
    """
    model = files.effective(stack).model_dump(mode="json", by_alias=True)
    origins = files.origins(stack)
    rows = [
        (".".join(path), value, str(_nearest(origins, path)))
        for path, value in _leaves(model)
        if not key or f"{'.'.join(path)}.".startswith(f"{key}.")
    ]
    if not rows:
        raise cli.Failure(f"there is no key {key}; `mesh config` lists all", cli.Exit.USAGE)
    if as_json:
        cli.print_json([{"key": name, "value": value, "from": origin} for name, value, origin in rows])
        return
    shown = [(name, "" if value is None else str(value), origin) for name, value, origin in rows]
    tables.show(("key", "value", "from"), shown)


def _leaves(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    if isinstance(value, Mapping) and value:
        for key, inner in value.items():
            yield from _leaves(inner, (*path, str(key)))
    else:
        yield path, value


def _nearest(origins: Mapping[tuple[str, ...], files.Origin], path: tuple[str, ...]) -> files.Origin | str:
    """A list's origin is that of its key; what no file sets is the schema's default."""
    return origins.get(path, "default")
