"""Refuses early, in one line each, what would fail late; installs the few Debian programs that may be missing."""

import os
import re
import shutil
import sys
from pathlib import Path

from . import build, images, node
from .commands import run, search_path
from .errors import ClusterError
from .instance import CACHE_LINK, Instance, cache

GO_VERSION = (1, 26)
# Program -> Debian package that holds it.
PROGRAMS = {
    "ip": "iproute2",
    "nsenter": "util-linux",
    "unshare": "util-linux",
    "setsid": "util-linux",
    "openssl": "openssl",
}
BUILD_PROGRAMS = {"mmdebstrap": "mmdebstrap"}
VM_PROGRAMS = {
    **BUILD_PROGRAMS,
    "qemu-system-x86_64": "qemu-system-x86",
    "mke2fs": "e2fsprogs",
    "ssh": "openssh-client",
    "setpriv": "util-linux",
}
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")


def check(instance: Instance) -> None:
    """Raises the first reason why the embedded cluster cannot be brought up on this machine."""
    if sys.platform != "linux":
        raise ClusterError("the embedded cluster needs Linux; use CLUSTER=kind or CLUSTER=current")
    if os.geteuid() != 0:
        raise ClusterError("the embedded cluster makes namespaces and mounts: run it as root, or use CLUSTER=kind")
    images.architecture()
    if CACHE_LINK.exists() and not CACHE_LINK.is_symlink():
        raise ClusterError(f"{CACHE_LINK} is in the way: it has to be a link to the cache")
    node.kubectl()
    check_other_cache(instance)
    _install(PROGRAMS)


def check_build(groups: list[str]) -> None:
    """Raises the first reason why the missing groups cannot be built."""
    _check_disk(build.COLD_DISK if set(groups) & set(build.GO_BUILDS) else build.WARM_DISK)
    check_file_system(filesystem_of(_existing(cache()), Path("/proc/self/mountinfo").read_text()))
    if "debian" in groups:
        if shutil.which("apt-get", path=search_path()) is None:
            raise ClusterError("apt-get is missing: the embedded cluster takes its node from Debian packages")
        _install(BUILD_PROGRAMS)


def check_vm() -> None:
    """Raises the first reason why no machine with a kernel of its own can be had here."""
    if sys.platform != "linux" or os.geteuid() != 0 or images.architecture() != "amd64":
        raise ClusterError("the machine with a kernel of its own needs Linux on amd64, and root to make its disk")
    _install(VM_PROGRAMS)


def check_npm() -> None:
    """Raises when programs in TypeScript cannot be had here."""
    _install({"npm": "npm"})


def check_go() -> None:
    """Raises when there is no Go, or one that is too old; without it nothing can even be compared."""
    if shutil.which("go", path=search_path()) is None:
        raise ClusterError("go is missing; install Go 1.26 or newer from https://go.dev/dl/")
    version = run(["go", "env", "GOVERSION"], env=build.go_environment()).strip()
    if go_version(version) < GO_VERSION:
        raise ClusterError(f"{version} is too old; install Go 1.26 or newer from https://go.dev/dl/")


def go_version(text: str) -> tuple[int, int]:
    """Major and minor of what ``go env GOVERSION`` says."""
    match = re.match(r"go(\d+)\.(\d+)", text)
    return (int(match[1]), int(match[2])) if match else (0, 0)


def check_other_cache(instance: Instance) -> None:
    """Raises when the instance is up from another cache folder than the one in use now."""
    link = instance.run / "disk"
    if link.is_symlink() and not instance.uses_cache:
        raise ClusterError(f"cluster {instance.name} was started from {link.readlink()}; take it down first")


def filesystem_of(path: Path, mountinfo: str) -> str:
    """The type of the file system that holds a path."""
    best, kind = "", ""
    for line in mountinfo.splitlines():
        fields = line.split()
        point, after = fields[4], fields[fields.index("-") + 1]
        if path.is_relative_to(point) and len(point) >= len(best):
            best, kind = point, after
    return kind


def check_file_system(kind: str) -> None:
    """Raises when containerd could not stack its layers there."""
    if kind in ("overlay", "nfs", "nfs4", "fuse.sshfs", "9p"):
        raise ClusterError(
            f"the cache lies on {kind}, which cannot hold containers; point XDG_CACHE_HOME to a local disk"
        )


def _existing(path: Path) -> Path:
    return path if path.exists() else _existing(path.parent)


def _check_disk(needed: int) -> None:
    free = shutil.disk_usage(_existing(cache())).free >> 30
    if free < needed:
        raise ClusterError(
            f"the cache needs {needed} GiB of free disk and has {free} GiB; set XDG_CACHE_HOME to a larger one"
        )


def _install(programs: dict[str, str]) -> None:
    packages = {package for program, package in programs.items() if shutil.which(program, path=search_path()) is None}
    if not KEYRING.exists() and programs.items() >= BUILD_PROGRAMS.items():
        packages.add("debian-archive-keyring")
    if not packages:
        return
    if shutil.which("apt-get", path=search_path()) is None:
        raise ClusterError(f"install these first: {', '.join(sorted(packages))}")
    print(f"installing {', '.join(sorted(packages))}", file=sys.stderr, flush=True)
    environment = {**os.environ, "PATH": search_path(), "DEBIAN_FRONTEND": "noninteractive"}
    run(["apt-get", "update"], env=environment)
    run(["apt-get", "install", "--yes", "--no-install-recommends", *sorted(packages)], env=environment)
