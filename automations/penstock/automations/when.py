"""The shape of `when`: nine forms in one mapping, told apart by the key that names them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import date
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import AfterValidator, BeforeValidator, Field, PlainValidator, WithJsonSchema
from pydantic_core import PydanticCustomError

from penstock.automations.cron import check_cron
from penstock.automations.kinds import SECOND, Duration, Keys, OneOrMore, PositiveDuration, Text, listing
from penstock.automations.recurrence import check_rrule

FORMS = ("absent", "sequence", "all", "any", "at_least", "metric", "changed", "schedule", "event")
OUTERMOST = ("order", "lateness", "late", "grace")
# beside the key that names the form
BESIDE: Mapping[str, frozenset[str]] = {
    "event": frozenset(["where", "per", "count", "within"]),
    "absent": frozenset(["after", "within", "per"]),
    "sequence": frozenset(["within", "per"]),
    "all": frozenset(["within", "per"]),
    "any": frozenset(["within", "per"]),
    "at_least": frozenset(["of", "within", "per"]),
    "metric": frozenset(["event", "where", "per"]),
    "changed": frozenset(["event", "where", "per", "from", "to", "for"]),
    "schedule": frozenset(),
}

_DATE = re.compile(r"\d{4}-\d\d-\d\d\Z", re.ASCII)


def check_timezone(name: str) -> str:
    """The name, if it is one of a time zone.  Raises ValueError."""
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError(f"{name!r} is no time zone; write e.g. `UTC` or `Europe/Vienna`") from None
    return name


def _check_date(text: str) -> str:
    try:
        if _DATE.match(text):
            date.fromisoformat(text)
            return text
    except ValueError:
        pass
    raise ValueError(f"{text!r} is no date; write e.g. `2026-12-25`")


def _catch_up(value: Any) -> Any:
    return {True: "all", False: "none"}[value] if isinstance(value, bool) else value


def _number(value: Any) -> int | float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise PydanticCustomError("float_type", "Input should be a valid number")
    return value


Date = Annotated[str, AfterValidator(_check_date), WithJsonSchema({"type": "string", "format": "date"})]
Dates = Annotated[tuple[Date, ...], BeforeValidator(listing)]
Weekday = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
Weekdays = Annotated[tuple[Weekday, ...], Field(min_length=1), BeforeValidator(listing)]
Zone = Annotated[str, AfterValidator(check_timezone)]
CatchUp = Annotated[
    Literal["all", "latest", "none"],
    BeforeValidator(_catch_up),
    WithJsonSchema({"enum": ["all", "latest", "none", True, False]}),
]
Number = Annotated[int | float, PlainValidator(_number), WithJsonSchema({"type": "number"})]


class Selection(Keys):
    """Events of a kind."""

    event: OneOrMore = Field(description="Event type, or a list of types; `*` is any run of characters.")
    where: dict[str, Any] | None = Field(None, description="An EventBridge pattern over the event.")
    per: OneOrMore | None = Field(None, description="Where these events carry the key; none: as beside them.")


class MetricModel(Keys):
    """A statistic over a sliding window, compared with a threshold."""

    value: Text = Field(description="The path of the samples from the event's root: `data.celsius`.")
    over: PositiveDuration = Field(description="The window: samples of the last so long.")
    stat: Literal["avg", "min", "max", "sum", "count", "rate", "p50", "p95", "p99", "delta"] = Field(
        description="The statistic; rate: samples a second; delta: newest less oldest."
    )
    op: Literal[">", ">=", "<", "<="] = Field(description="How it is compared.")
    threshold: Number = Field(description="With what.")
    for_: Duration = Field(0, alias="for", description="How long it must have held.")
    clear: Number | None = Field(None, description="It resolves strictly past this; none: once it holds no more.")


class Calendar(Keys):
    """The days on which a schedule is due, in its time zone."""

    weekdays: Weekdays | None = Field(None, description="Only on these days of the week; none: on all.")
    only: Dates | None = Field(None, description="Only on these dates; none: on all.")
    except_: Dates = Field((), alias="except", description="Not on these dates.")


class ScheduleModel(Keys):
    """Due times: exactly one of `cron`, `every` and `rrule`."""

    cron: Annotated[str, AfterValidator(check_cron)] | None = Field(
        None, description="Five fields: minute, hour, day, month, weekday (0 and 7 are Sunday)."
    )
    every: Annotated[Duration, Field(ge=SECOND)] | None = Field(
        None, description="An interval, counted from 1970-01-01T00:00:00Z, so that it survives every restart."
    )
    rrule: Annotated[str, AfterValidator(check_rrule)] | None = Field(
        None, description="A recurrence rule of RFC 5545: `FREQ=WEEKLY;BYDAY=MO,TH;BYHOUR=9;BYMINUTE=0`."
    )
    timezone: Zone = Field("UTC", description="Whose clocks `cron`, `rrule` and `calendar` mean.")
    jitter: Duration = Field(0, description="Each due time comes up to so much later, always by the same.")
    calendar: Calendar | None = Field(None, description="On which days.")
    catch_up: CatchUp = Field("all", description="Which due times an outage has left behind are fired after it.")
    overlap: Literal["allow", "skip"] = Field("allow", description="`skip`: not while the last firing has not ended.")


class Trigger(Keys):
    """A trigger: `event`, or the one of the other forms that is named."""

    event: OneOrMore | None = Field(None, description="Event type, or a list of types; `*` is any run of characters.")
    where: dict[str, Any] | None = Field(None, description="An EventBridge pattern over the event.")
    per: OneOrMore | None = Field(None, description="One window per value of this path, or of these paths.")
    count: Annotated[int, Field(ge=1, le=10_000)] = Field(1, description="How many matching events it takes.")
    within: PositiveDuration | None = Field(None, description="The window; needed with `count` above 1 and `absent`.")
    absent: Selection | None = Field(None, description="Fires when nothing of this came for `within`.")
    after: Selection | None = Field(None, description="With `absent`: since an event of this kind.")
    sequence: Triggers | None = Field(None, description="Fires when each of these fired in this order.")
    all: Triggers | None = Field(None, description="Fires when all of these fired.")
    any: Triggers | None = Field(None, description="Fires when one of these fired.")
    at_least: Annotated[int, Field(ge=1)] | None = Field(None, description="Fires when so many of `of` fired.")
    of: Triggers | None = Field(None, description="With `at_least`: of which.")
    metric: MetricModel | None = Field(None, description="Fires when a statistic holds; it resolves.")
    changed: Text | None = Field(None, description="Fires when the value at this path is another than the last one.")
    from_: Any = Field(None, alias="from", description="With `changed`: only from this value; not said: from any.")
    to: Any = Field(None, description="With `changed`: only to this value; not said: to any.")
    for_: Duration = Field(0, alias="for", description="With `changed`: once it has stayed so long.")
    schedule: ScheduleModel | None = Field(None, description="Fires at each due time.")


Triggers = Annotated[
    tuple[Trigger, ...],
    Field(min_length=1, max_length=100),
    BeforeValidator(listing),
]


class When(Trigger):
    """When a rule fires: a trigger, and how it treats time."""

    order: Literal["arrival", "event_time"] = Field(
        "arrival", description="`event_time`: events are held back for `lateness` and taken in order of their time."
    )
    lateness: Duration = Field(30 * SECOND, description="How long after its time an event may arrive and still count.")
    late: Literal["accept"] | None = Field(None, description="`accept`: late events fill windows that hold their time.")
    grace: Duration = Field(0, description="How long after its deadline `absent` waits for what comes late.")


Trigger.model_rebuild()
When.model_rebuild()


def said(model: Keys) -> list[str]:
    """The keys that were written, as they were written, in order of the model."""
    return [field.alias or name for name, field in type(model).model_fields.items() if name in model.model_fields_set]


def filters(model: Trigger) -> bool:
    """Whether a `where`, here or below, tells events of one type apart."""
    if model.where or (model.absent and model.absent.where) or (model.after and model.after.where):
        return True
    return any(filters(child) for key in ("sequence", "all", "any", "of") for child in getattr(model, key) or ())
