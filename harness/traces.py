"""What lies in a cluster and on its node, to compare before with after."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass

from localcluster import EmbeddedCluster

# What Kubernetes itself writes all the time: none of it is anybody's object.
_RESTLESS = ("/registry/events/", "/registry/leases/", "/registry/masterleases/")


@dataclass(frozen=True)
class Traces:
    """The keys in etcd, the CNI configuration, and the names of the CNI plugins on the node."""

    keys: frozenset[str]
    cni_configuration: object
    """Parsed, as install-cni writes it back in another order."""
    cni_plugins: str

    @classmethod
    def of(cls, cluster: EmbeddedCluster) -> Traces:
        return cls(
            frozenset(key for key in cluster.etcd_keys() if not key.startswith(_RESTLESS)),
            json.loads(cluster.execute("sh", "-c", f"cat {cluster.cni_conf_dir}/*")),
            cluster.execute("ls", cluster.cni_bin_dir),
        )


def traces_settled(cluster: EmbeddedCluster, expected: Traces, seconds: float = 30) -> Traces:
    """The traces as soon as they are the expected ones, or those after `seconds`: pods take a while to be gone."""
    end = time.monotonic() + seconds
    while (found := Traces.of(cluster)) != expected and time.monotonic() < end:
        time.sleep(0.5)
    return found
