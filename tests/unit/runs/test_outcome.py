"""What follows from the end of a try."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.flows.states import State
from penstock.services.worker.claims import ClaimedRun
from penstock.services.worker.frames import Finished, FlowInfo
from penstock.services.worker.outcome import Outcome, judge, retry_wait


def claimed(*, attempt: int = 1, retries: int = 0) -> ClaimedRun:
    return ClaimedRun(
        "r1", "default", "reroute", 1, State.PENDING, attempt, retries, "{}", "", (), {},
        None, None, None, False, None, None, None, 0,
    )  # fmt: skip


def flow(retries: int = 0, delays: list[float] | None = None, jitter: float = 0.0) -> FlowInfo:
    return FlowInfo(
        name="reroute", module="m", qualname="f", place="m.py:1", parameters={},
        retries=retries, retry_delays=delays or [], retry_jitter=jitter,
    )  # fmt: skip


def finished(state: str) -> Finished:
    return Finished(run_id="r1", epoch=1, state=state, at=0)


@pytest.mark.parametrize("state", ["completed", "failed", "timed_out", "cancelled"])
def test_without_retries_the_end_of_a_try_is_the_end_of_the_run(state: str) -> None:
    assert judge(finished(state), flow(), claimed(), 5, 0.0) == Outcome(State(state))


@pytest.mark.parametrize("state", ["failed", "timed_out"])
def test_what_failed_is_tried_again_as_often_as_its_flow_says(state: str) -> None:
    twice = flow(2, [1.0, 5.0])
    waits = [judge(finished(state), twice, claimed(retries=n), 5, 0.0).wait for n in range(3)]
    assert waits == [timedelta(seconds=1), timedelta(seconds=5), None]


def test_cancelled_and_completed_runs_are_never_tried_again() -> None:
    for state in ("completed", "cancelled"):
        assert judge(finished(state), flow(9), claimed(), 5, 0.0).wait is None


def test_a_crash_is_tried_again_until_the_attempts_are_used_up() -> None:
    goes_on = [judge(finished("crashed"), flow(), claimed(attempt=n), 3, 0.0).crashed_and_goes_on for n in (1, 2, 3)]
    assert goes_on == [True, True, False]


@given(st.lists(st.floats(0, 1e6), max_size=5), st.integers(0, 50), st.floats(0, 1, exclude_max=True), st.floats(0, 1))
def test_a_wait_lies_between_its_delay_and_that_plus_the_jitter(
    delays: list[float], retries: int, draw: float, jitter: float
) -> None:
    wait = retry_wait(flow(99, delays, jitter), retries, draw).total_seconds()
    delay = delays[min(retries, len(delays) - 1)] if delays else 0.0
    assert delay - 1e-5 <= wait <= delay * (1 + jitter) + 1e-5
