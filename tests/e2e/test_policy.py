"""The policy pack, run by Pulumi (through its stand-in for the language host) in a preview on the cluster."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest

from harness.policy import stand_in_pack
from harness.stack import PulumiError, Stack
from localcluster import EmbeddedCluster


@pytest.fixture(scope="module", params=["test-policy", "prod-policy"])
def environment(
    request: pytest.FixtureRequest, cluster: EmbeddedCluster, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Stack, Path]:
    """A stack that is only previewed, by its name in production or not, and the pack."""
    stack = Stack(request.param, tmp_path_factory.mktemp(request.param), cluster.environment)
    stack.select()
    return stack, stand_in_pack(stack)


def test_levels_depend_on_the_environment(environment: tuple[Stack, Path], config: dict[str, Any]) -> None:
    stack, pack = environment
    wrong = copy.deepcopy(config)
    wrong["services"]["front-tomcat"]["versions"]["v1"]["image"] = "localhost/istio-governance/nginx:latest"
    stack.configure(wrong)
    if stack.name.startswith("prod"):
        with pytest.raises(PulumiError) as refused:
            stack.pulumi("preview", f"--policy-pack={pack}")
        printed = refused.value.output
        assert "[mandatory]" in printed and "images-are-pinned" in printed
        return
    printed = stack.pulumi("preview", f"--policy-pack={pack}")
    assert "[advisory]" in printed and "images-are-pinned-advice" in printed
    assert "may be another one tomorrow: give it a tag or a digest" in printed
    assert "[mandatory]" not in printed


def test_what_is_mandatory_everywhere_stops_a_preview(environment: tuple[Stack, Path], config: dict[str, Any]) -> None:
    stack, pack = environment
    wrong = copy.deepcopy(config)
    wrong["services"]["front-tomcat"]["template"] = {"securityContext": {"privileged": True}}
    stack.configure(wrong)
    with pytest.raises(PulumiError) as refused:
        stack.pulumi("preview", f"--policy-pack={pack}")
    assert "only node preparation may" in refused.value.output
