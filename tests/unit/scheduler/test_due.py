"""When schedules are due."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from penstock.automations.cron import check_cron
from penstock.events.instants import SECOND, to_datetime, to_instant
from penstock.services.scheduler.due import COUNTED, NEVER, Passed, Spec, next_due, passed

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")


def at(text: str) -> int:
    return to_instant(datetime.fromisoformat(text))


def dues(spec: Spec, after: str, count: int) -> list[str]:
    """The next due times, in the schedule's own time zone."""
    found, moment = [], at(after)
    for _ in range(count):
        moment = next_due(spec, moment)
        found.append(to_datetime(moment).astimezone(ZoneInfo(spec.timezone)).isoformat(timespec="minutes"))
    return found


def test_an_interval_counts_without_drift() -> None:
    spec = Spec(every=5 * SECOND)
    assert next_due(spec, 17) == 5 * SECOND + 17


@pytest.mark.parametrize(
    ("weekday", "expected"),
    [
        ("0", "sun"), ("7", "sun"), ("1", "mon"), ("6", "sat"), ("sun", "sun"), ("MON", "mon"),
        ("1-5", "mon tue wed thu fri"), ("5-7", "fri sat sun"), ("0-2", "mon tue sun"), ("0,3", "wed sun"),
        ("*/2", "tue thu sat sun"), ("1-5/2", "mon wed fri"), ("5/1", "fri sat"), ("mon-wed", "mon tue wed"),
    ],
)  # fmt: skip
def test_numbers_of_weekdays_mean_what_they_mean_to_cron(weekday: str, expected: str) -> None:
    spec = Spec(cron=check_cron(f"0 12 * * {weekday}"))
    moment, days = at("2026-03-02T00:00Z"), set()
    while (moment := next_due(spec, moment)) < at("2026-03-16T00:00Z"):
        days.add(to_datetime(moment).weekday())
    assert " ".join(DAYS[day] for day in sorted(days)) == expected


def test_where_both_days_are_restricted_either_is_enough() -> None:
    assert dues(Spec(cron="0 0 13 * 5"), "2026-03-01T00:00Z", 5) == [
        "2026-03-06T00:00+00:00", "2026-03-13T00:00+00:00", "2026-03-20T00:00+00:00", "2026-03-27T00:00+00:00",
        "2026-04-03T00:00+00:00",
    ]  # fmt: skip
    assert dues(Spec(cron="0 0 13 * *"), "2026-03-01T00:00Z", 2) == ["2026-03-13T00:00+00:00", "2026-04-13T00:00+00:00"]


def test_a_time_that_spring_skips_fires_when_the_clocks_have_moved_on() -> None:
    assert dues(Spec(cron="30 2 * * *", timezone="Europe/Vienna"), "2026-03-27T12:00Z", 3) == [
        "2026-03-28T02:30+01:00", "2026-03-29T03:30+02:00", "2026-03-30T02:30+02:00",
    ]  # fmt: skip


def test_a_time_that_autumn_repeats_fires_once() -> None:
    assert dues(Spec(cron="30 2 * * *", timezone="Europe/Vienna"), "2026-10-24T12:00Z", 2) == [
        "2026-10-25T02:30+02:00", "2026-10-26T02:30+01:00",
    ]  # fmt: skip


def test_lines_that_count_real_time_pass_over_no_half_hour_in_autumn() -> None:
    assert dues(Spec(cron="*/30 * * * *", timezone="Europe/Vienna"), "2026-10-25T00:00Z", 4) == [
        "2026-10-25T02:30+02:00", "2026-10-25T02:00+01:00", "2026-10-25T02:30+01:00", "2026-10-25T03:00+01:00",
    ]  # fmt: skip


def test_a_line_without_a_date_left_is_never_due() -> None:
    assert next_due(Spec(cron="0 0 31 2 *"), at("2026-01-01T00:00Z")) == NEVER


@st.composite
def lines(draw: st.DrawFn) -> str:
    def field(low: int, high: int) -> str:
        kind = draw(st.sampled_from(["*", "one", "range", "list", "step"]))
        first = draw(st.integers(low, high))
        last = draw(st.integers(first, high))
        return {"*": "*", "one": f"{first}", "range": f"{first}-{last}", "list": f"{first},{last}", "step": "*/7"}[kind]

    return f"{field(0, 59)} {field(0, 23)} {field(1, 28)} {field(1, 12)} {field(0, 7)}"


def matches(line: str, moment: datetime) -> bool:
    """The oracle: whether cron would run at this minute, field by field."""

    def holds(field: str, value: int, low: int, high: int) -> bool:
        for part in field.split(","):
            span, _, step = part.partition("/")
            first, _, last = (f"{low}-{high}" if span == "*" else span).partition("-")
            if value in range(int(first), int(last or first) + 1, int(step or 1)):
                return True
        return False

    minute, hour, day, month, weekday = line.split()
    in_week = moment.isoweekday() % 7
    on_weekday = holds(weekday, in_week, 0, 6 if weekday.startswith("*") else 7) or (
        in_week == 0 and not weekday.startswith("*") and holds(weekday, 7, 0, 7)
    )
    on_day = holds(day, moment.day, 1, 31)
    either = not day.startswith("*") and not weekday.startswith("*")
    return (
        holds(minute, moment.minute, 0, 59) and holds(hour, moment.hour, 0, 23) and holds(month, moment.month, 1, 12)
        and ((on_day or on_weekday) if either else (on_day and on_weekday))
    )  # fmt: skip


@given(lines(), st.integers(at("2026-01-01T00:00Z"), at("2029-12-31T00:00Z")))
@settings(max_examples=150, deadline=None)
@example("0 0 1-7 * 1", at("2026-03-01T00:00Z"))
def test_the_next_due_time_is_the_next_minute_that_matches(line: str, after: int) -> None:
    check_cron(line)
    start, found = to_datetime(after), to_datetime(next_due(Spec(cron=line), after))
    assert found > start
    assert matches(line, found)
    moment = start.replace(second=0, microsecond=0) + timedelta(minutes=1)
    for _ in range(3_000):
        if moment >= found:
            break
        assert not matches(line, moment)
        moment += timedelta(minutes=1)


@given(st.integers(100_000, 10**12), st.integers(0, 10**15), st.integers(0, 10**13))
def test_of_the_passed_times_of_an_interval_the_latest_counts(every: int, due: int, later: int) -> None:
    found = passed(Spec(every=every), due, due + later)
    assert due <= found.latest <= due + later < found.latest + every
    assert found.latest == due + found.missed * every


@given(lines(), st.integers(0, 40 * 86_400))
@settings(max_examples=60, deadline=None)
def test_of_the_passed_times_of_a_line_the_latest_counts(line: str, later: int) -> None:
    spec = Spec(cron=line)
    due = next_due(spec, at("2026-03-01T00:00Z"))
    now = due + later * SECOND
    found = passed(spec, due, now)
    assert due <= found.latest <= now < next_due(spec, found.latest)
    assert found.exact == (found.missed < COUNTED)


def test_a_long_outage_is_jumped_over_and_not_walked_through() -> None:
    spec, now = Spec(cron="* * * * *"), at("2030-01-01T00:00Z")
    assert passed(spec, at("2026-01-01T00:00Z"), now) == Passed(now, COUNTED, exact=False)


def test_a_definition_keeps_its_digest_and_another_one_has_another() -> None:
    specs = [Spec(every=SECOND), Spec(every=2 * SECOND), Spec(cron="* * * * *"), Spec(cron="* * * * *", timezone="CET")]
    assert len({spec.digest for spec in specs}) == 4
    assert all(Spec.from_json(spec.to_json()) == spec for spec in specs)
    assert Spec.from_json('{"every": 5, "of_a_later_format": 1}') == Spec(every=5)


def test_a_definition_from_before_there_were_recurrence_rules_is_the_same_one() -> None:
    """Else every schedule would start anew with the upgrade."""
    assert Spec(every=5).to_json() == '{"cron": null, "every": 5, "timezone": "UTC"}'


def test_a_recurrence_rule_is_due_by_the_clocks_of_its_zone_and_one_that_ends_never_again() -> None:
    spec = Spec(rrule="FREQ=DAILY;BYHOUR=9", timezone="Europe/Vienna")
    assert Spec.from_json(spec.to_json()) == spec
    noon = to_instant(datetime(2026, 7, 1, 12, tzinfo=UTC))
    assert to_datetime(next_due(spec, noon)) == datetime(2026, 7, 2, 7, tzinfo=UTC)
    assert next_due(Spec(rrule="FREQ=DAILY;UNTIL=20260101T000000"), noon) == NEVER
