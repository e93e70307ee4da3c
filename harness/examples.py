"""The programs in examples/, with the components from the package in this checkout, as a user would run them."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from harness.stack import PROJECT
from localcluster import EmbeddedCluster, build, prerequisites
from mesh.program.stack import Stack

GROUPS = ("yaml-host", "nodejs-host", "nodejs-sdk")
_HOST = """\
#!/bin/sh
PYTHONPATH={project} exec {project}/.venv/bin/python -m harness.language_host {host} "$@"
"""


def checkout(folder: Path) -> Path:
    """A checkout in `folder`, without a virtual environment for the package; returns the package."""
    folder.mkdir(parents=True, exist_ok=True)
    for entry in PROJECT.iterdir():
        if entry.name not in ("package", "examples"):
            (folder / entry.name).symlink_to(entry)
    package = folder / "package"
    package.mkdir()
    for entry in (PROJECT / "package").iterdir():
        if entry.name not in ("venv", "__pycache__"):
            (package / entry.name).symlink_to(entry)
    return package


def environment(folder: Path, cluster: EmbeddedCluster) -> dict[str, str]:
    """Of Pulumi's commands for these programs, with the stand-in for the language host of Python in `folder`."""
    build.build(GROUPS)
    host = folder / "hosts" / "pulumi-language-python"
    host.parent.mkdir(exist_ok=True)
    host.write_text(_HOST.format(project=PROJECT, host=build.user_binaries() / host.name))
    host.chmod(0o755)
    return {**cluster.environment, "PATH": f"{host.parent}:{cluster.environment['PATH']}"}


def example(
    name: str, folder: Path, variables: Mapping[str, str], config: Mapping[str, Any], stack: str = "test"
) -> Stack:
    """A stack of an example, with `config` by key of its own namespace."""
    home = folder / "examples" / f"{name}-{stack}"
    left_out = shutil.ignore_patterns("node_modules", "sdks", "Pulumi.*.yaml")
    shutil.copytree(PROJECT / "examples" / name, home, ignore=left_out)
    made = Stack(stack, home, variables)
    configure(made, config)
    made.pulumi("stack", "init")
    return made


def configure(stack: Stack, config: Mapping[str, Any]) -> None:
    """Sets these values; what else is in the file stays, as secrets that `pulumi config set` has put there."""
    project = yaml.safe_load((stack.folder / "Pulumi.yaml").read_text())["name"]
    kept = yaml.safe_load(stack.file.read_text()) if stack.file.exists() else {"config": {}}
    values = {f"{project}:{key}": value for key, value in config.items()}
    stack.file.write_text(yaml.safe_dump({**kept, "config": {**kept["config"], **values}}, sort_keys=False))


def install_sdk(stack: Stack, package: Path) -> None:
    """The typed SDK of the package for Node.js, as `pulumi package add` makes and installs it."""
    prerequisites.check_npm()
    (generator,) = build.outputs("nodejs-sdk")
    sdk = stack.folder / "sdks" / "istio-governance"
    for command in (
        [str(generator), str(package / "schema.json"), str(sdk)],
        ["npm", "install", "--no-audit", "--no-fund", "--loglevel=error"],
    ):
        subprocess.run(command, cwd=stack.folder, check=True, capture_output=True, text=True)
