"""How the requests to a service are routed."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import Field

from config.types import Model, Weight


class Rule(Model):
    """How the requests to one service are split. https://istio.io/latest/docs/reference/config/networking/virtual-service/"""

    weights: Mapping[str, Weight] = Field(
        min_length=1, description="whole numbers from 0 to 100 by version that add up to 100"
    )
