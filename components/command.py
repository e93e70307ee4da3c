"""Commands that run where Pulumi runs."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import version

import pulumi


class LocalCommand(pulumi.CustomResource):
    """A command that runs when the resource is made, changed or deleted.

    It has the type, and so the URN and the behaviour, of the class in pulumi-command, whose import would take as long
    as the registration of everything that a stack has.

    https://www.pulumi.com/registry/packages/command/api-docs/local/command/
    """

    stdout: pulumi.Output[str]

    def __init__(
        self,
        name: str,
        *,
        create: str | None = None,
        update: str | None = None,
        delete: str | None = None,
        environment: Mapping[str, pulumi.Input[str]] | None = None,
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        """Each command is for the shell; without `update` a change runs `create` again. `environment` is added to
        Pulumi's own."""
        arguments = {"create": create, "update": update, "delete": delete, "environment": environment, "stdout": None}
        plugin = pulumi.ResourceOptions(version=version("pulumi-command"))
        super().__init__("command:local:Command", name, arguments, pulumi.ResourceOptions.merge(plugin, opts))
