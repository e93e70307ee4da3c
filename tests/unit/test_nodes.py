"""The preparation of the nodes: its configuration, what it declares, and its reboots on a fake host and cluster."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, get_args

import pulumi
import pytest

import names
from components import NodePrep
from components.nodes import SCRIPT, NodePrepArgs
from config import ConfigError, load, merged
from config.nodes import SYSCTL_LIMITS, SYSCTLS, SysctlName
from config.types import SECRET
from istio import kernel
from mesh import nodes, preflight
from mesh.program.recorder import PROJECT, Recording, record

from .given import NO_DEFAULTS, VALID, config, program
from .test_prepare_node import SEVEN

KEY = "THE-PRIVATE-KEY"
HOST_KEY = "ecdsa-sha2-nistp256 AAAAE2VjZHNh="
HOST = {"address": "10.0.0.1", "hostKey": HOST_KEY}
OTHER = {"address": "10.0.0.2", "hostKey": HOST_KEY, "port": 2222, "user": "admin", "node": "worker-2"}
SSH: Mapping[str, Any] = {"nodes": {"mode": "ssh", "hosts": {"a": HOST, "b": OTHER}}, "sshPrivateKey": SECRET}


def problems(**changes: Any) -> dict[str, str]:
    """Key → fix of every mistake."""
    with pytest.raises(ConfigError) as error:
        config(**changes)
    return {problem.key: problem.fix for problem in error.value.problems}


def recorded(**changes: Any) -> Recording:
    given = config(**merged(SSH, changes))

    def declare() -> None:
        key = pulumi.Output.secret(KEY) if given.ssh_private_key else None
        NodePrep("nodes", NodePrepArgs(given.nodes, kernel.modules(given), given.cluster, key))

    return record(declare)


# Configuration


@pytest.mark.parametrize(
    ("nodes", "key", "fix"),
    [
        ({"hosts": None}, "nodes.hosts", "nodes.hosts.<name>.address"),
        ({"hosts": {"a": {"hostKey": None}}}, "nodes.hosts.a.hostKey", "`ssh-keyscan -t ecdsa 10.0.0.1`"),
        ({"hosts": {"b": {"hostKey": None}}}, "nodes.hosts.b.hostKey", "`ssh-keyscan -t ecdsa -p 2222 10.0.0.2`"),
        ({"hosts": {"a": {"hostKey": "10.0.0.1 ssh-ed25519 AAAA"}}}, "nodes.hosts.a.hostKey", "after the host's name"),
        ({"hosts": {"a": {"address": None}}}, "nodes.hosts.a.address", "add 'address'"),
        ({"hosts": {"c": HOST}}, "nodes.hosts.c.address", "nodes.hosts.a has the same"),
        (
            {"hosts": {"a": {"address": "Worker.test"}, "c": {**HOST, "address": "worker.test.", "port": 22}}},
            "nodes.hosts.c.address",
            "nodes.hosts.a has the same",
        ),
        ({"hosts": {"A_": HOST}}, "nodes.hosts.A_", "rename 'A_'"),
        ({"bastion": {"address": "x"}}, "nodes.bastion.hostKey", "`ssh-keyscan -t ecdsa x`"),
        ({"modules": ["nf nat"]}, "nodes.modules.0", "kernel module"),
        ({"ipFamilies": []}, "nodes.ipFamilies", "IPv4 and IPv6"),
        ({"sysctls": {"fs.inotify.max_user_watch": 9000}}, "nodes.sysctls.fs.inotify.max_user_watch", "did you mean"),
        ({"sysctls": {"net.core.somaxconn": 9000}}, "nodes.sysctls.net.core.somaxconn", "use one of: fs.inotify."),
        ({"sysctls": {"fs.file-max": "9000"}}, "nodes.sysctls.fs.file-max", "a whole number"),
        ({"sysctls": {"fs.file-max": 1}}, "nodes.sysctls.fs.file-max", "fs.file-max: null"),
        ({"sysctls": {"fs.file-max": 2**63}}, "nodes.sysctls.fs.file-max", "fs.file-max: null"),
        ({"sysctls": {"fs.inotify.max_user_instances": 2**31}}, "nodes.sysctls.fs.inotify.max_user_instances", "null"),
        ({"mode": "none", "hosts": None, "sysctls": {"fs.file-max": 9000}}, "nodes.sysctls", "set nodes.mode to"),
        ({"mode": "none"}, "nodes.hosts", "set nodes.mode to ssh"),
        ({"mode": "local", "hosts": None, "reboot": True}, "nodes.reboot", "set nodes.mode to ssh"),
        ({"mode": "daemonset", "hosts": None, "bastion": OTHER}, "nodes.bastion", "set nodes.mode to ssh"),
        ({"mode": "sssh"}, "nodes.mode", "daemonset"),
    ],
)
def test_a_mistake_names_its_key_and_its_fix(nodes: Mapping[str, Any], key: str, fix: str) -> None:
    found = problems(**merged(SSH, {"nodes": nodes}))
    assert fix in found[key]


@pytest.mark.parametrize("other", [{"port": 2222}, {"address": "10.0.0.3"}], ids=["port", "address"])
def test_hosts_that_differ_are_accepted(other: Mapping[str, Any]) -> None:
    assert set(config(**merged(SSH, {"nodes": {"hosts": {"c": {**HOST, **other}}}})).nodes.hosts) == {"a", "b", "c"}


def test_a_new_machine_may_have_the_address_of_one_that_is_gone() -> None:
    hosts = {"a": {"gone": True}, "c": HOST}
    assert set(config(**merged(SSH, {"nodes": {"hosts": hosts}})).nodes.hosts) == {"a", "b", "c"}


def test_ssh_needs_a_key() -> None:
    assert "pulumi config set --secret sshPrivateKey" in problems(nodes=SSH["nodes"])["sshPrivateKey"]


def test_the_bastions_key_needs_a_bastion() -> None:
    assert set(problems(**SSH, bastionPrivateKey=SECRET)) == {"bastionPrivateKey"}


@pytest.mark.parametrize("key", ["sshPrivateKey", "bastionPrivateKey"])
def test_a_key_in_plain_text_is_refused_and_not_printed(key: str) -> None:
    with pytest.raises(ConfigError) as error:
        config(**{**SSH, "nodes": {**SSH["nodes"], "bastion": {**HOST, "address": "x"}}, key: KEY})
    assert f"pulumi config set --secret {key}" in str(error.value)
    assert KEY not in str(error.value)


def test_the_model_never_holds_the_key() -> None:
    raw = {**merged(VALID, SSH), "sshPrivateKey": KEY}
    model = load(raw, secret_keys=["sshPrivateKey"], defaults=NO_DEFAULTS)
    assert model.ssh_private_key == SECRET
    assert KEY not in repr(model) + model.model_dump_json()


NFT = {"mesh": {"values": {"cni": {"global": {"nativeNftables": True}}}}}
SIX = ("ip6table_nat", "ip6table_mangle", "ip6table_filter")


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, SEVEN),
        ({"nodes": {"ipFamilies": ["IPv4", "IPv6"]}}, (*SEVEN, *SIX)),
        ({"nodes": {"ipFamilies": ["IPv6"]}}, (*SEVEN[:4], *SIX)),
        (NFT, ("br_netfilter", "nf_nat", "nf_tables", "nft_chain_nat", "nft_redir", "nft_ct")),
        ({**NFT, "nodes": {"modules": ["xt_mark"]}}, ("xt_mark",)),
    ],
    ids=["iptables", "dual stack", "IPv6", "nftables", "a list of one's own"],
)
def test_the_right_modules(changes: Mapping[str, Any], expected: tuple[str, ...]) -> None:
    assert kernel.modules(config(**changes)) == expected


INSTANCES, WATCHES = "fs.inotify.max_user_instances", "fs.inotify.max_user_watches"
LEAST = [f"{INSTANCES}=8192", f"{WATCHES}=524288"]


@pytest.mark.parametrize(
    ("nodes", "expected"),
    [
        ({}, SYSCTLS),
        ({"sysctls": {INSTANCES: 16384}}, {**SYSCTLS, INSTANCES: 16384}),
        ({"sysctls": {"fs.file-max": 2**62}}, {**SYSCTLS, "fs.file-max": 2**62}),
        ({"sysctls": {INSTANCES: None}}, {WATCHES: 524288}),
        ({"sysctls": None}, {}),
        ({"mode": "none"}, {}),
    ],
    ids=["the defaults", "another number", "one more", "one less", "none", "nothing is prepared"],
)
def test_the_right_sysctls(nodes: Mapping[str, Any], expected: Mapping[str, int]) -> None:
    raw = {**VALID, "nodes": {"mode": "local", **nodes}}
    assert load(raw, defaults=NO_DEFAULTS).nodes.sysctls == expected


def test_the_defaults_are_possible() -> None:
    assert all(least <= SYSCTLS.get(name, least) <= most for name, (least, most) in SYSCTL_LIMITS.items())
    assert SYSCTL_LIMITS.keys() == set(get_args(SysctlName))


# What is declared


def test_each_host_has_a_command_with_its_connection() -> None:
    recording = recorded()
    commands = recording.named("Command")
    assert {command.type for command in commands.values()} == {"command:remote:Command"}
    assert set(commands) == {"prepare-a", "prepare-b"}
    inputs = commands["prepare-b"].inputs
    assert inputs["create"].endswith(f"sh -s -- prepare {' '.join([*SEVEN, *LEAST])}")
    assert inputs["delete"].endswith("sh -s -- remove")
    assert inputs["stdin"] == SCRIPT
    assert inputs["addPreviousOutputInEnv"] is False
    assert not {"triggers", "environment", "update"} & inputs.keys(), "triggers replace, sshd takes no variables"
    assert all(_is_secret(value) for value in inputs["connection"].values())
    connection = {name: secret["value"] for name, secret in inputs["connection"].items()}
    assert connection == {
        "host": "10.0.0.2",
        "port": 2222,
        "user": "admin",
        "hostKey": HOST_KEY,
        "privateKey": connection["privateKey"],
        "perDialTimeout": 10,
        "dialErrorLimit": 3,
    }
    assert KEY in str(connection["privateKey"])


def test_the_private_key_is_in_secrets_only() -> None:
    recording = recorded(nodes={"reboot": True, "bastion": {**HOST, "address": "x"}})
    assert len(recording.named("Command")) == 4
    for command in recording.named("Command").values():
        assert KEY not in str(_without_secrets(command.inputs))
        assert KEY in str(command.inputs)


SIGNATURE = "1b47061264138c4ac30d75fd1eb44270"
"""How Pulumi marks a secret on its way to the engine (resource.SecretSig in its Go SDK)."""


def _is_secret(value: object) -> bool:
    return isinstance(value, Mapping) and SIGNATURE in value.values()


def _without_secrets(inputs: object) -> object:
    if isinstance(inputs, Mapping):
        return {name: _without_secrets(value) for name, value in inputs.items() if not _is_secret(value)}
    return inputs


def test_a_bastion_opens_with_the_hosts_key_unless_it_has_its_own() -> None:
    bastion = {**HOST, "address": "bastion.example.com"}
    proxy = recorded(nodes={"bastion": bastion}).named("Command")["prepare-a"].inputs["connection"]["proxy"]
    assert (proxy["host"]["value"], proxy["hostKey"]["value"]) == ("bastion.example.com", HOST_KEY)
    assert KEY in str(proxy["privateKey"])


def test_a_changed_list_of_modules_is_an_update_of_the_command_line() -> None:
    before, after = recorded(), recorded(nodes={"modules": ["xt_mark"]})
    assert before.resources.keys() == after.resources.keys()
    for urn, old in before.resources.items():
        new = after.resources[urn]
        assert {key for key in old.inputs.keys() | new.inputs.keys() if old.inputs[key] != new.inputs[key]} <= {
            "create"
        }


def test_a_changed_sysctl_is_an_update_of_the_command_line() -> None:
    before, after = recorded(), recorded(nodes={"sysctls": {"fs.file-max": 2**40}})
    assert before.resources.keys() == after.resources.keys()
    assert f"fs.file-max={2**40} {LEAST[0]}" in after.named("Command")["prepare-a"].inputs["create"]


def test_hosts_are_prepared_side_by_side_and_rebooted_in_a_chain() -> None:
    recording = recorded(nodes={"reboot": True, "hosts": {"c": {**HOST, "address": "10.0.0.3"}}})
    commands = recording.named("Command")
    chain = [commands[f"restart-{name}"] for name in ("a", "b", "c")]
    for name in ("a", "b", "c"):
        assert not commands[f"prepare-{name}"].dependencies
        assert "--may-reboot" in commands[f"prepare-{name}"].inputs["create"]
    for earlier, later in pairwise(chain):
        assert earlier.urn in later.dependencies
    assert {command.type for command in chain} == {"command:local:Command"}


def test_a_host_that_is_gone_is_left_alone() -> None:
    commands = recorded(nodes={"reboot": True, "hosts": {"b": {"gone": True}}}).named("Command")
    assert set(commands) == {"prepare-a", "prepare-b", "restart-a"}
    assert set(commands["prepare-b"].ignore_changes) == {"connection", "create", "delete", "stdin"}
    assert not commands["prepare-a"].ignore_changes


def test_a_request_to_reboot_has_all_that_it_takes() -> None:
    command = recorded(nodes={"reboot": True}).named("Command")["restart-b"]
    request = json.loads(command.inputs["stdin"]["value"])
    assert request["node"] == "worker-2" and request["host"]["address"] == "10.0.0.2"
    assert request["keys"] == [KEY]
    assert request["verify"].endswith(f"prepare {' '.join([*SEVEN, *LEAST])}")
    assert command.inputs["create"] == "ssh-agent .venv/bin/python -m mesh.nodes restart"


def test_this_machine_by_a_local_command() -> None:
    recording = recorded(nodes={"mode": "local", "hosts": None}, sshPrivateKey=None)
    command = recording.one("Command")
    assert (command.type, command.name) == ("command:local:Command", "prepare-this-machine")
    assert command.inputs["create"].endswith(f"prepare {' '.join([*SEVEN, *LEAST])}")
    assert "connection" not in command.inputs


def test_every_node_by_a_daemonset_with_the_least_privilege() -> None:
    recording = recorded(nodes={"mode": "daemonset", "hosts": None, "image": "kmod"}, sshPrivateKey=None)
    assert recording.one("Namespace").name == names.NODES
    template = recording.spec("DaemonSet", names.NODE_PREP)["template"]
    pod, (container,) = template["spec"], template["spec"]["containers"]
    assert pod["tolerations"] == [{"operator": "Exists"}]
    assert not {"hostPID", "hostNetwork", "hostIPC"} & pod.keys()
    assert pod["automountServiceAccountToken"] is False
    sysctls = {f"/proc/sys/fs/inotify/{name}": "File" for name in ("max_user_instances", "max_user_watches")}
    folders = dict.fromkeys(("/etc/modules-load.d", "/etc/sysctl.d", "/lib/modules"), "DirectoryOrCreate")
    paths = {volume["hostPath"]["path"]: volume["hostPath"]["type"] for volume in pod["volumes"]}
    assert paths == {**folders, **sysctls}
    where = {volume["name"]: volume["hostPath"]["path"] for volume in pod["volumes"]}
    assert {mount["mountPath"]: where[mount["name"]] for mount in container["volumeMounts"]} == {
        **{path: path for path in folders},
        **{f"/host{path}": path for path in sysctls},
    }
    assert [mount["mountPath"] for mount in container["volumeMounts"] if mount.get("readOnly")] == ["/lib/modules"]
    assert container["env"] == [{"name": "SYSCTLS", "value": "/host/proc/sys"}]
    security = container["securityContext"]
    assert security["capabilities"] == {"drop": ["ALL"], "add": ["SYS_MODULE"]}
    assert not security.get("privileged") and security["readOnlyRootFilesystem"]
    assert container["image"] == "kmod"
    assert container["command"][-10:] == ["prepare", *SEVEN, *LEAST]
    assert container["readinessProbe"]["exec"]["command"][-10:] == ["check", *SEVEN, *LEAST]
    assert container["lifecycle"]["preStop"]["exec"]["command"][-1] == "remove"


def test_the_component_has_its_type_and_its_output() -> None:
    recording = recorded()
    component = recording.one("NodePrep")
    assert component.type == f"{PROJECT}:nodes:NodePrep"
    assert set(recording.outputs[component.urn]) == {"results"}
    for command in recording.named("Command").values():
        assert recording.parent(command) == component


@pytest.mark.parametrize("mode", ["managed", "off"])
def test_everything_waits_for_the_nodes(monkeypatch: pytest.MonkeyPatch, mode: str) -> None:
    monkeypatch.setattr(preflight, "check", lambda _config, owner: None)  # noqa: ARG005
    recording = program("dev", nodes={"mode": "daemonset"}, mesh={"mode": mode})
    daemonset = recording.one("DaemonSet").urn
    later = [*recording.named("Release").values(), *recording.named("Deployment").values()]
    assert later
    for resource in later:
        assert daemonset in recording.before(resource), resource.line


def test_without_preparation_nothing_is_declared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preflight, "check", lambda _config, owner: None)  # noqa: ARG005
    assert not program("dev", nodes={"mode": "none"}).named("NodePrep")


# Reboots


@dataclass
class FakeHost:
    """A host that needs some looks before its new boot can be seen; `ssh` in the place of `nodes.Ssh`."""

    boot: str = "old"
    away: int = 0
    commands: list[str] = field(default_factory=list)
    host: str = "a"

    def run(self, command: str, *, script: str = "", timeout: float = 60) -> str:
        del timeout
        if "boot_id" in command:
            if self.boot == "new" and self.away:
                self.away -= 1
                raise nodes.NodeError("a: Connection refused")
            return f"{self.boot}\n"
        self.commands.append(command)
        if "reboot" in command:
            self.boot = "new"
        return "nf_nat: loaded\n" if script else ""


@dataclass
class FakeCluster:
    """Remembers what was asked of the node `a`."""

    present: bool = True
    node: dict[str, Any] = field(default_factory=lambda: {"metadata": {"name": "a", "annotations": {}}, "spec": {}})
    calls: list[str] = field(default_factory=list)

    def items(self, *_args: str) -> list[dict[str, Any]]:
        return [self.node] if self.present else []

    def run(self, *args: str, timeout: float = 60) -> str:
        del timeout
        self.calls.append(args[0])
        if args[0] == "annotate":
            key, equals, value = args[3].partition("=")
            self.node["metadata"]["annotations"].pop(key.rstrip("-"), None)
            if equals:
                self.node["metadata"]["annotations"][key] = value
        if args[0] in ("cordon", "uncordon"):
            self.node["spec"]["unschedulable"] = args[0] == "cordon"
        return ""


REQUEST = {
    "prepared": "nf_nat: loaded\nreboot needed since boot old for iptable_nat: because\n",
    "node": "a",
    "owner": "istio-governance/dev",
    "verify": "sh -s -- prepare iptable_nat",
}


def restart(host: FakeHost, cluster: FakeCluster, **request: str) -> None:
    nodes.restart({**REQUEST, **request}, host, cluster)  # type: ignore[arg-type]


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nodes, "POLL_SECONDS", 0.0)


def test_a_reboot_cordons_drains_waits_verifies_and_uncordons() -> None:
    host, cluster = FakeHost(away=3), FakeCluster()
    restart(host, cluster)
    assert [command for command in host.commands if "reboot" in command]
    assert host.commands[-1] == REQUEST["verify"]
    assert cluster.calls == ["annotate", "cordon", "drain", "wait", "uncordon", "annotate"]
    assert not cluster.node["spec"]["unschedulable"] and not cluster.node["metadata"]["annotations"]


def test_no_reboot_where_none_is_needed() -> None:
    host, cluster = FakeHost(), FakeCluster()
    restart(host, cluster, prepared="nf_nat: loaded\n")
    assert not host.commands and not cluster.calls


def test_a_host_outside_the_cluster_is_not_drained() -> None:
    host, cluster = FakeHost(), FakeCluster(present=False)
    restart(host, cluster)
    assert host.boot == "new" and not cluster.calls


@pytest.mark.parametrize("away", [0, 3])
def test_a_run_that_was_killed_after_the_reboot_is_taken_up(away: int) -> None:
    host, cluster = FakeHost(boot="new", away=away), FakeCluster()
    cluster.node["spec"]["unschedulable"] = True
    cluster.node["metadata"]["annotations"][names.CORDONED] = REQUEST["owner"]
    restart(host, cluster)
    assert host.commands == [REQUEST["verify"]]
    assert not cluster.node["spec"]["unschedulable"]


def test_a_run_that_was_killed_before_the_reboot_is_taken_up() -> None:
    host, cluster = FakeHost(), FakeCluster()
    cluster.node["spec"]["unschedulable"] = True
    cluster.node["metadata"]["annotations"][names.CORDONED] = REQUEST["owner"]
    restart(host, cluster)
    assert host.boot == "new" and not cluster.node["spec"]["unschedulable"]


def test_a_node_that_somebody_else_keeps_aside_stays_so() -> None:
    host, cluster = FakeHost(), FakeCluster()
    cluster.node["spec"]["unschedulable"] = True
    restart(host, cluster)
    assert cluster.node["spec"]["unschedulable"] and "uncordon" not in cluster.calls


def test_a_host_that_does_not_come_back_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nodes, "REBOOT_SECONDS", 0.05)
    with pytest.raises(nodes.NodeError, match=r"a has not rebooted within 0\.05 seconds: a: Connection refused"):
        restart(FakeHost(away=10**9), FakeCluster())
    with pytest.raises(nodes.NodeError, match=r"a has not answered within 0\.05 seconds: a: Connection refused"):
        restart(FakeHost(boot="new", away=10**9), FakeCluster())


def test_the_restart_command_wants_a_request() -> None:
    done = subprocess.run(
        [os.fspath(Path(".venv/bin/python")), "-m", "mesh.nodes"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2 and "usage" in done.stderr
