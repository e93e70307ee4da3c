"""Servers on loopback that keep Pulumi's state, for the tests of shared state: a real PostgreSQL, and moto for S3."""

from __future__ import annotations

import hashlib
import os
import pwd
import shlex
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory, TemporaryFile

from localcluster.build import locked
from localcluster.commands import run
from localcluster.instance import cache

POSTGRESQL = Path("/usr/lib/postgresql")
MOTO = Path(__file__).parent.parent / "tests" / "e2e" / "s3" / "requirements.txt"

State = Mapping[str, str]
"""The environment that makes Pulumi keep its state there."""


@contextmanager
def postgresql() -> Iterator[State]:
    """A database of its own, by Debian's PostgreSQL, which is installed where it is missing."""
    if not POSTGRESQL.exists():
        run(["apt-get", "install", "--yes", "--no-install-recommends", "postgresql"])
    (binaries,) = sorted(POSTGRESQL.glob("*/bin"))[-1:]
    port, user = free_port(), pwd.getpwnam("postgres")  # it refuses to run as root
    as_user = ["setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups"]
    psql = [str(binaries / "psql"), "--host=127.0.0.1", f"--port={port}", "--username=pulumi", "--dbname=postgres"]

    def ready() -> bool:
        return subprocess.run([*psql, "--command=select 1"], capture_output=True, check=False).returncode == 0

    with TemporaryDirectory() as folder:
        os.chown(folder, user.pw_uid, user.pw_gid)
        data = f"{folder}/data"
        run([*as_user, str(binaries / "initdb"), "--auth=trust", "--username=pulumi", f"--pgdata={data}"])
        settings = ["-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories=", "-c", "fsync=off"]
        with serving([*as_user, str(binaries / "postgres"), "-D", data, "-p", str(port), *settings], ready):
            yield {"PULUMI_BACKEND_URL": f"postgres://pulumi@127.0.0.1:{port}/postgres?sslmode=disable"}


@contextmanager
def s3_stand_in() -> Iterator[State]:
    """A bucket in moto, which stands in for S3, in an environment of its own."""
    port, bucket = free_port(), "state"
    command = [str(_moto()), "--host=127.0.0.1", f"--port={port}"]
    endpoint = f"http://127.0.0.1:{port}"
    with serving(command, lambda: answers(endpoint)):
        urllib.request.urlopen(urllib.request.Request(f"{endpoint}/{bucket}", method="PUT"), timeout=10).close()  # noqa: S310
        yield {
            "PULUMI_BACKEND_URL": f"s3://{bucket}?region=us-east-1&endpoint={endpoint}&use_path_style=true",
            "AWS_ACCESS_KEY_ID": "stand-in",
            "AWS_SECRET_ACCESS_KEY": "stand-in",
        }


def _moto() -> Path:
    environment = cache() / "moto" / hashlib.sha256(MOTO.read_bytes()).hexdigest()[:16]
    server = environment / "bin" / "moto_server"
    with locked("moto"):
        if not server.exists():
            shutil.rmtree(environment, ignore_errors=True)
            run([sys.executable, "-m", "venv", str(environment)])
            pip = [str(environment / "bin" / "pip"), "install", "--quiet", "--require-hashes"]
            run([*pip, "--disable-pip-version-check", f"--requirement={MOTO}"])
    return server


@contextmanager
def serving(command: Sequence[str], ready: Callable[[], bool]) -> Iterator[None]:
    """Runs a server until the block ends. Raises `TimeoutError` when it is not ready within 30 seconds."""
    with TemporaryFile("w+") as log:
        server = subprocess.Popen(command, cwd="/", stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        try:
            end = time.monotonic() + 30
            while not ready():
                if time.monotonic() > end or server.poll() is not None:
                    log.seek(0)
                    raise TimeoutError(f"`{shlex.join(command)}` does not answer: {log.read()[-500:]}")
                time.sleep(0.2)
            yield
        finally:
            server.terminate()
            server.wait(20)


def answers(url: str) -> bool:
    try:
        urllib.request.urlopen(url, timeout=2).close()  # noqa: S310
    except OSError:
        return False
    return True


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
