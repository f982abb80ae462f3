"""When a schedule is due. Pure: instants in, instants out.

What cron lines mean is said in `penstock.automations.due_times`, which rules with a `schedule` share.
An interval counts from the moment that the schedule was first seen, without drift.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from datetime import timedelta

from penstock.automations.due_times import DueTimes, next_of_cron
from penstock.events.ids import derived_id
from penstock.events.instants import Instant

NEVER: Instant = 253_402_300_799_000_000  # the end of the year 9999: for a cron line without a date left
COUNTED = 5_000  # missed due times are counted one by one up to here
_WINDOWS = (timedelta(hours=1), timedelta(days=1), timedelta(days=32), timedelta(days=366), timedelta(days=366 * 9))


@dataclass(frozen=True, slots=True)
class Spec:
    """A schedule's definition: `every` (microseconds), `cron` (five fields) or `rrule` (RFC 5545) in a time zone."""

    every: int | None = None
    cron: str | None = None
    timezone: str = "UTC"
    rrule: str | None = None

    @property
    def digest(self) -> str:
        """The same for the same definition; a schedule whose digest changes starts anew."""
        return derived_id("schedule", self.to_json())

    def to_json(self) -> str:
        """As it stands in the database."""
        found = asdict(self)
        if self.rrule is None:  # as it was before there were any, or every schedule would start anew
            del found["rrule"]
        return json.dumps(found, sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Spec:
        """The reverse; fields of a later format are ignored."""
        found = json.loads(text)
        return cls(found.get("every"), found.get("cron"), found.get("timezone", "UTC"), found.get("rrule"))


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
    if spec.rrule is not None:
        found = DueTimes(rrule=spec.rrule, timezone=spec.timezone).next_after(after)
    else:
        found = next_of_cron(spec.cron or "", spec.timezone, after)
    return NEVER if found is None else found


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
