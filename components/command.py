"""Commands that run where Pulumi runs, or on another machine by SSH.

They have the types, and so the URNs and the behaviour, of the classes in pulumi-command, whose import would take as
long as the registration of everything that a stack has. A change runs `create` again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any, Literal

import pulumi


class LocalCommand(pulumi.CustomResource):
    """A command that runs here when the resource is made, changed or deleted.

    https://www.pulumi.com/registry/packages/command/api-docs/local/command/
    """

    stdout: pulumi.Output[str]

    def __init__(
        self,
        name: str,
        *,
        create: str | None = None,
        delete: str | None = None,
        environment: Mapping[str, pulumi.Input[str]] | None = None,
        stdin: pulumi.Input[str] | None = None,
        logging: Literal["none"] | None = None,
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        """Each command is for the shell; `environment` is added to Pulumi's own, `stdin` is given to each. With
        `logging` none Pulumi does not print what it prints."""
        arguments = {
            "create": create,
            "delete": delete,
            "environment": environment,
            "stdin": stdin,
            "logging": logging,
            "stdout": None,
        }
        super().__init__("command:local:Command", name, arguments, pulumi.ResourceOptions.merge(_plugin(), opts))


@dataclass(frozen=True)
class Connection:
    """An SSH login, through `proxy` where there is one.

    A host that does not answer is given up after `dial_error_limit` + 1 attempts of `per_dial_timeout` seconds each.
    `host_key` has no default: without it the plugin would talk to whoever answers.

    https://www.pulumi.com/registry/packages/command/api-docs/remote/command/#connection
    """

    host: str
    port: int
    user: str
    host_key: str
    private_key: pulumi.Input[str] | None
    proxy: Connection | None = None
    per_dial_timeout: int = 10
    dial_error_limit: int = 3

    @property
    def inputs(self) -> dict[str, Any]:
        return {
            "host": self.host,
            "port": self.port,
            "user": self.user,
            "hostKey": self.host_key,
            "privateKey": self.private_key,
            "perDialTimeout": self.per_dial_timeout,
            "dialErrorLimit": self.dial_error_limit,
            "proxy": self.proxy.inputs if self.proxy else None,
        }


class RemoteCommand(pulumi.CustomResource):
    """A command that runs on another machine when the resource is made, changed or deleted.

    https://www.pulumi.com/registry/packages/command/api-docs/remote/command/
    """

    stdout: pulumi.Output[str]

    def __init__(
        self,
        name: str,
        *,
        connection: Connection,
        create: str | None = None,
        delete: str | None = None,
        stdin: pulumi.Input[str] | None = None,
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        """Each command is for the login shell there; `stdin` is given to each.

        What the last run printed is not put into the environment of the next: sshd takes no variables by default.
        """
        arguments = {
            # As a whole, like the class in pulumi-command: one key of it left out would be one in the state.
            "connection": pulumi.Output.secret(connection.inputs),
            "create": create,
            "delete": delete,
            "stdin": stdin,
            "addPreviousOutputInEnv": False,
            "stdout": None,
        }
        plugin = pulumi.ResourceOptions.merge(
            _plugin(), pulumi.ResourceOptions(additional_secret_outputs=["connection"])
        )
        super().__init__("command:remote:Command", name, arguments, pulumi.ResourceOptions.merge(plugin, opts))


def _plugin() -> pulumi.ResourceOptions:
    return pulumi.ResourceOptions(version=version("pulumi-command"))
