"""When a schedule is due. Pure: instants in, instants out.

Cron lines mean what they mean to cron: 0 and 7 are Sunday, and where both days are restricted, either one is enough.
A local time that the clocks skip in spring fires when the clocks have moved on (02:30 at 03:30 summer time); one that
they repeat in autumn fires the first time only, unless the hour is `*` or `*/n`: such lines count real time.
An interval counts from the moment that the schedule was first seen, without drift.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any
from zoneinfo import ZoneInfo

from apscheduler.triggers.cron import CronTrigger

from penstock.events.ids import derived_id
from penstock.events.instants import Instant, to_datetime, to_instant

NEVER: Instant = 253_402_300_799_000_000  # the end of the year 9999: for a cron line without a date left
COUNTED = 5_000  # missed due times are counted one by one up to here
_DAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_WINDOWS = (timedelta(hours=1), timedelta(days=1), timedelta(days=32), timedelta(days=366), timedelta(days=366 * 9))


@dataclass(frozen=True, slots=True)
class Spec:
    """A schedule's definition: `every` (microseconds) or `cron` (five fields) in a time zone."""

    every: int | None = None
    cron: str | None = None
    timezone: str = "UTC"

    @property
    def digest(self) -> str:
        """The same for the same definition; a schedule whose digest changes starts anew."""
        return derived_id("schedule", self.to_json())

    def to_json(self) -> str:
        """As it stands in the database."""
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Spec:
        """The reverse; fields of a later format are ignored."""
        found = json.loads(text)
        return cls(found.get("every"), found.get("cron"), found.get("timezone", "UTC"))


@dataclass(frozen=True, slots=True)
class Passed:
    """What is due at a moment: the latest due time, how many earlier ones were missed, and the first of these.

    exact: `missed` is the number; else it is at least that.
    """

    latest: Instant
    missed: int = 0
    exact: bool = True


def next_due(spec: Spec, after: Instant) -> Instant:
    """The first due time > `after`; NEVER where there is none.

    For an interval `after` is the due time before, or the moment that the schedule was first seen.
    """
    if spec.every is not None:
        return after + spec.every
    return min((_next_of(line, spec.timezone, after) for line in _day_alternatives(spec.cron or "")), default=NEVER)


def passed(spec: Spec, due: Instant, now: Instant) -> Passed:
    """What has become due since `due`, the oldest due time not yet fired.  due <= now."""
    if spec.every is not None:
        missed = (now - due) // spec.every
        return Passed(due + missed * spec.every, missed)
    latest = due
    for missed in range(COUNTED):
        following = next_due(spec, latest)
        if following > now:
            return Passed(latest, missed)
        latest = following
    return Passed(_latest(spec, latest, now), COUNTED, exact=False)


def _latest(spec: Spec, since: Instant, now: Instant) -> Instant:
    """The last due time <= now, sought in windows that grow; there are many since `since`."""
    for window in _WINDOWS:
        found = next_due(spec, now - window // timedelta(microseconds=1))
        if found <= now:
            while (following := next_due(spec, found)) <= now:
                found = following
            return max(found, since)
    return since


@lru_cache(maxsize=4_096)
def _trigger(line: str, timezone: str) -> Any:
    minute, hour, day, month, weekday = line.split()
    return CronTrigger(  # type: ignore[no-untyped-call]  # APScheduler 3 has no types
        minute=minute, hour=hour, day=day, month=month, day_of_week=weekday, timezone=ZoneInfo(timezone)
    )


def _next_of(line: str, timezone: str, after: Instant) -> Instant:
    trigger, counts_real_time = _trigger(line, timezone), line.split()[1].startswith("*")
    while True:
        # In instants: adding to a local time would be arithmetic on the wall clock.
        found: datetime | None = trigger.get_next_fire_time(None, to_datetime(after + 1))
        if found is None:
            return NEVER
        if counts_real_time or not _repeated(found):
            return to_instant(found)
        after = to_instant(found)


def _repeated(moment: datetime) -> bool:
    """Whether the clocks have shown this local time before."""
    return moment.fold == 1 and moment.utcoffset() != moment.replace(fold=0).utcoffset()


@lru_cache(maxsize=4_096)
def _day_alternatives(cron: str) -> tuple[str, ...]:
    """The line as APScheduler reads it: twice where both days are restricted, since it would ask for both at once."""
    minute, hour, day, month, weekday = cron.lower().split()
    names = _weekdays(weekday)
    if day.startswith("*") or weekday.startswith("*"):
        return (f"{minute} {hour} {day} {month} {names}",)
    return (f"{minute} {hour} {day} {month} *", f"{minute} {hour} * {month} {names}")


def _weekdays(field: str) -> str:
    """The days by name: APScheduler's numbers begin with Monday."""
    if field == "*":
        return field
    days = {day % 7 for part in field.split(",") for day in _days(part)}
    return ",".join(_DAYS[day] for day in sorted(days))


def _days(part: str) -> range:
    span, _, step = part.partition("/")
    if span == "*":
        return range(0, 7, int(step or 1))
    first, _, last = span.partition("-")
    low = _day(first)
    high = _day(last) if last else 6 if step else low
    return range(low, high + 1, int(step or 1))


def _day(text: str) -> int:
    return _DAYS.index(text) if text in _DAYS else int(text)
