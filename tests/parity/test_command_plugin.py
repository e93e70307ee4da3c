"""The stand-in for the plugin of pulumi-command, by its own tests in Go: its contract, with a real SSH server."""

from __future__ import annotations

import subprocess

from localcluster import build

MODULE = build.GO_BUILDS["cluster"]
PACKAGE = "./cmd/pulumi-resource-command"


def test_the_stand_in_keeps_the_contract_of_the_plugin() -> None:
    """Offline: the build of the module, which every cluster needs anyway, leaves all of it in Go's caches."""
    build.build(["cluster"])
    done = subprocess.run(
        ["go", "test", "-pgo=off", "-tags", MODULE.tags, PACKAGE],
        cwd=build.GO / MODULE.module,
        env={**build.go_environment(), "GOPROXY": "off"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith("ok "), done.stdout
