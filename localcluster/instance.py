"""Where everything of the local clusters lies: the shared cache and the instances beside each other."""

import os
from dataclasses import dataclass
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent
# A link to the cache, so that stack files can name charts and kubeconfig without a path of one machine.
CACHE_LINK = PROJECT / ".cluster"
RUN = Path("/run/istio-governance")

NAMES = ("local", "test", "bench", *(f"test-{number}" for number in range(2, 10)))
DEFAULT = "local"
# A node that only imports images, while they are built.
IMPORTER = "images"


def cache() -> Path:
    """The folder of everything that is built; safe to delete while no cluster is up."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "istio-governance"


@dataclass(frozen=True)
class Instance:
    """The names, addresses and folders of one cluster."""

    name: str = DEFAULT

    @property
    def _network(self) -> str:
        return f"10.99.{(*NAMES, IMPORTER).index(self.name)}"

    @property
    def namespace(self) -> str:
        """The network namespace, which is also the name of the control group."""
        return f"istio-governance-{self.name}"

    @property
    def link(self) -> str:
        """The host's end of the link to the node; the kernel allows 15 characters."""
        return f"ig-{self.name}"

    @property
    def subnet(self) -> str:
        return f"{self._network}.0/24"

    @property
    def host_address(self) -> str:
        return f"{self._network}.1"

    @property
    def address(self) -> str:
        """The node's address, where its API server listens."""
        return f"{self._network}.2"

    @property
    def context(self) -> str:
        return "istio-governance" if self.name == DEFAULT else self.namespace

    @property
    def run(self) -> Path:
        """What must not outlive a reboot: the folder exists as long as this instance owns anything."""
        return RUN / self.name

    @property
    def disk(self) -> Path:
        """The node's disk, and Pulumi's state of what was deployed on it."""
        return cache() / "clusters" / self.name

    @property
    def uses_cache(self) -> bool:
        """Whether the instance is up, or half up, from this cache and no other."""
        link = self.run / "disk"
        return link.is_symlink() and link.readlink() == self.disk

    @property
    def kubeconfig(self) -> Path:
        return cache() / "kubeconfig" if self.name == DEFAULT else self.disk / "kubeconfig"

    @property
    def pulumi_state(self) -> Path:
        return self.disk / "pulumi"
