"""Moments on the command line."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
import typer

from penstock.services.cli.durations import moment

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "when"),
    [
        ("30s", "2026-11-21T11:59:30+00:00"),
        ("15m", "2026-11-21T11:45:00+00:00"),
        ("2h", "2026-11-21T10:00:00+00:00"),
        ("1w", "2026-11-14T12:00:00+00:00"),
        ("2026-11-20", "2026-11-20T00:00:00+00:00"),
        ("2026-11-20T08:00:00+02:00", "2026-11-20T08:00:00+02:00"),
    ],
)
def test_a_moment_is_so_long_ago_or_a_date(text: str, when: str) -> None:
    assert moment(text, NOW) == when


@pytest.mark.parametrize("text", ["soon", "2", "99999999w", "2026-13-01", ""])
def test_what_is_no_moment_is_refused_with_what_would_be_one(text: str) -> None:
    with pytest.raises(typer.BadParameter, match="--since"):
        moment(text, NOW)


def test_none_stays_none() -> None:
    assert moment(None, NOW) is None
