"""The script that prepares a node, on scripted fakes of a node's file system: tests/e2e/test_nodes.py has a real one.

The distributions below are imitations, made of the few files by which the script tells them apart.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from istio.kernel import modules

from .given import ROOT, config

SCRIPT = ROOT / "components" / "prepare-node.sh"
KERNEL = "6.1.0-49-cloud-amd64"
SEVEN = ("br_netfilter", "nf_nat", "xt_REDIRECT", "xt_owner", "iptable_nat", "iptable_mangle", "iptable_filter")
MARKER = "# Written by istio-governance: the kernel modules that the sidecars of Istio need.\n"
SHELLS = [command for command in (["sh"], ["busybox", "sh"]) if shutil.which(command[0])]

FAKE_MODPROBE = """\
#!/bin/sh
[ "$1" = -- ] && shift
if [ "$(cat "$ROOT/proc/sys/kernel/modules_disabled")" = 1 ]; then
  echo "modprobe: ERROR: could not insert '$1': Operation not permitted" >&2; exit 1
fi
if grep -qs "/$1.ko" "$ROOT/lib/modules/$(uname -r)/modules.dep"; then
  echo "$1 16384 0 - Live 0x0000000000000000" >>"$ROOT/proc/modules"
else
  echo "modprobe: FATAL: Module $1 not found in directory /lib/modules/$(uname -r)" >&2; exit 1
fi
"""


@dataclass
class Node:
    """A fake node: the files that the script reads, with a fake `modprobe` and a fake `uname` before the real ones."""

    folder: Path
    shell: list[str]

    def __post_init__(self) -> None:
        self.write("etc/modules-load.d/.keep", "")
        self.write("proc/modules", "")
        self.write("proc/sys/kernel/modules_disabled", "0\n")
        self.write("proc/sys/kernel/random/boot_id", "boot-1\n")
        self.write("bin/uname", f"#!/bin/sh\necho {KERNEL}\n", mode=0o755)
        self.write("bin/modprobe", FAKE_MODPROBE, mode=0o755)

    def write(self, path: str, text: str, mode: int = 0o644) -> None:
        file = self.folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        file.chmod(mode)

    def loadable(self, names: Iterable[str], kernel: str = KERNEL, suffix: str = ".ko") -> None:
        lines = [f"kernel/net/{name}{suffix}: kernel/net/x_tables{suffix}\n" for name in names]
        self.write(f"lib/modules/{kernel}/modules.dep", "".join(lines))

    def built_in(self, names: Iterable[str]) -> None:
        self.write(f"lib/modules/{KERNEL}/modules.builtin", "".join(f"kernel/net/{name}.ko\n" for name in names))

    @property
    def file(self) -> Path:
        return self.folder / "etc/modules-load.d/istio-iptables.conf"

    @property
    def loaded(self) -> list[str]:
        return [line.split()[0] for line in (self.folder / "proc/modules").read_text().splitlines()]

    def run(self, *args: str) -> subprocess.CompletedProcess[str]:
        """As over SSH: the script comes in by stdin."""
        environment = {"PATH": f"{self.folder}/bin:/usr/bin:/bin", "ROOT": str(self.folder)}
        return subprocess.run(
            [*self.shell, "-s", "--", *args],
            input=SCRIPT.read_text(),
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )

    def good(self, *args: str) -> str:
        done = self.run(*args)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def bad(self, *args: str) -> str:
        done = self.run(*args)
        assert done.returncode == 1
        return done.stderr


@pytest.fixture(params=SHELLS, ids=lambda command: command[0])
def node(tmp_path: Path, request: pytest.FixtureRequest) -> Node:
    return Node(tmp_path, request.param)


def test_the_seven_are_loaded_now_and_at_every_boot(node: Node) -> None:
    node.loadable(SEVEN)
    assert node.good("prepare", *SEVEN) == "".join(f"{name}: loaded\n" for name in SEVEN)
    assert node.loaded == list(SEVEN)
    assert node.file.read_text() == MARKER + "".join(f"{name}\n" for name in SEVEN)


def test_a_second_time_changes_nothing(node: Node) -> None:
    node.loadable(SEVEN)
    first = node.good("prepare", *SEVEN)
    before = node.file.stat().st_mtime_ns
    assert node.good("prepare", *SEVEN) == first
    assert node.loaded == list(SEVEN)
    assert node.file.stat().st_mtime_ns == before
    assert [one.name for one in node.file.parent.glob("istio*")] == [node.file.name]


def test_one_machine_under_many_names_is_prepared_by_all_at_once(node: Node) -> None:
    node.built_in(SEVEN)
    lists = [SEVEN[: 1 + count % len(SEVEN)] for count in range(28)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda names: node.good("prepare", *names), lists))
    assert tuple(node.file.read_text().removeprefix(MARKER).split()) in lists
    assert [one.name for one in node.file.parent.glob("istio*")] == [node.file.name]


def test_another_list_replaces_ours_without_a_backup(node: Node) -> None:
    node.loadable([*SEVEN, "xt_mark"])
    node.good("prepare", *SEVEN)
    node.good("prepare", "xt_mark")
    assert node.file.read_text() == f"{MARKER}xt_mark\n"
    assert [file.name for file in node.file.parent.iterdir() if not file.name.startswith(".")] == [node.file.name]


@pytest.mark.parametrize("suffix", [".ko.xz", ".ko.zst", ".ko.gz"])
def test_compressed_modules_count(node: Node, suffix: str) -> None:
    node.loadable(SEVEN, suffix=suffix)
    node.good("prepare", *SEVEN)
    assert node.loaded == list(SEVEN)


def test_built_in_modules_count_as_loaded_and_need_no_modprobe(node: Node) -> None:
    node.built_in(SEVEN)
    (node.folder / "bin/modprobe").unlink()
    assert node.good("prepare", *SEVEN) == "".join(f"{name}: built in\n" for name in SEVEN)
    assert node.good("check", *SEVEN) == ""


def test_a_kernel_without_loadable_modules_is_known_by_its_configuration(node: Node) -> None:
    (node.folder / "proc/modules").unlink()
    options = "BRIDGE_NETFILTER NF_NAT NETFILTER_XT_TARGET_REDIRECT NETFILTER_XT_MATCH_OWNER"
    options += " IP_NF_NAT IP_NF_MANGLE IP_NF_FILTER"
    node.write(f"boot/config-{KERNEL}", "".join(f"CONFIG_{name}=y\n" for name in options.split()))
    assert node.good("prepare", *SEVEN).count("built in") == 7
    assert "ip6table_nat" in node.bad("prepare", "ip6table_nat")


def test_names_with_a_dash_are_those_with_an_underscore(node: Node) -> None:
    node.built_in(["br-netfilter"])
    node.write("proc/modules", "nf_nat 1 0 - Live 0x0\n")
    assert node.good("check", "br_netfilter", "nf-nat") == ""


def test_an_unknown_module_is_named_with_the_kernel_and_nothing_stays(node: Node) -> None:
    node.loadable(SEVEN)
    said = node.bad("prepare", *SEVEN, "no_such_module")
    assert f"kernel {KERNEL}: these modules cannot be loaded: no_such_module: modprobe: FATAL" in said
    assert not node.file.exists()


def test_check_tells_what_is_missing_and_changes_nothing(node: Node) -> None:
    node.loadable(SEVEN)
    node.built_in(["nf_nat"])
    done = node.run("check", *SEVEN)
    assert (done.returncode, done.stdout) == (1, f"missing: {' '.join(m for m in SEVEN if m != 'nf_nat')}\n")
    assert node.loaded == [] and not node.file.exists()


def test_check_does_not_guess_where_built_in_modules_cannot_be_seen(node: Node) -> None:
    done = node.run("check", *SEVEN)
    assert (done.returncode, done.stdout) == (3, f"missing: {' '.join(SEVEN)}\n")


def test_a_foreign_list_is_kept_aside_and_put_back(node: Node) -> None:
    node.loadable(SEVEN)
    node.write("etc/modules-load.d/istio-iptables.conf", "nf_nat\n")
    node.good("prepare", *SEVEN)
    node.good("prepare", *SEVEN[:3])
    assert node.file.read_text() == MARKER + "".join(f"{name}\n" for name in SEVEN[:3])
    node.good("remove")
    assert node.file.read_text() == "nf_nat\n"
    assert "somebody else's" in node.good("remove")
    assert node.file.read_text() == "nf_nat\n"


def test_remove_takes_the_list_and_leaves_the_modules(node: Node) -> None:
    node.loadable(SEVEN)
    node.good("prepare", *SEVEN)
    assert "stay loaded" in node.good("remove")
    assert not node.file.exists()
    assert node.loaded == list(SEVEN)
    assert "no list" in node.good("remove")


def test_a_list_that_somebody_has_replaced_is_theirs(node: Node) -> None:
    node.loadable(SEVEN)
    node.good("prepare", *SEVEN)
    node.file.write_text("theirs\n")
    assert "kept" in node.good("remove")
    assert node.file.read_text() == "theirs\n"


def test_a_module_that_may_be_loaded_after_a_reboot_only(node: Node) -> None:
    node.loadable(SEVEN)
    node.write("proc/sys/kernel/modules_disabled", "1\n")
    said = node.bad("prepare", *SEVEN)
    assert "kernel.modules_disabled is 1" in said and "nodes.reboot" in said
    assert not node.file.exists()
    assert f"reboot needed since boot boot-1 for {' '.join(SEVEN)}" in node.good("prepare", "--may-reboot", *SEVEN)
    assert node.file.exists()


def test_a_kernel_that_was_updated_and_not_booted_yet(node: Node) -> None:
    node.loadable(SEVEN, kernel="6.1.0-50-cloud-amd64")
    assert "updated to 6.1.0-50-cloud-amd64" in node.good("prepare", "--may-reboot", *SEVEN)
    assert "no_such" in node.bad("prepare", "--may-reboot", *SEVEN, "no_such"), "it is not in the other kernel either"


def test_no_reboot_is_asked_for_when_none_is_needed(node: Node) -> None:
    node.loadable(SEVEN)
    assert "reboot" not in node.good("prepare", "--may-reboot", *SEVEN)


def test_no_reboot_is_asked_for_when_it_would_not_help(node: Node) -> None:
    node.loadable(SEVEN)
    assert "no_such" in node.bad("prepare", "--may-reboot", *SEVEN, "no_such")


# Imitated distributions


def test_like_rhel_10_without_the_legacy_tables(node: Node) -> None:
    legacy = [name for name in SEVEN if name.startswith("iptable_")]
    node.loadable({*SEVEN, "nf_tables", "nft_chain_nat", "nft_compat"} - {*legacy})
    done = node.run("prepare", *SEVEN)
    assert done.returncode == 0
    assert "warning" in done.stderr and "nativeNftables" in done.stderr
    assert node.file.read_text().split("\n")[1:-1] == [
        *(name for name in SEVEN if name not in legacy),
        "nf_tables",
        "nft_chain_nat",
        "nft_compat",
    ]


def test_like_rhel_10_with_native_nftables(node: Node) -> None:
    wanted = modules(config(mesh={"values": {"istiod": {"global": {"nativeNftables": True}}}}))
    node.loadable(wanted)
    assert node.good("prepare", *wanted).count("loaded") == len(wanted)


def read_only(node: Node) -> None:
    """Root may write anywhere, so a folder that cannot be made stands for a file system that cannot be written."""
    shutil.rmtree(node.file.parent)
    node.write("etc/modules-load.d", "")


@pytest.mark.parametrize(
    ("system", "hint"),
    [("bottlerocket", "apiclient"), ("talos", "machine.kernel.modules"), ("other", "image of the node")],
)
def test_like_a_read_only_system(node: Node, system: str, hint: str) -> None:
    read_only(node)
    node.loadable(SEVEN)
    node.write("etc/os-release", f'NAME=x\nID="{system}"\n')
    said = node.bad("prepare", *SEVEN)
    assert "cannot be written" in said and hint in said


def test_like_a_read_only_system_that_needs_no_list(node: Node) -> None:
    read_only(node)
    node.built_in(SEVEN)
    assert node.good("prepare", *SEVEN).count("built in") == 7


def test_like_flatcar_where_only_usr_is_read_only(node: Node) -> None:
    (node.folder / "usr").mkdir()
    node.loadable(SEVEN)
    shutil.move(node.folder / "lib", node.folder / "usr/lib")
    (node.folder / "lib").symlink_to("usr/lib")
    shutil.rmtree(node.file.parent)
    node.good("prepare", *SEVEN)
    assert node.file.exists()
