"""A stand-in for a host that is not emulated: a host in namespaces, on this machine's own processor and kernel.

It has the file system of the machine in localcluster/vm.py, and so Debian's sshd with its keys, but neither systemd nor
a kernel of its own: what it is told to load has to be in this machine's kernel already.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from localcluster import ClusterError, build
from localcluster.commands import run

HOST_KEY = "ecdsa"
SCRIPT = Path(__file__).with_name("host.sh")
START_SECONDS = 30
_OWN_NAMESPACE = Path("/proc/self/ns/net")


@dataclass
class Host:
    """Host 1, 2, … at the end of a link of its own; `folder` is a new one."""

    number: int
    folder: Path
    _process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        return f"10.98.{self.number}.2"

    @property
    def private_key(self) -> str:
        return self._key.read_text()

    @property
    def host_key(self) -> str:
        return " ".join((build.vm_image() / f"{HOST_KEY}.pub").read_text().split()[:2])

    @property
    def _link_name(self) -> str:
        return f"ig-host-{self.number}"

    @property
    def _key(self) -> Path:
        return build.vm_image() / "key"

    def start(self) -> None:
        root = self.folder / "root"
        root.mkdir(parents=True)
        (self.folder / "known_hosts").write_text(f"{self.address} {self.host_key}\n")
        # All of it ends with this process, however that ends.
        namespaces = ["setpriv", "--pdeathsig=KILL", "unshare", "--mount", "--net", "--pid", "--fork", "--kill-child"]
        with (self.folder / "log").open("w") as log:
            self._process = subprocess.Popen(
                [*namespaces, "sh", str(SCRIPT), str(build.vm_image() / "disk.img"), str(root)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        namespace = Path(f"/proc/{self._process.pid}/ns/net")
        self._wait(lambda: "" if namespace.readlink() != _OWN_NAMESPACE.readlink() else "no network namespace")
        self._link(self._process.pid)
        self._wait(self._refusal)

    def stop(self) -> None:
        """Its first process takes every other along, and the mounts."""
        if not self._process:
            return
        # `unshare` ends when the first process has; killed itself, it would leave that to be reaped by others.
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text().split()
        for process in children or [str(self._process.pid)]:
            os.kill(int(process), signal.SIGKILL)
        self._process.wait()
        self._process = None
        # Gone with the network namespace, but the kernel takes its time.
        subprocess.run(["ip", "link", "delete", self._link_name], stderr=subprocess.DEVNULL, check=False)

    def run(self, command: str, *, stdin: str = "") -> str:
        """What the command prints, over SSH; raises when it fails."""
        done = self._ssh(command, stdin)
        if done.returncode:
            raise ClusterError(f"`{command}` failed on {self.address}: {done.stderr.strip()}")
        return done.stdout

    def _link(self, process: int) -> None:
        link, inside = self._link_name, ["nsenter", f"--net=/proc/{process}/ns/net", "ip"]
        peer = ["type", "veth", "peer", "name", "eth0", "netns", str(process)]
        for command in (
            ["ip", "link", "add", link, *peer],
            ["ip", "address", "add", f"10.98.{self.number}.1/24", "dev", link],
            ["ip", "link", "set", link, "up"],
            [*inside, "link", "set", "lo", "up"],
            [*inside, "address", "add", f"{self.address}/24", "dev", "eth0"],
            [*inside, "link", "set", "eth0", "up"],
        ):
            run(command)

    def _ssh(self, command: str, stdin: str) -> subprocess.CompletedProcess[str]:
        options = {
            "IdentitiesOnly": "yes",
            "BatchMode": "yes",
            "LogLevel": "ERROR",
            "StrictHostKeyChecking": "yes",
            "UserKnownHostsFile": str(self.folder / "known_hosts"),
            "HostKeyAlgorithms": self.host_key.split()[0],
        }
        flags = [part for name, value in options.items() for part in ("-o", f"{name}={value}")]
        return subprocess.run(
            ["ssh", "-F", "none", "-i", str(self._key), *flags, f"root@{self.address}", command],
            input=stdin,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def _refusal(self) -> str:
        done = self._ssh("true", "")
        return done.stderr or "no SSH" if done.returncode else ""

    def _wait(self, missing: Callable[[], str]) -> None:
        end, said = time.monotonic() + START_SECONDS, "it does not run"
        while self._process and self._process.poll() is None and time.monotonic() < end:
            if not (said := missing()):
                return
            time.sleep(0.1)
        raise ClusterError(f"{self.address}: {said.strip()}; {(self.folder / 'log').read_text().strip()}")
