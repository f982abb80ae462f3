"""Spans of time and rates as rule files write them: `5m`, `1h30m`, `250ms`; `10/1s`."""

from __future__ import annotations

import re
from dataclasses import dataclass

_UNITS = {"d": 86_400_000_000, "h": 3_600_000_000, "m": 60_000_000, "s": 1_000_000, "ms": 1_000, "us": 1}
_PART = re.compile(r"(\d+)(ms|us|[dhms])")
_WHOLE = re.compile(r"(\d+(?:ms|us|[dhms]))+\Z", re.ASCII)
MAX_DURATION = 36_500 * _UNITS["d"]


def parse_duration(text: object) -> int:
    """Whole microseconds.  Raises ValueError for anything but numbers with units, largest unit first."""
    if isinstance(text, int | float) and not isinstance(text, bool):
        raise ValueError(f"{text} has no unit; write e.g. `{text}s` or `{text}m`")  # noqa: TRY004 -- pydantic reports ValueError
    if not isinstance(text, str) or not _WHOLE.match(text):
        raise ValueError(f"{text!r} is no duration; write e.g. `30s`, `5m`, `1h30m`, `250ms` or `1d`")
    parts = [(int(number[:18]), unit) for number, unit in _PART.findall(text)]
    order = [list(_UNITS).index(unit) for _, unit in parts]
    if order != sorted(set(order)):
        raise ValueError(f"{text!r} mixes up its units; write each once and the largest first, e.g. `1h30m`")
    total = sum(number * _UNITS[unit] for number, unit in parts)
    if total > MAX_DURATION:
        raise ValueError(f"{text!r} is longer than 100 years")
    return total


def format_duration(span: int) -> str:
    """The shortest form that `parse_duration` reads back as the same number of microseconds (>= 0)."""
    found = []
    for unit, size in _UNITS.items():
        number, span = divmod(span, size)
        if number:
            found.append(f"{number}{unit}")
    return "".join(found) or "0s"


@dataclass(frozen=True, slots=True)
class Rate:
    """At most `count` in any span of `per` microseconds."""

    count: int
    per: int

    def __str__(self) -> str:
        return f"{self.count}/{format_duration(self.per)}"


def parse_rate(text: object) -> Rate | None:
    """`10/1s`; `unlimited` is None.  Raises ValueError."""
    if text == "unlimited":
        return None
    count, slash, per = str(text).partition("/")
    if not slash or not re.fullmatch(r"[1-9]\d{0,8}", count, re.ASCII):
        raise ValueError(f"{text!r} is no rate; write e.g. `10/1s`, `100/1m` or `unlimited`")
    if per in _UNITS:
        raise ValueError(f"{text!r} is no rate; write `{count}/1{per}`")
    span = parse_duration(per)
    if span == 0:
        raise ValueError(f"{text!r}: the span of a rate must be longer than nothing")
    return Rate(int(count), span)
