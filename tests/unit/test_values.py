"""The Helm values of every supported version: only what its charts read, and what the profile means there."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from config.versions import NEWEST_MINOR, OLDEST_MINOR, minor
from istio import paths
from istio.charts import charts
from istio.paths import PATHS, ChartName

from .given import config

MINORS = [f"1.{number}" for number in range(minor(f"{OLDEST_MINOR}.0")[1], minor(f"{NEWEST_MINOR}.0")[1] + 1)]
CHARTS: Mapping[str, ChartName] = {
    "base": "base",
    "istiod": "istiod",
    "cni": "cni",
    "ingress": "gateway",
    "egress": "gateway",
}
EVERYTHING: Mapping[str, Any] = {
    "egress": True,
    "ingress": True,
    "hub": "example.com/istio",
    "imagePullSecrets": ["pull"],
    "images": {name: f"example.com/{name}@sha256:0" for name in ("pilot", "proxyv2", "install-cni")},
}


def values(version: str | None, **mesh: Any) -> dict[str, Any]:
    """The values by chart key."""
    return {chart.key: dict(chart.values) for chart in charts(config(mesh={"version": version, **mesh}).mesh)}


def leaves(value: Any, path: str = "") -> Iterator[str]:
    if isinstance(value, Mapping) and value:
        for key, inner in value.items():
            yield from leaves(inner, f"{path}.{key}" if path else key)
    else:
        yield path


@pytest.mark.parametrize("profile", ["default", "minimal", "demo"])
@pytest.mark.parametrize("version", [f"{name}.0" for name in MINORS])
def test_values_lie_on_paths_that_the_charts_of_the_version_read(version: str, profile: str) -> None:
    canary = {"version": None, "revision": "canary", "revisions": {"canary": {"version": version}}}
    for mesh in ({}, {"cni": False}, EVERYTHING, canary):
        for key, generated in values(**{"version": version, "profile": profile, **mesh}).items():
            unknown = [path for path in leaves(generated) if not paths.has(CHARTS[key], path, version)]
            assert not unknown, (key, mesh)


@pytest.mark.parametrize("version", [f"{name}.0" for name in MINORS if minor(f"{name}.0") >= paths.PLATFORMS])
def test_aks_is_kept_from_the_webhooks_and_is_no_platform_of_the_charts(version: str) -> None:
    found = values(version, platform="aks", profile="demo", values={"istiod": {"sidecarInjectorWebhookAnnotations": A}})
    unknown = [path for path in leaves(found["istiod"]) if not paths.has("istiod", path, version)]
    assert unknown == []
    assert found["istiod"]["sidecarInjectorWebhookAnnotations"] == {"admissions.enforcer/disabled": "true", **A}
    assert "platform" not in found["istiod"]["global"] and "platform" not in found["cni"]["global"]


A = {"example.com/own": "yes"}


def test_every_known_path_has_its_source_and_its_time() -> None:
    for known in (path for chart in PATHS.values() for path in chart):
        assert known.source
        assert known.since in MINORS
        assert known.until in MINORS


def test_istio_1_17_1_gets_demo_s_values_one_by_one() -> None:
    given = values("1.17.1", profile="demo")
    small = {"requests": {"cpu": "10m", "memory": "40Mi"}}
    assert given["istiod"] == {
        "global": {
            "hub": "docker.io/istio",
            "tag": "1.17.1",
            "istioNamespace": "istio-system",
            "proxy": {"resources": small},
        },
        "istio_cni": {"enabled": True},
        "meshConfig": {
            "accessLogFile": "/dev/stdout",
            "defaultConfig": {"proxyMetadata": {}},
            "extensionProviders": [
                {
                    "name": "otel",
                    "envoyOtelAls": {
                        "service": "opentelemetry-collector.istio-system.svc.cluster.local",
                        "port": 4317,
                    },
                },
                {
                    "name": "skywalking",
                    "skywalking": {"service": "tracing.istio-system.svc.cluster.local", "port": 11800},
                },
            ],
        },
        "pilot": {
            "autoscaleEnabled": False,
            "traceSampling": 100,
            "resources": {"requests": {"cpu": "10m", "memory": "100Mi"}},
        },
    }
    assert given["cni"] == {"global": {"hub": "docker.io/istio", "tag": "1.17.1"}}
    assert given["base"] == {"global": {"istioNamespace": "istio-system"}}
    assert given["ingress"] == {
        "serviceAccount": {"name": "istio-ingressgateway-service-account"},
        "service": {
            "type": "LoadBalancer",
            "ports": [
                {"name": name, "port": port, "targetPort": target, "protocol": "TCP"}
                for name, port, target in (
                    ("status-port", 15021, 15021),
                    ("http2", 80, 8080),
                    ("https", 443, 8443),
                    ("tcp", 31400, 31400),
                    ("tls", 15443, 15443),
                )
            ],
        },
        "imagePullPolicy": "IfNotPresent",
        "podAnnotations": given["ingress"]["podAnnotations"],
        "autoscaling": {"enabled": False},
        "resources": small,
    }


@pytest.mark.parametrize(
    ("version", "providers"),
    [
        ("1.17.8", ["otel", "skywalking"]),
        ("1.18.0", ["otel", "skywalking", "otel-tracing"]),
        ("1.20.8", ["otel", "skywalking", "otel-tracing"]),
        ("1.21.0", None),
    ],
)
def test_charts_without_profiles_get_the_mesh_config_of_demo(version: str, providers: list[str] | None) -> None:
    istiod = values(version, profile="demo")["istiod"]
    assert istiod.get("profile") == (None if providers else "demo")
    given = istiod.get("meshConfig", {}).get("extensionProviders")
    assert providers == (given and [provider["name"] for provider in given])


@pytest.mark.parametrize("cni", [True, False])
@pytest.mark.parametrize(
    ("version", "path"),
    [
        ("1.21.6", ("istio_cni", "enabled")),
        ("1.22.0", ("pilot", "cni", "enabled")),
        ("1.23.6", ("pilot", "cni", "enabled")),
        ("1.24.0", ("cni", "enabled")),
    ],
)
def test_istiod_is_told_of_the_cni_where_its_version_looks(version: str, path: tuple[str, ...], cni: bool) -> None:
    found: Any = values(version, cni=cni)["istiod"]
    for key in path:
        found = found[key]
    assert found is cni


@pytest.mark.parametrize("version", ["1.17.1", "1.23.6", "1.24.0", "1.31.0"])
def test_images_by_digest_take_the_place_of_those_in_the_hub(version: str) -> None:
    images = {name: f"example.com/{name}@sha256:0" for name in ("pilot", "proxyv2", "install-cni")}
    given = values(version, images=images)
    nested = minor(version) < (1, 24)
    assert (given["istiod"]["pilot"] if nested else given["istiod"])["image"] == images["pilot"]
    assert (given["cni"]["cni"] if nested else given["cni"])["image"] == images["install-cni"]
    for proxy in ("proxy", "proxy_init"):
        assert given["istiod"]["global"][proxy] == {"image": images["proxyv2"]}
