"""How long calls wait before they are tried again."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.flows import FlowDefinitionError, exponential, task
from penstock.flows.retries import policy


def test_one_delay_holds_for_every_retry() -> None:
    assert policy(3, 2, None).waits() == [2.0, 2.0, 2.0]


def test_a_list_of_delays_goes_on_with_its_last() -> None:
    assert policy(4, [1, timedelta(minutes=1)], None).waits() == [1.0, 60.0, 60.0, 60.0]


def test_exponential_delays_double_up_to_their_most() -> None:
    assert policy(5, exponential(1, most=5), None).waits() == [1.0, 2.0, 4.0, 5.0, 5.0]


@given(st.integers(1, 10_000), st.floats(0, 1e6), st.floats(1, 100), st.floats(0, 1, exclude_max=True))
def test_a_wait_lies_between_its_base_and_its_jitter(retry: int, first: float, factor: float, draw: float) -> None:
    found = policy(retry, exponential(first, factor=factor, most=600, jitter=0.5), None)
    assert found.wait(retry) <= found.wait(retry, draw) <= found.wait(retry) * 1.5 <= 900


@given(st.integers(1, 2_000), st.floats(0.001, 1e6), st.floats(1, 100))
def test_waits_never_shrink(retry: int, first: float, factor: float) -> None:
    found = policy(0, exponential(first, factor=factor), None)
    assert found.wait(retry) <= found.wait(retry + 1)


@pytest.mark.parametrize(
    ("condition", "error", "again"),
    [
        (None, ValueError(), True),
        (OSError, ConnectionError(), True),
        (OSError, ValueError(), False),
        ((KeyError, ValueError), ValueError(), True),
        (lambda error: "busy" in str(error), OSError("busy"), True),
        (lambda error: "busy" in str(error), OSError("gone"), False),
        (None, KeyboardInterrupt(), False),
    ],
)
def test_a_condition_says_which_errors_are_tried_again(condition: Any, error: BaseException, again: bool) -> None:
    assert policy(1, retry_if=condition).allows(error) is again


def test_a_condition_that_fails_says_no_and_leaves_a_note() -> None:
    error = ValueError("cold")
    assert not policy(1, retry_if=lambda error: bool(1 / 0)).allows(error)
    assert error.__notes__ == ["retry_if failed: ZeroDivisionError: division by zero"]


def test_a_task_is_tried_again_only_for_what_its_condition_takes() -> None:
    ran: list[str] = []

    @task(retries=5, retry_if=ConnectionError)
    def fails() -> None:
        ran.append("fails")
        raise ConnectionError("busy") if len(ran) < 3 else LookupError("gone")

    with pytest.raises(LookupError, match="gone"):
        fails()
    assert len(ran) == 3


@pytest.mark.parametrize("condition", ["OSError", int, (OSError, 3), (OSError, int), BaseException])
def test_a_wrong_condition_is_refused(condition: Any) -> None:
    with pytest.raises(FlowDefinitionError, match="retry_if="):
        policy(1, retry_if=condition)


@pytest.mark.parametrize("retries", [-1, True, 1.5, "3"])
def test_a_wrong_number_of_retries_is_refused(retries: object) -> None:
    with pytest.raises(FlowDefinitionError, match="retries="):
        policy(retries, 0, None)  # type: ignore[arg-type]  # what an untyped program may write


@pytest.mark.parametrize("delay", [-1, "1s", [], [1, None], float("nan")])
def test_a_wrong_delay_is_refused(delay: object) -> None:
    with pytest.raises(FlowDefinitionError, match="retry_delay="):
        policy(1, delay, None)  # type: ignore[arg-type]  # what an untyped program may write


@pytest.mark.parametrize("timeout", [0, -1, "5m", float("inf")])
def test_a_wrong_timeout_is_refused(timeout: object) -> None:
    with pytest.raises(FlowDefinitionError, match="timeout"):
        policy(1, 0, timeout)  # type: ignore[arg-type]  # what an untyped program may write
