"""The path as one page that needs nothing else: the drawing, each hop, and the way of the rules."""

from __future__ import annotations

from pathlib import Path as File

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from mesh.explain.drawing import draw
from mesh.explain.model import Path


def write(path: Path) -> str:
    templates = Environment(
        loader=FileSystemLoader(File(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return templates.get_template("page.html.j2").render(path=path, drawing=draw(path))
