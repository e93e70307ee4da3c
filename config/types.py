"""The types that several parts of the schema share, and the base of its models."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PlainValidator
from pydantic.alias_generators import to_camel


def seconds(duration: str) -> float:
    """How long a `Duration` or `Milliseconds` is: `1m30s` → 90.0."""
    units = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}
    return sum(int(number) * units[unit] for number, unit in re.findall(r"([0-9]+)(ms|h|m|s)", duration))


def _more_than_none(duration: str) -> str:
    if not seconds(duration):
        raise ValueError("it has to be longer than nothing")
    return duration


PERCENTAGE = r"^(100|[0-9]{1,2})%$"


def _pod_count(value: object) -> int | str:
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    if isinstance(value, str) and re.match(PERCENTAGE, value):
        return value
    raise ValueError("neither a number of pods nor a percentage")


DNS_LABEL = r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$"
SERVICE_NAME = r"^[a-z]([-a-z0-9]{0,61}[a-z0-9])?$"
PORT_NAME = r"^[a-z]([-a-z0-9]{0,13}[a-z0-9])?$"
REVISION_NAME = r"^[a-z0-9]([-a-z0-9]{0,44}[a-z0-9])?$"

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
RevisionName = Annotated[
    str,
    Field(
        pattern=REVISION_NAME,
        description="a DNS label (RFC 1123) of at most 46 characters, as Helm allows a release istiod-<revision> 53",
    ),
]
PortNumber = Annotated[int, Field(ge=1, le=65535, description="a whole number from 1 to 65535")]
Weight = Annotated[int, Field(ge=0, le=100, description="a whole number from 0 to 100")]
Percentage = Annotated[float, Field(ge=0, le=100, allow_inf_nan=False, description="percent from 0 to 100")]
Count = Annotated[int, Field(ge=1, description="a whole number, 1 or more")]
Replicas = Annotated[int, Field(ge=0, description="a whole number, 0 or more")]
PodCount = Annotated[
    int | str,
    # One check for both, as a union would tell of one wrong value twice.
    PlainValidator(
        _pod_count,
        json_schema_input_type=Annotated[int, Field(ge=0)] | Annotated[str, Field(pattern=PERCENTAGE)],
    ),
]
AbsolutePath = Annotated[str, Field(pattern=r"^/[^:]+$", description="an absolute path, such as /tmp")]
Seconds = Annotated[int, Field(ge=0, le=3600, description="a whole number of seconds from 0 to 3600")]
Duration = Annotated[
    str,
    Field(min_length=1, pattern=r"^([0-9]+h)?([0-9]+m)?([0-9]+s)?$", description="a duration such as 90s, 5m or 1h"),
]
_MILLISECONDS = Field(
    min_length=2,
    pattern=r"^([0-9]+h)?([0-9]+m)?([0-9]+s)?([0-9]+ms)?$",
    description="a duration such as 250ms, 5s or 1m",
)
MillisecondsOrNone = Annotated[str, _MILLISECONDS]
Milliseconds = Annotated[str, _MILLISECONDS, AfterValidator(_more_than_none)]
PortName = Annotated[
    str,
    Field(
        pattern=PORT_NAME,
        description="a port name (RFC 6335): at most 15 of a-z, 0-9 and '-', first a letter, last no '-'",
    ),
]
Host = Annotated[
    str,
    Field(
        pattern=r"^([a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?\.)+[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$",
        max_length=253,
        description="a full DNS name (RFC 1123) in small letters, such as bills.example.com",
    ),
]
NamespacedName = Annotated[
    str,
    Field(
        pattern=r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?/[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$",
        description="<namespace>/<name>",
    ),
]
ObjectName = Annotated[
    str,
    Field(
        pattern=r"^[A-Z][A-Za-z0-9]* [a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?/[a-z0-9]([-.a-z0-9]{0,251}[a-z0-9])?$",
        description="<Kind> <namespace>/<name>",
    ),
]
HeaderName = Annotated[
    str,
    Field(
        pattern=r"^[a-z0-9!#$%&'*+.^_`|~-]+$",
        description="a token (RFC 9110) in small letters, such as x-user",
    ),
]
CookieName = Annotated[
    str, Field(pattern=r"^[A-Za-z0-9!#$%&'*+.^_`|~-]+$", description="a token (RFC 9110) such as user")
]
LabelValue = Annotated[
    str,
    Field(
        pattern=r"^([A-Za-z0-9]([-_.A-Za-z0-9]{0,61}[A-Za-z0-9])?)?$",
        description="a label's value: at most 63 letters, digits, '-', '_' and '.', first and last a letter or digit",
    ),
]
EnvName = Annotated[
    str,
    Field(
        pattern=r"^[-._a-zA-Z][-._a-zA-Z0-9]*$",
        description="a variable's name that every Kubernetes takes: letters, digits, '-', '_' and '.', first no digit",
    ),
]
SecretName = Annotated[
    str,
    Field(
        pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$",
        max_length=253,
        description="the name of a Secret in the workloads' namespace: a DNS name (RFC 1123) in small letters",
    ),
]
SecretDataKey = Annotated[
    str,
    Field(
        pattern=r"^[-._a-zA-Z0-9]+$",
        max_length=253,
        description="a key in it: letters, digits, '-', '_' and '.'",
    ),
]
CONFIG_KEY = r"^[a-zA-Z][-_a-zA-Z0-9]*$"
ConfigKey = Annotated[
    str,
    Field(
        pattern=CONFIG_KEY,
        max_length=253,
        description="the key of a secret, such as dbPassword: a top-level one of the stack file, or one of the "
        "`secrets` of a component",
    ),
]
# What stands in the place of a secret value: nothing but Pulumi and the resources that need it get to see it.
SECRET = "[secret]"  # noqa: S105
SecretKey = Literal["", "[secret]"]


def stand_in(text: str) -> str:
    """In the place of a secret value where a change of it is to be seen: another one for another `text`."""
    return f"[secret {hashlib.sha256(text.encode()).hexdigest()[:7]}]"


def is_hidden(value: object) -> bool:
    """Whether `value` stands for a secret one: `[secret]`, or `[secret …]` where a change of it is to be seen."""
    return isinstance(value, str) and value.startswith("[secret")


Labels = Mapping[str, LabelValue]
# A file knows lists only; frozen models want tuples.
Strings = Annotated[tuple[str, ...], Field(strict=False)]


class Model(BaseModel):
    """Keys are camelCase in files; unknown ones are errors; values are never coerced."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, alias_generator=to_camel, populate_by_name=True)
