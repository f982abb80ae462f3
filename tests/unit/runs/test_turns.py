"""Whose turn it is: nobody starves, and no key blocks another, whatever comes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.services.turns import POINT, TURN, fairness_key, rank

PRIORITIES = (-2, 0, 5)
PACES = st.sampled_from([500_000, 10_000_000, 300_000_000])  # microseconds that a run takes the only worker


@dataclass(frozen=True)
class Run:
    rank: int
    number: int
    key: str
    priority: int
    due_at: int


Arrival = tuple[int, str, int]  # due_at, key, priority
OnArrival = Callable[[Run, Sequence[Run]], None]


@st.composite
def arrivals(draw: st.DrawFn) -> list[Arrival]:
    """In order of time, seconds to minutes apart, often many at once."""
    gaps = draw(st.lists(st.sampled_from([0, 0, 0, 1_000_000, 20_000_000, 90_000_000]), min_size=1, max_size=60))
    times = [sum(gaps[: n + 1]) for n in range(len(gaps))]
    return [(at, draw(st.sampled_from("abc")), draw(st.sampled_from(PRIORITIES))) for at in times]


def served(arriving: list[Arrival], pace: int, on_arrival: OnArrival = lambda run, waiting: None) -> list[Run]:
    """The order in which one worker serves what arrives."""
    waiting: list[Run] = []
    order: list[Run] = []
    now, number = 0, 0
    while number < len(arriving) or waiting:
        while number < len(arriving) and arriving[number][0] <= now:
            due_at, key, priority = arriving[number]
            same = [each.rank for each in waiting if (each.key, each.priority) == (key, priority)]
            run = Run(rank(due_at, priority, same), number, key, priority, due_at)
            on_arrival(run, waiting)
            waiting.append(run)
            number += 1
        if waiting:
            order.append(min(waiting, key=lambda each: (each.rank, each.number)))
            waiting.remove(order[-1])
        now += pace
    return order


@given(arrivals(), PACES)
@settings(max_examples=60, deadline=None)
def test_nothing_starves(arriving: list[Arrival], pace: int) -> None:
    """However much comes with a high priority: what becomes due late enough overtakes nothing."""
    order = served(arriving, pace)
    for at, run in enumerate(order):
        overtaking = [each for each in order[:at] if each.number > run.number]
        assert all(each.due_at <= run.rank + POINT * each.priority for each in overtaking)


@given(arrivals(), PACES)
@settings(max_examples=60, deadline=None)
def test_the_runs_of_a_key_and_priority_are_served_in_their_order(arriving: list[Arrival], pace: int) -> None:
    order = served(arriving, pace)
    for kind in {(each.key, each.priority) for each in order}:
        mine = [each.number for each in order if (each.key, each.priority) == kind]
        assert mine == sorted(mine)


@given(arrivals(), PACES)
@settings(max_examples=60, deadline=None)
def test_a_key_stands_behind_one_run_of_another_and_one_more_for_each_minute_that_it_waits(
    arriving: list[Arrival], pace: int
) -> None:
    def compare(run: Run, waiting: Sequence[Run]) -> None:
        if any((each.key, each.priority) == (run.key, run.priority) for each in waiting):
            return  # it stands behind its own
        for key in {"a", "b", "c"} - {run.key}:
            theirs = [each for each in waiting if (each.key, each.priority) == (key, run.priority)]
            before = [each for each in theirs if each.rank <= run.rank]
            if before:
                assert len(before) <= 1 + (run.due_at - theirs[0].due_at) // TURN

    served(arriving, pace, compare)


def test_keys_with_many_runs_alternate_and_a_single_run_of_another_goes_between() -> None:
    arriving = [(0, "a", 0)] * 5 + [(0, "b", 0)] * 3 + [(1_000_000, "c", 0)]
    assert "".join(each.key for each in served(arriving, 2_000_000)) == "abcababaa"


def test_long_keys_are_kept_as_digests() -> None:
    assert fairness_key("truck/7") == "truck/7"
    assert len({fairness_key("x" * 500), fairness_key("x" * 501)}) == 2
    assert len(fairness_key("x" * 500)) == 32
