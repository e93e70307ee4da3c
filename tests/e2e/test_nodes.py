"""The preparation of nodes with a real kernel: two machines in qemu; the tests build on each other in their order.

The machines are no nodes of the cluster, so cordon and drain are not proved here.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import names
from components.nodes import SCRIPT
from config.nodes import SYSCTLS
from harness.kills import Moment, disturbed_at
from harness.stack import PulumiError, Stack
from localcluster import ClusterError, EmbeddedCluster, build, prerequisites
from localcluster.vm import Vm
from mesh.cluster.kubectl import Kubectl
from mesh.nodes import missing_modules
from tests.conftest import not_run
from tests.e2e.conftest import INSTANCE

Config = dict[str, Any]

SEVEN = {"br_netfilter", "nf_nat", "xt_REDIRECT", "xt_owner", "iptable_nat", "iptable_mangle", "iptable_filter"}
LIST = "/etc/modules-load.d/istio-iptables.conf"
FOREIGN = "# by hand\nloop\n"
LIMITS = "/etc/sysctl.d/99-zz-istio-sidecars.conf"
INSTANCES, WATCHES = "fs.inotify.max_user_instances", "fs.inotify.max_user_watches"
HIGHER = 1 << 20
"""What somebody has set `fs.inotify.max_user_watches` to on the machine `two`, for boot alone."""
BOOTS = "/var/boots"
"""A file that grows by a letter with each boot."""


def loaded(vm: Vm) -> set[str]:
    return {line.split()[0] for line in vm.run("cat /proc/modules").splitlines()} & SEVEN


def sysctls(vm: Vm) -> tuple[int, int]:
    instances, watches = vm.run(f"sysctl -n {INSTANCES} {WATCHES}").split()
    return int(instances), int(watches)


@pytest.fixture(scope="module")
def vms(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Vm]]:
    """Two machines, `one` and `two`, that have booted."""
    try:
        prerequisites.check_vm()
        build.build(["vm"])
    except ClusterError as error:
        not_run("the tests on machines with a kernel of their own", error)
    logs = tmp_path_factory.mktemp("vm")
    # Two suites side by side have different clusters, and so different ports.
    first = 22100 + 10 * sum(map(ord, INSTANCE)) % 1000
    vms = {name: Vm(build.vm_image(), first + at, logs / f"{name}.log") for at, name in enumerate(("one", "two"))}
    try:
        for vm in vms.values():
            vm.start()
        for vm in vms.values():
            vm.wait()
        yield vms
    finally:
        for vm in vms.values():
            vm.stop()


@pytest.fixture(scope="module")
def ready(stack: Stack, config: Config, vms: dict[str, Vm]) -> Config:
    """The stack's configuration with both machines as hosts and the key as the docs set it; the mesh is off."""
    bare = without_mesh(config)
    stack.configure(bare)
    key = stack.encrypted("sshPrivateKey", vms["one"].private_key)
    hosts = {name: {"address": "127.0.0.1", "port": vm.port, "hostKey": vm.host_key()} for name, vm in vms.items()}
    return {**bare, "nodes": {"mode": "ssh", "hosts": hosts}, "sshPrivateKey": key}


def without_mesh(config: Config, **changes: Any) -> Config:
    return {**config, "mesh": {**config["mesh"], "mode": "off"}, "routing": {}, **changes}


def with_nodes(config: Config, **changes: Any) -> Config:
    return {**config, "nodes": {**config["nodes"], **changes}}


def failed(stack: Stack) -> str:
    with pytest.raises(PulumiError) as error:
        stack.up()
    return error.value.output


def assert_no_key(stack: Stack, printed: str, key: str) -> None:
    """Neither the key nor a line of its body is in the state, in Pulumi's files or in what it prints."""
    body = [line for line in key.splitlines() if line and not line.startswith("-")]
    state = stack.pulumi("stack", "export")
    places = {"state": state, "output": printed, "history": stack.pulumi("stack", "history", "--json")}
    backend = Path(stack.variables["PULUMI_BACKEND_URL"].removeprefix("file://"))
    for file in [stack.file, *(file for file in backend.rglob("*") if file.is_file())]:
        places[str(file)] = file.read_bytes().decode(errors="replace")
    assert len(places) > 4
    for place, text in places.items():
        assert not [line for line in body if line in text], place


def test_without_the_modules_iptables_fails_as_the_story_says(vms: dict[str, Vm]) -> None:
    for vm in vms.values():
        assert loaded(vm) == set()
        # Otherwise the kernel would load them for iptables by itself.
        vm.run("sysctl -q kernel.modprobe=/bin/false")
        failed = vm.ssh("iptables-legacy -t nat -L")
        assert failed.returncode != 0 and "can't initialize iptables table `nat'" in failed.stderr
        print(failed.stderr)


def test_before_a_node_takes_few_sidecars(vms: dict[str, Vm]) -> None:
    """The numbers of the kernel; somebody sets a higher one for boot on one machine, and a higher live one."""
    for vm in vms.values():
        instances, watches = sysctls(vm)
        assert instances == 128 and watches < SYSCTLS[WATCHES]
    vms["two"].run(f"echo {WATCHES}={HIGHER} >/etc/sysctl.d/10-theirs.conf; sysctl -q {INSTANCES}=9000")


def test_a_wrong_host_key_is_refused_and_the_other_host_is_done(
    stack: Stack, ready: Config, vms: dict[str, Vm]
) -> None:
    hosts = {**ready["nodes"]["hosts"]}
    hosts["one"] = {**hosts["one"], "hostKey": vms["one"].host_key("ed25519")}
    stack.configure(with_nodes(ready, hosts=hosts))
    said = failed(stack)
    assert "host key mismatch" in said and "prepare-one" in said
    assert loaded(vms["one"]) == set()
    assert loaded(vms["two"]) == SEVEN


def test_up_loads_all_seven_and_keeps_a_foreign_list(stack: Stack, ready: Config, vms: dict[str, Vm]) -> None:
    vms["one"].run(f"cat >{LIST}", stdin=FOREIGN)
    stack.configure(ready)
    printed = stack.pulumi("up", "--yes", "--skip-preview")
    for vm in vms.values():
        assert loaded(vm) == SEVEN
        assert set(vm.run(f"tail -n +2 {LIST}").split()) == SEVEN
        vm.run("iptables-legacy -t nat -L")
    assert sysctls(vms["one"]) == (SYSCTLS[INSTANCES], SYSCTLS[WATCHES])
    assert sysctls(vms["two"]) == (9000, HIGHER), "neither what is live nor what is set for boot is lowered"
    assert f"{INSTANCES} = 9000\n{WATCHES} = {HIGHER}\n" in vms["two"].run(f"cat {LIMITS}")
    assert_no_key(stack, printed, vms["one"].private_key)


def test_a_second_up_changes_nothing(stack: Stack, ready: Config) -> None:
    del ready
    assert set(stack.up()) == {"same"}
    stack.pulumi("preview", "--expect-no-changes")


def test_another_list_is_an_update_in_place(stack: Stack, ready: Config, vms: dict[str, Vm]) -> None:
    stack.configure(with_nodes(ready, modules=[*sorted(SEVEN), "xt_mark"]))
    changes = stack.up()
    assert changes["update"] == 2 and set(changes) == {"update", "same"}
    assert "xt_mark" in vms["two"].run(f"cat {LIST} /proc/modules")


def test_an_unknown_module_is_named_with_the_kernel(stack: Stack, ready: Config, vms: dict[str, Vm]) -> None:
    stack.configure(with_nodes(ready, modules=["no_such_module"]))
    said = failed(stack)
    kernel = vms["one"].run("uname -r").strip()
    assert f"kernel {kernel}: these modules cannot be loaded: no_such_module" in said


def test_a_bastion_is_the_way_to_a_host(stack: Stack, ready: Config, vms: dict[str, Vm]) -> None:
    """The machine `one` is its own bastion: from there it is 127.0.0.1:22."""
    one = vms["one"]
    bastion = {"address": "127.0.0.1", "port": one.port, "hostKey": one.host_key()}
    hosts = {
        "one": {"address": "127.0.0.1", "hostKey": one.host_key()},
        "two": {"address": "localhost", "port": 22, "hostKey": one.host_key()},
    }
    one.run(f"rm -f {LIST}")
    stack.configure(with_nodes(ready, hosts=hosts, bastion=bastion, modules=["nf_nat"]))
    stack.up()
    assert "nf_nat" in one.run(f"cat {LIST}")
    stack.configure(ready)
    one.run(f"cat >{LIST}", stdin=FOREIGN)
    stack.up()


def test_a_reboot_happens_where_only_that_helps_and_once_though_up_is_killed(
    stack: Stack, ready: Config, vms: dict[str, Vm], kubectl: Kubectl
) -> None:
    two = vms["two"]
    boots = {name: vm.boot for name, vm in vms.items()}
    two.run(f"touch {BOOTS}; echo 'w+! {BOOTS} - - - - x' >/etc/tmpfiles.d/boots.conf")
    # Nothing is loaded any more until the next boot.
    two.run("sysctl -q kernel.modules_disabled=1")
    more = with_nodes(ready, modules=[*sorted(SEVEN), "xt_TEE"])
    stack.configure(more)
    assert "kernel.modules_disabled is 1" in failed(stack)

    def kill_while_it_is_away(up: subprocess.Popen[str]) -> None:
        two.wait_until_away()
        up.kill()
        up.wait()
        stack.end_orphans()

    stack.configure(with_nodes(more, reboot=True))
    disturbed_at(stack, Moment("up", "rebooting for xt_TEE"), kill_while_it_is_away)
    two.wait(since=boots["two"])
    # By the list alone: the command that would have looked for them is dead.
    assert loaded(two) == SEVEN and "xt_TEE" in two.run("cat /proc/modules")
    assert sysctls(two) == (9000, HIGHER)
    boots["two"] = two.boot
    stack.recover(kubectl)
    printed = stack.pulumi("up", "--yes", "--skip-preview")
    assert {name: vm.boot for name, vm in vms.items()} == boots
    assert two.run(f"cat {BOOTS}").split() == ["x"], "it has to boot exactly once"
    assert set(stack.up()) == {"same"}
    assert_no_key(stack, printed, two.private_key)


def test_the_daemonsets_script_works_with_busybox_and_read_only_modules(vms: dict[str, Vm]) -> None:
    """The pod's command in the machine: busybox's shell and modprobe, and CAP_SYS_MODULE as the only capability.

    /proc/sys is read-only, as a container's is, and the sysctl's file is mounted elsewhere.
    """
    script = "/run/prepare-node.sh"
    vms["one"].run(f"cat >{script}", stdin=SCRIPT)
    vms["one"].run(
        "mkdir -p /run/bin && for name in modprobe grep sed gzip tr cut sort tail head mkdir mv rm; "
        "do ln -sf /bin/busybox /run/bin/$name; done"
    )
    confined = "setpriv --bounding-set=-all,+sys_module --inh-caps=-all,+sys_module"
    mounts = (
        "mkdir -p /run/host/fs/inotify; touch /run/host/fs/inotify/max_user_instances; "
        "mount --bind /proc/sys/fs/inotify/max_user_instances /run/host/fs/inotify/max_user_instances; "
        "mount --bind /proc/sys /proc/sys; mount -o remount,bind,ro /proc/sys"
    )
    run = f"{confined} busybox sh {script} prepare nf_nat xt_mark xt_socket {INSTANCES}=10000"
    inner = f"{mounts}; SYSCTLS=/run/host PATH=/run/bin:$PATH {run}"
    said = vms["one"].run(f"unshare --mount sh -c {shlex.quote(inner)}")
    assert said.splitlines() == ["nf_nat: loaded", "xt_mark: loaded", "xt_socket: loaded", f"{INSTANCES} = 10000"]
    assert sysctls(vms["one"])[0] == 10000


def test_a_host_that_is_away_fails_in_bounded_time(stack: Stack, ready: Config, vms: dict[str, Vm]) -> None:
    vms["two"].stop()
    stack.configure(with_nodes(ready, modules=["nf_nat"]))
    began = time.monotonic()
    said = failed(stack)
    assert time.monotonic() - began < 90
    assert "prepare-two" in said and "no connection" in said
    assert vms["one"].run(f"tail -n +2 {LIST}").split() == ["nf_nat"]
    # As the docs say it for a host that is gone for good: `destroy` does without it, too.
    hosts = {**ready["nodes"]["hosts"]}
    hosts["two"] = {**hosts["two"], "gone": True}
    stack.configure(with_nodes(ready, hosts=hosts, modules=["nf_nat"]))
    stack.up()


def test_destroy_takes_the_list_away_and_puts_the_foreign_one_back(
    stack: Stack, ready: Config, vms: dict[str, Vm], kubectl: Kubectl
) -> None:
    del ready, kubectl
    stack.destroy()
    assert vms["one"].run(f"ls {Path(LIMITS).parent}").split().count(Path(LIMITS).name) == 0
    assert vms["one"].run(f"cat {LIST}") == FOREIGN
    assert vms["one"].run(f"ls {Path(LIST).parent}").split().count(Path(LIST).name) == 1


def test_the_daemonset_prepares_every_node_of_the_cluster(
    stack: Stack, config: Config, cluster: EmbeddedCluster, kubectl: Kubectl
) -> None:
    """The kernel here has everything built in, and no loadable modules; its sysctls are those of this machine."""
    image = config["services"]["bill-service"]["template"]["image"]
    queued, events = Path("/proc/sys/fs/inotify/max_queued_events"), "fs.inotify.max_queued_events"
    before = int(queued.read_text())
    stack.configure(without_mesh(config, nodes={"mode": "daemonset", "image": image, "sysctls": {events: before + 1}}))
    try:
        stack.up()
        assert int(queued.read_text()) == before + 1, "a pod without privileges can set what is mounted"
    finally:
        queued.write_text(f"{before}\n")
    stack.configure(without_mesh(config, nodes={"mode": "daemonset", "image": image}))
    stack.up()
    assert int(queued.read_text()) == before and events not in cluster.execute("cat", LIMITS)
    (daemonset,) = kubectl.items("daemonset", names.NODE_PREP, f"--namespace={names.NODES}")
    assert daemonset["status"]["numberReady"] == len(kubectl.items("nodes")) > 0
    assert set(cluster.execute("tail", "-n", "+2", LIST).split()) == SEVEN
    for name, least in SYSCTLS.items():
        assert int(cluster.execute("cat", f"/proc/sys/{name.replace('.', '/')}")) >= least
        assert f"{name} = " in cluster.execute("cat", LIMITS)
    assert missing_modules(kubectl, sorted(SEVEN)) == ([], [])
    (missing,), unknown = missing_modules(kubectl, ["nf_nat", "no_such_module"])
    assert (missing.modules, missing.certain, unknown) == (("no_such_module",), True, [])
    assert set(stack.up()) == {"same"}


@pytest.fixture
def lists(stack: Stack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that Pulumi sees as /etc/modules-load.d and /etc/sysctl.d, in a mount namespace of its own each time.

    So the machine's own files stay as they are, also when the tests are killed.
    """
    lists, wrapper = tmp_path / "lists", tmp_path / "bin" / "pulumi"
    lists.mkdir()
    wrapper.parent.mkdir()
    pulumi = shutil.which("pulumi", path=stack.variables["PATH"])
    binds = " && ".join(f"mount --bind {lists} {Path(file).parent}" for file in (LIST, LIMITS))
    inside = f'{binds} && exec {pulumi} "$@"'
    wrapper.write_text(f"#!/bin/sh\nexec unshare --mount sh -c '{inside}' pulumi \"$@\"\n")
    wrapper.chmod(0o755)
    path = f"{wrapper.parent}{os.pathsep}{stack.variables['PATH']}"
    monkeypatch.setattr(stack, "environment", {**stack.environment, "PATH": path})
    return lists


def test_this_machine_is_prepared_instead_and_the_daemonset_goes(
    stack: Stack, config: Config, cluster: EmbeddedCluster, kubectl: Kubectl, lists: Path
) -> None:
    own = sorted(Path(LIST).parent.iterdir())
    written = lists / Path(LIST).name
    written.write_text(FOREIGN)
    stack.configure(without_mesh(config, nodes={"mode": "local"}))
    stack.up()
    assert set(written.read_text().splitlines()[1:]) == SEVEN
    assert f"{INSTANCES} = " in (lists / Path(LIMITS).name).read_text()
    assert Path(LIST).name not in cluster.execute("ls", str(Path(LIST).parent)).split()
    assert kubectl.items("namespace", names.NODES) == []
    assert set(stack.up()) == {"same"}
    stack.configure(without_mesh(config, nodes={"mode": "local", "modules": ["no_such_module"]}))
    said = failed(stack)
    assert f"kernel {os.uname().release}: these modules cannot be loaded: no_such_module" in said
    stack.destroy()
    assert [file.name for file in lists.iterdir()] == [written.name] and written.read_text() == FOREIGN
    assert sorted(Path(LIST).parent.iterdir()) == own
