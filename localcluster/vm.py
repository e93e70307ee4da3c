"""A throw-away Debian machine in qemu, with a kernel whose modules can really be missing; reached by SSH on 127.0.0.1.

It is emulated (TCG), as a nested /dev/kvm boots no stock kernel, and lacks any network but the forwarded SSH port.
Its keys are for these machines only, which nobody else can reach.
"""

import os
import shlex
import shutil
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from .commands import run, search_path
from .errors import ClusterError

PACKAGES = (
    "linux-image-cloud-amd64",
    "systemd-sysv",
    "dbus",
    "udev",
    "openssh-server",
    "iproute2",
    "kmod",
    "iptables",
    "busybox",
)
MEMORY = "512"
# Debian's sshd has a key of each kind; Go's client asks for the ecdsa one first.
HOST_KEYS = ("ecdsa", "ed25519")
_FILES = {
    "etc/hostname": "node\n",
    "etc/hosts": "127.0.0.1 localhost node\n",
    "etc/fstab": "/dev/vda / ext4 defaults,noatime 0 0\n",
    "etc/systemd/network/10-dhcp.network": (
        "[Match]\nType=ether\n[Network]\nDHCP=ipv4\nLinkLocalAddressing=no\nIPv6AcceptRA=no\n"
    ),
}
_MASKED = (
    "systemd-networkd-wait-online",
    "apt-daily.timer",
    "apt-daily-upgrade.timer",
    "e2scrub_all.timer",
    "e2scrub_reap",
    "fstrim.timer",
)
_KERNEL_LINE = "root=/dev/vda rootfstype=ext4 rw console=ttyS0 quiet cryptomgr.notests"
# On a quiet machine twenty seconds; with load several times that.
BOOT_SECONDS = 600


def outputs(folder: Path) -> list[Path]:
    keys = [f"{kind}.pub" for kind in HOST_KEYS]
    return [folder / name for name in ("vmlinuz", "initrd", "disk.img", "key", *keys)]


def make(target: Path) -> None:
    """Makes the disk, the kernel and the keys."""
    fresh = target.with_name(f".{target.name}.new")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True)
    keygen = ["ssh-keygen", "-q", "-N", "", "-C", "vm"]
    run([*keygen, "-t", "ed25519", "-f", str(fresh / "key")])
    for kind in HOST_KEYS:
        run([*keygen, "-t", kind, "-f", str(fresh / kind)])
    with TemporaryDirectory(dir=fresh) as scratch:
        overlay, root = Path(scratch) / "overlay", Path(scratch) / "root"
        _write_overlay(overlay, fresh)
        _debootstrap(root, overlay)
        for name in ("vmlinuz", "initrd.img"):
            (found,) = (root / "boot").glob(f"{name}-*")
            shutil.copyfile(found, fresh / name.removesuffix(".img"))
        ext4 = ["mke2fs", "-q", "-t", "ext4", "-L", "root", "-O", "^has_journal", "-m", "0"]
        run([*ext4, "-d", str(root), str(fresh / "disk.img"), "1G"])
    shutil.rmtree(target, ignore_errors=True)
    fresh.rename(target)


def _write_overlay(overlay: Path, keys: Path) -> None:
    for name, text in _FILES.items():
        file = overlay / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    authorized = overlay / "root" / ".ssh" / "authorized_keys"
    authorized.parent.mkdir(parents=True)
    shutil.copyfile(keys / "key.pub", authorized)
    for folder in (overlay / "root", authorized.parent):
        folder.chmod(0o700)
    (overlay / "etc" / "ssh").mkdir()
    for kind in HOST_KEYS:
        for suffix in ("", ".pub"):
            shutil.copy(keys / f"{kind}{suffix}", overlay / "etc" / "ssh" / f"ssh_host_{kind}_key{suffix}")


def _debootstrap(root: Path, overlay: Path) -> None:
    hooks = {
        "setup": [
            'mkdir -p "$1/etc/initramfs-tools/conf.d" "$1/usr/share/initramfs-tools/modules.d"',
            'echo MODULES=list > "$1/etc/initramfs-tools/conf.d/vm"',
            'printf "virtio_pci\\nvirtio_blk\\next4\\n" > "$1/usr/share/initramfs-tools/modules.d/vm"',
        ],
        "customize": [
            'rm -f "$1"/etc/ssh/ssh_host_*',
            f'tar -C {shlex.quote(str(overlay))} --owner=0 --group=0 -cf - . | tar -C "$1" --no-overwrite-dir -xpf -',
            'chroot "$1" systemctl -q enable systemd-networkd ssh',
            f'chroot "$1" systemctl -q mask {" ".join(_MASKED)}',
        ],
    }
    options = ["--quiet", "--mode=root", "--format=directory", "--variant=minbase", f"--include={','.join(PACKAGES)}"]
    options += [f"--dpkgopt=path-exclude=/usr/share/{name}/*" for name in ("doc", "man", "locale")]
    options += [f"--{when}-hook={command}" for when, commands in hooks.items() for command in commands]
    run(["mmdebstrap", *options, "bookworm", str(root)])


@dataclass
class Vm:
    """One machine from the image in `image`, with a disk that is fresh at every start and survives a reboot."""

    image: Path
    port: int
    log: Path
    _process: "subprocess.Popen[bytes] | None" = None

    @property
    def private_key(self) -> str:
        return (self.image / "key").read_text()

    def host_key(self, kind: str = "ecdsa") -> str:
        """The public key without its comment, as `ssh-keyscan` prints it after the host's name."""
        return " ".join((self.image / f"{kind}.pub").read_text().split()[:2])

    def start(self) -> None:
        """Begins to boot; call it in the main thread, as the machine ends with the thread that started it."""
        command = ["setpriv", "--pdeathsig=KILL", "qemu-system-x86_64", "-nodefaults", "-display", "none"]
        command += ["-machine", "pc,accel=tcg", "-cpu", "max", "-smp", "1", "-m", MEMORY]
        command += ["-serial", f"file:{self.log}", "-device", "virtio-rng-pci", "-append", _KERNEL_LINE]
        command += ["-kernel", str(self.image / "vmlinuz"), "-initrd", str(self.image / "initrd")]
        command += ["-drive", f"file={self.image / 'disk.img'},if=virtio,format=raw,snapshot=on"]
        network = f"user,id=n0,restrict=on,hostfwd=tcp:127.0.0.1:{self.port}-:22"
        command += ["-netdev", network, "-device", "virtio-net-pci,netdev=n0,romfile="]
        self._process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, env={**os.environ, "PATH": search_path()}, start_new_session=True
        )

    def stop(self) -> None:
        if self._process:
            self._process.kill()
            self._process.wait()
            self._process = None

    def ssh(self, command: str, *, stdin: str = "", timeout: float = 120) -> "subprocess.CompletedProcess[str]":
        options = {
            "IdentitiesOnly": "yes",
            "BatchMode": "yes",
            "ConnectTimeout": "5",
            "LogLevel": "ERROR",
            # The machine is our own child, on the loopback; what the product checks is for its own tests.
            "StrictHostKeyChecking": "no",
            "UserKnownHostsFile": "/dev/null",
        }
        flags = [part for name, value in options.items() for part in ("-o", f"{name}={value}")]
        return subprocess.run(
            ["ssh", "-p", str(self.port), "-i", str(self.image / "key"), *flags, "root@127.0.0.1", command],
            input=stdin,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    def run(self, command: str, *, stdin: str = "") -> str:
        """What the command prints; raises when it fails."""
        done = self.ssh(command, stdin=stdin)
        if done.returncode:
            raise ClusterError(f"`{command}` failed in the machine on port {self.port}: {done.stderr.strip()}")
        return done.stdout

    @property
    def boot(self) -> str:
        return self.run("cat /proc/sys/kernel/random/boot_id").strip()

    def wait(self, since: str = "") -> None:
        """Until it has booted, and with another boot ID than `since`; the open port alone says nothing."""
        end = time.monotonic() + BOOT_SECONDS
        while time.monotonic() < end:
            if self._process is None or self._process.poll() is not None:
                break
            done = self._try("cat /proc/sys/kernel/random/boot_id")
            if done.strip() and done.strip() != since:
                return
            time.sleep(0.5)
        raise ClusterError(f"the machine on port {self.port} did not boot; its console is in {self.log}")

    def wait_until_away(self) -> None:
        """Until it takes no more commands, as it goes down."""
        end = time.monotonic() + BOOT_SECONDS
        while self._try("echo here"):
            if time.monotonic() > end:
                raise ClusterError(f"the machine on port {self.port} did not go down; its console is in {self.log}")
            time.sleep(0.2)

    def _try(self, command: str) -> str:
        try:
            return self.ssh(command, timeout=30).stdout
        except subprocess.TimeoutExpired:
            return ""
