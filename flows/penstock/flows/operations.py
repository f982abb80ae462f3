"""What the life of a call asks of the world, and the two ways to do it: blocking, and on an event loop.

The life of a call (calls.py) is a generator that yields operations and is sent their answers; so its rules stand once
for sync and async code. `drive` carries a life out here and now, `drive_async` on the running event loop.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias, TypeVar

T = TypeVar("T")


class Operation(Protocol):
    """One thing to be done."""

    def block(self) -> Any:
        """Do it in this thread."""

    async def unfold(self) -> Any:
        """Do it without holding up the event loop."""


Life: TypeAlias = Generator[Operation, Any, T]


@dataclass(frozen=True, slots=True)
class Pause:
    """Let time pass.  seconds: how long."""

    seconds: float

    def block(self) -> None:
        time.sleep(self.seconds)

    async def unfold(self) -> None:
        await asyncio.sleep(self.seconds)


@dataclass(frozen=True, slots=True)
class Settled:
    """The result of a future that another thread completes."""

    future: Future[Any]

    def block(self) -> Any:
        return self.future.result()

    async def unfold(self) -> Any:
        return await asyncio.wrap_future(self.future)


@dataclass(frozen=True, slots=True)
class AllSettled:
    """Wait until all futures are done, whatever became of them."""

    futures: Sequence[Future[Any]]

    def block(self) -> None:
        for future in self.futures:
            future.exception()

    async def unfold(self) -> None:
        await asyncio.gather(*(asyncio.wrap_future(each) for each in self.futures), return_exceptions=True)


@dataclass(frozen=True, slots=True)
class Blocking:
    """Something that reads or writes files or sockets and knows only the blocking way."""

    do: Callable[[], Any]

    def block(self) -> Any:
        return self.do()

    async def unfold(self) -> Any:
        return await asyncio.to_thread(self.do)


def drive(life: Life[T]) -> T:
    """Carry out a life in this thread."""
    try:
        operation = next(life)
        while True:
            try:
                answer = operation.block()
            except BaseException as error:  # the life decides what follows, whatever it is
                operation = life.throw(error)
            else:
                operation = life.send(answer)
    except StopIteration as end:
        value: T = end.value
        return value


async def drive_async(life: Life[T]) -> T:
    """Carry out a life on the running event loop."""
    try:
        operation = next(life)
        while True:
            try:
                answer = await operation.unfold()
            except BaseException as error:  # the life decides what follows, cancellation included
                operation = life.throw(error)
            else:
                operation = life.send(answer)
    except StopIteration as end:
        value: T = end.value
        return value
