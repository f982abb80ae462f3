"""Finished task calls on their way into the journal: those of all runs of a worker, with one statement a time.

A call is written at once when nothing is under way; what comes meanwhile goes together with the next one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from penstock.flows.journal import TaskCall
from penstock.services.database import Database
from penstock.services.runs import Entry, record_entries, stale

_MOST = 500  # calls in one statement


class JournalWriter:
    """Writes for any number of runs at once; `keep` may be called by any task of the loop."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._waiting: list[tuple[Entry, asyncio.Future[None]]] = []
        self._writing: asyncio.Task[None] | None = None

    async def keep(self, run_id: str, epoch: int, call: TaskCall) -> None:
        """Returns once it is committed.  Raises StaleEpochError, or what the database raises."""
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((Entry(run_id, epoch, call), done))
        if self._writing is None or self._writing.done():
            self._writing = asyncio.create_task(self._write_all())
        await done

    async def _write_all(self) -> None:
        while self._waiting:
            some, self._waiting = self._waiting[:_MOST], self._waiting[_MOST:]
            try:
                await self._write(some)
            except BaseException as error:
                for _, done in some:
                    if not done.done():
                        done.set_exception(error if isinstance(error, Exception) else asyncio.CancelledError())
                if not isinstance(error, Exception):
                    raise

    async def _write(self, some: Sequence[tuple[Entry, asyncio.Future[None]]]) -> None:
        try:
            kept = await record_entries(self._database, [entry for entry, _ in some])
        except Exception as error:
            if len(some) == 1:
                if not some[0][1].done():
                    some[0][1].set_exception(error)
                return
            for each in some:  # one is at fault; the others must not suffer for it
                await self._write([each])
            return
        for entry, done in some:
            if done.done():
                continue
            if (entry.run_id, entry.epoch) in kept:
                done.set_result(None)
            else:
                done.set_exception(stale(entry.run_id, entry.epoch))
