"""How the nodes are prepared."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field

from config.types import DnsLabel, Model, PortNumber

ModuleName = Annotated[
    str, Field(pattern=r"^[A-Za-z0-9_-]+$", description="the name of a kernel module, as modprobe takes it")
]
IpFamily = Literal["IPv4", "IPv6"]

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
    """How the kernel modules that sidecars need get onto the nodes."""

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
    ip_families: Annotated[tuple[IpFamily, ...], Field(strict=False, min_length=1)] = Field(
        ("IPv4",), description="a list of IPv4 and IPv6: the families of the cluster's pods"
    )
    reboot: bool = Field(False, description="true or false: reboot a host when only that gets the modules in")
    image: str = Field(
        "docker.io/library/busybox:1.37",
        min_length=1,
        description="for mode daemonset, an image with a shell and modprobe",
    )
