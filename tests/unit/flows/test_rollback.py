"""Compensation: what finished tasks did is undone when their flow fails, the last first."""

from __future__ import annotations

import asyncio

import pytest
from tests.support.journals import Bodies, Died, Kept

from penstock.flows import CallError, FlowDefinitionError, Moment, State, flow, task

bodies = Bodies()


@pytest.fixture(autouse=True)
def _fresh() -> None:
    bodies.ran.clear()
    bodies.within = None


def undo(moment: Moment) -> None:
    bodies(f"undo {moment.result}")


@task(on_rollback=undo)
def book(what: str) -> str:
    return bodies(what)


@task
async def abook(what: str) -> str:
    return bodies(what)


@abook.on_rollback
async def undo_later(moment: Moment) -> None:
    await asyncio.sleep(0)
    bodies(f"undo {moment.arguments['what']}")


@task
def pay() -> None:
    raise LookupError("the card is refused")


@flow
def travels(fails: bool = True) -> str:
    book("train")
    hotel("Linz")
    if fails:
        pay()
    return "gone"


@flow
def hotel(town: str) -> str:
    return book(f"hotel in {town}")


@flow
async def travels_async() -> None:
    await abook("train")
    await asyncio.gather(abook("bike"))
    book("room")
    pay()


UNDONE = ["undo hotel in Linz", "undo train"]


def test_a_failing_flow_undoes_the_last_first() -> None:
    with pytest.raises(LookupError, match="refused"):
        travels()
    assert bodies.ran == ["train", "hotel in Linz", *UNDONE]


def test_a_flow_that_completes_undoes_nothing() -> None:
    assert travels(fails=False) == "gone"
    assert bodies.ran == ["train", "hotel in Linz"]


async def test_async_flows_undo_too() -> None:
    with pytest.raises(LookupError, match="refused"):
        await travels_async()
    assert bodies.ran == ["train", "bike", "room", "undo room", "undo bike", "undo train"]


def test_a_run_undoes_in_its_last_try_what_any_try_did() -> None:
    first = Kept()
    with pytest.raises(LookupError):
        first.run(travels, tries_left=1)
    assert bodies.ran == ["train", "hotel in Linz"]
    second = first.again()
    with pytest.raises(LookupError):
        second.run(travels, tries_left=0)
    assert bodies.ran == ["train", "hotel in Linz", *UNDONE]
    assert [call.task for call in second.calls] == ["pay", "book.rollback", "book.rollback"]


@pytest.mark.parametrize("at", range(7))
def test_each_step_is_undone_once_though_the_process_dies_at_any_record(at: int) -> None:
    """Only what was in flight at the death is done twice."""
    first = Kept()
    first.fails_at, bodies.within = at, first
    with pytest.raises((Died, LookupError)):
        first.run(travels)
    done = list(bodies.ran)
    second = bodies.within = first.again()
    with pytest.raises(LookupError):
        second.run(travels)
    assert [each for each in dict.fromkeys(bodies.ran)] == ["train", "hotel in Linz", *UNDONE]
    assert len(bodies.ran) <= 5, done
    undone = [call for kept in (first, second) for call in kept.calls if call.task == "book.rollback"]
    assert len({call.key for call in undone}) == len(undone) == 2


def test_one_that_cannot_be_undone_does_not_keep_the_others() -> None:
    @task(retries=1)
    def cannot(moment: Moment) -> None:
        bodies(f"try {moment.result}")
        raise OSError("away")

    @flow
    def fails() -> None:
        book("train")
        book.with_options(name="stubborn", on_rollback=cannot)("hotel")
        pay()

    with pytest.raises(LookupError) as failure:
        fails()
    assert bodies.ran == ["train", "hotel", "try hotel", "try hotel", "undo train"]
    assert failure.value.__notes__ == ["'stubborn' could not be undone: OSError: away"]


def test_a_retried_flow_keeps_what_was_done_and_undoes_it_at_the_end() -> None:
    @flow(retries=2)
    def stubborn() -> None:
        book("train")
        hotel("Linz")
        pay()

    with pytest.raises(LookupError):
        stubborn()
    assert bodies.ran == ["train", "hotel in Linz", *UNDONE]


def test_a_sub_flow_that_fails_undoes_its_own_and_its_parent_may_go_on() -> None:
    @flow
    def inner() -> None:
        book("hotel")
        pay()

    @flow
    def outer() -> str:
        book("train")
        try:
            inner()
        except LookupError:
            return "went home"
        return ""

    assert outer() == "went home"
    assert bodies.ran == ["train", "hotel", "undo hotel"]


def test_the_journal_tells_what_was_undone() -> None:
    kept = Kept()
    with pytest.raises(LookupError):
        kept.run(travels)
    booked = {call.key: call.result for call in kept.named("book")}
    assert [(call.state, booked[call.takes[0]]) for call in kept.named("book.rollback")] == [
        (State.COMPLETED, b'"hotel in Linz"'),
        (State.COMPLETED, b'"train"'),
    ]


def test_what_could_not_be_undone_for_sure_is_refused() -> None:
    @task
    def outer() -> str:
        return book("train")

    @flow
    def calls() -> str:
        return outer()

    with pytest.raises(CallError, match="call it from a flow"):
        calls()
    with pytest.raises(FlowDefinitionError, match="on_rollback=3"):
        task(on_rollback=3)(lambda: None)


def test_a_sub_flow_of_a_task_undoes_its_own_and_leaves_nothing_to_others() -> None:
    @task
    def within(town: str) -> str:
        return hotel(town)

    @flow
    def calls() -> None:
        book("train")
        within("Linz")
        pay()

    for _ in range(2):
        with pytest.raises(LookupError, match="refused"):
            Kept().run(calls)
    assert bodies.ran == ["train", "hotel in Linz", "undo train"] * 2
