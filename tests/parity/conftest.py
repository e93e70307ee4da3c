"""The real helm, the real istioctl and Istio's own charts; no cluster."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from localcluster import ClusterError, build, prerequisites
from tests.conftest import not_run


@pytest.fixture(scope="session", autouse=True)
def tools() -> Iterator[None]:
    """helm and istioctl on PATH, built when they are missing. Where that cannot be the summary says so."""
    try:
        prerequisites.check_go()
        build.build(["charts", *build.TOOLS])
    except ClusterError as error:
        not_run("the tests in tests/parity", error)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", f"{build.user_binaries()}{os.pathsep}{os.environ['PATH']}")
        yield


@pytest.fixture(scope="session")
def charts() -> Path:
    """Istio's charts as its release has them."""
    return build.charts()
