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
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings, strategies

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
    assert "stays until the next boot" in node.good("remove")
    assert not node.file.exists()
    assert node.loaded == list(SEVEN)
    assert "there is no" in node.good("remove")


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


# Sysctls

INSTANCES, WATCHES = "fs.inotify.max_user_instances", "fs.inotify.max_user_watches"
WANTED = (f"{INSTANCES}=8192", f"{WATCHES}=524288")
LIMITS_MARKER = "# Written by istio-governance: the least that a node with many sidecars of Istio needs.\n"


def with_sysctls(node: Node, instances: int = 128, watches: int = 8192) -> Node:
    node.write("proc/sys/fs/inotify/max_user_instances", f"{instances}\n")
    node.write("proc/sys/fs/inotify/max_user_watches", f"{watches}\n")
    node.built_in(SEVEN)
    return node


def live(node: Node) -> tuple[int, int]:
    folder = node.folder / "proc/sys/fs/inotify"
    return int((folder / "max_user_instances").read_text()), int((folder / "max_user_watches").read_text())


def kept(node: Node) -> str:
    return (node.folder / "etc/sysctl.d/99-zz-istio-sidecars.conf").read_text()


def test_sysctls_are_raised_now_and_at_every_boot_once(node: Node) -> None:
    with_sysctls(node)
    assert node.run("check", *SEVEN, *WANTED).stdout == f"too low: {INSTANCES}=128 {WATCHES}=8192\n"
    said = node.good("prepare", *SEVEN, *WANTED)
    assert said.endswith(f"iptable_filter: built in\n{INSTANCES} = 8192\n{WATCHES} = 524288\n")
    assert live(node) == (8192, 524288)
    assert kept(node) == f"{LIMITS_MARKER}{INSTANCES} = 8192\n{WATCHES} = 524288\n"
    limits = node.folder / "etc/sysctl.d/99-zz-istio-sidecars.conf"
    before = limits.stat().st_mtime_ns
    assert node.good("prepare", *SEVEN, *WANTED) == said
    assert limits.stat().st_mtime_ns == before and len(list(limits.parent.iterdir())) == 1
    assert node.good("check", *SEVEN, *WANTED) == ""
    assert node.file.read_text() == MARKER + "".join(f"{name}\n" for name in SEVEN), "a sysctl is no module"


@given(
    number=strategies.integers(1, 2**31 - 1),
    wanted=strategies.integers(1, 2**31 - 1),
    set_by_others=strategies.lists(
        strategies.tuples(
            strategies.sampled_from(
                ["etc/sysctl.d/10-a.conf", "etc/sysctl.d/zzz.conf", "usr/lib/sysctl.d/50-b.conf", "run/sysctl.d/x.conf"]
            ),
            strategies.sampled_from(["{} = {}", "{}={}", "-{} = {}", "  {}\t=  {}  "]),
            strategies.booleans(),
            strategies.integers(1, 2**31 - 1),
        ),
        max_size=4,
        unique_by=lambda one: one[0],
    ),
)
@settings(max_examples=30, deadline=None)
def test_a_sysctl_is_never_lowered_neither_now_nor_at_boot(
    number: int, wanted: int, set_by_others: list[tuple[str, str, bool, int]]
) -> None:
    with TemporaryDirectory() as folder:
        node = with_sysctls(Node(Path(folder), ["sh"]), instances=number)
        for file, line, slashes, value in set_by_others:
            name = INSTANCES.replace(".", "/") if slashes else INSTANCES
            node.write(file, f"# {INSTANCES} = 2147483647\nfs.{INSTANCES} = 2147483647\n{line.format(name, value)}\n")
        done = node.run("prepare", *SEVEN, f"{INSTANCES}={wanted}")
        assert done.returncode == 0, done.stderr
        most = max(number, wanted, *(value for *_, value in set_by_others), 0)
        assert live(node) == (most, 8192)
        assert kept(node) == f"{LIMITS_MARKER}{INSTANCES} = {most}\n"
        # The one file that comes after ours has the last word at boot.
        late = [value for file, _, _, value in set_by_others if file.endswith("zzz.conf") and value < most]
        assert ("zzz.conf sets" in done.stderr) == bool(late)


def test_etc_sysctl_conf_has_the_last_word_only_without_systemd(node: Node) -> None:
    with_sysctls(node)
    node.write("etc/sysctl.conf", f"{INSTANCES} = 256\n")
    assert f"/etc/sysctl.conf sets {INSTANCES} back to 256 at every boot" in node.run("prepare", *SEVEN, *WANTED).stderr
    (node.folder / "run/systemd/system").mkdir(parents=True)
    assert node.run("prepare", *SEVEN, *WANTED).stderr == ""


def test_somebody_elses_file_still_counts_and_comes_back(node: Node) -> None:
    with_sysctls(node)
    theirs = f"{INSTANCES} = 9000\nvm.swappiness = 10\n"
    node.write("etc/sysctl.d/99-zz-istio-sidecars.conf", theirs)
    for _ in range(2):
        node.good("prepare", *SEVEN, *WANTED)
        assert kept(node) == f"{LIMITS_MARKER}{theirs}{INSTANCES} = 9000\n{WATCHES} = 524288\n"
    said = node.good("remove")
    assert kept(node) == theirs and live(node) == (9000, 524288)
    assert "stays until the next boot" in said
    assert "somebody else's" in node.good("remove") and kept(node) == theirs


def test_without_sysctls_our_file_goes(node: Node) -> None:
    with_sysctls(node)
    node.good("prepare", *SEVEN, *WANTED)
    node.good("prepare", *SEVEN)
    assert list((node.folder / "etc/sysctl.d").iterdir()) == []
    assert live(node) == (8192, 524288)


def test_a_sysctl_that_the_kernel_does_not_have_is_named_with_the_fix(node: Node) -> None:
    with_sysctls(node)
    said = node.bad("prepare", *SEVEN, "fs.inotify.no_such=1")
    assert f"kernel {KERNEL}: this kernel has no sysctl fs.inotify.no_such" in said
    assert "nodes.sysctls (fs.inotify.no_such: null)" in said


@pytest.mark.parametrize(
    ("system", "hint"),
    [
        ("bottlerocket", f'settings.kernel.sysctl."{INSTANCES}" to "8192"'),
        ("talos", "machine.sysctls"),
        ("other", "node pool"),
    ],
)
def test_a_sysctl_that_cannot_be_set_is_named_with_the_systems_own_way(node: Node, system: str, hint: str) -> None:
    with_sysctls(node)
    node.write("etc/os-release", f"ID={system}\n")
    # Where a container sees its own /proc/sys only, which is read-only.
    script = f"export SYSCTLS={node.folder}/nowhere\n{SCRIPT.read_text()}"
    done = subprocess.run(
        [*node.shell, "-s", "--", "prepare", *SEVEN, *WANTED],
        input=script,
        env={"PATH": f"{node.folder}/bin:/usr/bin:/bin", "ROOT": str(node.folder)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert f"{INSTANCES} is 128 and cannot be set to 8192 from here" in done.stderr and hint in done.stderr
    assert f"({INSTANCES}: null)" in done.stderr


def test_a_system_that_keeps_no_file_is_warned_of(node: Node) -> None:
    with_sysctls(node)
    node.write("etc/sysctl.d", "")
    done = node.run("prepare", *SEVEN, *WANTED)
    assert done.returncode == 0 and live(node) == (8192, 524288)
    assert "sysctl.d/99-zz-istio-sidecars.conf cannot be written" in done.stderr and "next boot" in done.stderr


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
