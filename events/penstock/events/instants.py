"""Instants: whole microseconds since 1970-01-01T00:00:00Z, UTC.

One unit everywhere inside (state, database, records): integers compare, sort and store alike on every database,
and a JSON time of millisecond or microsecond precision survives. `datetime` appears only at the edges.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TypeAlias

Instant: TypeAlias = int  # microseconds since the epoch, UTC
MILLISECOND: int = 1_000
SECOND: int = 1_000_000

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def to_instant(moment: datetime) -> Instant:
    """An aware datetime as microseconds since the epoch.  Raises ValueError for a naive one."""
    if moment.tzinfo is None:
        raise ValueError(f"{moment!r} has no time zone; say which, e.g. datetime.now(timezone.utc)")
    return (moment - _EPOCH) // _MICROSECOND


def to_datetime(instant: Instant) -> datetime:
    """The same moment as an aware datetime in UTC."""
    return _EPOCH + timedelta(microseconds=instant)


def microseconds(span: timedelta) -> int:
    """A span as whole microseconds."""
    return span // _MICROSECOND


def format_instant(instant: Instant) -> str:
    """RFC 3339 in UTC: milliseconds, or microseconds where there are any; no fraction for whole seconds."""
    moment = to_datetime(instant)
    rest = instant % SECOND
    spec = "seconds" if rest == 0 else "milliseconds" if rest % MILLISECOND == 0 else "microseconds"
    return moment.replace(tzinfo=None).isoformat(timespec=spec) + "Z"
