"""The kinds of values that rule files are made of: durations, rates, names, lists of one or more."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, WithJsonSchema

from penstock.automations.durations import Rate, format_duration, parse_duration, parse_rate

SECOND = 1_000_000
MINUTE = 60 * SECOND
HOUR = 60 * MINUTE

_DURATION_SCHEMA = {"type": "string", "pattern": r"^(\d+(ms|us|[dhms]))+$", "examples": ["30s", "5m", "1h30m"]}
_RATE_SCHEMA = {
    "type": "string",
    "pattern": r"^(\d+/(\d+(ms|us|[dhms]))+|unlimited)$",
    "examples": ["10/1s", "unlimited"],
}

Duration = Annotated[
    int,
    BeforeValidator(parse_duration),
    PlainSerializer(format_duration, return_type=str),
    WithJsonSchema(_DURATION_SCHEMA),
]
PositiveDuration = Annotated[Duration, Field(gt=0)]
RateLimit = Annotated[
    Rate | None,
    BeforeValidator(parse_rate),
    PlainSerializer(lambda rate: str(rate) if rate else "unlimited", return_type=str),
    WithJsonSchema(_RATE_SCHEMA),
]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?$", max_length=100)]
ResourceName = Annotated[str, Field(pattern=r"^[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?$", max_length=100)]
Identifier = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$", max_length=100)]
Text = Annotated[str, Field(min_length=1)]
Person = Annotated[str, Field(pattern=r"^user/.+$")]
Approver = Annotated[str, Field(pattern=r"^(user|group)/.+$")]


def _one_or_more(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


def listing(value: Any) -> Any:
    """A tuple is what strict pydantic takes for a tuple; YAML has lists."""
    return tuple(value) if isinstance(value, list) else value


OneOrMore = Annotated[
    tuple[Text, ...],
    Field(min_length=1),
    BeforeValidator(listing),
    BeforeValidator(_one_or_more),
    WithJsonSchema({"oneOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}, "minItems": 1}]}),
]
Names = Annotated[
    tuple[Text, ...], BeforeValidator(listing), WithJsonSchema({"type": "array", "items": {"type": "string"}})
]
Approvers = Annotated[
    tuple[Approver, ...],
    Field(min_length=1),
    BeforeValidator(listing),
    WithJsonSchema({"type": "array", "items": {"type": "string", "pattern": "^(user|group)/.+$"}, "minItems": 1}),
]


class Keys(BaseModel):
    """A mapping of a rule file: unknown keys are refused, kinds are not converted."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, populate_by_name=False)
    later: ClassVar[frozenset[str]] = frozenset()
