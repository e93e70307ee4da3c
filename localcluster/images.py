"""The node's Debian, and the container images, which carry names of their own and never an official tag.

One Debian root serves twice: as the file system that every node sees below its own, and, without the packages that
only a node needs, as the bottom layer of the images. containerd imports them once; nodes get a copy of its store.
"""

import hashlib
import io
import json
import os
import platform
import shutil
import tarfile
import time
from dataclasses import dataclass, field
from pathlib import Path

from . import node
from .commands import run
from .errors import ClusterError
from .instance import IMPORTER, Instance

HUB = "localhost/istio-governance"
NODE_PACKAGES = ("containerd", "runc", "containernetworking-plugins")
PACKAGES = ("nginx-light", "curl", "iptables", "mount", *NODE_PACKAGES)
# Debian itself brings these two; nothing in a container needs them.
PERL_PACKAGES = ("libperl5.36", "perl-modules-5.36")
BINARIES = ("pause", "coredns", "pilot-discovery", "pilot-agent", "envoy", "install-cni", "istio-cni")
CNI_PLUGINS = ("bridge", "host-local", "loopback", "portmap")
LEFT_OUT = ("doc", "info", "locale", "man")

_SITE = b"server { listen 80 default_server; root /usr/share/nginx/html; index index.html; }\n"
_EPOCH = "1970-01-01T00:00:00Z"


@dataclass(frozen=True)
class Image:
    """An image: files above the Debian layer, or above nothing."""

    name: str
    files: dict[str, Path | bytes]
    config: dict[str, object]
    debian: bool = True
    links: dict[str, str] = field(default_factory=dict)

    @property
    def reference(self) -> str:
        return f"{HUB}/{self.name}"


def images(binaries: Path, bootstrap: Path) -> list[Image]:
    """Every image, given the folder of the binaries and Envoy's bootstrap template."""
    tag = "1.31.0"
    template = "var/lib/istio/envoy/envoy_bootstrap_tmpl.json"
    logs = {"var/log/nginx/access.log": "/dev/stdout", "var/log/nginx/error.log": "/dev/stderr"}
    return [
        Image(
            "pause:1",
            {"pause": binaries / "pause"},
            {"Entrypoint": ["/pause"], "User": "65535:65535"},
            debian=False,
        ),
        Image("coredns:1.14.7", {"coredns": binaries / "coredns"}, {"Entrypoint": ["/coredns"]}, debian=False),
        Image(
            "nginx:debian-12",
            {"etc/nginx/sites-enabled/default": _SITE, "usr/share/nginx/html/index.html": b"nginx\n"},
            {"Cmd": ["nginx", "-g", "daemon off;"], "ExposedPorts": {"80/tcp": {}}, "StopSignal": "SIGQUIT"},
            links=logs,
        ),
        Image(
            f"pilot:{tag}",
            {"usr/local/bin/pilot-discovery": binaries / "pilot-discovery"},
            {"Entrypoint": ["/usr/local/bin/pilot-discovery"], "User": "1337:1337"},
        ),
        Image(
            f"proxyv2:{tag}",
            {
                "usr/local/bin/pilot-agent": binaries / "pilot-agent",
                "usr/local/bin/envoy": binaries / "envoy",
                template: bootstrap,
            },
            {"Entrypoint": ["/usr/local/bin/pilot-agent"]},
        ),
        Image(
            f"install-cni:{tag}",
            {
                "usr/local/bin/install-cni": binaries / "install-cni",
                "opt/cni/bin/istio-cni": binaries / "istio-cni",
            },
            {"Entrypoint": ["/usr/local/bin/install-cni"], "WorkingDir": "/opt/cni/bin"},
        ),
    ]


def make_debian(target: Path) -> None:
    """Makes the Debian root with mmdebstrap."""
    exclude = [f"--dpkgopt=path-exclude=/usr/share/{name}/*" for name in LEFT_OUT]
    include = f"--include={','.join(PACKAGES)}"
    options = ["--quiet", "--mode=root", "--variant=essential", "--format=directory", "--skip=output/dev"]
    fresh = target.with_name(f".{target.name}.new")
    node.remove_tree(fresh)
    fresh.parent.mkdir(parents=True, exist_ok=True)
    run(["mmdebstrap", *options, *exclude, include, "bookworm", str(fresh)])
    for name in CNI_PLUGINS:
        plugin = fresh / "opt" / "cni" / "bin" / name
        plugin.parent.mkdir(parents=True, exist_ok=True)
        os.link(fresh / "usr" / "lib" / "cni" / name, plugin)
    node.remove_tree(target)
    fresh.rename(target)


def make_store(target: Path, debian: Path, binaries: Path, bootstrap: Path) -> None:
    """Writes the images and lets containerd import them into a store that nodes can copy."""
    scratch = Instance(IMPORTER)
    node.stop(scratch)
    node.remove_tree(scratch.disk)
    upper = scratch.disk / "upper"
    shutil.copytree(node.HERE / "rootfs", upper)
    write_archive(upper / "images.tar", debian, images(binaries, bootstrap))
    scratch.run.mkdir(parents=True)
    try:
        run(["ip", "netns", "add", scratch.namespace])
        node.enter_namespaces(scratch, debian, binaries, ["pause"])
        node.start_component(scratch, "containerd")
        _import(scratch)
        node.terminate(scratch, "containerd")
        node.remove_tree(target)
        (scratch.disk / "containerd").rename(target)
    finally:
        node.stop(scratch)


def _import(scratch: Instance) -> None:
    deadline = time.monotonic() + 30
    while not node.node_path(scratch, "/run/containerd/containerd.sock").exists():
        if time.monotonic() > deadline:
            raise ClusterError(f"containerd did not start; its log is in {scratch.disk / 'log'}")
        time.sleep(0.1)
    node.execute(scratch, ["ctr", "--namespace=k8s.io", "images", "import", "--all-platforms", "/images.tar"])


def write_archive(path: Path, debian: Path, wanted: list[Image]) -> None:
    """Writes the images as one archive in Docker's format, in which they share the Debian layer."""
    layers: dict[str, None] = {}
    manifest: list[dict[str, object]] = []
    with tarfile.open(path, "w") as archive:

        def add_layer(file: Path) -> str:
            digest = _digest(file)
            if digest not in layers:
                layers[digest] = None
                archive.add(file, f"{digest}.tar")
            file.unlink()
            return digest

        scratch = path.with_suffix(".layer")
        _write_debian_layer(scratch, debian)
        base = add_layer(scratch)
        for image in wanted:
            _write_layer(scratch, image)
            digests = [*([base] if image.debian else []), add_layer(scratch)]
            config = json.dumps(_config(image, digests)).encode()
            name = f"{hashlib.sha256(config).hexdigest()}.json"
            _add_bytes(archive, name, config)
            parts = [f"{digest}.tar" for digest in digests]
            manifest.append({"Config": name, "RepoTags": [image.reference], "Layers": parts})
        _add_bytes(archive, "manifest.json", json.dumps(manifest).encode())


def architecture() -> str:
    """The machine's architecture as image configs name it."""
    known = {"x86_64": "amd64", "aarch64": "arm64"}
    machine = platform.machine()
    if machine not in known:
        raise ClusterError(f"the embedded cluster does not run on {machine}; use CLUSTER=kind or CLUSTER=current")
    return known[machine]


def _config(image: Image, digests: list[str]) -> dict[str, object]:
    path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    return {
        "architecture": architecture(),
        "os": "linux",
        "created": _EPOCH,
        "config": {"Env": [path], **image.config},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}" for digest in digests]},
        "history": [{"created": _EPOCH, "created_by": "localcluster"} for _ in digests],
    }


def _digest(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def _add_bytes(archive: tarfile.TarFile, name: str, content: bytes, mode: int = 0o644) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(content), mode
    archive.addfile(entry, io.BytesIO(content))


def _write_debian_layer(path: Path, debian: Path) -> None:
    info = debian / "var/lib/dpkg/info"
    packages = (*NODE_PACKAGES, *PERL_PACKAGES)
    # The name of a package's list holds the architecture where several could be installed.
    lists = [file for name in packages for file in (*info.glob(f"{name}.list"), *info.glob(f"{name}:*.list"))]
    left_out = {line for file in lists for line in file.read_text().splitlines() if not (debian / line[1:]).is_dir()}
    left_out |= {f"/opt/cni/bin/{name}" for name in CNI_PLUGINS}

    def keep(entry: tarfile.TarInfo) -> tarfile.TarInfo | None:
        return None if f"/{entry.name}" in left_out or entry.name.startswith("dev/") else entry

    with tarfile.open(path, "w") as layer:
        for folder in sorted(debian.iterdir()):
            layer.add(folder, folder.name, filter=keep)


def _write_layer(path: Path, image: Image) -> None:
    with tarfile.open(path, "w") as layer:
        for name, source in image.files.items():
            if isinstance(source, bytes):
                _add_bytes(layer, name, source)
                continue
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = source.stat().st_size, 0o755
            with source.open("rb") as content:
                layer.addfile(entry, content)
        for name, target in image.links.items():
            entry = tarfile.TarInfo(name)
            entry.type, entry.linkname = tarfile.SYMTYPE, target
            layer.addfile(entry)
