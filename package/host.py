"""The process that Pulumi starts for the components of the package."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pulumi
from pulumi.errors import InputPropertiesError
from pulumi.provider import ConstructResult, main
from pulumi.provider.experimental.component import ComponentProvider
from pulumi.provider.server import ComponentInitError

from components import commands
from package.parts import COMPONENTS, PACKAGE

VERSION = "1.0.0"
"""Of the schema, by semantic versioning: what breaks a program that uses it needs another first number."""
HOME = Path(__file__).parent.parent


class Package(ComponentProvider):
    """Two things are other than in Pulumi's own host.

    It drops what the schema does not know from nested inputs before a component can refuse it; so here the component
    gets them as they came. And it takes every error of a component for one of its code, and shows a traceback, also for
    inputs that the component refuses.
    """

    def map_inputs(self, inputs: Mapping[str, Any], component_def: object) -> dict[str, Any]:
        del component_def
        return dict(inputs)

    def construct(
        self, name: str, resource_type: str, inputs: Mapping[str, Any], options: pulumi.ResourceOptions | None = None
    ) -> ConstructResult:
        commands.live_in(HOME, Path(sys.prefix), Path.cwd())
        try:
            return super().construct(name, resource_type, dict(inputs), options)
        except ComponentInitError as error:
            if isinstance(error.inner, InputPropertiesError):
                raise error.inner from None
            if isinstance(error.inner, pulumi.RunError):
                raise InputPropertiesError(str(error.inner), []) from None
            raise


def provider() -> Package:
    for component in COMPONENTS:  # as Python 3.13 has them by itself
        component.__doc__ = inspect.cleandoc(component.__doc__ or "")
    return Package([*COMPONENTS], PACKAGE, version=VERSION)


def run() -> None:
    main(provider(), sys.argv[1:])
