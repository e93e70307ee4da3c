"""The preparation of the nodes: the kernel modules and limits that sidecars need, there before the mesh starts."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pulumi
from pulumi_command import local, remote
from pulumi_kubernetes import apps, core, meta

import names
from components.commands import python
from components.kubernetes import InCluster, metadata, owner
from config import Cluster, Machine, NodeHost, Nodes, StackConfig
from istio import kernel

SCRIPT = (Path(__file__).parent / "prepare-node.sh").read_text()
_LIST_FOLDER, _LIMITS_FOLDER, _MODULES_FOLDER = "/etc/modules-load.d", "/etc/sysctl.d", "/lib/modules"
# Where the pod has the files of the sysctls: no runtime mounts anything below a container's own /proc.
_SYSCTLS, _MOUNTED_SYSCTLS = "/proc/sys", "/host/proc/sys"


@dataclass(frozen=True)
class NodePrepArgs:
    """`nodes` with any mode but `none`; `modules` are those that every node has to have."""

    nodes: Nodes
    modules: tuple[str, ...]
    cluster: Cluster
    private_key: pulumi.Output[str] | None = None
    bastion_private_key: pulumi.Output[str] | None = None

    @property
    def words(self) -> list[str]:
        """What every node has to have, as `prepare-node.sh` takes it."""
        return [*self.modules, *(f"{name}={least}" for name, least in sorted(self.nodes.sysctls.items()))]


class NodePrep(pulumi.ComponentResource):
    """Loads modules and raises sysctls, now and at every boot, by `prepare-node.sh`; deleting it takes the files away.

    `results` has, for each host, a line a module and a sysctl. Hosts are prepared side by side and rebooted one after
    the other.
    """

    results: pulumi.Output[dict[str, str]]

    def __init__(self, name: str, args: NodePrepArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("istio-governance:nodes:NodePrep", name, None, opts)
        self._args = args
        results: dict[str, pulumi.Output[str]] = {}
        if args.nodes.mode == "ssh":
            results = {name: self._over_ssh(name, host) for name, host in args.nodes.hosts.items()}
            if args.nodes.reboot:
                self._restarts(results)
        elif args.nodes.mode == "local":
            results = {"this machine": self._here()}
        else:
            self._on_every_node()
        self.results = pulumi.Output.all(**results) if results else pulumi.Output.from_input({})
        self.register_outputs({"results": self.results})

    def _over_ssh(self, name: str, host: NodeHost) -> pulumi.Output[str]:
        keys, bastion = self._args, self._args.nodes.bastion
        proxy = None
        if bastion:
            proxy = remote.ProxyConnectionArgs(**_login(bastion, keys.bastion_private_key or keys.private_key))
        return remote.Command(
            f"prepare-{name}",
            connection=remote.ConnectionArgs(**_login(host, keys.private_key), proxy=proxy),
            # sshd takes no variables by default.
            add_previous_output_in_env=False,
            create=self._create,
            delete=_line("remove"),
            stdin=SCRIPT,
            opts=pulumi.ResourceOptions(
                parent=self,
                # Pulumi would try to reach the host for a change as well as for a delete (pulumi-command#104, #553).
                retain_on_delete=host.gone,
                ignore_changes=["connection", "create", "delete", "stdin"] if host.gone else None,
            ),
        ).stdout

    def _here(self) -> pulumi.Output[str]:
        return local.Command(
            "prepare-this-machine",
            create=self._create,
            delete=_line("remove"),
            stdin=SCRIPT,
            opts=pulumi.ResourceOptions(parent=self),
        ).stdout

    @property
    def _create(self) -> str:
        flags = ["--may-reboot"] if self._args.nodes.reboot else []
        return _line("prepare", *flags, *self._args.words)

    def _restarts(self, results: Mapping[str, pulumi.Output[str]]) -> None:
        """A chain, so that never more than one host is away; `mesh.nodes` does nothing where no reboot is needed."""
        before: list[pulumi.Resource] = []
        nodes = self._args.nodes
        for name, host in nodes.hosts.items():
            if host.gone:
                continue
            request = {
                "host": host.model_dump(),
                "bastion": nodes.bastion.model_dump() if nodes.bastion else None,
                "keys": [key for key in (self._args.private_key, self._args.bastion_private_key) if key],
                "node": host.node or name,
                "cluster": self._args.cluster.model_dump(),
                "owner": owner(),
                "verify": _line("prepare", *self._args.words),
                "prepared": results[name],
            }
            restart = local.Command(
                f"restart-{name}",
                # The agent keeps the keys in memory and ends with the command, however that ends.
                create=f"ssh-agent {python('-m mesh.nodes restart')}",
                stdin=pulumi.Output.json_dumps(request),
                opts=pulumi.ResourceOptions(parent=self, depends_on=before),
            )
            before = [restart]

    def _on_every_node(self) -> None:
        # What no stricter level allows: hostPath volumes and CAP_SYS_MODULE.
        privileged = {"pod-security.kubernetes.io/enforce": "privileged", "istio-injection": "disabled"}
        namespace = core.v1.Namespace(
            names.NODES, metadata=metadata(names.NODES, labels=privileged), opts=pulumi.ResourceOptions(parent=self)
        )
        labels = {"app": names.NODE_PREP}
        apps.v1.DaemonSet(
            names.NODE_PREP,
            metadata=metadata(names.NODE_PREP, namespace=names.NODES, labels=labels),
            spec=apps.v1.DaemonSetSpecArgs(
                selector=meta.v1.LabelSelectorArgs(match_labels=labels),
                update_strategy=apps.v1.DaemonSetUpdateStrategyArgs(
                    rolling_update=apps.v1.RollingUpdateDaemonSetArgs(max_unavailable="100%")
                ),
                template=core.v1.PodTemplateSpecArgs(metadata=meta.v1.ObjectMetaArgs(labels=labels), spec=self._pod()),
            ),
            opts=pulumi.ResourceOptions(
                parent=self,
                depends_on=[namespace],
                custom_timeouts=pulumi.CustomTimeouts(create="3m", update="3m"),
            ),
        )

    def _pod(self) -> core.v1.PodSpecArgs:
        """Every node's, those that join later too; it stays, and takes the files away when it is ended.

        Root may write a sysctl of the file system without any capability, but only where it is not mounted read-only,
        as a container's /proc/sys is: so the very files are mounted, and none beside them.
        """

        def script(*words: str, then: str = "") -> list[str]:
            return ["sh", "-c", f"{SCRIPT}{then}", "prepare-node.sh", *words]

        wait = "trap 'exit 0' TERM\nwhile :; do sleep 3600 & wait $!; done\n"
        folders = {"lists": _LIST_FOLDER, "limits": _LIMITS_FOLDER, "modules": _MODULES_FOLDER}
        files = {name: name.replace(".", "/") for name in sorted(self._args.nodes.sysctls)}
        volumes = {
            **{name: (path, "DirectoryOrCreate") for name, path in folders.items()},
            **{_volume(name): (f"{_SYSCTLS}/{path}", "File") for name, path in files.items()},
        }
        mounts = [
            core.v1.VolumeMountArgs(name="lists", mount_path=_LIST_FOLDER),
            core.v1.VolumeMountArgs(name="limits", mount_path=_LIMITS_FOLDER),
            core.v1.VolumeMountArgs(name="modules", mount_path=_MODULES_FOLDER, read_only=True),
            *(
                core.v1.VolumeMountArgs(name=_volume(name), mount_path=f"{_MOUNTED_SYSCTLS}/{path}")
                for name, path in files.items()
            ),
        ]
        container = core.v1.ContainerArgs(
            name=names.NODE_PREP,
            image=self._args.nodes.image,
            command=script("prepare", *self._args.words, then=wait),
            env=[core.v1.EnvVarArgs(name="SYSCTLS", value=_MOUNTED_SYSCTLS)],
            readiness_probe=core.v1.ProbeArgs(
                exec_=core.v1.ExecActionArgs(command=script("check", *self._args.words)), period_seconds=10
            ),
            lifecycle=core.v1.LifecycleArgs(
                pre_stop=core.v1.LifecycleHandlerArgs(exec_=core.v1.ExecActionArgs(command=script("remove")))
            ),
            termination_message_policy="FallbackToLogsOnError",
            resources=core.v1.ResourceRequirementsArgs(
                requests={"cpu": "1m", "memory": "16Mi"}, limits={"memory": "64Mi"}
            ),
            security_context=core.v1.SecurityContextArgs(
                run_as_user=0,
                read_only_root_filesystem=True,
                allow_privilege_escalation=False,
                capabilities=core.v1.CapabilitiesArgs(drop=["ALL"], add=["SYS_MODULE"]),
                seccomp_profile=core.v1.SeccompProfileArgs(type="RuntimeDefault"),
            ),
            volume_mounts=mounts,
        )
        return core.v1.PodSpecArgs(
            automount_service_account_token=False,
            node_selector={"kubernetes.io/os": "linux"},
            tolerations=[core.v1.TolerationArgs(operator="Exists")],
            termination_grace_period_seconds=10,
            containers=[container],
            volumes=[
                core.v1.VolumeArgs(name=name, host_path=core.v1.HostPathVolumeSourceArgs(path=path, type=kind))
                for name, (path, kind) in volumes.items()
            ],
        )


def prepare(config: StackConfig, cluster: InCluster) -> list[NodePrep]:
    """What has to be done before the mesh starts."""
    if config.nodes.mode == "none":
        return []
    keys = cluster.secret("sshPrivateKey"), cluster.secret("bastionPrivateKey")
    args = NodePrepArgs(config.nodes, kernel.modules(config), config.cluster, *keys)
    return [cluster.has(NodePrep(cluster.called("nodes"), args, cluster.after()))]


def _volume(sysctl: str) -> str:
    return sysctl.replace(".", "-").replace("_", "-")


def _login(machine: Machine, private_key: pulumi.Output[str] | None) -> dict[str, Any]:
    """Of a host or a bastion, whose arguments are alike. One that does not answer is given up after four attempts;
    without its key Pulumi would talk to whoever answers."""
    return {
        "host": machine.address,
        "port": machine.port,
        "user": machine.user,
        "host_key": machine.host_key,
        "private_key": private_key,
        "per_dial_timeout": 10,
        "dial_error_limit": 3,
    }


def _line(*words: str) -> str:
    """A command line that runs the script as root.

    The script comes in by stdin: sshd takes no variables, and an error shows the whole command line.
    """
    return f'$([ "$(id -u)" = 0 ] || echo sudo -n) sh -s -- {shlex.join(words)}'
