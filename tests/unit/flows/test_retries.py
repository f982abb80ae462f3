"""How long calls wait before they are tried again."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.flows import FlowDefinitionError, exponential
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
