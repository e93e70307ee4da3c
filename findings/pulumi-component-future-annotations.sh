#!/usr/bin/env bash
# pulumi (Python) 3.250.0: the schema of a component package comes from the annotations of the component's `__init__`, as
# they are at run time. In a module with `from __future__ import annotations` they are texts, and the analyzer fails on
# them with an AttributeError that names neither the module nor the reason. In Python 3.11 to 3.13 the import is common.
#
# Seen: "'str' object has no attribute '__mro__'"; without the import the same component is analyzed.
# Installs the package in a temporary folder.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"

python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check pulumi==3.250.0

cat >plain.py <<'PYTHON'
from typing import TypedDict

import pulumi
from pulumi.provider.experimental.analyzer import Analyzer


class ServiceArgs(TypedDict):
    port: int


class Service(pulumi.ComponentResource):
    def __init__(self, name: str, args: ServiceArgs, opts: pulumi.ResourceOptions | None = None) -> None: ...


try:
    print(list(Analyzer("shop").analyze([Service])["component_definitions"]["Service"].inputs))
except AttributeError as error:
    print(error)
PYTHON
{ echo 'from __future__ import annotations'; cat plain.py; } >future.py

plain=$(venv/bin/python plain.py) future=$(venv/bin/python future.py)
printf '%s\n' "plain: $plain" "with the import: $future"
[ "$plain" = "['port']" ] || { echo 'CHANGED: plain' >&2; exit 1; }
[ "$future" = "'str' object has no attribute '__mro__'" ] || { echo 'CHANGED: with the import' >&2; exit 1; }
