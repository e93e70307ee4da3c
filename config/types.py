"""The types that several parts of the schema share, and the base of its models."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

DNS_LABEL = r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$"
SERVICE_NAME = r"^[a-z]([-a-z0-9]{0,61}[a-z0-9])?$"

DnsLabel = Annotated[
    str,
    Field(
        pattern=DNS_LABEL,
        description="a DNS label (RFC 1123): at most 63 of a-z, 0-9 and '-', not first or last a '-'",
    ),
]
ServiceName = Annotated[
    str,
    Field(
        pattern=SERVICE_NAME,
        description="a DNS label (RFC 1123) that starts with a letter, as Kubernetes asks of a Service's name",
    ),
]
PortNumber = Annotated[int, Field(ge=1, le=65535, description="a whole number from 1 to 65535")]
Weight = Annotated[int, Field(ge=0, le=100, description="a whole number from 0 to 100")]
Replicas = Annotated[int, Field(ge=0, description="a whole number, 0 or more")]
Seconds = Annotated[int, Field(ge=0, le=3600, description="a whole number of seconds from 0 to 3600")]
Duration = Annotated[
    str,
    Field(min_length=1, pattern=r"^([0-9]+h)?([0-9]+m)?([0-9]+s)?$", description="a duration such as 90s, 5m or 1h"),
]
PortName = Annotated[
    str,
    Field(
        pattern=r"^[a-z]([-a-z0-9]{0,13}[a-z0-9])?$",
        description="a port name (RFC 6335): at most 15 of a-z, 0-9 and '-', first a letter, last no '-'",
    ),
]
LabelValue = Annotated[
    str,
    Field(
        pattern=r"^([A-Za-z0-9]([-_.A-Za-z0-9]{0,61}[A-Za-z0-9])?)?$",
        description="a label's value: at most 63 letters, digits, '-', '_' and '.', first and last a letter or digit",
    ),
]
Labels = Mapping[str, LabelValue]
# A file knows lists only; frozen models want tuples.
Strings = Annotated[tuple[str, ...], Field(strict=False)]


class Model(BaseModel):
    """Keys are camelCase in files; unknown ones are errors; values are never coerced."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, alias_generator=to_camel, populate_by_name=True)
