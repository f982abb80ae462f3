"""When a `schedule` of a rule is due: the same for ever, on the clocks of its zone."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.automations.due_times import Days, DueTimes
from penstock.automations.recurrence import check_rrule
from penstock.events.instants import SECOND, format_instant, to_instant

MINUTE, HOUR = 60 * SECOND, 3_600 * SECOND
START = to_instant(datetime(2026, 3, 1, tzinfo=UTC))
MOMENTS = st.integers(START, START + 400 * 24 * HOUR)


def due(times: DueTimes, after: str, count: int = 3) -> list[str]:
    found: list[str] = []
    moment = to_instant(datetime.fromisoformat(after))
    for _ in range(count):
        following = times.next_after(moment)
        if following is None:
            return found
        found.append(format_instant(following))
        moment = following
    return found


def test_an_interval_counts_from_its_loading() -> None:
    assert due(DueTimes(every=5 * MINUTE), "2026-03-01T10:00:30Z", 2) == [
        "2026-03-01T10:05:30Z",
        "2026-03-01T10:10:30Z",
    ]


def test_a_cron_line_follows_the_clocks() -> None:
    times = DueTimes(cron="30 2 * * *", timezone="Europe/Vienna")
    spring = ["2026-03-28T01:30:00Z", "2026-03-29T01:30:00Z", "2026-03-30T00:30:00Z"]  # 02:30 is skipped: at 03:30
    assert due(times, "2026-03-27T12:00:00Z") == spring
    assert due(times, "2026-10-24T12:00:00Z", 2) == ["2026-10-25T00:30:00Z", "2026-10-26T01:30:00Z"]  # the first 02:30


@pytest.mark.parametrize(
    ("rrule", "expected"),
    [
        ("FREQ=WEEKLY;BYDAY=MO,TH;BYHOUR=9;BYMINUTE=0", ["2026-03-02T08:00:00Z", "2026-03-05T08:00:00Z"]),
        ("FREQ=MONTHLY;BYDAY=-1FR;BYHOUR=12;BYMINUTE=30", ["2026-03-27T11:30:00Z", "2026-04-24T10:30:00Z"]),
        ("FREQ=DAILY;BYHOUR=2;BYMINUTE=30;UNTIL=20260302T120000", ["2026-03-01T01:30:00Z", "2026-03-02T01:30:00Z"]),
        ("FREQ=DAILY;BYHOUR=9;BYMINUTE=0;BYSECOND=30", ["2026-03-01T08:00:30Z", "2026-03-02T08:00:30Z"]),
        (
            "DTSTART:20260228T100000\nRRULE:FREQ=DAILY;COUNT=3;INTERVAL=2",
            ["2026-03-02T09:00:00Z", "2026-03-04T09:00:00Z"],
        ),
        ("RRULE:FREQ=HOURLY;INTERVAL=12", ["2026-03-01T12:00:00Z", "2026-03-02T00:00:00Z"]),
        ("FREQ=YEARLY;BYMONTH=2;BYMONTHDAY=29", ["2028-02-28T23:00:00Z", "2032-02-28T23:00:00Z"]),
    ],
)
def test_a_recurrence_rule_follows_the_clocks(rrule: str, expected: list[str]) -> None:
    times = DueTimes(rrule=check_rrule(rrule), timezone="Europe/Vienna")
    assert due(times, "2026-03-01T00:00:00Z", len(expected)) == expected


def test_an_hourly_rule_counts_real_time_through_a_change_of_the_clocks() -> None:
    times = DueTimes(rrule="FREQ=HOURLY", timezone="Europe/Vienna")
    hours = [to_instant(datetime.fromisoformat(each)) for each in due(times, "2026-10-24T23:30:00Z", 5)]
    assert all(b - a == HOUR for a, b in pairwise(hours))


def test_a_rule_that_has_ended_is_due_no_more() -> None:
    assert due(DueTimes(rrule="FREQ=DAILY;UNTIL=20260101T000000"), "2026-03-01T00:00:00Z") == []
    assert due(DueTimes(cron="0 0 30 2 *"), "2026-03-01T00:00:00Z") == []
    assert due(DueTimes(cron="0 0 * * *", days=Days(only=frozenset(["2026-01-01"]))), "2026-03-01T00:00:00Z") == []


def test_only_certain_days() -> None:
    days = Days(weekdays=frozenset([0, 1]), without=frozenset(["2026-03-03"]))
    times = DueTimes(cron="0 9 * * *", days=days)
    assert due(times, "2026-03-01T00:00:00Z") == [
        "2026-03-02T09:00:00Z",
        "2026-03-09T09:00:00Z",
        "2026-03-10T09:00:00Z",
    ]


@settings(deadline=None)
@given(MOMENTS, st.sampled_from([MINUTE, 10 * MINUTE, 2 * HOUR]), st.text("ab", min_size=1, max_size=3))
def test_jitter_moves_each_due_time_later_by_the_same_amount_for_ever(after: int, jitter: int, seed: str) -> None:
    plain, spread = DueTimes(cron="0 * * * *"), DueTimes(cron="0 * * * *", jitter=jitter, seed=seed)
    first = spread.next_after(after)
    assert first is not None
    assert first > after
    assert spread.next_after(first - 1) == first  # asked from anywhere before, the answer is the same
    bases = [base for base in _bases(plain, first - jitter - 1, first)]
    assert bases, "it comes of a due time, at most `jitter` before"


def _bases(times: DueTimes, after: int, until: int) -> list[int]:
    found = []
    while (following := times.next_after(after)) is not None and following <= until:
        found.append(following)
        after = following
    return found


@pytest.mark.parametrize("said", [{"rrule": "FREQ=DAILY;BYHOUR=2;BYMINUTE=30"}, {"cron": "30 2 * * *"}])
def test_a_skipped_time_is_due_once_from_wherever_it_is_asked(said: dict[str, str]) -> None:
    times = DueTimes(timezone="America/New_York", **said)  # type: ignore[arg-type]  # texts only
    skipped = to_instant(datetime(2027, 3, 14, 7, 30, tzinfo=UTC))  # 02:30 is 03:30 that day
    assert [times.next_after(skipped - before) for before in (1, HOUR, 12 * HOUR)] == [skipped] * 3
    assert times.next_after(skipped) == skipped + 23 * HOUR


def test_every_time_of_a_skipped_hour_is_due() -> None:
    times = DueTimes(cron="*/20 2,3 * * *", timezone="America/New_York")
    expected = ["07:00", "07:20", "07:40"]  # 02:00 and 03:00 fall together
    assert due(times, "2027-03-14T00:00:00Z", 3) == [f"2027-03-14T{at}:00Z" for at in expected]
    assert due(times, "2027-03-14T07:40:00Z", 1) == ["2027-03-15T06:00:00Z"]


CRONS = st.sampled_from(["30 2 * * *", "*/20 1,2,3 * * *", "*/15 * * * *", "0 */2 * * *", "5 3 1 * 0", "30 1 * * sun"])
ZONES = st.sampled_from(["America/New_York", "Europe/Vienna", "Australia/Lord_Howe", "UTC", "Asia/Kathmandu"])


@settings(deadline=None)
@given(MOMENTS, CRONS, ZONES)
def test_the_next_of_a_cron_line_is_the_same_from_anywhere_before(after: int, cron: str, zone: str) -> None:
    times = DueTimes(cron=cron, timezone=zone)
    first = times.next_after(after)
    assert first is not None
    assert first > after
    assert times.next_after((after + first) // 2) == first
    assert times.next_after(first - 1) == first


@settings(deadline=None)
@given(
    MOMENTS, st.sampled_from(["FREQ=DAILY;BYHOUR=2;BYMINUTE=30", "FREQ=WEEKLY;INTERVAL=3", "FREQ=MINUTELY;INTERVAL=7"])
)
def test_the_next_of_a_recurrence_is_the_same_from_anywhere_before(after: int, rrule: str) -> None:
    times = DueTimes(rrule=rrule, timezone="America/New_York")
    first = times.next_after(after)
    assert first is not None
    assert times.next_after((after + first) // 2) == first
    assert times.next_after(first - 1) == first
    following = times.next_after(first)
    assert following is not None
    assert following - first <= timedelta(days=22) // timedelta(microseconds=1)
