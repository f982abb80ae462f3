"""Durations, rates, cron lines."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from penstock.automations import Rate, format_duration, parse_duration, parse_rate
from penstock.automations.cron import check_cron
from penstock.automations.durations import MAX_DURATION

PATIENT = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # the machine may be busy


@pytest.mark.parametrize(
    ("text", "span"),
    [
        ("5m", 300_000_000),
        ("30s", 30_000_000),
        ("1h30m", 5_400_000_000),
        ("250ms", 250_000),
        ("1d", 86_400_000_000),
        ("0s", 0),
        ("7us", 7),
    ],
)
def test_a_duration_is_whole_microseconds(text: str, span: int) -> None:
    assert parse_duration(text) == span


@pytest.mark.parametrize(
    "text",
    ["", "5", "m", "5 m", "-5m", "5m1h", "5m5m", "1.5h", "5M", "5min", 5, 5.0, None, True, [], "٥m", "9" * 30 + "d"],
)
def test_anything_else_is_refused_with_an_example(text: object) -> None:
    with pytest.raises(ValueError, match=r"write|longer"):
        parse_duration(text)


@PATIENT
@given(st.integers(0, MAX_DURATION))
def test_a_duration_that_is_written_is_read_back(span: int) -> None:
    assert parse_duration(format_duration(span)) == span


def test_a_rate_is_a_count_in_a_span() -> None:
    assert parse_rate("10/1s") == Rate(10, 1_000_000)
    assert str(parse_rate("100/1m30s")) == "100/1m30s"
    assert parse_rate("unlimited") is None


@pytest.mark.parametrize("text", ["10", "0/1s", "10/0s", "10/s", "ten/1s", "1.5/1s", "", None, "/1s"])
def test_anything_else_is_no_rate(text: object) -> None:
    with pytest.raises(ValueError, match=r"rate|duration"):
        parse_rate(text)


@pytest.mark.parametrize("line", ["* * * * *", "0 3 * * *", "*/15 8-17 1,15 jan-MAR mon-fri", "5/10 0 * * 7"])
def test_a_cron_line_is_taken(line: str) -> None:
    assert check_cron(line) == line


@pytest.mark.parametrize(
    "line",
    [
        "",
        "* * * *",
        "60 * * * *",
        "* 24 * * *",
        "* * 0 * *",
        "* * * 13 *",
        "* * * * 8",
        "5-1 * * * *",
        "*/0 * * * *",
        "*-5 * * * *",
        "@daily",
        "a * * * *",
    ],
)
def test_a_wrong_cron_line_is_refused(line: str) -> None:
    with pytest.raises(ValueError, match="cron line"):
        check_cron(line)


def test_a_rate_per_bare_unit_is_told_with_its_number() -> None:
    with pytest.raises(ValueError, match="write `5/1s`"):
        parse_rate("5/s")
