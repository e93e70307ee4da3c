"""How the nodes are prepared."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Final, Literal

from pydantic import Field

from config.types import DnsLabel, Model, PortNumber

ModuleName = Annotated[
    str, Field(pattern=r"^[A-Za-z0-9_-]+$", description="the name of a kernel module, as modprobe takes it")
]
IpFamily = Literal["IPv4", "IPv6"]
SysctlName = Literal[
    "fs.inotify.max_user_instances",
    "fs.inotify.max_user_watches",
    "fs.inotify.max_queued_events",
    "fs.file-max",
    "fs.nr_open",
]

SYSCTLS: Final[Mapping[str, int]] = {"fs.inotify.max_user_instances": 8192, "fs.inotify.max_user_watches": 524288}
"""What a node with many sidecars needs: see docs/nodes.md for why these, and why these numbers."""

SYSCTL_LIMITS: Final[Mapping[str, tuple[int, int]]] = {
    "fs.inotify.max_user_instances": (128, 2**31 - 1),
    "fs.inotify.max_user_watches": (8192, 2**31 - 1),
    "fs.inotify.max_queued_events": (16384, 2**31 - 1),
    "fs.file-max": (8192, 2**63 - 1),
    "fs.nr_open": (1048576, 2**31 - 64),
}
"""From the kernel's own default, below which a number would do nothing, to the most that it takes.

https://www.kernel.org/doc/html/latest/admin-guide/sysctl/fs.html, `inotify_user_setup` and `sysctl_nr_open_max`.
"""

HOST_KEY = "the host's public key, as `ssh-keyscan -t ecdsa HOST` prints it after the host's name"


class Machine(Model):
    """Where and how to log in by SSH; every machine has to prove itself by its host key."""

    address: str = Field(min_length=1, description="a name or an IP address")
    port: PortNumber = 22
    user: str = Field("root", min_length=1, description="root, or a user who may `sudo` without a password")
    host_key: str = Field(
        "",
        pattern=r"^((ssh-ed25519|ssh-rsa|ecdsa-sha2-nistp(256|384|521)) [A-Za-z0-9+/]+={0,3}( .*)?)?$",
        description=f"{HOST_KEY} (required)",
    )


class NodeHost(Machine):
    """One node."""

    node: str = Field("", description="its name in Kubernetes, for cordon and drain; '' is the host's name here")
    gone: bool = Field(False, description="true or false: it is there no more; nothing is done to it ever again")


class Nodes(Model):
    """How the kernel modules and the limits that sidecars need get onto the nodes."""

    mode: Literal["none", "ssh", "daemonset", "local"] = Field(
        "none",
        description="none (the nodes are prepared already), ssh (each host by SSH), daemonset (a pod on every node) "
        "or local (the machine that runs Pulumi)",
    )
    hosts: Mapping[DnsLabel, NodeHost] = Field(default_factory=dict, description="hosts by name")
    bastion: Machine | None = Field(None, description="the machine through which all hosts are reached")
    modules: Annotated[tuple[ModuleName, ...], Field(strict=False)] = Field(
        (), description="a list of kernel modules; empty: the right ones"
    )
    sysctls: Mapping[SysctlName, Annotated[int, Field(description="a whole number: the least that it has to be")]] = (
        Field(
            default_factory=dict,
            description="a map of sysctls and the least that each has to be, as none is ever lowered; "
            f"{' and '.join(f'{name}: {least}' for name, least in SYSCTLS.items())} where mode is not none and "
            "`null` does not take them out",
        )
    )
    ip_families: Annotated[tuple[IpFamily, ...], Field(strict=False, min_length=1)] = Field(
        ("IPv4",), description="a list of IPv4 and IPv6: the families of the cluster's pods"
    )
    reboot: bool = Field(False, description="true or false: reboot a host when only that gets the modules in")
    image: str = Field(
        "docker.io/library/busybox:1.37",
        min_length=1,
        description="for mode daemonset, an image with a shell and modprobe",
    )
