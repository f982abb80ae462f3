"""The five fields of a cron line, checked; when they are due is the scheduler's affair."""

from __future__ import annotations

import re

_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_DAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_FIELDS: tuple[tuple[str, int, int, tuple[str, ...], int], ...] = (
    ("minute", 0, 59, (), 0),
    ("hour", 0, 23, (), 0),
    ("day of month", 1, 31, (), 0),
    ("month", 1, 12, _MONTHS, 1),
    ("day of week", 0, 7, _DAYS, 0),  # 0 and 7 are Sunday, as in Unix
)
_PART = re.compile(r"(?P<first>\*|\w+)(-(?P<last>\w+))?(/(?P<step>\d{1,4}))?\Z", re.ASCII)


def check_cron(line: str) -> str:
    """The line, if it is one.  Raises ValueError with the field at fault."""
    fields = line.split()
    if len(fields) != 5:
        raise ValueError(f"a cron line has 5 fields (minute hour day month weekday), {line!r} has {len(fields)}")
    for text, (name, low, high, words, base) in zip(fields, _FIELDS, strict=True):
        for part in text.lower().split(","):
            if not _valid(part, low, high, words, base):
                raise ValueError(
                    f"{part!r} is no {name} of a cron line; write * or {low}-{high}, a range, a list or */n"
                )
    return line


def _valid(part: str, low: int, high: int, words: tuple[str, ...], base: int) -> bool:
    found = _PART.match(part)
    if not found or (found["step"] is not None and int(found["step"]) == 0):
        return False
    if found["first"] == "*":
        return found["last"] is None
    ends = [_number(text, words, base) for text in (found["first"], found["last"] or found["first"])]
    return all(end is not None and low <= end <= high for end in ends) and (ends[0] or 0) <= (ends[1] or 0)


def _number(text: str, words: tuple[str, ...], base: int) -> int | None:
    if text in words:
        return words.index(text) + base
    return int(text) if text.isdigit() and len(text) <= 4 else None
