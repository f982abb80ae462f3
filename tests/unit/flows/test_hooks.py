"""Hooks: who is told what, and when."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from tests.support.journals import Kept

from penstock.flows import FlowDefinitionError, Moment, RunCancelled, RunTimedOut, State, Suspended, flow, task
from penstock.flows.context import entered

ALL = ("on_running", "on_completion", "on_failure", "on_crash", "on_cancel", "on_pause")


def hooks(told: list[Moment]) -> dict[str, Any]:
    return dict.fromkeys(ALL, told.append)


def states(told: list[Moment]) -> list[str]:
    return [f"{moment.kind} {moment.name} {moment.state}" for moment in told]


def raising(error: BaseException) -> Callable[[], None]:
    def raises() -> None:
        raise error

    return raises


def test_a_completed_call_is_told_with_its_arguments_and_result() -> None:
    told: list[Moment] = []

    @task(**hooks(told))
    def add(a: int, b: int = 2) -> int:
        return a + b

    @flow(**hooks(told))
    def adds(number: int) -> int:
        return add(number)

    assert adds(number=1) == 3
    assert states(told) == ["flow adds running", "task add running", "task add completed", "flow adds completed"]
    assert (dict(told[2].arguments), told[2].result, told[3].result) == ({"a": 1, "b": 2}, 3, 3)
    assert told[0].run_id == told[2].run_id is not None


@pytest.mark.parametrize(
    ("error", "state"),
    [
        (ValueError("cold"), State.FAILED),
        (SystemExit(3), State.CRASHED),
        (KeyboardInterrupt(), State.CRASHED),
        (RunCancelled(), State.CANCELLED),
        (asyncio.CancelledError(), State.CANCELLED),
        (Suspended("waits for ann", paused=True), State.PAUSED),
    ],
)
def test_each_end_has_its_hook(error: BaseException, state: State) -> None:
    told: list[Moment] = []
    for made in (task(name="t", **hooks(told))(raising(error)), flow(name="t", **hooks(told))(raising(error))):
        told.clear()
        with pytest.raises(type(error)):
            made()
        assert [moment.state for moment in told] == [State.RUNNING, state]
        assert told[1].error is error


def test_a_failure_is_told_when_no_try_is_left() -> None:
    told: list[Moment] = []

    @task(retries=2, on_failure=told.append)
    def fails() -> None:
        raise ValueError("cold")

    with pytest.raises(ValueError, match="cold"):
        fails()
    assert states(told) == ["task fails failed"]


@pytest.mark.parametrize(("left", "told_of"), [(1, ["running"]), (0, ["running", "failed"])])
def test_a_worker_s_try_tells_of_failure_only_when_it_is_the_last(left: int, told_of: list[str]) -> None:
    told: list[Moment] = []

    @flow(retries=1, **hooks(told))
    def fails() -> None:
        raise ValueError("cold")

    with pytest.raises(ValueError, match="cold"):
        Kept().run(fails, tries_left=left)
    assert [moment.state.value for moment in told] == told_of


async def test_async_code_has_async_hooks_and_decorators_add_more() -> None:
    told: list[str] = []

    @task
    async def work() -> int:
        return 1

    @work.on_completion
    async def later(moment: Moment) -> None:
        await asyncio.sleep(0)
        told.append(f"later {moment.result}")

    @work.on_running
    def first(moment: Moment) -> None:
        told.append("first")

    assert await work() == 1
    assert told == ["first", "later 1"]


def test_a_hook_that_fails_changes_nothing(caplog: pytest.LogCaptureFixture) -> None:
    @task(on_completion=lambda _: 1 / 0)
    def work() -> int:
        return 1

    assert work() == 1
    assert "failed: ZeroDivisionError" in caplog.text


def test_what_can_be_no_hook_is_refused() -> None:
    async def later(moment: Moment) -> None: ...

    def work() -> None: ...

    for wrong in ({"on_failure": 3}, {"on_failure": [3]}, {"on_failure": later}):
        with pytest.raises((FlowDefinitionError, TypeError), match=r"on_failure|int"):
            task(**wrong)(work)


def test_another_process_can_tell_what_the_run_s_own_could_not() -> None:
    told: list[Moment] = []

    async def later(moment: Moment) -> None:
        told.append(moment)

    @flow(on_crash=told.append)
    def works(number: int) -> None: ...

    @flow(on_crash=later)
    async def works_later() -> None: ...

    works.tell_end(State.CRASHED, {"number": 1}, OSError("killed"))
    works_later.tell_end(State.CRASHED, {})
    works_later.tell_end(State.FAILED, {})
    assert [(moment.name, dict(moment.arguments)) for moment in told] == [("works", {"number": 1}), ("works-later", {})]


async def test_async_code_whose_time_is_up_has_timed_out_and_not_been_cancelled() -> None:
    told: list[Moment] = []

    @flow(**hooks(told))
    async def waits() -> None:
        await asyncio.Event().wait()

    async def one_try() -> None:
        with entered(Kept().context()):
            await waits.call_body({})

    running = asyncio.create_task(one_try())
    await asyncio.sleep(0)
    running.cancel(RunTimedOut)
    with pytest.raises(asyncio.CancelledError):
        await running
    assert [moment.state for moment in told] == [State.RUNNING, State.TIMED_OUT]
