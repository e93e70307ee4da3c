"""The inputs as Pulumi's analyzer takes them. Made by `python -m package.generate`; change vocabulary.py instead."""

from collections.abc import Mapping, Sequence
from enum import Enum
from typing import Any, NotRequired, TypedDict

import pulumi


class Cluster(TypedDict):
    "Which cluster. https://kubernetes.io/docs/concepts/configuration/organize-cluster-access-kubeconfig/"

    context: NotRequired[str]
    "the name of a context in the kubeconfig"
    kubeconfig: NotRequired[str]
    "the path of a kubeconfig; '' is $KUBECONFIG or ~/.kube/config"


class NodesMode(Enum):
    NONE = "none"
    SSH = "ssh"
    DAEMONSET = "daemonset"
    LOCAL = "local"


class NodeHost(TypedDict):
    "One node."

    address: str
    "a name or an IP address"
    port: NotRequired[int]
    "a whole number from 1 to 65535; default: `22`"
    user: NotRequired[str]
    "root, or a user who may `sudo` without a password; default: `root`"
    hostKey: NotRequired[str]
    "the host's public key, as `ssh-keyscan -t ecdsa HOST` prints it after the host's name (required)"
    node: NotRequired[str]
    "its name in Kubernetes, for cordon and drain; '' is the host's name here"
    gone: NotRequired[bool]
    "true or false: it is there no more; nothing is done to it ever again; default: `false`"


class Machine(TypedDict):
    "Where and how to log in by SSH; every machine has to prove itself by its host key."

    address: str
    "a name or an IP address"
    port: NotRequired[int]
    "a whole number from 1 to 65535; default: `22`"
    user: NotRequired[str]
    "root, or a user who may `sudo` without a password; default: `root`"
    hostKey: NotRequired[str]
    "the host's public key, as `ssh-keyscan -t ecdsa HOST` prints it after the host's name (required)"


class NodesIpFamilies(Enum):
    IPV4 = "IPv4"
    IPV6 = "IPv6"


class Nodes(TypedDict):
    "How the kernel modules and the limits that sidecars need get onto the nodes."

    mode: NotRequired[NodesMode]
    "none (the nodes are prepared already), ssh (each host by SSH), daemonset (a pod on every node) or local (the machine that runs Pulumi); default: `none`"
    hosts: NotRequired[Mapping[str, NodeHost]]
    "hosts by name"
    bastion: NotRequired[Machine]
    "the machine through which all hosts are reached"
    modules: NotRequired[Sequence[str]]
    "a list of kernel modules; empty: the right ones"
    sysctls: NotRequired[Mapping[str, int]]
    "a map of sysctls and the least that each has to be, as none is ever lowered; fs.inotify.max_user_instances: 8192 and fs.inotify.max_user_watches: 524288 where mode is not none and `null` does not take them out"
    ipFamilies: NotRequired[Sequence[NodesIpFamilies]]
    "a list of IPv4 and IPv6: the families of the cluster's pods; default: `[IPv4]`"
    reboot: NotRequired[bool]
    "true or false: reboot a host when only that gets the modules in; default: `false`"
    image: NotRequired[str]
    "for mode daemonset, an image with a shell and modprobe; default: `docker.io/library/busybox:1.37`"


class MeshMode(Enum):
    MANAGED = "managed"
    EXISTING = "existing"
    OFF = "off"


class MeshProfile(Enum):
    DEFAULT = "default"
    MINIMAL = "minimal"
    DEMO = "demo"


class Revision(TypedDict):
    "One control plane beside others. https://istio.io/latest/docs/setup/upgrade/canary/"

    version: str
    "a quoted Istio version from 1.17 to 1.31, such as \"1.31.0\""


class Mesh(TypedDict):
    "The Istio control plane. https://istio.io/latest/docs/setup/install/helm/"

    mode: NotRequired[MeshMode]
    "managed (this stack installs Istio), existing (somebody else's Istio) or off (no mesh); default: `managed`"
    version: NotRequired[str]
    "a quoted Istio version from 1.17 to 1.31, such as \"1.31.0\""
    profile: NotRequired[MeshProfile]
    "default, minimal or demo; default: `default`"
    cni: NotRequired[bool]
    "true or false: the Istio CNI node agent instead of an init container; default: `true`"
    purge: NotRequired[bool]
    "true or false: destroy also removes Istio's CRDs; default: `false`"
    namespace: NotRequired[str]
    "a DNS label (RFC 1123): at most 63 of a-z, 0-9 and '-', not first or last a '-'; default: `istio-system`"
    revision: NotRequired[str]
    "the revision that injects the sidecars: one of mesh.revisions, or one of an existing Istio, '' being its default one"
    revisions: NotRequired[Mapping[str, Revision]]
    "control planes beside each other, by name, in the place of mesh.version; 'default' is the one that mesh.version would be"
    platform: NotRequired[str]
    "a platform that the charts know, such as openshift, gke or k3s; or aks"
    ingress: NotRequired[bool]
    "true, false or unset (as the profile says)"
    egress: NotRequired[bool]
    "true, false or unset (as the profile says)"
    values: NotRequired[Mapping[str, Mapping[str, Any]]]
    "Helm values by chart: base, cni, istiod, ingress, egress"
    charts: NotRequired[str]
    "'' (the official place), a folder of charts or .tgz files, an https:// repository or oci://"
    hub: NotRequired[str]
    "an image hub such as registry.example.com/istio; '' is the official one"
    images: NotRequired[Mapping[str, str]]
    "images in the place of those in the hub: pilot, proxyv2 (sidecars and gateways), install-cni"
    prometheus: NotRequired[str]
    "the URL of a Prometheus with Istio's standard metrics, for the gates of mesh shift; '' is the callers' sidecars themselves"
    accept: NotRequired[Sequence[str]]
    "a list of objects of others that decide over requests to this stack's services and are meant to, such as Sidecar office/default: mesh status shows them, and does not fail for them"
    imagePullSecrets: NotRequired[Sequence[str]]
    "a list of names of Secrets"


class NodePrepInputs(TypedDict):
    cluster: Cluster
    "which cluster: a context, or a kubeconfig seen from the folder of the program"
    nodes: Nodes
    "how the nodes are reached, and what they need"
    mesh: NotRequired[Mesh]
    "the Istio that the sidecars belong to; unset: mode existing"
    sshPrivateKey: NotRequired[pulumi.Input[str]]
    "secret: the SSH key that opens every host of nodes.hosts"
    bastionPrivateKey: NotRequired[pulumi.Input[str]]
    "secret: the bastion's, where it is another one"


class IstioInputs(TypedDict):
    cluster: Cluster
    "which cluster: a context, or a kubeconfig seen from the folder of the program"
    mesh: Mesh
    "which Istio, and how"
    protect: NotRequired[bool]
    "true or false: Pulumi refuses to delete or replace namespaces, the mesh's releases and Services; default: `false`"


class Namespace(TypedDict):
    "The namespace of the workloads. https://kubernetes.io/docs/concepts/overview/working-with-objects/namespaces/"

    name: NotRequired[str]
    "a DNS label (RFC 1123): at most 63 of a-z, 0-9 and '-', not first or last a '-'; default: `istio-demo`"
    create: NotRequired[bool]
    "true (this stack owns it) or false (it exists; only labels are set); default: `true`"
    keep: NotRequired[bool]
    "true or false: the namespace and what others made in it stay when the stack goes; needs create; default: `false`"
    defaultDeny: NotRequired[bool]
    "true or false: NetworkPolicies let through only what the services and the mesh need; needs create; default: `false`"


class WorkloadNamespaceInputs(TypedDict):
    cluster: Cluster
    "which cluster: a context, or a kubeconfig seen from the folder of the program"
    namespace: Namespace
    "the namespace, and whether it is this program's own"
    mesh: NotRequired[Mesh]
    "the Istio that the sidecars belong to; unset: mode existing"
    protect: NotRequired[bool]
    "true or false: Pulumi refuses to delete or replace namespaces, the mesh's releases and Services; default: `false`"


class ServiceWorkload(Enum):
    DEPLOYMENT = "Deployment"
    STATEFUL_SET = "StatefulSet"
    DAEMON_SET = "DaemonSet"
    EXISTING = "existing"


class Port(TypedDict):
    "One port of a Service. https://kubernetes.io/docs/concepts/services-networking/service/#multi-port-services"

    port: int
    "a whole number from 1 to 65535"
    targetPort: NotRequired[int]
    "a whole number from 1 to 65535; unset: as port"
    appProtocol: NotRequired[str]
    "a protocol that Istio knows: http, http2, grpc, tcp, …"


class VersionImagePullPolicy(Enum):
    ALWAYS = "Always"
    IF_NOT_PRESENT = "IfNotPresent"
    NEVER = "Never"


class SpreadWhenUnsatisfiable(Enum):
    SCHEDULE_ANYWAY = "ScheduleAnyway"
    DO_NOT_SCHEDULE = "DoNotSchedule"


class Spread(TypedDict):
    "One topologySpreadConstraint over the pods of a version.\n\nhttps://kubernetes.io/docs/concepts/scheduling-eviction/topology-spread-constraints/"

    topologyKey: str
    "a label of the nodes, such as kubernetes.io/hostname"
    maxSkew: NotRequired[int]
    "a whole number, 1 or more; default: `1`"
    whenUnsatisfiable: NotRequired[SpreadWhenUnsatisfiable]
    "ScheduleAnyway or DoNotSchedule; default: `ScheduleAnyway`"


class Version(TypedDict):
    "What runs as one version of a service; a service's `template` holds what all versions of it share, and the\ntop-level one what all services do.\n\n`resources`, the probes and `securityContext` have the shape that Kubernetes gives them in a container:\nhttps://kubernetes.io/docs/reference/kubernetes-api/workload-resources/pod-v1/#Container"

    image: NotRequired[str]
    "an image such as nginx:alpine"
    imagePullPolicy: NotRequired[VersionImagePullPolicy]
    "Always, IfNotPresent or Never"
    command: NotRequired[Sequence[str]]
    "a list of strings"
    args: NotRequired[Sequence[str]]
    "a list of strings"
    env: NotRequired[Mapping[str, Any]]
    "a map of names to values"
    replicas: NotRequired[int]
    "a whole number, 0 or more; unset: Kubernetes' default, or an autoscaler's affair"
    labels: NotRequired[Mapping[str, str]]
    "labels for the pods, beside app and version"
    versionLabel: NotRequired[str]
    "the value of the label version, at most 63 letters, digits, '-', '_' and '.'; unset: the key"
    resources: NotRequired[Mapping[str, Any]]
    "requests and limits"
    readinessProbe: NotRequired[Mapping[str, Any]]
    "a probe; unset: a TCP connect to the first port; {}: none"
    livenessProbe: NotRequired[Mapping[str, Any]]
    "a probe"
    securityContext: NotRequired[Mapping[str, Any]]
    "a container's securityContext"
    writablePaths: NotRequired[Sequence[str]]
    "a list of folders that stay writable with readOnlyRootFilesystem; they are empty in a new pod"
    spread: NotRequired[Sequence[Spread]]
    "a list of ways to spread the pods over the nodes"
    drainSeconds: NotRequired[int]
    "a whole number of seconds from 0 to 3600 in which a stopping pod still answers, while the callers learn that it goes, and for which a version that goes waits for what is in flight; 0: no drain; default: `5`"
    podTemplate: NotRequired[Mapping[str, Any]]
    "a piece of a pod template, {metadata, spec}, laid over the generated one as Kubernetes does it: containers, volumes, env and the like are merged by their names, `null` and `$patch: delete` remove"


class DisruptionBudget(TypedDict):
    "How many pods of each version have to stay while nodes are drained; one of the two.\n\nhttps://kubernetes.io/docs/concepts/workloads/pods/disruptions/#pod-disruption-budgets"

    minAvailable: NotRequired[Any]
    "a whole number of pods, or a percentage such as 50%"
    maxUnavailable: NotRequired[Any]
    "a whole number of pods, or a percentage such as 50%"


class WorkloadInputs(TypedDict):
    workload: NotRequired[ServiceWorkload]
    "Deployment, StatefulSet, DaemonSet, or existing (somebody else owns the pods and the Service; selector, ports and version labels say how to find them); default: `Deployment`"
    selector: NotRequired[Mapping[str, str]]
    "the labels that select the pods; unset: {app: <name>}; cannot change"
    labels: NotRequired[Mapping[str, str]]
    "labels for the objects themselves"
    ports: NotRequired[Mapping[str, Port]]
    "ports by name"
    revision: NotRequired[str]
    "one of mesh.revisions, in the place of mesh.revision"
    template: NotRequired[Version]
    "What runs as one version of a service; a service's `template` holds what all versions of it share, and the top-level one what all services do"
    disruptionBudget: NotRequired[DisruptionBudget]
    "unset: a drain may take all pods at once"
    versions: Mapping[str, Version]
    "at least one version, by name"
    timeout: NotRequired[str]
    "how long the pods may take to get ready, or to go, such as 90s or 5m; default: `5m`"
    cluster: Cluster
    "which cluster: a context, or a kubeconfig seen from the folder of the program"
    namespace: str
    "the namespace of the pods, which is there"
    mesh: NotRequired[Mesh]
    "the Istio that the sidecars belong to; unset: mode existing"
    secrets: NotRequired[pulumi.Input[Mapping[str, pulumi.Input[str]]]]
    "secret values by key, of those that variables of pods name: env: {NAME: {secret: key}}"
    protect: NotRequired[bool]
    "true or false: Pulumi refuses to delete or replace namespaces, the mesh's releases and Services; default: `false`"


class Retries(TypedDict):
    "https://istio.io/latest/docs/reference/config/networking/virtual-service/#HTTPRetry"

    attempts: int
    "a whole number from 0 (none) to 100, beside the first try"
    perTryTimeout: NotRequired[str]
    "a duration such as 250ms, 5s or 1m; unset: as timeout"
    retryOn: NotRequired[Sequence[str]]
    "a list of Envoy's conditions such as 5xx or reset, and of HTTP statuses; unset: Istio's"


class Delay(TypedDict):
    "https://istio.io/latest/docs/reference/config/networking/virtual-service/#HTTPFaultInjection-Delay"

    percentage: NotRequired[float]
    "percent from 0 to 100; default: `100.0`"
    fixedDelay: str
    "a duration such as 250ms, 5s or 1m"


class Abort(TypedDict):
    "https://istio.io/latest/docs/reference/config/networking/virtual-service/#HTTPFaultInjection-Abort"

    percentage: NotRequired[float]
    "percent from 0 to 100; default: `100.0`"
    httpStatus: int
    "an HTTP status from 200 to 599"


class Faults(TypedDict):
    "Faults that the callers' proxies play. Istio has no timeouts and no retries where it plays faults.\n\nhttps://istio.io/latest/docs/tasks/traffic-management/fault-injection/"

    delay: NotRequired[Delay]
    "https://istio.io/latest/docs/reference/config/networking/virtual-service/#HTTPFaultInjection-Delay"
    abort: NotRequired[Abort]
    "https://istio.io/latest/docs/reference/config/networking/virtual-service/#HTTPFaultInjection-Abort"


class Mirror(TypedDict):
    "A copy of the requests goes to a version whose answers nobody gets.\n\nhttps://istio.io/latest/docs/tasks/traffic-management/mirroring/"

    version: str
    "a DNS label (RFC 1123): at most 63 of a-z, 0-9 and '-', not first or last a '-'"
    percentage: NotRequired[float]
    "percent from 0 to 100; default: `100.0`"


class StringMatch(TypedDict):
    "One way to match a text, or its beginning."

    exact: NotRequired[str]
    "the whole text"
    regex: NotRequired[str]
    "an RE2 expression (https://github.com/google/re2/wiki/Syntax) for the whole text, 1 to 1024 characters"
    prefix: NotRequired[str]
    "the beginning of the text"


class WholeMatch(TypedDict):
    "One way to match a whole text; both tell upper from lower case.\n\nhttps://istio.io/latest/docs/reference/config/networking/virtual-service/#StringMatch"

    exact: NotRequired[str]
    "the whole text"
    regex: NotRequired[str]
    "an RE2 expression (https://github.com/google/re2/wiki/Syntax) for the whole text, 1 to 1024 characters"


class Match(TypedDict):
    "A route for some requests, before that for all the others: all conditions must hold.\n\nWhat it leaves out it has from the service's rule.\nhttps://istio.io/latest/docs/reference/config/networking/virtual-service/#HTTPMatchRequest"

    timeout: NotRequired[str]
    "a duration such as 250ms, 5s or 1m for the whole request, retries included; 0s: none"
    retries: NotRequired[Retries]
    "https://istio.io/latest/docs/reference/config/networking/virtual-service/#HTTPRetry"
    faults: NotRequired[Faults]
    "Faults that the callers' proxies play. Istio has no timeouts and no retries where it plays faults"
    mirror: NotRequired[Mirror]
    "A copy of the requests goes to a version whose answers nobody gets"
    weights: NotRequired[Mapping[str, int]]
    "whole numbers from 0 to 100 by version that add up to 100; unset: those of the service"
    name: str
    "a DNS label (RFC 1123): at most 63 of a-z, 0-9 and '-', not first or last a '-'"
    headers: NotRequired[Mapping[str, StringMatch]]
    "header, in small letters → how it matches; {}: it is there"
    uri: NotRequired[StringMatch]
    "One way to match a text, or its beginning"
    method: NotRequired[StringMatch]
    "One way to match a text, or its beginning"
    query: NotRequired[Mapping[str, WholeMatch]]
    "query parameter → how it matches"
    sourceLabels: NotRequired[Mapping[str, str]]
    "labels of the calling pods"


class OutlierDetection(TypedDict):
    "When a pod that fails gets no requests for a while.\n\nIt also makes Istio prefer pods of the caller's own zone.\nhttps://istio.io/latest/docs/reference/config/networking/destination-rule/#OutlierDetection"

    consecutive5xxErrors: NotRequired[int]
    "a whole number, 0 (never) or more; unset: 5"
    consecutiveGatewayErrors: NotRequired[int]
    "a whole number, 0 (never) or more, of 502, 503 and 504; unset: 0"
    interval: NotRequired[str]
    "a duration such as 250ms, 5s or 1m; unset: 10s"
    baseEjectionTime: NotRequired[str]
    "a duration such as 5s or 1m; unset: 30s"
    maxEjectionPercent: NotRequired[int]
    "a whole number from 0 to 100; unset: 10"
    minHealthPercent: NotRequired[int]
    "a whole number from 0 to 100; unset: 0"


class TcpPool(TypedDict):
    "https://istio.io/latest/docs/reference/config/networking/destination-rule/#ConnectionPoolSettings-TCPSettings"

    maxConnections: NotRequired[int]
    "a whole number, 1 or more, for each calling proxy"
    connectTimeout: NotRequired[str]
    "a duration such as 250ms, 5s or 1m"


class HttpPool(TypedDict):
    "https://istio.io/latest/docs/reference/config/networking/destination-rule/#ConnectionPoolSettings-HTTPSettings"

    http1MaxPendingRequests: NotRequired[int]
    "a whole number, 1 or more, of requests that wait"
    http2MaxRequests: NotRequired[int]
    "a whole number, 1 or more, of requests at once, HTTP/1.1 too"
    maxRequestsPerConnection: NotRequired[int]
    "a whole number, 1 or more; 1: no keep-alive"
    maxRetries: NotRequired[int]
    "a whole number, 1 or more, of retries at once"
    idleTimeout: NotRequired[str]
    "a duration such as 250ms, 5s or 1m"


class ConnectionPool(TypedDict):
    "How much a calling proxy asks of the service at once.\n\nhttps://istio.io/latest/docs/reference/config/networking/destination-rule/#ConnectionPoolSettings"

    tcp: NotRequired[TcpPool]
    "https://istio.io/latest/docs/reference/config/networking/destination-rule/#ConnectionPoolSettings-TCPSettings"
    http: NotRequired[HttpPool]
    "https://istio.io/latest/docs/reference/config/networking/destination-rule/#ConnectionPoolSettings-HTTPSettings"


class RuleMtls(Enum):
    STRICT = "STRICT"
    PERMISSIVE = "PERMISSIVE"
    DISABLE = "DISABLE"


class Cookie(TypedDict):
    "https://istio.io/latest/docs/reference/config/networking/destination-rule/#LoadBalancerSettings-ConsistentHashLB-HTTPCookie"

    name: str
    "a token (RFC 9110) such as user"
    ttl: NotRequired[str]
    "how long it lives, such as 1h; 0s: for the session; default: `0s`"
    path: NotRequired[str]
    "a path such as /"


class Sticky(TypedDict):
    "A caller stays with one pod of a version, by a header or by a cookie that the proxy sets.\n\nIstio splits by weight first, so that it does not make a caller stay with a version: a match on a header does.\nhttps://istio.io/latest/docs/reference/config/networking/destination-rule/#LoadBalancerSettings-ConsistentHashLB"

    header: NotRequired[str]
    "a token (RFC 9110) in small letters, such as x-user"
    cookie: NotRequired[Cookie]
    "https://istio.io/latest/docs/reference/config/networking/destination-rule/#LoadBalancerSettings-ConsistentHashLB-HTTPCookie"


class Expose(TypedDict):
    "How requests from outside the cluster get in, under the same rule as those from inside.\n\nhttps://istio.io/latest/docs/tasks/traffic-management/ingress/ingress-control/"

    hosts: Sequence[str]
    "a list of at least one name such as bills.example.com"
    tlsSecret: NotRequired[str]
    "the name of a Secret (kubernetes.io/tls) in the ingress gateway's namespace: https, to which http is sent on; unset: http"
    gateway: NotRequired[str]
    "<namespace>/<name> of a Gateway that is there; unset: one of this service's own"
    port: NotRequired[str]
    "the name of one of the service's ports; unset: its only HTTP port"


class Latency(TypedDict):
    "A limit for each quantile."

    p50: NotRequired[str]
    "a duration such as 250ms, 5s or 1m"
    p90: NotRequired[str]
    "a duration such as 250ms, 5s or 1m"
    p99: NotRequired[str]
    "a duration such as 250ms, 5s or 1m"


class Baseline(TypedDict):
    "How much worse than the old version the new one may be."

    successRate: NotRequired[float]
    "percentage points from 0 to 100 below the old version; 100: no limit; default: `1.0`"
    p50: NotRequired[float]
    "a number, at most so many times the old version's; 0: no limit; default: `0.0`"
    p90: NotRequired[float]
    "a number, at most so many times the old version's; 0: no limit; default: `0.0`"
    p99: NotRequired[float]
    "a number, at most so many times the old version's; 0: no limit; default: `2.0`"


class Gate(TypedDict):
    "What the new version has to show at each step, as its callers see it."

    successRate: NotRequired[float]
    "percent from 0 to 100 of the requests, proved with the confidence below; 0: no limit; default: `99.0`"
    latency: NotRequired[Latency]
    "A limit for each quantile"
    baseline: NotRequired[Baseline]
    "How much worse than the old version the new one may be"
    confidence: NotRequired[float]
    "percent from 50 to below 100; default: `95.0`"
    requests: NotRequired[int]
    "a whole number, 0 or more, of requests at least; 0: as many as the confidence needs; default: `0`"


class Shift(TypedDict):
    "How `mesh shift` goes from the old weights to the new ones."

    steps: NotRequired[Sequence[int]]
    "a list of rising whole numbers from 1 to 100, the last 100: percent of the way; default: `[10, 25, 50, 100]`"
    interval: NotRequired[str]
    "how long each step is watched, such as 90s or 5m; default: `1m`"
    gate: NotRequired[Gate]
    "What the new version has to show at each step, as its callers see it"


class RoutedVersion(TypedDict):
    "What tells the pods of one version from those of the others."

    versionLabel: NotRequired[str]
    "the value of their label version; unset: the key"


class RoutingInputs(TypedDict):
    timeout: NotRequired[str]
    "a duration such as 250ms, 5s or 1m for the whole request, retries included; 0s: none"
    retries: NotRequired[Retries]
    "https://istio.io/latest/docs/reference/config/networking/virtual-service/#HTTPRetry"
    faults: NotRequired[Faults]
    "Faults that the callers' proxies play. Istio has no timeouts and no retries where it plays faults"
    mirror: NotRequired[Mirror]
    "A copy of the requests goes to a version whose answers nobody gets"
    weights: Mapping[str, int]
    "whole numbers from 0 to 100 by version that add up to 100"
    match: NotRequired[Sequence[Match]]
    "routes for some requests, in order"
    outlierDetection: NotRequired[OutlierDetection]
    "When a pod that fails gets no requests for a while"
    connectionPool: NotRequired[ConnectionPool]
    "How much a calling proxy asks of the service at once"
    mtls: NotRequired[RuleMtls]
    "STRICT (mutual TLS only), PERMISSIVE (plain text, too) or DISABLE (plain text only); unset: as the mesh; go from STRICT to DISABLE over PERMISSIVE"
    sticky: NotRequired[Sticky]
    "A caller stays with one pod of a version, by a header or by a cookie that the proxy sets"
    expose: NotRequired[Expose]
    "How requests from outside the cluster get in, under the same rule as those from inside"
    shift: NotRequired[Shift]
    "How `mesh shift` goes from the old weights to the new ones"
    cluster: Cluster
    "which cluster: a context, or a kubeconfig seen from the folder of the program"
    namespace: str
    "the namespace of the Service"
    ports: Mapping[str, Port]
    "the ports of the Service, by name"
    selector: NotRequired[Mapping[str, str]]
    "the labels that select the pods of all versions; unset: {app: <name>}"
    versions: NotRequired[Mapping[str, RoutedVersion]]
    "versions by name; unset: those that have weights"
    mesh: NotRequired[Mesh]
    "the Istio that the sidecars belong to; unset: mode existing"


class Service(TypedDict):
    "One microservice: a Service, a ServiceAccount and one Deployment (or another workload) for each version."

    workload: NotRequired[ServiceWorkload]
    "Deployment, StatefulSet, DaemonSet, or existing (somebody else owns the pods and the Service; selector, ports and version labels say how to find them); default: `Deployment`"
    selector: NotRequired[Mapping[str, str]]
    "the labels that select the pods; unset: {app: <name>}; cannot change"
    labels: NotRequired[Mapping[str, str]]
    "labels for the objects themselves"
    ports: NotRequired[Mapping[str, Port]]
    "ports by name"
    revision: NotRequired[str]
    "one of mesh.revisions, in the place of mesh.revision"
    template: NotRequired[Version]
    "What runs as one version of a service; a service's `template` holds what all versions of it share, and the top-level one what all services do"
    disruptionBudget: NotRequired[DisruptionBudget]
    "unset: a drain may take all pods at once"
    versions: Mapping[str, Version]
    "at least one version, by name"
    timeout: NotRequired[str]
    "how long the pods may take to get ready, or to go, such as 90s or 5m; default: `5m`"


class Rule(TypedDict):
    "How the requests to one service are routed: those that a `match` describes, in its order, then all others."

    timeout: NotRequired[str]
    "a duration such as 250ms, 5s or 1m for the whole request, retries included; 0s: none"
    retries: NotRequired[Retries]
    "https://istio.io/latest/docs/reference/config/networking/virtual-service/#HTTPRetry"
    faults: NotRequired[Faults]
    "Faults that the callers' proxies play. Istio has no timeouts and no retries where it plays faults"
    mirror: NotRequired[Mirror]
    "A copy of the requests goes to a version whose answers nobody gets"
    weights: Mapping[str, int]
    "whole numbers from 0 to 100 by version that add up to 100"
    match: NotRequired[Sequence[Match]]
    "routes for some requests, in order"
    outlierDetection: NotRequired[OutlierDetection]
    "When a pod that fails gets no requests for a while"
    connectionPool: NotRequired[ConnectionPool]
    "How much a calling proxy asks of the service at once"
    mtls: NotRequired[RuleMtls]
    "STRICT (mutual TLS only), PERMISSIVE (plain text, too) or DISABLE (plain text only); unset: as the mesh; go from STRICT to DISABLE over PERMISSIVE"
    sticky: NotRequired[Sticky]
    "A caller stays with one pod of a version, by a header or by a cookie that the proxy sets"
    expose: NotRequired[Expose]
    "How requests from outside the cluster get in, under the same rule as those from inside"
    shift: NotRequired[Shift]
    "How `mesh shift` goes from the old weights to the new ones"


class EgressProtocol(Enum):
    HTTP = "HTTP"
    TLS = "TLS"


class Egress(TypedDict):
    "A host outside the mesh, whose requests leave by the egress gateway.\n\nhttps://istio.io/latest/docs/tasks/traffic-management/egress/egress-gateway/"

    protocol: NotRequired[EgressProtocol]
    "HTTP, or TLS (that of the pods, which the gateway passes through); default: `TLS`"
    port: NotRequired[int]
    "a whole number from 1 to 65535; unset: 80 for HTTP, 443 for TLS"
    addresses: NotRequired[Sequence[str]]
    "a list of IP addresses of the host; unset: those that DNS gives"
    outlierDetection: NotRequired[OutlierDetection]
    "When a pod that fails gets no requests for a while"
    connectionPool: NotRequired[ConnectionPool]
    "How much a calling proxy asks of the service at once"


class ApplicationInputs(TypedDict):
    cluster: Cluster
    "which cluster: a context, or a kubeconfig seen from the folder of the program"
    namespace: NotRequired[Namespace]
    "The namespace of the workloads. https://kubernetes.io/docs/concepts/overview/working-with-objects/namespaces/"
    mesh: NotRequired[Mesh]
    "the Istio that the sidecars belong to; unset: mode existing"
    template: NotRequired[Version]
    "What runs as one version of a service; a service's `template` holds what all versions of it share, and the top-level one what all services do"
    services: Mapping[str, Service]
    "at least one service, by name"
    routing: NotRequired[Mapping[str, Rule]]
    "rules by service"
    egress: NotRequired[Mapping[str, Egress]]
    "hosts outside the mesh by name, such as api.example.com"
    secrets: NotRequired[pulumi.Input[Mapping[str, pulumi.Input[str]]]]
    "secret values by key, of those that variables of pods name: env: {NAME: {secret: key}}"
    protect: NotRequired[bool]
    "true or false: Pulumi refuses to delete or replace namespaces, the mesh's releases and Services; default: `false`"


class GuardInputs(TypedDict):
    cluster: Cluster
    "which cluster: a context, or a kubeconfig seen from the folder of the program"
    mesh: NotRequired[Mesh]
    "the Istio that the sidecars belong to; unset: mode existing"
    protect: NotRequired[bool]
    "true or false: Pulumi refuses to delete or replace namespaces, the mesh's releases and Services; default: `false`"
