"""Recurrence rules of RFC 5545 (`FREQ=WEEKLY;BYDAY=MO`), on the clocks of a time zone.

Without a DTSTART they count from Thursday, 1970-01-01T00:00:00 by these clocks, so that the answer for a moment is the
same for ever.
"""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any

from dateutil.rrule import HOURLY, MINUTELY, MONTHLY, YEARLY, rrulestr

_START = datetime(1970, 1, 1)  # noqa: DTZ001 -- by the clocks of the schedule's zone
_END = datetime(9999, 12, 31)  # noqa: DTZ001 -- likewise
_HORIZON = timedelta(days=366 * 40)  # a rule that is not due for so long is never due
_MAX = 1_000
_UNITS = {2: timedelta(days=7), 3: timedelta(days=1), 4: timedelta(hours=1), 5: timedelta(minutes=1)}  # by frequency
_KEYS = frozenset(
    ["FREQ", "INTERVAL", "UNTIL", "WKST", "BYMONTH", "BYMONTHDAY", "BYYEARDAY", "BYWEEKNO", "BYDAY", "BYHOUR"]
).union(["BYMINUTE", "BYSECOND", "BYSETPOS"])
_SHORT = frozenset(["FREQ", "INTERVAL", "UNTIL", "BYHOUR", "BYMINUTE", "BYSECOND"])  # of HOURLY and MINUTELY
_FORM = re.compile(
    r"(DTSTART:(?P<start>\d{8}T\d{6})Z?\n)?(RRULE:)?(?P<rule>[A-Z]+=[^;=:\s]+(;[A-Z]+=[^;=:\s]+)*)\s*", re.ASCII
)
_EXAMPLE = "write e.g. `FREQ=WEEKLY;BYDAY=MO;BYHOUR=9;BYMINUTE=0`"


def check_rrule(text: str) -> str:
    """The rule, if it is one.  Raises ValueError."""
    found = _FORM.fullmatch(text) if len(text) <= _MAX else None
    if found is None:
        raise ValueError(f"{text[:60]!r} is no recurrence rule; {_EXAMPLE}")
    keys = dict(part.split("=") for part in found["rule"].split(";"))
    short = keys.get("FREQ") in ("HOURLY", "MINUTELY")
    if keys.get("FREQ") == "SECONDLY":
        raise ValueError("FREQ=SECONDLY cannot be used here; write `every: 10s`")
    for key in keys:
        if key not in (_SHORT if short else _KEYS) and not (key == "COUNT" and found["start"]):
            hint = "write FREQ=DAILY with BYHOUR and BYMINUTE" if short and key in _KEYS else _remedy(key)
            raise ValueError(f"{key} cannot be used here; {hint}")
    try:
        _parsed(text)
    except (ValueError, TypeError, KeyError, AttributeError, IndexError) as error:
        reason = " ".join(str(error).split()) or "it cannot be read"
        raise ValueError(f"{text!r} is no recurrence rule: {reason}; {_EXAMPLE}") from None
    if not {"UNTIL", "COUNT"} & keys.keys() and next_local(text, datetime(2024, 1, 1)) is None:  # noqa: DTZ001 -- as above
        raise ValueError(f"{text!r} is never due")
    return text


def _remedy(key: str) -> str:
    return {
        "COUNT": "it needs a start: `DTSTART:20260301T090000`, and the rule in the next line",
    }.get(key, f"known: {', '.join(sorted(_KEYS))}")


def counts_real_time(text: str) -> bool:
    """Whether it names no hour of the day, so that a change of the clocks must not shift it."""
    return int(_parsed(text)._freq) in (HOURLY, MINUTELY) and "BYHOUR" not in text


def next_local(text: str, after: datetime) -> datetime | None:
    """The first time > `after` by the clocks of the zone (both naive); None where there is none any more."""
    found = _parsed(text)
    due: datetime | None
    if found._dtstart != _START:  # it says where it begins
        due = found.after(after)
    else:
        until = min(filter(None, (found._until, after + min(_HORIZON, _END - after))))
        due = found.replace(dtstart=_near(found, after), until=until).after(after)
    return due


def _near(rule: Any, after: datetime) -> datetime:
    """A start before `after` from which the rule keeps its beat, so that few candidates are looked at."""
    frequency, interval = int(rule._freq), int(rule._interval)
    if frequency in (YEARLY, MONTHLY):
        months = interval * (12 if frequency == YEARLY else 1)
        passed = max(0, (after.year - 1970) * 12 - 12 - months) // months * months
        return _START.replace(year=1970 + passed // 12, month=passed % 12 + 1)
    beat = _UNITS[frequency] * interval
    return _START + max(0, (after - _START) // beat - 2) * beat


@lru_cache(maxsize=1_024)
def _parsed(text: str) -> Any:  # its parts are private to the library's types
    text = text.strip()
    started = text.startswith("DTSTART")
    return rrulestr(text if started or "BYSECOND" in text else f"{text};BYSECOND=0", dtstart=_START, ignoretz=True)
