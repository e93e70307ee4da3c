"""A cluster as the demo, the tests and the benchmark see it, and how it comes and goes."""

import base64
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from . import build, choice, node, prerequisites
from .choice import Choice
from .errors import ClusterError
from .instance import CACHE_LINK, DEFAULT, NAMES, PROJECT, RUN, Instance, cache


@dataclass(frozen=True)
class Cluster:
    """A cluster that can be used: by its kubeconfig and context, with these variables added to the environment."""

    name: str
    kubeconfig: Path
    context: str
    environment: dict[str, str]


@dataclass(frozen=True)
class EmbeddedCluster(Cluster):
    """The embedded cluster, whose inside can be reached as well."""

    instance: Instance

    # The standard places, from a pod's point of view as well: the node has a file system of its own.
    cni_bin_dir = "/opt/cni/bin"
    cni_conf_dir = "/etc/cni/net.d"

    @property
    def logs(self) -> Path:
        """The folder with one log a component."""
        return self.instance.disk / "log"

    @property
    def components(self) -> list[str]:
        """The names of the components, in the order in which they start."""
        return list(node.components(self.instance))

    def pid(self, component: str) -> int | None:
        """The process of a component, ``None`` when it does not run."""
        return node.pid(self.instance, component)

    def start(self, component: str) -> None:
        """Starts a component again that was killed."""
        if self.pid(component) is None:
            node.start_component(self.instance, component)

    def path(self, inside: str) -> Path:
        """Where a path of the node is found from outside."""
        return node.node_path(self.instance, inside)

    def execute(self, *command: str) -> str:
        """Runs a command on the node and returns what it wrote to stdout."""
        return node.execute(self.instance, list(command))

    def etcd_keys(self, prefix: str = "/registry/") -> list[str]:
        """The keys in etcd that begin with a prefix."""
        start = prefix.encode()
        question = {
            "key": base64.b64encode(start).decode(),
            "range_end": base64.b64encode(start[:-1] + bytes([start[-1] + 1])).decode(),
            "keys_only": True,
        }
        answer = node.request(self.instance, 2379, "/v3/kv/range", question)
        return [base64.b64decode(pair["key"]).decode() for pair in answer.get("kvs", [])]


def up(name: str = DEFAULT, chosen: Choice | None = None, tools: Sequence[str] = ()) -> Cluster:
    """Brings a cluster up, building first what is missing; does next to nothing when it is up already.

    Of `tools`, groups that no cluster needs, the embedded one's build makes these as well.
    """
    instance = _instance(name)
    chosen = chosen or choice.choose()
    if chosen is Choice.KIND:
        choice.kind_up(instance)
    elif chosen is Choice.EMBEDDED:
        prerequisites.check(instance)
        prerequisites.check_go()
        wanted = (*build.DEFAULT_GROUPS, *tools)
        if missing := build.missing(wanted):
            prerequisites.check_build(missing)
            build.build(wanted)
        with build.locked(name):
            node.raise_limits()
            if not node.healthy(instance):
                node.stop(instance)
                _start(instance)
        _link_cache()
    return _cluster(instance, chosen)


def _start(instance: Instance) -> None:
    try:
        node.start(instance, build.debian(), build.node_binaries(), build.image_store())
    except KeyboardInterrupt:
        node.stop(instance)
        raise


def down(name: str = DEFAULT, chosen: Choice | None = None) -> None:
    """Takes a cluster down with everything that was deployed on it, in whatever state it is."""
    instance = _instance(name)
    chosen = chosen or choice.choose()
    if chosen is Choice.KIND:
        choice.kind_down(instance)
    elif chosen is Choice.EMBEDDED:
        if node.exists(instance):
            if os.geteuid() != 0:
                raise ClusterError("the embedded cluster belongs to root: take it down as root")
            with build.locked(name):
                node.stop(instance)
        if CACHE_LINK.is_symlink() and not any((RUN / other).exists() for other in NAMES):
            CACHE_LINK.unlink()


def find(name: str = DEFAULT, chosen: Choice | None = None) -> Cluster:
    """The cluster of that name, without looking whether it is healthy."""
    instance = _instance(name)
    chosen = chosen or choice.choose()
    if chosen is Choice.EMBEDDED:
        prerequisites.check_other_cache(instance)
    if chosen is not Choice.CURRENT and not instance.kubeconfig.exists():
        raise ClusterError(f"cluster {name} is not up")
    return _cluster(instance, chosen)


def environment(name: str = DEFAULT, chosen: Choice | None = None) -> dict[str, str]:
    """The variables that make pulumi, kubectl and the project's own programs use a cluster."""
    return find(name, chosen).environment


def variables(instance: Instance, chosen: Choice, kubeconfig: Path) -> dict[str, str]:
    """What has to be set for a cluster; for one that is not ours, Pulumi's home and backend stay the user's own."""
    paths = [str(PROJECT / ".venv" / "bin"), os.environ.get("PATH", "")]
    common = {"KUBECONFIG": str(kubeconfig), "PULUMI_SKIP_UPDATE_CHECK": "true"}
    if chosen is Choice.CURRENT:
        return {"PATH": os.pathsep.join(paths), **common}
    own_state = {"PULUMI_BACKEND_URL": f"file://{instance.pulumi_state}", "PULUMI_CONFIG_PASSPHRASE": ""}
    if chosen is Choice.KIND:
        return {"PATH": os.pathsep.join(paths), **common, **own_state}
    return {
        "PATH": os.pathsep.join([str(build.user_binaries()), *paths]),
        **common,
        **own_state,
        "PULUMI_HOME": str(build.pulumi_home()),
        **node.direct(instance),
        # Every plugin is there: never look for one on the network.
        "PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION": "true",
    }


def _cluster(instance: Instance, chosen: Choice) -> Cluster:
    if chosen is Choice.CURRENT:
        path = choice.current_kubeconfig()
        return Cluster(instance.name, path, choice.current_context(), variables(instance, chosen, path))
    settings = variables(instance, chosen, instance.kubeconfig)
    if chosen is Choice.KIND:
        instance.pulumi_state.mkdir(parents=True, exist_ok=True)
        return Cluster(instance.name, instance.kubeconfig, choice.kind_context(instance), settings)
    return EmbeddedCluster(instance.name, instance.kubeconfig, instance.context, settings, instance)


def _instance(name: str) -> Instance:
    if name not in NAMES:
        raise ClusterError(f"there is no cluster {name}; use one of {', '.join(NAMES)}")
    return Instance(name)


def _link_cache() -> None:
    if CACHE_LINK.is_symlink() and CACHE_LINK.readlink() == cache():
        return
    # Replaced in one step: another cluster's user may be reading through it.
    fresh = CACHE_LINK.with_name(f"{CACHE_LINK.name}.new")
    fresh.unlink(missing_ok=True)
    fresh.symlink_to(cache())
    fresh.replace(CACHE_LINK)
