"""How the requests to a service are routed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field

from config.types import (
    CookieName,
    Count,
    DnsLabel,
    Duration,
    HeaderName,
    Host,
    Labels,
    Milliseconds,
    MillisecondsOrNone,
    Model,
    NamespacedName,
    Percentage,
    PortName,
    PortNumber,
    Strings,
    Weight,
)

_RETRY_ON = (
    "5xx|gateway-error|reset|reset-before-request|connect-failure|envoy-ratelimited|retriable-4xx|refused-stream|"
    "retriable-status-codes|retriable-headers|http3-post-connect-failure|cancelled|deadline-exceeded|internal|"
    "resource-exhausted|unavailable|[1-5][0-9][0-9]"
)
RetryCondition = Annotated[
    str,
    Field(
        pattern=f"^({_RETRY_ON})$",
        description="one of Envoy's conditions such as 5xx, reset or connect-failure, or an HTTP status",
    ),
]
Step = Annotated[int, Field(ge=1, le=100, description="a whole number from 1 to 100")]
Times = Annotated[
    float,
    Field(ge=0, allow_inf_nan=False, description="a number, at most so many times the old version's; 0: no limit"),
]


class WholeMatch(Model):
    """One way to match a whole text; both tell upper from lower case.

    https://istio.io/latest/docs/reference/config/networking/virtual-service/#StringMatch
    """

    exact: str | None = Field(None, description="the whole text")
    regex: str | None = Field(
        None,
        min_length=1,
        max_length=1024,
        description="an RE2 expression (https://github.com/google/re2/wiki/Syntax) for the whole text, "
        "1 to 1024 characters",
    )


class StringMatch(WholeMatch):
    """One way to match a text, or its beginning."""

    prefix: str | None = Field(None, min_length=1, description="the beginning of the text")


class Delay(Model):
    """https://istio.io/latest/docs/reference/config/networking/virtual-service/#HTTPFaultInjection-Delay"""

    percentage: Percentage = 100.0
    fixed_delay: Milliseconds


class Abort(Model):
    """https://istio.io/latest/docs/reference/config/networking/virtual-service/#HTTPFaultInjection-Abort"""

    percentage: Percentage = 100.0
    http_status: int = Field(ge=200, le=599, description="an HTTP status from 200 to 599")


class Faults(Model):
    """Faults that the callers' proxies play. Istio has no timeouts and no retries where it plays faults.

    https://istio.io/latest/docs/tasks/traffic-management/fault-injection/
    """

    delay: Delay | None = None
    abort: Abort | None = None


class Retries(Model):
    """https://istio.io/latest/docs/reference/config/networking/virtual-service/#HTTPRetry"""

    attempts: int = Field(ge=0, le=100, description="a whole number from 0 (none) to 100, beside the first try")
    per_try_timeout: Milliseconds | None = Field(
        None, description="a duration such as 250ms, 5s or 1m; unset: as timeout"
    )
    retry_on: tuple[RetryCondition, ...] = Field(
        (),
        strict=False,
        description="a list of Envoy's conditions such as 5xx or reset, and of HTTP statuses; unset: Istio's",
    )


class Mirror(Model):
    """A copy of the requests goes to a version whose answers nobody gets.

    https://istio.io/latest/docs/tasks/traffic-management/mirroring/
    """

    version: DnsLabel
    percentage: Percentage = 100.0


class Route(Model):
    """What happens to requests on their way to the versions.

    https://istio.io/latest/docs/reference/config/networking/virtual-service/#HTTPRoute
    """

    timeout: MillisecondsOrNone | None = Field(
        None, description="a duration such as 250ms, 5s or 1m for the whole request, retries included; 0s: none"
    )
    retries: Retries | None = None
    faults: Faults | None = None
    mirror: Mirror | None = None
    weights: Mapping[str, Weight] = Field(
        default_factory=dict,
        description="whole numbers from 0 to 100 by version that add up to 100; unset: those of the service",
    )

    @property
    def copies(self) -> Mirror | None:
        """The mirror, where it gets any copy."""
        return self.mirror if self.mirror and self.mirror.percentage else None


class Match(Route):
    """A route for some requests, before that for all the others: all conditions must hold.

    What it leaves out it has from the service's rule.
    https://istio.io/latest/docs/reference/config/networking/virtual-service/#HTTPMatchRequest
    """

    name: DnsLabel
    headers: Mapping[HeaderName, StringMatch] = Field(
        default_factory=dict, description="header, in small letters → how it matches; {}: it is there"
    )
    uri: StringMatch | None = None
    method: StringMatch | None = None
    query: Mapping[str, WholeMatch] = Field(default_factory=dict, description="query parameter → how it matches")
    source_labels: Labels = Field(default_factory=dict, description="labels of the calling pods")


class TcpPool(Model):
    """https://istio.io/latest/docs/reference/config/networking/destination-rule/#ConnectionPoolSettings-TCPSettings"""

    max_connections: Count | None = Field(None, description="a whole number, 1 or more, for each calling proxy")
    connect_timeout: Milliseconds | None = None


class HttpPool(Model):
    """https://istio.io/latest/docs/reference/config/networking/destination-rule/#ConnectionPoolSettings-HTTPSettings"""

    http1_max_pending_requests: Count | None = Field(
        None, alias="http1MaxPendingRequests", description="a whole number, 1 or more, of requests that wait"
    )
    http2_max_requests: Count | None = Field(
        None, alias="http2MaxRequests", description="a whole number, 1 or more, of requests at once, HTTP/1.1 too"
    )
    max_requests_per_connection: Count | None = Field(None, description="a whole number, 1 or more; 1: no keep-alive")
    max_retries: Count | None = Field(None, description="a whole number, 1 or more, of retries at once")
    idle_timeout: Milliseconds | None = None


class ConnectionPool(Model):
    """How much a calling proxy asks of the service at once.

    https://istio.io/latest/docs/reference/config/networking/destination-rule/#ConnectionPoolSettings
    """

    tcp: TcpPool = TcpPool()
    http: HttpPool = HttpPool()


class OutlierDetection(Model):
    """When a pod that fails gets no requests for a while.

    It also makes Istio prefer pods of the caller's own zone.
    https://istio.io/latest/docs/reference/config/networking/destination-rule/#OutlierDetection
    """

    consecutive_5xx_errors: int | None = Field(
        None, ge=0, alias="consecutive5xxErrors", description="a whole number, 0 (never) or more; unset: 5"
    )
    consecutive_gateway_errors: int | None = Field(
        None, ge=0, description="a whole number, 0 (never) or more, of 502, 503 and 504; unset: 0"
    )
    interval: Milliseconds | None = Field(None, description="a duration such as 250ms, 5s or 1m; unset: 10s")
    base_ejection_time: Milliseconds | None = Field(None, description="a duration such as 5s or 1m; unset: 30s")
    max_ejection_percent: Weight | None = Field(None, description="a whole number from 0 to 100; unset: 10")
    min_health_percent: Weight | None = Field(None, description="a whole number from 0 to 100; unset: 0")


class Cookie(Model):
    """https://istio.io/latest/docs/reference/config/networking/destination-rule/#LoadBalancerSettings-ConsistentHashLB-HTTPCookie"""

    name: CookieName
    ttl: MillisecondsOrNone = Field("0s", description="how long it lives, such as 1h; 0s: for the session")
    path: str | None = Field(None, pattern="^/", description="a path such as /")


class Sticky(Model):
    """A caller stays with one pod of a version, by a header or by a cookie that the proxy sets.

    Istio splits by weight first, so that it does not make a caller stay with a version: a match on a header does.
    https://istio.io/latest/docs/reference/config/networking/destination-rule/#LoadBalancerSettings-ConsistentHashLB
    """

    header: HeaderName | None = None
    cookie: Cookie | None = None


class Expose(Model):
    """How requests from outside the cluster get in, under the same rule as those from inside.

    https://istio.io/latest/docs/tasks/traffic-management/ingress/ingress-control/
    """

    hosts: tuple[Host, ...] = Field(
        strict=False, min_length=1, description="a list of at least one name such as bills.example.com"
    )
    tls_secret: DnsLabel | None = Field(
        None,
        description="the name of a Secret (kubernetes.io/tls) in the ingress gateway's namespace: https, to which http "
        "is sent on; unset: http",
    )
    gateway: NamespacedName | None = Field(
        None, description="<namespace>/<name> of a Gateway that is there; unset: one of this service's own"
    )
    port: PortName | None = Field(None, description="the name of one of the service's ports; unset: its only HTTP port")


class Latency(Model):
    """A limit for each quantile."""

    p50: Milliseconds | None = None
    p90: Milliseconds | None = None
    p99: Milliseconds | None = None


class Baseline(Model):
    """How much worse than the old version the new one may be."""

    success_rate: Percentage = Field(
        1.0, description="percentage points from 0 to 100 below the old version; 100: no limit"
    )
    p50: Times = 0.0
    p90: Times = 0.0
    p99: Times = 2.0


class Gate(Model):
    """What the new version has to show at each step, as its callers see it."""

    success_rate: Percentage = Field(
        99.0, description="percent from 0 to 100 of the requests, proved with the confidence below; 0: no limit"
    )
    latency: Latency = Latency()
    baseline: Baseline = Baseline()
    confidence: float = Field(95.0, ge=50, lt=100, allow_inf_nan=False, description="percent from 50 to below 100")
    requests: int = Field(
        0, ge=0, description="a whole number, 0 or more, of requests at least; 0: as many as the confidence needs"
    )


class Shift(Model):
    """How `mesh shift` goes from the old weights to the new ones."""

    steps: tuple[Step, ...] = Field(
        (10, 25, 50, 100),
        strict=False,
        min_length=1,
        description="a list of rising whole numbers from 1 to 100, the last 100: percent of the way",
    )
    interval: Duration = Field("1m", description="how long each step is watched, such as 90s or 5m")
    gate: Gate = Gate()


class Rule(Route):
    """How the requests to one service are routed: those that a `match` describes, in its order, then all others."""

    weights: Mapping[str, Weight] = Field(
        min_length=1, description="whole numbers from 0 to 100 by version that add up to 100"
    )
    match: tuple[Match, ...] = Field((), strict=False, description="routes for some requests, in order")
    outlier_detection: OutlierDetection | None = None
    connection_pool: ConnectionPool | None = None
    mtls: Literal["STRICT", "PERMISSIVE", "DISABLE"] | None = Field(
        None,
        description="STRICT (mutual TLS only), PERMISSIVE (plain text, too) or DISABLE (plain text only); "
        "unset: as the mesh; go from STRICT to DISABLE over PERMISSIVE",
    )
    sticky: Sticky | None = None
    expose: Expose | None = None
    shift: Shift = Shift()


class Egress(Model):
    """A host outside the mesh, whose requests leave by the egress gateway.

    https://istio.io/latest/docs/tasks/traffic-management/egress/egress-gateway/
    """

    protocol: Literal["HTTP", "TLS"] = Field(
        "TLS", description="HTTP, or TLS (that of the pods, which the gateway passes through)"
    )
    port: PortNumber | None = Field(None, description="a whole number from 1 to 65535; unset: 80 for HTTP, 443 for TLS")
    addresses: Strings = Field((), description="a list of IP addresses of the host; unset: those that DNS gives")
    outlier_detection: OutlierDetection | None = None
    connection_pool: ConnectionPool | None = None

    @property
    def target(self) -> int:
        return self.port or {"HTTP": 80, "TLS": 443}[self.protocol]
