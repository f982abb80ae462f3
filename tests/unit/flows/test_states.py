"""The states of a run, as design.md §7 draws them."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.flows.states import FINAL, TRANSITIONS, State, can_become

states = st.sampled_from(State)


@pytest.mark.parametrize("end", sorted(FINAL))
def test_a_running_run_can_reach_every_end(end: State) -> None:
    assert can_become(State.RUNNING, end)


def test_the_way_of_the_design_is_allowed() -> None:
    way = [State.SCHEDULED, State.PENDING, State.RUNNING, State.PAUSED, State.RUNNING, State.COMPLETED]
    assert all(can_become(old, new) for old, new in pairwise(way))


def test_a_run_whose_worker_died_is_pending_again() -> None:
    assert can_become(State.RUNNING, State.PENDING)


@given(states)
def test_staying_is_no_change(state: State) -> None:
    assert not can_become(state, state)


@given(states)
def test_a_completed_run_stays_completed(new: State) -> None:
    assert not can_become(State.COMPLETED, new)


@given(st.sampled_from(sorted(FINAL)), states)
def test_a_final_state_is_left_only_to_be_retried(old: State, new: State) -> None:
    assert not can_become(old, new) or new is State.RETRYING


@given(st.lists(states, min_size=1, max_size=30))
def test_only_running_code_completes_or_fails_by_timing_out(path: list[State]) -> None:
    """Whatever is asked for in whatever order, what is accepted leads to `completed` only from `running`."""
    now, walked = State.SCHEDULED, [State.SCHEDULED]
    for wanted in path:
        if can_become(now, wanted):
            now = wanted
            walked.append(now)
    if State.COMPLETED in walked:
        assert walked[-2:] == [State.RUNNING, State.COMPLETED]


def test_every_state_is_in_the_table_and_every_one_can_be_reached() -> None:
    reached, new = {State.SCHEDULED}, {State.SCHEDULED}
    while new:
        new = {target for state in new for target in TRANSITIONS[state]} - reached
        reached |= new
    assert set(TRANSITIONS) == reached == set(State)


@given(states)
def test_every_state_that_is_not_final_can_be_cancelled(state: State) -> None:
    assert state.is_final or can_become(state, State.CANCELLED)
