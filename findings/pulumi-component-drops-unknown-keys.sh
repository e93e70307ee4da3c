#!/usr/bin/env bash
# pulumi (Python) 3.250.0: a component that `component_provider_host` serves gets its inputs mapped by the schema, key by
# key. A key inside an input that the schema does not know is dropped on the way: neither the component, which may refuse
# it, nor the user is told. Typed SDKs and YAML's own checker see such a key before; what comes as a map does not, as from
# a stack's configuration.
#
# Seen: `{port: 80, tragetPort: 8080}` reaches the component as `{port: 80}`.
# Installs the package in a temporary folder.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"

python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check pulumi==3.250.0

cat >shop.py <<'PYTHON'
from typing import NotRequired, TypedDict

import pulumi
from pulumi.provider.experimental.component import ComponentProvider


class Port(TypedDict):
    port: int
    targetPort: NotRequired[int]


class ServiceArgs(TypedDict):
    ports: dict[str, Port]


class Service(pulumi.ComponentResource):
    def __init__(self, name: str, args: ServiceArgs, opts: pulumi.ResourceOptions | None = None) -> None: ...


provider = ComponentProvider([Service], "shop", version="1.0.0")
given = {"ports": {"http": {"port": 80, "tragetPort": 8080}}}
print(provider.map_inputs(given, provider._component_defs["Service"]))
PYTHON

said=$(venv/bin/python shop.py)
echo "the component gets $said"
[ "$said" = "{'ports': {'http': {'port': 80}}}" ] || { echo 'CHANGED' >&2; exit 1; }
