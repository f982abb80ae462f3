"""Moments as people write them on the command line."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

import typer

_AGO = re.compile(r"(\d+)\s*(s|m|min|h|d|w)\Z")
_UNITS = {"s": "seconds", "m": "minutes", "min": "minutes", "h": "hours", "d": "days", "w": "weeks"}


def moment(text: str | None, now: datetime, option: str = "--since") -> str | None:
    """RFC 3339 of "2h" (that long before `now`), of a date, or of a date and a time; without a zone it is UTC.

    Raises typer.BadParameter.
    """
    if text is None:
        return None
    if ago := _AGO.match(text.strip()):
        try:
            return (now - timedelta(**{_UNITS[ago[2]]: int(ago[1])})).isoformat()
        except OverflowError:
            raise typer.BadParameter(f"{option} {text!r}: that is too long ago") from None
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise typer.BadParameter(
            f"{option} {text!r}: write how long ago (30s, 15m, 2h, 7d) or when (2026-11-21, 2026-11-21T08:00:00Z)"
        ) from None
    return (found if found.tzinfo else found.replace(tzinfo=UTC)).isoformat()
