"""Which cluster the commands use: the embedded one, one made by kind, or the one in the current kubeconfig."""

import os
import shutil
import subprocess
import sys
from enum import Enum
from pathlib import Path

from .commands import run
from .errors import ClusterError
from .instance import Instance


class Choice(Enum):
    """The values of the variable CLUSTER."""

    EMBEDDED = "embedded"
    KIND = "kind"
    CURRENT = "current"


def choose(value: str | None = None, platform: str = sys.platform) -> Choice:
    """The cluster that ``value`` (default: the variable CLUSTER) asks for; the embedded one needs Linux."""
    text = os.environ.get("CLUSTER", "") if value is None else value
    if not text:
        return Choice.EMBEDDED if platform == "linux" else Choice.KIND
    try:
        return Choice(text)
    except ValueError:
        known = ", ".join(choice.value for choice in Choice)
        raise ClusterError(f"CLUSTER={text} is unknown; use one of {known}") from None


def kind_context(instance: Instance) -> str:
    """kind's own name for the context of a cluster."""
    return f"kind-{instance.namespace}"


def kind_create(instance: Instance, kubeconfig: Path) -> list[str]:
    """The command that makes the cluster and waits for it."""
    return [
        "kind",
        "create",
        "cluster",
        "--name",
        instance.namespace,
        "--kubeconfig",
        str(kubeconfig),
        "--wait",
        "5m",
    ]


def kind_export(instance: Instance, kubeconfig: Path) -> list[str]:
    """The command that writes the kubeconfig of a cluster that exists."""
    return ["kind", "export", "kubeconfig", "--name", instance.namespace, "--kubeconfig", str(kubeconfig)]


def kind_delete(instance: Instance, kubeconfig: Path) -> list[str]:
    """The command that removes the cluster; kind is content when there is none."""
    return ["kind", "delete", "cluster", "--name", instance.namespace, "--kubeconfig", str(kubeconfig)]


def require_tools(*names: str) -> None:
    """Refuses when a program that the user has to bring along is missing."""
    how = {
        "pulumi": "install it as described at https://www.pulumi.com/docs/install/",
        "kind": "install it as described at https://kind.sigs.k8s.io/, or leave CLUSTER unset",
        "docker": "kind needs Docker; install it, or leave CLUSTER unset",
        "kubectl": "install it as described at https://kubernetes.io/docs/tasks/tools/",
    }
    for name in names:
        if shutil.which(name) is None:
            raise ClusterError(f"{name} is not on PATH; {how[name]}")


def kind_up(instance: Instance) -> None:
    """Makes the kind cluster, or takes the one that is there."""
    require_tools("docker", "kind", "pulumi", "kubectl")
    instance.kubeconfig.parent.mkdir(parents=True, exist_ok=True)
    if instance.namespace in run(["kind", "get", "clusters"]).split():
        run(kind_export(instance, instance.kubeconfig))
        return
    # kind reports its own progress on stderr; stdout stays free for the kubeconfig's path.
    made = subprocess.run(kind_create(instance, instance.kubeconfig), stdout=sys.stderr, check=False)
    if made.returncode:
        raise ClusterError(f"kind could not make the cluster (code {made.returncode}), see above")


def kind_down(instance: Instance) -> None:
    """Removes the kind cluster with its kubeconfig and the state of what was deployed on it."""
    require_tools("kind")
    run(kind_delete(instance, instance.kubeconfig))
    shutil.rmtree(instance.disk, ignore_errors=True)
    instance.kubeconfig.unlink(missing_ok=True)


def current_kubeconfig() -> Path:
    """The kubeconfig that kubectl would take first."""
    named = os.environ.get("KUBECONFIG", "").split(os.pathsep)[0]
    return Path(named) if named else Path.home() / ".kube" / "config"


def current_context() -> str:
    """The context that kubectl would use now."""
    require_tools("pulumi", "kubectl")
    try:
        return run(["kubectl", "config", "current-context"]).strip()
    except ClusterError:
        raise ClusterError("CLUSTER=current, but the kubeconfig has no current context") from None
