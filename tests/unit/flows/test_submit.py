"""Calls beside the code that makes them: submit, map, futures, wait."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue
from typing import Any

import pytest
from tests.support.journals import Kept

from penstock.flows import (
    CallError,
    FlowDefinitionError,
    FutureError,
    TaskFuture,
    ThreadRunner,
    as_completed,
    flow,
    get_run_context,
    task,
    unmapped,
    wait,
)
from penstock.flows.journal import TaskCall


@task
def add(a: int, b: int = 1) -> int:
    return a + b


@task
async def aadd(a: int, b: int = 1) -> int:
    await asyncio.sleep(0)
    return a + b


@task
def total(numbers: Any) -> int:
    return sum(numbers.values() if isinstance(numbers, dict) else numbers)


@task
def breaks() -> int:
    raise LookupError("no such truck")


def test_a_sync_flow_submits_and_asks_for_results() -> None:
    @flow
    def submits() -> list[int]:
        first, second = add.submit(1), aadd.submit(2)
        return [first.result(), second.result(), add.submit(3, b=4).result(timeout=5)]

    assert submits() == [2, 3, 7]


async def test_an_async_flow_awaits_what_it_submits() -> None:
    @flow
    async def submits() -> list[int]:
        first, second = add.submit(1), aadd.submit(2)
        return [await first, await second, *await add.map([1, 2]), *await aadd.map([1, 2])]

    assert await submits() == [2, 3, 2, 3, 2, 3]


def test_map_goes_through_equally_long_lists_and_repeats_the_rest() -> None:
    @flow
    def maps() -> list[list[int]]:
        return [
            add.map([1, 2, 3]).result(),
            add.map(range(2), b=(10, 20)).result(),
            add.map((each for each in [1, 2]), unmapped(5)).result(),
            total.map([[1, 2], [3]]).result(),
            total.map(numbers=[{"a": 1}, {"a": 2}]).result(),
        ]

    assert maps() == [[2, 3, 4], [10, 21], [6, 7], [3, 3], [1, 2]]


@pytest.mark.parametrize(
    ("given", "told"), [(([1, 2], [1]), "different lengths"), ((1, unmapped([1])), "needs a list"), (("ab",), "needs")]
)
def test_map_refuses_what_it_cannot_go_through(given: tuple[Any, ...], told: str) -> None:
    with pytest.raises(CallError, match=told):
        add.map(*given)


def test_futures_among_the_arguments_stand_for_their_results() -> None:
    @flow
    def passes() -> list[int]:
        one, two = add.submit(0), aadd.submit(1)
        return [
            add.submit(one, b=two).result(),
            add(one, two),  # type: ignore[arg-type]  # futures stand for their results
            total.submit([one, two, 3]).result(),
            total((one, two)),
            total({"a": one, "b": 5}),
            total.submit(add.map([1, 2])).result(),
            total(list(add.map(range(1_500)))),
        ]

    assert passes() == [3, 3, 6, 3, 6, 5, sum(range(1_501))]


async def test_futures_go_into_async_calls_too() -> None:
    @flow
    async def passes() -> int:
        one = aadd.submit(0)
        return await aadd.submit(one, add.submit(one)) + await aadd(one)  # type: ignore[arg-type]  # a future stands for its result

    assert await passes() == 5


def test_an_error_reaches_who_asks_and_who_was_given_the_future() -> None:
    @flow
    def asks() -> list[str]:
        failed = breaks.submit()
        wait([failed])
        assert isinstance(failed.exception(), LookupError)
        found = []
        asks: list[Callable[[], Any]] = [failed.result, lambda: add(failed), add.submit(failed).result]  # type: ignore[arg-type]  # as above
        for ask in asks:
            try:
                ask()
            except LookupError as error:
                found.append(str(error))
        return found

    assert asks() == ["no such truck"] * 3


def test_a_flow_ends_after_what_it_submitted(caplog: pytest.LogCaptureFixture) -> None:
    release, ended = threading.Event(), threading.Event()

    @task
    def slow() -> None:
        release.wait(5)
        ended.set()

    @flow
    def leaves() -> str:
        slow.submit()
        breaks.submit()
        threading.Timer(0.005, release.set).start()
        return "left"

    assert leaves() == "left"
    assert ended.is_set()
    assert "'breaks' failed (LookupError: no such truck), and nobody asked for its result" in caplog.text


def test_a_failing_flow_takes_back_what_has_not_begun() -> None:
    begun = threading.Event()
    release = threading.Event()
    ran: list[int] = []

    @task
    def blocks() -> None:
        begun.set()
        release.wait(5)

    @task
    def notes(number: int) -> None:
        ran.append(number)

    @flow(runner=ThreadRunner(max_workers=1))
    def fails() -> None:
        blocks.submit()
        notes.map([1, 2, 3])
        begun.wait(5)
        threading.Timer(0.005, release.set).start()
        raise LookupError("closed")

    with pytest.raises(LookupError, match="closed"):
        fails()
    assert ran == []


def test_threads_that_wait_for_each_other_do_not_lock_each_other_out() -> None:
    @task
    def deep(level: int) -> int:
        return 0 if level == 0 else deep.submit(level - 1).result() + 1

    @flow(runner=ThreadRunner(max_workers=1))
    def nests() -> int:
        later = deep.submit(3)
        return deep.submit(5).result() + add.submit(later).result()

    assert nests() == 9


def test_as_many_threads_work_as_the_runner_has() -> None:
    both = threading.Barrier(3, timeout=5)

    @task
    def meets(_: int) -> str:
        both.wait()
        return threading.current_thread().name

    @flow(runner=ThreadRunner(max_workers=3))
    def gathers() -> set[str]:
        return set(meets.map(range(3)).result())

    assert gathers() == {"penstock-task"}


def test_wait_says_what_is_done_and_as_completed_gives_it_in_that_order() -> None:
    release = threading.Event()

    @task
    def blocks() -> str:
        release.wait(5)
        return "late"

    @flow
    def waits() -> list[Any]:
        late, early = blocks.submit(), add.submit(1)
        early.result()
        found = wait([late, early], timeout=0.001)
        assert (found.done, found.not_done) == ({early}, {late})
        with pytest.raises(TimeoutError):
            late.result(timeout=0.001)
        ends: list[Any] = []
        both: list[TaskFuture[Any]] = [late, early]
        for future in as_completed(both):
            ends.append(future.result())
            release.set()
        return ends

    assert waits() == [2, "late"]


async def test_waiting_on_the_loop_that_works_is_refused() -> None:
    @flow
    async def blocks() -> None:
        aadd.submit(1).result()

    with pytest.raises(FutureError, match="await it"):
        await blocks()


async def test_a_future_can_be_cancelled_and_told_of() -> None:
    told: list[str] = []

    @task
    async def never() -> None:
        await asyncio.Event().wait()

    @flow
    async def cancels() -> None:
        future = never.submit()
        future.add_done_callback(lambda each: told.append(each.name))
        await asyncio.sleep(0)
        assert future.cancel()
        await future

    with pytest.raises(asyncio.CancelledError):
        await cancels()
    assert told == ["never"]


def test_a_cancelled_flow_cancels_its_async_calls() -> None:
    ended: list[str] = []

    @task
    async def never() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("never")

    @flow
    async def waits() -> None:
        await never.submit()

    async def main() -> None:
        running = asyncio.create_task(waits())
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        await asyncio.sleep(0)

    asyncio.run(main())
    assert ended == ["never"]


def test_submitted_calls_know_their_run_and_outside_of_runs_they_work_too() -> None:
    @task
    def who() -> str:
        return f"{get_run_context().flow}/{get_run_context().task}"

    @flow
    def asks() -> str:
        return who.submit().result()

    assert asks() == "asks/who"
    assert add.submit(1).result() == 2
    assert add.map([1, 2]).result() == [2, 3]


def test_the_graph_of_a_run_is_told_by_results_and_futures() -> None:
    @task
    def book(order: str) -> str:
        return f"parcel-{order}"

    @task
    def label(parcel: str, parts: Any = ()) -> str:
        return f"label-{parcel}"

    @flow
    def ships() -> str:
        parcel = book("7")
        future = book.submit("8")
        label(parcel)
        label.submit(future)
        label("known", parts=[parcel, future])
        return label("parcel-7")  # equal, and not the result

    kept = Kept()
    kept.run(ships)
    books = [call.key for call in kept.named("book")]
    takes = sorted(tuple(books.index(key) for key in call.takes) for call in kept.named("label"))
    assert takes == [(), (0,), (0, 1), (1,)]
    again = kept.again()
    again.run(ships)
    assert again.calls == []


def test_wrong_numbers_of_workers_are_refused() -> None:
    for wrong in (0, -1, True, 1.5):
        with pytest.raises(FlowDefinitionError, match="max_workers"):
            ThreadRunner(max_workers=wrong)  # type: ignore[arg-type]  # what an untyped program may write


def test_a_thread_that_goes_on_working_is_not_taken_for_idle() -> None:
    first, both = threading.Event(), threading.Barrier(2, timeout=5)

    @task
    def opens() -> None:
        first.wait(5)

    @task
    def meets() -> None:
        both.wait()

    @flow(runner=ThreadRunner(max_workers=2))
    def works() -> None:
        futures = [opens.submit(), opens.submit(), opens.submit(), opens.submit()]
        first.set()
        for future in futures:
            future.result()
        wait([meets.submit(), meets.submit()])

    works()


class Slow(Kept):
    """A journal that keeps a record when it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.waiting: SimpleQueue[Future[None]] = SimpleQueue()

    def record(self, call: TaskCall) -> Future[None]:
        super().record(call)
        future: Future[None] = Future()
        self.waiting.put(future)
        return future

    def keep(self, count: int) -> None:
        for _ in range(count):
            self.waiting.get(timeout=5).set_result(None)


def test_a_thread_does_not_wait_for_the_journal_but_what_follows_does() -> None:
    kept, ran = Slow(), threading.Semaphore(0)

    @task
    def work(number: int) -> int:
        ran.release()
        return number

    @flow(runner=ThreadRunner(max_workers=1))
    def works() -> list[int]:
        futures = work.map(range(5))
        for _ in range(5):
            assert ran.acquire(timeout=5)
        assert not any(future.done() for future in futures)
        threading.Thread(target=kept.keep, args=(5,)).start()
        return futures.result()

    assert kept.run(works) == [0, 1, 2, 3, 4]


def test_waiting_for_the_journal_locks_nobody_out() -> None:
    kept = Slow()

    @task
    def deep(level: int) -> int:
        return 0 if level == 0 else deep.submit(level - 1).result() + 1

    @task(on_completion=lambda _: None)
    def hooked(level: int) -> int:
        return deep.submit(level).result()

    @flow(runner=ThreadRunner(max_workers=1))
    def nests() -> list[int]:
        return [deep.submit(3).result(), hooked.submit(1).result()]

    threading.Thread(target=kept.keep, args=(7,)).start()
    assert kept.run(nests) == [3, 1]


def test_a_record_that_fails_is_told_to_who_asks() -> None:
    kept = Slow()

    @flow
    def works() -> int:
        future = add.submit(1)
        kept.waiting.get(timeout=5).set_exception(OSError("the journal is away"))
        return future.result()

    with pytest.raises(OSError, match="the journal is away"):
        kept.run(works)


async def test_a_sync_flow_on_a_loop_leaves_async_calls_to_threads() -> None:
    @flow
    def blocks() -> int:
        return aadd.submit(aadd.submit(1)).result()

    @flow
    async def calls() -> int:
        return blocks() + await aadd.submit(1)

    assert await calls() == 5


async def test_sub_flows_take_futures_too() -> None:
    @flow
    def below(number: int) -> int:
        return number + 1

    @flow
    async def below_async(numbers: list[int]) -> int:
        return sum(numbers)

    @flow
    async def calls() -> list[int]:
        one = add.submit(1)
        return [below(one), await below_async([one, aadd.submit(1)])]  # type: ignore[arg-type, list-item]  # as above

    assert await calls() == [3, 4]
