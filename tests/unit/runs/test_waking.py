"""Runs that wait for the same instant, or the same event, do not wake in one instant."""

from __future__ import annotations

from collections import Counter
from datetime import timedelta

from hypothesis import given
from hypothesis import strategies as st

from penstock.services.waits import Turns, spread

waits = st.timedeltas(timedelta(0), timedelta(days=365))


@given(st.text(), waits)
def test_what_is_added_to_a_wait_is_little_and_the_same_for_the_same_run(run_id: str, wait: timedelta) -> None:
    added = spread(run_id, wait)
    assert timedelta(0) <= added <= min(wait / 20, timedelta(seconds=30))
    assert added == spread(run_id, wait)


def test_a_thousand_runs_with_one_deadline_are_due_over_half_a_minute() -> None:
    due = [spread(f"run-{number}", timedelta(hours=2)) for number in range(1_000)]
    by_second = Counter(added // timedelta(seconds=1) for added in due)
    assert len(by_second) == 30
    assert max(by_second.values()) < 70


@given(st.lists(st.floats(0, 10), min_size=1, max_size=300), st.integers(1, 500))
def test_turns_come_one_after_the_other_at_most_so_many_a_second(pauses: list[float], rate: int) -> None:
    turns, now, last = Turns(rate), 0.0, -1e9
    for pause in pauses:
        now += pause
        wait = turns.take(now).total_seconds()
        assert now + wait >= last + 1 / rate - 1e-5
        assert wait <= len(pauses) / rate
        last = now + wait


def test_the_first_in_a_long_time_goes_at_once() -> None:
    turns = Turns(100)
    assert [turns.take(now) for now in (5.0, 5.0, 9.0)] == [timedelta(0), timedelta(milliseconds=10), timedelta(0)]
