"""Callers inside the cluster that go on calling, by HTTP, gRPC or TCP, with a patience of their own."""

from __future__ import annotations

import json
import subprocess
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from localcluster import ClusterError, EmbeddedCluster, build
from localcluster.images import HUB, Image, write_archive
from mesh.cluster.kubectl import Kubectl

IMAGE = f"{HUB}/calls:1"
"""nginx, curl and perl as in the other image, and `calls`, which speaks gRPC (localcluster/go/calls)."""

_UNTIL_STDIN_ENDS = (
    "exec 3<&0; stop=/tmp/stop.$$; (cat <&3 > /dev/null; touch $stop) & while [ ! -e $stop ]; do {}; done"
)
_CURL = (
    "curl --silent --output /dev/null --max-time {patience} --write-out '%{{http_code}}\\n' {options} '{url}?[1-20]'"
)
_TCP = """
use IO::Socket::INET;
for (1 .. 20) {
    $s = IO::Socket::INET->new(PeerAddr => "%s", Timeout => 2) or do { print "none\\n"; next };
    syswrite($s, "hello\\n\\n");
    vec($r = "", fileno($s), 1) = 1;
    print select($r, undef, undef, %s) ? (sysread($s, $b, 100) ? "200\\n" : "closed\\n") : "late\\n";
    close $s;
}
"""


def provide(cluster: EmbeddedCluster) -> None:
    """Brings the image to the cluster's node, where it is built when it is not there yet."""
    if IMAGE in cluster.execute("ctr", "--namespace=k8s.io", "images", "list", "--quiet").split():
        return
    build.build(["calls"])
    (binary,) = build.outputs("calls")
    archive = cluster.path("/calls.tar")
    image = Image(
        IMAGE.removeprefix(f"{HUB}/"), {"usr/local/bin/calls": binary}, {"Cmd": ["nginx", "-g", "daemon off;"]}
    )
    write_archive(archive, build.debian(), [image])
    take = ("ctr", "--namespace=k8s.io", "images", "import", "--all-platforms", "/calls.tar")
    try:
        cluster.execute(*take)
    except ClusterError:  # once seen on a node that had only just come up: a layer was not read to its end
        cluster.execute(*take)
    finally:
        Path(archive).unlink()


@dataclass(frozen=True)
class Caller:
    """A container of a pod that calls: `where` is the pod as for `kubectl exec`, `command` calls until stdin ends."""

    namespace: str
    where: str
    command: list[str]

    @classmethod
    def http(cls, namespace: str, where: str, url: str, patience: float, options: str = "") -> Caller:
        curl = _CURL.format(patience=patience, options=options, url=url)
        return cls(
            namespace, where, ["sh", "-c", f"({_UNTIL_STDIN_ENDS.format(curl + '; sleep 0.3')}) | sort | uniq -c"]
        )

    @classmethod
    def grpc(cls, namespace: str, where: str, target: str, patience: float, *options: str) -> Caller:
        command = ["calls", "-call", target, "-deadline", f"{patience}s", "-callers", "1", "-pause", "20ms", *options]
        return cls(namespace, where, command)

    @classmethod
    def tcp(cls, namespace: str, where: str, target: str, patience: float) -> Caller:
        perl = f"perl -e '{_TCP % (target, patience)}'; sleep 0.3"
        return cls(namespace, where, ["sh", "-c", f"({_UNTIL_STDIN_ENDS.format(perl)}) | sort | uniq -c"])


class Calling:
    """Lets callers call, from `with` to its end; then `ended` has how many of their calls ended how."""

    def __init__(self, kubectl: Kubectl, *callers: Caller) -> None:
        self._kubectl, self._callers = kubectl, callers
        self._running: list[subprocess.Popen[str]] = []
        self.ended: Counter[str] = Counter()

    def __enter__(self) -> Calling:
        for caller in self._callers:
            where = ["exec", "--stdin", f"--namespace={caller.namespace}", caller.where, "--container=caller", "--"]
            command = self._kubectl.command(*where, *caller.command)
            pipe = subprocess.PIPE
            self._running.append(
                subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, text=True)
            )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with ExitStack() as ending:
            for running in self._running:
                ending.callback(running.kill)
            for running in self._running:
                printed, _ = running.communicate(timeout=60)
                self.ended += _counted(printed)


def _counted(printed: str) -> Counter[str]:
    if printed.startswith("{"):
        return Counter(json.loads(printed))
    pairs = (line.split() for line in printed.splitlines())
    return Counter({pair[1]: int(pair[0]) for pair in pairs if len(pair) == 2})
