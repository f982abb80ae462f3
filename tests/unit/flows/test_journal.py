"""Names of calls, and the replay of a run from its journal."""

from __future__ import annotations

import asyncio
from concurrent.futures import Future
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support import journals

from penstock.flows import RunContext, State, flow, get_run_context, task
from penstock.flows.context import entered
from penstock.flows.journal import ROOT, Journal, TaskCall, call_key


class Kept(journals.Kept):
    """A journal in memory; what it has recorded can be given to the next try."""

    def context(self, **more: Any) -> Any:
        return entered(super().context(**more))


class Bodies:
    """Counts how often a body ran; its n-th run returns n."""

    def __init__(self) -> None:
        self.ran = 0

    def next(self) -> int:
        self.ran += 1
        return self.ran


@given(st.lists(st.tuples(st.text(), st.text(), st.text(), st.integers(0, 9)), unique=True, max_size=8))
def test_different_calls_have_different_names(calls: list[tuple[str, str, str, int]]) -> None:
    assert len({call_key(*call) for call in calls}) == len(calls)


def test_the_name_of_a_call_is_the_same_in_every_release() -> None:
    assert call_key(ROOT, "fetch", "d", 0) == "0fb34bd85984a8461e3776f99f8ebd58"


def test_equal_calls_are_told_apart_by_their_order() -> None:
    journal = Journal({}, Kept().record)
    names = [journal.name_call(ROOT, "t", {"a": 1}) for _ in range(3)]
    assert len(set(names)) == 3
    assert [Journal({}, Kept().record).name_call(ROOT, "t", {"a": 1})] == names[:1]


def test_a_recorded_call_returns_its_result_and_its_body_does_not_run() -> None:
    bodies, first = Bodies(), Kept()

    @task
    def count(step: int = 1) -> int:
        return bodies.next()

    with first.context():
        assert (count(), count(1), count(step=2)) == (1, 2, 3)
    with Kept(first.completed()).context():
        assert (count(step=2), count(1), count()) == (3, 1, 2)  # (1) and () are equal calls
        assert count() == 4
    assert bodies.ran == 4


def test_a_failed_call_is_recorded_and_runs_anew() -> None:
    bodies, kept = Bodies(), Kept()

    @task
    def fails_first() -> int:
        if bodies.next() == 1:
            raise ValueError("cold\nstart")
        return bodies.ran

    with kept.context(), pytest.raises(ValueError, match="cold"):
        fails_first()
    assert [(call.state, call.error, call.result) for call in kept.calls] == [
        (State.FAILED, "ValueError: cold start", b"null")
    ]
    with Kept(kept.completed()).context():
        assert fails_first() == 2


def test_calls_within_a_call_have_it_as_their_parent() -> None:
    kept = Kept()

    @task
    def inner() -> str | None:
        return get_run_context().task

    @flow
    def below() -> str | None:
        assert get_run_context().flow == "below"
        return inner()

    @task
    def outer() -> str | None:
        return below()

    with kept.context():
        assert outer() == "inner"
    first, second, third = kept.calls
    assert [call.task for call in kept.calls] == ["inner", "below", "outer"]
    assert (first.parent, second.parent, third.parent) == (second.key, third.key, ROOT)


@given(st.permutations(range(6)), st.sets(st.integers(0, 5)), st.permutations(range(6)))
def test_gathered_equal_calls_replay_right_in_any_order_of_completion(
    finishing: list[int], journalled: set[int], again: list[int]
) -> None:
    """Six calls, equal in pairs, end in any order; any of them are recorded; the replay gives each its own result."""
    first = asyncio.run(_gathered(Kept(), finishing, salt="first"))
    results, kept = first
    survived = {call.key: call.result for call in kept.calls if int(call.result.split(b"/")[1]) in journalled}
    replayed, rest = asyncio.run(_gathered(Kept(survived), again, salt="second"))
    assert len(rest.calls) == 6 - len(journalled)
    for place, (old, new) in enumerate(zip(results, replayed, strict=True)):
        assert new == (old if place in journalled else f"second/{place}/")


async def _gathered(kept: Kept, finishing: list[int], salt: str) -> tuple[list[str], Kept]:
    gates = {place: asyncio.Event() for place in range(6)}
    places: dict[str, int] = {}

    @task
    async def visit(pair: int) -> str:
        place = places[get_run_context().parent]
        await gates[place].wait()
        return f"{salt}/{place}/"

    names = Journal({}, kept.record)
    places = {names.name_call(ROOT, "visit", {"pair": place // 2}): place for place in range(6)}
    with kept.context():
        running = [asyncio.ensure_future(visit(place // 2)) for place in range(6)]
        for place in finishing:
            gates[place].set()
            for _ in range(4):
                await asyncio.sleep(0)
        return list(await asyncio.gather(*running)), kept


async def test_code_behind_a_call_waits_until_the_call_is_recorded() -> None:
    futures: list[Future[None]] = []
    went_on = asyncio.Event()

    def record(call: TaskCall) -> Future[None]:
        futures.append(Future())
        return futures[-1]

    @task
    async def work() -> int:
        return 1

    async def body() -> None:
        await work()
        went_on.set()

    with entered(RunContext("r", "f", journal=Journal({}, record))):
        running = asyncio.create_task(body())
        while not futures:
            await asyncio.sleep(0)
        for _ in range(10):
            await asyncio.sleep(0)
        assert not went_on.is_set()
        futures[0].set_result(None)
        await running
    assert went_on.is_set()


def test_a_result_that_cannot_be_kept_fails_the_call() -> None:
    kept = Kept()

    @task
    def opens() -> object:
        return object()

    with kept.context(), pytest.raises(TypeError, match="'opens' cannot be kept"):
        opens()
    assert [call.state for call in kept.calls] == [State.FAILED]
