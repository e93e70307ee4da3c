"""The parts of the local cluster that can be looked at without bringing one up."""

import hashlib
import io
import json
import os
import shutil
import stat
import subprocess
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from config.nodes import SYSCTLS
from localcluster import __main__ as command_line
from localcluster import build, choice, cluster, commands, credentials, images, node, prerequisites, progress
from localcluster import instance as instance_module
from localcluster.choice import Choice
from localcluster.errors import ClusterError
from localcluster.instance import IMPORTER, NAMES, Instance

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="makes namespaces and mounts: NOT RUN without root")


@pytest.fixture(autouse=True)
def own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(instance_module, "RUN", tmp_path / "run")
    monkeypatch.delenv("CLUSTER", raising=False)


# -- the choice ---------------------------------------------------------------------------------------------------


def test_the_variable_chooses(monkeypatch: pytest.MonkeyPatch) -> None:
    for value in Choice:
        monkeypatch.setenv("CLUSTER", value.value)
        assert choice.choose() is value


def test_the_default_is_what_the_platform_can_run() -> None:
    assert choice.choose("", "linux") is Choice.EMBEDDED
    assert choice.choose("", "darwin") is Choice.KIND


def test_an_unknown_choice_names_the_known_ones() -> None:
    with pytest.raises(ClusterError, match=r"CLUSTER=minikube is unknown; use one of embedded, kind, current"):
        choice.choose("minikube")


def test_the_commands_of_kind_name_cluster_and_kubeconfig(tmp_path: Path) -> None:
    file = tmp_path / "kubeconfig"
    for made in (choice.kind_create, choice.kind_export, choice.kind_delete):
        command = made(Instance("test"), file)
        assert command[0] == "kind"
        assert command[command.index("--name") + 1] == "istio-governance-test"
        assert command[command.index("--kubeconfig") + 1] == str(file)
    assert choice.kind_context(Instance("local")) == "kind-istio-governance-local"


def test_missing_programs_are_named_with_the_way_to_get_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ClusterError, match=r"pulumi is not on PATH; install it as described at https://"):
        choice.current_context()
    with pytest.raises(ClusterError, match="docker is not on PATH; kind needs Docker"):
        choice.kind_up(Instance())


def test_the_current_kubeconfig_is_the_first_that_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", "/somewhere/a:/somewhere/b")
    assert choice.current_kubeconfig() == Path("/somewhere/a")
    monkeypatch.delenv("KUBECONFIG")
    assert choice.current_kubeconfig() == Path.home() / ".kube" / "config"


def test_pulumis_home_and_state_stay_the_users_own_on_a_cluster_that_is_not_ours() -> None:
    instance = Instance()
    assert not {"PULUMI_HOME", "PULUMI_BACKEND_URL"} & set(cluster.variables(instance, Choice.CURRENT, Path("/k")))
    of_kind = cluster.variables(instance, Choice.KIND, Path("/k"))
    assert "PULUMI_HOME" not in of_kind
    embedded = cluster.variables(instance, Choice.EMBEDDED, Path("/k"))
    assert embedded["PULUMI_BACKEND_URL"] == f"file://{instance.disk}/pulumi"
    assert embedded["PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION"] == "true"
    first, second, *_ = embedded["PATH"].split(os.pathsep)
    assert Path(first) == build.user_binaries()
    assert second.endswith("/.venv/bin")


# -- instances ----------------------------------------------------------------------------------------------------


def test_instances_share_nothing() -> None:
    instances = [Instance(name) for name in (*NAMES, IMPORTER)]
    for attribute in ("namespace", "link", "subnet", "address", "context", "run", "disk", "kubeconfig"):
        values = [getattr(instance, attribute) for instance in instances]
        assert len(set(values)) == len(values), attribute
    assert all(len(instance.link) <= 15 for instance in instances)
    assert Instance().kubeconfig == Path(os.environ["XDG_CACHE_HOME"]) / "istio-governance" / "kubeconfig"


def test_an_unknown_instance_is_refused() -> None:
    with pytest.raises(ClusterError, match="there is no cluster staging; use one of local, test, bench"):
        cluster.find("staging")


def test_a_network_in_use_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(node, "NETNS", tmp_path)
    instance = Instance("bench")

    def link(name: str, address: str) -> dict[str, object]:
        return {"ifname": name, "addr_info": [{"local": address}]}

    assert node.in_use(instance, [link("eth0", "10.98.2.7"), link("eth1", "10.99.20.1")]) is None
    assert "subnet 10.99.2.0/24 is in use by network link eth1" in str(
        node.in_use(instance, [link("eth1", "10.99.2.9")])
    )
    assert "ip link delete ig-bench" in str(node.in_use(instance, [link("ig-bench", "192.0.2.1")]))


def test_every_component_is_called_by_its_own_name_and_built() -> None:
    of_node = node.components(Instance())
    assert all(command[0] == name for name, command in of_node.items())
    assert set(of_node) == {*build.COMPONENTS, "containerd"}


# -- processes and files ------------------------------------------------------------------------------------------


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(["sleep", "60"])
    yield process
    process.kill()
    process.wait()


def test_a_process_that_is_no_node_is_never_killed(sleeper: subprocess.Popen[bytes]) -> None:
    node._kill(sleeper.pid, Path("/proc/self/ns/net"))
    assert sleeper.poll() is None


@needs_root
def test_a_node_is_recognised_by_its_namespaces_and_killed_with_all_its_processes() -> None:
    process = subprocess.Popen(["unshare", "--net", "--pid", "--fork", "sh", "-c", "sleep 60 & sleep 61; true"])
    try:
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        deadline = time.monotonic() + 10
        while not (found := children.read_text().split()) or len(_children(int(found[0]))) < 2:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        init = int(found[0])
        inside = _children(init)
        network = Path(f"/proc/{init}/ns/net")
        assert node._is_init(init, network.stat())
        assert not node._is_init(inside[0], network.stat())
        assert not node._is_init(init, Path("/proc/self/ns/net").stat())
        node._kill(init, Path("/proc/self/ns/net"))
        assert process.poll() is None
        node._kill(init, network)
        process.wait(10)
        assert not any(Path(f"/proc/{pid}").exists() for pid in inside)
    finally:
        process.kill()
        process.wait()


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@needs_root
def test_a_folder_with_a_mount_in_it_is_not_deleted(tmp_path: Path) -> None:
    inside = tmp_path / "node" / "volume"
    inside.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(inside)], check=True)
    try:
        with pytest.raises(ClusterError, match="is still mounted"):
            node.remove_tree(tmp_path / "node")
    finally:
        subprocess.run(["umount", str(inside)], check=True)
    node.remove_tree(tmp_path / "node")
    assert not (tmp_path / "node").exists()


def test_a_copy_of_the_image_store_shares_content_but_no_database(tmp_path: Path) -> None:
    template = tmp_path / "template"
    template.mkdir()
    (template / "layer").write_text("content")
    (template / "meta.db").write_text("database")
    node.copy_images(template, tmp_path / "copy")
    assert (tmp_path / "copy" / "layer").samefile(template / "layer")
    (tmp_path / "copy" / "meta.db").write_text("changed")
    assert (template / "meta.db").read_text() == "database"


def test_a_kubeconfig_is_for_its_owner_only(tmp_path: Path) -> None:
    file = tmp_path / "new" / "kubeconfig"
    credentials.write_private(file, "one")
    credentials.write_private(file, "two")
    assert (stat.S_IMODE(file.stat().st_mode), file.read_text()) == (0o600, "two")


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl")
def test_certificates_are_made_for_server_and_administrator(tmp_path: Path) -> None:
    instance = Instance("test")
    credentials.create(instance, tmp_path)
    chain = ["openssl", "verify", "-CAfile", str(tmp_path / "ca.crt")]
    commands.run([*chain, "-purpose", "sslserver", "-verify_ip", instance.address, str(tmp_path / "server.crt")])
    commands.run([*chain, "-purpose", "sslclient", str(tmp_path / "admin.crt")])
    content = json.loads(credentials.kubeconfig(instance, tmp_path))
    assert content["current-context"] == "istio-governance-test"
    assert content["clusters"][0]["cluster"]["server"] == f"https://{instance.address}:6443"


# -- what is built ------------------------------------------------------------------------------------------------


def test_a_key_changes_with_texts_names_and_contents(tmp_path: Path) -> None:
    file = tmp_path / "go.mod"
    file.write_text("module a")
    before = build.digest(["flag"], [file])
    assert build.digest(["flag"], [file]) == before
    assert build.digest(["other"], [file]) != before
    assert build.digest(["flag"], [file.rename(tmp_path / "go.sum")]) != before
    (tmp_path / "go.mod").write_text("module b")
    assert build.digest(["flag"], [tmp_path / "go.mod"]) != before


def test_binaries_of_one_module_are_built_with_one_set_of_flags(tmp_path: Path) -> None:
    flags = [build.GO_BUILDS[group].command(tmp_path) for group in ("cluster", "tools")]
    until_target = [command[: command.index("-o")] for command in flags]
    assert until_target[0] == until_target[1]
    assert {"-pgo=off", "vtprotobuf,disable_pgv"} <= set(until_target[0])
    assert all("-pgo=off" in made.command(tmp_path) for made in build.GO_BUILDS.values())


def test_compilers_get_a_share_of_the_memory() -> None:
    environment = build.go_environment()
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert 512 << 20 <= int(environment["GOMEMLIMIT"]) <= max(memory // 4, 512 << 20)
    assert environment["GOTOOLCHAIN"] == "local"


def test_plugins_lie_where_pulumi_looks_for_them() -> None:
    plugins = build.pulumi_home() / "plugins"
    expected = plugins / "resource-kubernetes-v4.25.0" / "pulumi-resource-kubernetes"
    assert build.outputs("kubernetes-provider") == [expected]
    assert plugins / "resource-command-v1.2.1" / "pulumi-resource-command" in build.outputs("cluster")
    assert build.user_binaries() / "pulumi" in build.outputs("cluster")
    assert build.node_binaries() / "kubernetes" in build.outputs("cluster")


def test_charts_get_the_versions_and_the_hub_of_the_release() -> None:
    assert build.released("Chart.yaml", "name: base\nversion: 1.0.0\nappVersion: 1.0.0\n") == (
        "name: base\nversion: 1.31.0\nappVersion: 1.31.0\n"
    )
    values = 'global:\n  hub: example.org/testing\n  tag: latest\ncni:\n  tag: ""\n'
    assert build.released("values.yaml", values) == (
        'global:\n  hub: example.org/release\n  tag: 1.31.0\ncni:\n  tag: ""\n'
    )
    assert build.released("other.yaml", values) == values


def test_images_share_one_debian_layer_without_the_nodes_packages(tmp_path: Path) -> None:
    debian, binaries = tmp_path / "debian", tmp_path / "bin"
    info = debian / "var/lib/dpkg/info"
    for folder in (info, debian / "usr/bin", debian / "opt/cni/bin", debian / "dev", binaries):
        folder.mkdir(parents=True)
    for name in (*images.NODE_PACKAGES, *images.PERL_PACKAGES):
        (debian / "usr/bin" / name).write_text("large")
        (info / f"{name}.list").write_text(f"/.\n/usr\n/usr/bin\n/usr/bin/{name}\n")
    (debian / "usr/bin/sh").write_text("shell")
    for name in images.BINARIES:
        (binaries / name).write_text(name)
    images.write_archive(tmp_path / "images.tar", debian, images.images(binaries, binaries / "pilot-agent"))
    with tarfile.open(tmp_path / "images.tar") as archive:
        parts = {name: _content(archive, name) for name in archive.getnames()}
    listed = json.loads(parts["manifest.json"])
    assert all(
        reference.startswith("localhost/istio-governance/") for entry in listed for reference in entry["RepoTags"]
    )
    for entry in listed:
        config = json.loads(parts[entry["Config"]])
        layers = [hashlib.sha256(parts[layer]).hexdigest() for layer in entry["Layers"]]
        assert config["rootfs"]["diff_ids"] == [f"sha256:{digest}" for digest in layers]
    bases = {entry["Layers"][0] for entry in listed if len(entry["Layers"]) == 2}
    assert len(bases) == 1
    with tarfile.open(fileobj=io.BytesIO(parts[bases.pop()])) as base:
        assert {name for name in base.getnames() if name.startswith("usr/bin/")} == {"usr/bin/sh"}


def _content(archive: tarfile.TarFile, name: str) -> bytes:
    member = archive.extractfile(name)
    assert member is not None
    return member.read()


# -- what is refused ----------------------------------------------------------------------------------------------


def test_an_old_go_is_recognised() -> None:
    assert prerequisites.go_version("go1.26.8") == (1, 26) >= prerequisites.GO_VERSION
    assert prerequisites.go_version("go1.9") < prerequisites.GO_VERSION
    assert prerequisites.go_version("devel") < prerequisites.GO_VERSION


def test_the_file_system_of_a_folder_is_that_of_the_deepest_mount() -> None:
    mounts = (
        "1 0 8:1 / / rw shared:1 - ext4 /dev/a rw\n"
        "2 1 0:5 / /home rw - overlay overlay rw\n"
        "3 2 8:2 / /home/me/.cache rw - xfs /dev/b rw\n"
    )
    assert prerequisites.filesystem_of(Path("/homes/x"), mounts) == "ext4"
    assert prerequisites.filesystem_of(Path("/home/you"), mounts) == "overlay"
    assert prerequisites.filesystem_of(Path("/home/me/.cache/x"), mounts) == "xfs"
    with pytest.raises(ClusterError, match="point XDG_CACHE_HOME to a local disk"):
        prerequisites.check_file_system("overlay")
    prerequisites.check_file_system("xfs")


def test_too_little_disk_is_said_with_the_amount_that_is_needed() -> None:
    with pytest.raises(ClusterError, match=r"needs 999999999 GiB of free disk and has \d+ GiB"):
        prerequisites._check_disk(999999999)


def test_go_is_asked_for_when_it_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commands, "SYSTEM_FOLDERS", ())
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ClusterError, match=r"go is missing; install Go 1\.26 or newer"):
        prerequisites.check_go()


def test_a_failed_command_is_told_in_one_line() -> None:
    with pytest.raises(ClusterError) as caught:
        commands.run(["sh", "-c", "echo first >&2; echo the reason >&2; exit 3"])
    assert str(caught.value) == "sh failed with code 3: the reason"
    with pytest.raises(ClusterError, match="no-such-program is not installed"):
        commands.run(["no-such-program"])


@pytest.mark.parametrize(
    ("arguments", "variable", "message"),
    [
        (["env"], "embedded", "localcluster: cluster local is not up"),
        (["up"], "minikube", "localcluster: CLUSTER=minikube is unknown"),
        (["build", "everything"], "embedded", "localcluster: there is no group everything to build"),
    ],
)
def test_errors_are_one_line_and_code_2(
    arguments: list[str],
    variable: str,
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("CLUSTER", variable)
    assert command_line.main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith(message)
    assert captured.err.count("\n") == 1


# -- progress -----------------------------------------------------------------------------------------------------


def test_progress_counts_steps_and_packages() -> None:
    shown = progress.Progress({"one": 1.0, "two": 3.0})
    with shown.step("one", 1.0):
        pass
    with shown.step("two", 3.0) as step:
        step.count(150, 100, "packages")
        assert shown.summary() == "[1/2] 0:00: two (150 of about 150 packages)"
    assert progress.clock(61.9) == "1:01"


# -- the machine's limits -----------------------------------------------------------------------------------------


def test_the_limits_are_those_of_a_prepared_node() -> None:
    assert {f"fs.inotify.{name}": least for name, least in node.LIMITS.items()} == SYSCTLS


def test_limits_are_raised_and_never_lowered(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    instances, watches = (tmp_path / name for name in ("max_user_instances", "max_user_watches"))
    instances.write_text("128\n")
    watches.write_text("1048576\n")
    node.raise_limits(tmp_path)
    assert (instances.read_text(), watches.read_text()) == ("8192\n", "1048576\n")
    assert capsys.readouterr().err == ""


def test_limits_that_cannot_be_raised_are_a_warning(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """A file of /proc that nobody may write stands for a /proc/sys that is mounted read-only."""
    (tmp_path / "max_user_watches").symlink_to("/proc/sys/kernel/cap_last_cap")
    (tmp_path / "max_user_instances").write_text("8192")
    node.raise_limits(tmp_path)
    assert "max_user_watches stays below 524288" in capsys.readouterr().err
