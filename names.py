"""The names of a stack and of everything that it makes; these are an interface: renaming one replaces a live object."""

MANAGED_BY = "app.kubernetes.io/managed-by"
"""The common label for the tool that manages an object: https://kubernetes.io/docs/concepts/overview/working-with-objects/common-labels/"""

OWNER = "istio-governance/stack"
"""The annotation that says which stack an object belongs to."""

KEPT = "istio-governance/kept"
"""The annotation of a namespace that stays when the stack, or its declaration in it, goes."""

SIDECAR = "istio-governance/sidecar"
"""The annotation of a pod template that changes whenever its pods need another sidecar."""

SECRETS = "istio-governance/secrets"
"""The annotation of a pod template that changes whenever a secret value in the environment of its pods does."""

SUBSET_STATISTICS = (
    r"cluster\.(outbound\|[0-9]+\|[^|]+\|[^;]+|inbound\|[0-9]+\|\|);?\.upstream_("
    r"rq_(time|total|retry|timeout|.xx|cancelled|pending_overflow|[rt]x_reset)|"
    r"cx_(total|none_healthy|destroy_local_with_active_rq|protocol_error|rx_bytes_total))"
)
"""What a sidecar keeps of Envoy's statistics of the subsets that it calls and of its own application, as a regular
expression for whole names.

https://www.envoyproxy.io/docs/envoy/latest/configuration/upstream/cluster_manager/cluster_stats
https://istio.io/latest/docs/ops/configuration/telemetry/envoy-stats/
"""

REVISION = "istio.io/rev"
"""Istio's label for the control plane of a namespace or a pod; a namespace's counts more than that of its pods."""
INJECTED = "service.istio.io/canonical-name"
"""Istio labels what it injects with the name of its workload, which spares the cluster a list of all its pods."""

NODES = "istio-nodes"
"""The namespace of the pods that prepare the nodes."""

NODE_PREP = "node-prep"
"""The DaemonSet in it."""

CORDONED = "istio-governance/cordoned-by"
"""The annotation of a node that a stack has cordoned for a reboot, and which it so may uncordon."""

ROUTING_API = "networking.istio.io/v1beta1"
SECURITY_API = "security.istio.io/v1beta1"
"""Served by every supported Istio; another would be a new URN, and Pulumi would delete the live rule with the old."""


def is_production(stack: str) -> bool:
    """By the name of the stack: `prod`, `production`, `prod-eu`, … also behind its organization."""
    name = stack.rpartition("/")[2]
    return name == "prod" or name.startswith(("prod-", "production"))


RELEASES = {
    "base": "istio-base",
    "istiod": "istiod",
    "cni": "istio-cni",
    "ingress": "istio-ingressgateway",
    "egress": "istio-egressgateway",
}
"""The Helm releases of a mesh by the key of their values."""


def istiod(revision: str) -> str:
    """The Helm release of a control plane; '' is the revision without a name."""
    return f"{RELEASES['istiod']}-{revision}" if revision else RELEASES["istiod"]


def is_release(name: str) -> bool:
    """Whether a Helm release is one of a mesh of ours, of any revision."""
    return name in RELEASES.values() or name.startswith(f"{RELEASES['istiod']}-")


def workload(service: str, version: str) -> str:
    return f"{service}-{version}"


def writable(number: int) -> str:
    """The volume for one of the folders that stay writable."""
    return f"writable-{number}"


def env_secret(service: str) -> str:
    """The Secret with the values of the environment of a service's pods."""
    return f"{service}-env"


def env_key(service: str) -> str:
    """Of the command that makes the key of their checksums."""
    return f"{service}-env-key"


DEFAULT_DENY = "default-deny"
"""The NetworkPolicy for all pods of the namespace."""


def callers(service: str) -> str:
    """The NetworkPolicy that lets the callers of a service in."""
    return f"{service}-callers"


def destination_rule(service: str) -> str:
    return f"dest-{service}"


def subset_rule(service: str, version: str) -> str:
    return f"dest-{service}-{version}"


def virtual_service(service: str) -> str:
    return f"vs-{service}"


def route(service: str, match: str = "route") -> str:
    """That of the requests which a match describes, or of all the others."""
    return f"{service}-{match}"


def gateway(service: str) -> str:
    return f"gw-{service}"


def peer_authentication(service: str) -> str:
    return f"mtls-{service}"


def outside(host: str) -> str:
    """Of all the objects for a host outside the mesh; a Gateway's has to be a DNS label."""
    return f"egress-{host.replace('.', '-')}"


SUBSETS, VERSIONS = "subsets", "versions"
"""Of all services: what the proxies have to know before the weights change, and what is to have no pods afterwards."""


def announced(subsets: str) -> str:
    """The command that waits for the proxies between subsets and weights."""
    return f"{subsets}-announced"


def drained(versions: str) -> str:
    """The command that waits for the requests between weights and versions that are to have no pods."""
    return f"{versions}-drained"
