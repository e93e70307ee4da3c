"""How the nodes are prepared."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field

from config.types import Model, Strings


class Nodes(Model):
    """How the kernel modules that sidecars need get onto the nodes."""

    mode: Literal["none"] = Field("none", description="none (the nodes are prepared already)")
    hosts: Mapping[str, Any] = Field(default_factory=dict, description="hosts by name")
    modules: Strings = Field((), description="a list of kernel modules; empty: the right ones")
    reboot: bool = Field(False, description="true or false")
