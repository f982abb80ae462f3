"""When schedules are due. Pure: instants in, instants out.

Cron lines mean what they mean to cron: 0 and 7 are Sunday, and where both days are restricted, either one is enough.
A local time that the clocks skip in spring is due when the clocks have moved on (02:30 at 03:30 summer time); one that
they repeat in autumn is due the first time only, unless no hour is named (`*`, `*/n`): such lines count real time.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any
from zoneinfo import ZoneInfo

from apscheduler.triggers.cron import CronTrigger

from penstock.automations.recurrence import counts_real_time, next_local
from penstock.events.ids import derived_id
from penstock.events.instants import Instant, to_datetime, to_instant

_DAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_TRIES = 20_000  # due times that a calendar may refuse one after the other
_SHIFT = timedelta(hours=3)  # more than clocks are ever set forward
_STEP, _NONE = timedelta(microseconds=1), timedelta(0)
_LAST = to_instant(datetime(9998, 12, 31, tzinfo=UTC))  # nothing is due later


@dataclass(frozen=True, slots=True)
class Days:
    """The days on which something may be due, by the clocks of its zone.  weekdays: 0 is Monday; ISO dates."""

    weekdays: frozenset[int] | None = None
    only: frozenset[str] | None = None
    without: frozenset[str] = frozenset()

    def allow(self, day: datetime) -> bool:
        """Whether the day of a moment is one of them."""
        name = day.date().isoformat()
        return (
            (self.weekdays is None or day.weekday() in self.weekdays)
            and (self.only is None or name in self.only)
            and name not in self.without
        )


@dataclass(frozen=True, slots=True)
class DueTimes:
    """A schedule: exactly one of every (microseconds), cron, rrule.

    An interval counts from the moment that it is first asked for; with jitter or on certain days from 1970, so that
    what is due stays the same.  jitter: microseconds; seed: what makes its spread that of this rule alone.
    """

    every: int | None = None
    cron: str | None = None
    rrule: str | None = None
    timezone: str = "UTC"
    jitter: int = 0
    days: Days | None = None
    seed: str = ""

    def next_after(self, after: Instant) -> Instant | None:
        """The first due time > `after`; None where there is none any more.

        Without jitter and days it is asked for its own last answer, or for the moment of loading.
        """
        if not self.jitter:
            return self._next_base(after)
        best, base = None, self._next_base(after - self.jitter - 1)
        while base is not None and (best is None or base < best):
            due = base + int(derived_id("jitter", self.seed, str(base))[:12], 16) % (self.jitter + 1)
            if due > after and (best is None or due < best):
                best = due
            base = self._next_base(base)
        return best

    def _next_base(self, after: Instant) -> Instant | None:
        zone = ZoneInfo(self.timezone)
        for _ in range(_TRIES):
            found = self._next(after)
            if found is None or found > _LAST:
                return None
            if self.days is None or self.days.allow(to_datetime(found).astimezone(zone)):
                return found
            after = found
        return None

    def _next(self, after: Instant) -> Instant | None:
        if self.every is not None:
            anchored = self.jitter or self.days
            return (after // self.every + 1) * self.every if anchored else after + self.every
        if self.cron is not None:
            return next_of_cron(self.cron, self.timezone, after)
        return _next_of_rrule(self.rrule or "", self.timezone, after)


def next_of_cron(cron: str, timezone: str, after: Instant) -> Instant | None:
    """The first due time > `after` of a line of five fields; None where there is no such date."""
    found = [_next_of_line(line, timezone, after) for line in _day_alternatives(cron)]
    return min((each for each in found if each is not None), default=None)


def _next_of_rrule(text: str, timezone: str, after: Instant) -> Instant | None:
    zone = ZoneInfo("UTC" if counts_real_time(text) else timezone)
    local: datetime | None = _wall(after, zone).replace(tzinfo=None)
    while local is not None:
        local = next_local(text, local)
        if local is not None and (found := to_instant(local.replace(tzinfo=zone))) > after:
            return found
    return None


@lru_cache(maxsize=4_096)
def _trigger(line: str, timezone: str) -> Any:
    minute, hour, day, month, weekday = line.split()
    return CronTrigger(  # type: ignore[no-untyped-call]  # APScheduler 3 has no types
        minute=minute, hour=hour, day=day, month=month, day_of_week=weekday, timezone=ZoneInfo(timezone)
    )


def _next_of_line(line: str, timezone: str, after: Instant) -> Instant | None:
    if line.split()[1].startswith("*"):  # real time; in instants: adding to a local time would be wall-clock arithmetic
        found: datetime | None = _trigger(line, timezone).get_next_fire_time(None, to_datetime(after + 1))
        return None if found is None else to_instant(found)
    zone = ZoneInfo(timezone)
    wall = _wall(after, zone)
    while (wall := _trigger(line, "UTC").get_next_fire_time(None, wall + _STEP)) is not None:
        due = to_instant(wall.replace(tzinfo=zone))  # of a time shown twice the first; of a skipped one what it became
        if due > after:
            return due
    return None


def _wall(moment: Instant, zone: ZoneInfo) -> datetime:
    """What the clocks show, as if it were UTC; from before the gap where they have just been set forward."""
    local, before = to_datetime(moment).astimezone(zone), to_datetime(moment - _SHIFT // _STEP).astimezone(zone)
    ahead = (local.utcoffset() or _NONE) > (before.utcoffset() or _NONE)
    return local.replace(tzinfo=UTC, fold=0) - (_SHIFT if ahead else _NONE)


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
