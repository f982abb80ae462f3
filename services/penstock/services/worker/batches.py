"""What many runs of a worker have to write, in batches: at once when nothing is under way, else with the next one."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

Entry = TypeVar("Entry")
_MOST = 500  # entries of one batch


class Batches(Generic[Entry]):
    """One batch after the other; `put` may be called by any task of the loop."""

    def __init__(self, write: Callable[[Sequence[Entry]], Awaitable[Sequence[Exception | None]]]) -> None:
        """write: in one transaction.  Returns for each entry why it was not written, or None.

        What it raises concerns the batch: then each entry is written alone.
        """
        self._write = write
        self._waiting: list[tuple[Entry, asyncio.Future[None]]] = []
        self._writing: asyncio.Task[None] | None = None

    async def put(self, entry: Entry) -> None:
        """Returns once it is committed.  Raises why it was not."""
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((entry, done))
        if self._writing is None or self._writing.done():
            self._writing = asyncio.create_task(self._write_all())
        await done

    async def _write_all(self) -> None:
        while self._waiting:
            some, self._waiting = self._waiting[:_MOST], self._waiting[_MOST:]
            try:
                await self._write_some(some)
            except BaseException:  # cancelled: whoever waits must hear of it
                for _, done in some:
                    done.cancel()
                raise

    async def _write_some(self, some: Sequence[tuple[Entry, asyncio.Future[None]]]) -> None:
        try:
            ends = await self._write([entry for entry, _ in some])
        except Exception as error:
            if len(some) == 1:
                _end(some[0][1], error)
                return
            for each in some:  # one is at fault; the others must not suffer for it
                await self._write_some([each])
            return
        for (_, done), end in zip(some, ends, strict=True):
            _end(done, end)


def _end(done: asyncio.Future[None], error: Exception | None) -> None:
    if done.done():
        return
    if error is None:
        done.set_result(None)
    else:
        done.set_exception(error)
