#!/usr/bin/env bash
# pulumi (Python) 3.250.0: `InputPropertiesError` is how a provider tells a user which inputs are wrong. A component that
# `component_provider_host` serves cannot use it: the host wraps every exception of the component in `ComponentInitError`
# and looks for `InputPropertiesError` outside of it, so the user gets the message with the lines of code below it, and
# not the properties. And the error itself, raised where it counts, needs a list: without one (it is optional) the answer
# fails with an AttributeError of its own, which is then all that the user sees.
#
# Seen: a refused input arrives as a plain Exception with a file and a line; a refusal without a list as "'Status' object
# has no attribute 'trailing_metadata'", one with an empty list with its message.
# Installs the package in a temporary folder; asks the provider as the engine does, but for the connection.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"

python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check pulumi==3.250.0

cat >shop.py <<'PYTHON'
import asyncio
from typing import TypedDict

import pulumi
from pulumi.errors import InputPropertiesError
from pulumi.provider import Provider
from pulumi.provider.experimental.component import ComponentProvider
from pulumi.provider.server import ProviderServicer
from pulumi.runtime.proto import provider_pb2


class ServiceArgs(TypedDict):
    port: int


class Service(pulumi.ComponentResource):
    def __init__(self, name: str, args: ServiceArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        raise InputPropertiesError("wrong inputs", [{"property_path": "port", "reason": "has to be below 65536"}])


class Refusing(Provider):
    def __init__(self, errors: list | None) -> None:
        super().__init__("1.0.0")
        self.errors = errors

    def construct(self, *_: object, **__: object) -> None:
        raise InputPropertiesError("wrong inputs", self.errors)


class Context:
    """Takes what would go to the engine."""

    async def abort_with_status(self, status: object) -> None:
        raise RuntimeError(f"{status.details}; with details: {bool(status.trailing_metadata)}")


async def ask(provider: Provider) -> str:
    request = provider_pb2.ConstructRequest(
        project="p", stack="s", type="shop:index:Service", name="web", inputs={"port": 70000},
        monitorEndpoint="127.0.0.1:1", dryRun=True,
    )
    servicer = ProviderServicer(provider, [], "127.0.0.1:1")

    async def no_monitor() -> None: ...

    pulumi.runtime.settings._load_monitor_feature_support = no_monitor
    try:
        await servicer.Construct(request, Context())
    except Exception as error:
        told = str(error).splitlines()
        return f"{type(error).__name__}: {told[0]}{' + lines of code' if any('File' in line for line in told[1:]) else ''}"
    return "taken"


for what, provider in (
    ("from a component", ComponentProvider([Service], "shop", version="1.0.0")),
    ("without a list", Refusing(None)),
    ("with an empty list", Refusing([])),
):
    print(f"{what}: {asyncio.run(ask(provider))}")
PYTHON

said=$(venv/bin/python shop.py)
echo "$said"
expected="from a component: Exception: wrong inputs: + lines of code
without a list: AttributeError: 'Status' object has no attribute 'trailing_metadata'
with an empty list: RuntimeError: wrong inputs; with details: True"
[ "$said" = "$expected" ] || { echo 'CHANGED' >&2; exit 1; }
