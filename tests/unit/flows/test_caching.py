"""Results that are kept across runs."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.journals import Kept

from penstock.flows import INPUTS, SOURCE, CallError, FlowDefinitionError, LocalStore, by_key, flow, task
from penstock.flows import calls as calls_module

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-99, 99) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2), inner, max_size=3),
    max_leaves=5,
)


@pytest.fixture(autouse=True)
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LocalStore:
    monkeypatch.setenv("PENSTOCK_RESULTS", str(tmp_path / "results"))
    return LocalStore(tmp_path / "results")


def counted(**options: Any) -> tuple[Callable[..., Any], list[Any]]:
    ran: list[Any] = []

    @task(name="counted", **options)
    def work(a: Any, b: Any = 0) -> Any:
        ran.append((a, b))
        return [a, b]

    return work, ran


def test_equal_arguments_share_one_result_however_they_are_given() -> None:
    work, ran = counted(cache=INPUTS)
    assert [work(1), work(a=1), work(1, 0), work(1, b=0)] == [[1, 0]] * 4
    assert (work(2), work(1, 2), work("1")) == ([2, 0], [1, 2], ["1", 0])
    assert len(ran) == 4


def test_another_process_finds_the_result() -> None:
    counted(cache=INPUTS)[0](1)
    work, ran = counted(cache=INPUTS)
    assert (work(1), ran) == ([1, 0], [])


def test_other_code_is_another_result() -> None:
    @task(name="rate", cache=SOURCE + INPUTS)
    def old(currency: str) -> int:
        return 1

    @task(name="rate", cache=INPUTS + SOURCE)
    def new(currency: str) -> int:
        return 2

    assert (old("EUR"), new("EUR"), old("EUR")) == (1, 2, 1)


def test_by_source_alone_the_arguments_do_not_count() -> None:
    work, ran = counted(cache=SOURCE)
    assert (work(1), work(2), len(ran)) == ([1, 0], [1, 0], 1)


def test_a_key_function_says_which_calls_are_the_same() -> None:
    work, ran = counted(cache=by_key(lambda given: str(given["a"]).lower()))
    assert (work("A"), work("a", 5), work("b"), len(ran)) == (["A", 0], ["A", 0], ["b", 0], 2)
    wrong, _ = counted(cache=by_key(lambda given: given["a"]))
    with pytest.raises(CallError, match="has to return a text"):
        wrong(3)


def test_an_argument_that_makes_no_difference_is_left_out() -> None:
    work, ran = counted(cache=INPUTS.without("b"))
    assert work(1, 5) == work(1, 6)
    assert len(ran) == 1


def test_an_argument_that_cannot_be_compared_is_named() -> None:
    work, _ = counted(cache=INPUTS)
    with pytest.raises(CallError, match=r"argument 'b' of task 'counted' .*INPUTS.without"):
        work(1, threading.Lock())


def test_a_result_runs_out(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [1_000_000]
    monkeypatch.setattr(calls_module, "now", lambda: clock[0])
    work, ran = counted(cache=INPUTS, cache_for=timedelta(seconds=10))
    work(1)
    clock[0] += 9_999_999
    work(1)
    assert len(ran) == 1
    clock[0] += 1
    work(1)
    assert len(ran) == 2


def test_one_computes_while_the_others_wait() -> None:
    begun, release = threading.Event(), threading.Event()
    ran: list[int] = []

    @task(cache=INPUTS)
    def slow(a: int) -> int:
        ran.append(a)
        begun.set()
        release.wait(5)
        return a

    @flow
    def asks() -> list[int]:
        futures = slow.map([7] * 5)
        begun.wait(5)
        release.set()
        return futures.result()

    assert asks() == [7] * 5
    assert ran == [7]


async def test_async_calls_wait_for_each_other_too() -> None:
    ran: list[int] = []
    release = asyncio.Event()

    @task(cache=INPUTS)
    async def slow(a: int) -> int:
        ran.append(a)
        await release.wait()
        return a

    running = [asyncio.ensure_future(slow(7)) for _ in range(3)]
    while not ran:
        await asyncio.sleep(0)
    release.set()
    assert await asyncio.gather(*running) == [7] * 3
    assert ran == [7]


def test_who_fails_lets_the_next_one_try() -> None:
    ran: list[int] = []

    @task(cache=INPUTS)
    def fails_first() -> int:
        ran.append(1)
        if len(ran) == 1:
            raise ValueError("cold")
        return 2

    with pytest.raises(ValueError, match="cold"):
        fails_first()
    assert (fails_first(), fails_first(), len(ran)) == (2, 2, 2)


def test_results_come_back_typed_and_pickled_ones_as_they_were() -> None:
    @task(cache=INPUTS)
    def moment() -> timedelta:
        return timedelta(hours=1)

    @task(cache=INPUTS, serializer="pickle")
    def anything() -> Any:
        return {(1, 2): {3}}

    assert [moment(), moment()] == [timedelta(hours=1)] * 2
    assert [anything(), anything()] == [{(1, 2): {3}}] * 2


def test_a_cached_result_is_recorded_by_each_run() -> None:
    work, ran = counted(cache=INPUTS)

    @flow
    def runs() -> Any:
        return work(1)

    first, second = Kept(), Kept()
    assert first.run(runs) == second.run(runs) == [1, 0]
    assert [call.result for call in second.calls] == [b"[1,0]"]
    assert len(ran) == 1


@given(st.lists(JSON, min_size=2, max_size=2))
def test_different_arguments_have_different_keys(values: list[Any]) -> None:
    keys = [INPUTS.find_key("t", test_different_arguments_have_different_keys, {"a": value}) for value in values]
    same = values[0] == values[1] and repr(values[0]) == repr(values[1])
    assert not same or keys[0] == keys[1]
    assert keys[0] != keys[1] or values[0] == values[1]


def test_what_can_be_no_cache_is_refused() -> None:
    def yields(a: int) -> Any:
        yield a

    for wrong in ({"cache": "inputs"}, {"cache": INPUTS.without("c")}, {"cache_for": -1}):
        with pytest.raises(FlowDefinitionError):
            counted(**wrong)
    with pytest.raises(FlowDefinitionError, match="generator"):
        task(cache=INPUTS)(yields)
    with pytest.raises(FlowDefinitionError, match="two cache key functions"):
        by_key(str) + by_key(repr)
