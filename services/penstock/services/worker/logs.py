"""Log lines of one run on their way to the database: in batches, in order, without holding the run up."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from penstock.services.runs import LogLine

LINES = 100  # a batch is written when it is full …
SECONDS = 0.2  # … or this long after its first line
CEILING = 10_000  # lines that may wait; a run that logs faster than they can be stored loses the newest, and is told

Write = Callable[[Sequence[LogLine]], Awaitable[None]]


class LogBatch:
    """Takes lines with `add`; `close` writes the rest. An error of `write` is raised by `close`."""

    def __init__(self, write: Write) -> None:
        self._write = write
        self._lines: list[LogLine] = []
        self._dropped = 0
        self._full = asyncio.Event()
        self._closed = False
        self._writer: asyncio.Task[None] | None = None

    def add(self, line: LogLine) -> None:
        """Take a line; returns at once."""
        if len(self._lines) >= CEILING:
            self._dropped += 1
            return
        self._lines.append(line)
        if len(self._lines) >= LINES:
            self._full.set()
        if self._writer is None or (self._writer.done() and self._writer.exception() is None):
            self._writer = asyncio.create_task(self._write_all())

    async def close(self) -> None:
        """Write what is left."""
        self._closed = True
        self._full.set()
        if self._writer is not None:
            await self._writer
        if self._lines:  # a line that came as the writer was leaving
            await self._flush()

    def abandon(self) -> None:
        """Write nothing more: the run is not ours any more."""
        self._lines.clear()
        if self._writer is not None and not self._writer.cancel() and not self._writer.cancelled():
            self._writer.exception()  # known already; else asyncio would report it as never looked at

    async def _write_all(self) -> None:
        while self._lines:
            if not self._closed and len(self._lines) < LINES:
                await self._wait_full()
            await self._flush()

    async def _wait_full(self) -> None:
        self._full.clear()
        try:
            async with asyncio.timeout(SECONDS):
                await self._full.wait()
        except TimeoutError:
            pass  # not full, but old enough

    async def _flush(self) -> None:
        batch, self._lines = self._lines[: LINES * 10], self._lines[LINES * 10 :]
        dropped, self._dropped = self._dropped, 0
        if dropped:
            told = f"{dropped} lines came faster than they could be stored, and are lost"
            batch.append(LogLine(batch[-1].at, "WARNING", told))
        await self._write(batch)
