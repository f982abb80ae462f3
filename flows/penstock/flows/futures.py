"""Futures: calls that have been submitted, and what comes of them."""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Generic, NamedTuple, TypeVar

from penstock.flows.errors import FutureError
from penstock.flows.pool import serves_here

R = TypeVar("R")
T = TypeVar("T")


class TaskFuture(Generic[R]):
    """A submitted call. Sync code asks `.result()`, async code awaits it; given to another task it is its result.

    name: of the task.  call_name: the key that its call is journalled by; "" where nothing is.
    """

    made = False  # whether there is any in this process; until then nobody needs to look for them

    def __init__(
        self,
        name: str,
        call_name: str,
        work: Callable[[TaskFuture[R]], None] | None = None,
        loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        """work: what a thread has to do; it completes or fails this future, at once or later, and raises nothing.

        loop: that it is carried out on, instead.
        """
        TaskFuture.made = True
        self.name, self.call_name = name, call_name
        self.settled: Future[R] = Future()
        self.asked = False  # whether anybody has taken the result
        self._work = work
        self._loop = loop
        self._cancel: Callable[[], object] | None = None
        self._taken = threading.Lock()
        self.ended: Callable[[TaskFuture[R]], object] = _nothing  # called once it has

    def result(self, timeout: float | None = None) -> R:
        """What the call returned, or raise what it raised.

        timeout: seconds to wait, TimeoutError after that.  Raises FutureError on the event loop that carries it out.
        """
        self._prepare_to_wait()
        return self.settled.result(timeout)

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """What the call raised, or None; waits as `result` does."""
        self._prepare_to_wait()
        return self.settled.exception(timeout)

    def done(self) -> bool:
        """Whether it has ended, in whatever way."""
        return self.settled.done()

    def cancel(self) -> bool:
        """Take it back: what has not begun never will, async code is cancelled. Sync code that runs is left alone.

        Returns whether that could be asked for.
        """
        if self._cancel is not None:
            self._cancel()
            return True
        cancelled = self.settled.cancel()
        if cancelled:
            self.ended(self)
        return cancelled

    def add_done_callback(self, function: Callable[[TaskFuture[R]], object]) -> None:
        """Call the function with this future once it has ended; at once, if it has."""
        self.settled.add_done_callback(lambda _: function(self))

    def __await__(self) -> Generator[Any, None, R]:
        self.asked = True
        return asyncio.wrap_future(self.settled).__await__()

    def __repr__(self) -> str:
        return f"<future of {self.name!r}, {'done' if self.done() else 'open'}>"

    def __reduce__(self) -> Any:
        raise FutureError(f"{self!r} cannot go to another process; submit with it, or pass its result")

    def help_along(self) -> None:
        """A thread of a pool that is about to wait for work behind it in the queue does that work itself."""
        if serves_here():
            self.run()

    def run(self) -> None:
        """In a thread: carry it out, unless somebody else has begun to."""
        if not self._taken.acquire(blocking=False) or self._work is None:
            return
        work, self._work = self._work, None
        if not self.settled.set_running_or_notify_cancel():
            return
        work(self)

    def complete(self, result: R) -> None:
        """The call has returned this."""
        self.settled.set_result(result)
        self.ended(self)

    def fail(self, error: BaseException) -> None:
        """The call has raised this."""
        self.settled.set_exception(error)
        self.ended(self)

    def follow(self, task: asyncio.Task[R]) -> None:
        """End as a task of the event loop ends."""
        self.settled.set_running_or_notify_cancel()
        self._cancel = lambda: task.get_loop().call_soon_threadsafe(task.cancel)
        task.add_done_callback(self._settle)

    def _settle(self, task: asyncio.Task[R]) -> None:
        if task.cancelled():
            self.fail(asyncio.CancelledError(f"{self.name!r} was cancelled"))
        elif (error := task.exception()) is not None:
            self.fail(error)
        else:
            self.complete(task.result())

    def _prepare_to_wait(self) -> None:
        self.asked = True
        if self.settled.done():
            return
        if self._loop is not None and asyncio._get_running_loop() is self._loop:
            raise FutureError(f"{self!r} is carried out by this event loop, which waiting would stop: await it")
        self.help_along()


def _nothing(future: TaskFuture[Any]) -> None:
    pass


class FutureList(list[TaskFuture[R]]):
    """What `.map` returns: the futures in order of the values."""

    def result(self, timeout: float | None = None) -> list[R]:
        """All results in order, or the first error in order.  timeout: seconds for all of them."""
        wait(self, timeout)
        return [future.result(0) for future in self]

    def __await__(self) -> Generator[Any, None, list[R]]:
        return self._gathered().__await__()

    async def _gathered(self) -> list[R]:
        return [await future for future in self]


@dataclass(frozen=True, slots=True)
class unmapped(Generic[T]):
    """A value that every call of a `.map` gets as it is, though it could be iterated."""

    value: T


class Waited(NamedTuple):
    """What `wait` found."""

    done: set[TaskFuture[Any]]
    not_done: set[TaskFuture[Any]]


def wait(futures: Iterable[TaskFuture[Any]], timeout: float | None = None) -> Waited:
    """Wait until all have ended, in whatever way, or `timeout` seconds are over. Async code gathers them instead."""
    given = list(futures)
    for future in given:
        future._prepare_to_wait()
    found = concurrent.futures.wait([each.settled for each in given], timeout)
    return Waited(
        {each for each in given if each.settled in found.done},
        {each for each in given if each.settled in found.not_done},
    )


def as_completed(futures: Iterable[TaskFuture[R]], timeout: float | None = None) -> Iterator[TaskFuture[R]]:
    """The futures as they end.  timeout: seconds for all; TimeoutError after that.

    The order is not the same in a replay: what follows must not depend on it, or be tasks of their own.
    """
    by_settled = {each.settled: each for each in futures}
    for future in by_settled.values():
        future._prepare_to_wait()
    for settled in concurrent.futures.as_completed(by_settled, timeout):
        yield by_settled[settled]
