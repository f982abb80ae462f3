"""Hooks of runs whose process died: told by another child of the worker, as far as the worker lives to do so.

The hooks of other ends are called in the run's own process. Told at most once, and not after a crash of the worker
itself, unless another one gives the run up.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection

from penstock.automations.secrets import UnknownSecretError
from penstock.events.errors import PenstockError
from penstock.services.database import Database, unavailable
from penstock.services.runs import LogLine, write_logs
from penstock.services.worker.children import Child
from penstock.services.worker.frames import Execute, Log, TaskFinished
from penstock.services.worker.secrecy import Secrecy

_log = structlog.get_logger()
_PATIENCE = 60.0  # seconds until a child is free, and as many for the hooks
_AGAIN = 0.05  # seconds


@dataclass(frozen=True, slots=True)
class Ended:
    """A run that ended without its process.  state: how.  error: why."""

    run_id: str
    epoch: int
    flow: str
    namespace: str
    parameters: str
    nonce: str
    attempt: int
    state: str
    error: str


class EndHooks:
    """Calls the hooks.  take: a free child, or None.  put_back: called with it afterwards."""

    def __init__(self, database: Database, take: Callable[[], Child | None], put_back: Callable[[Child], None]) -> None:
        self._database, self._take, self._put_back = database, take, put_back
        self._tasks: set[asyncio.Task[None]] = set()

    def tell(self, ended: Ended) -> None:
        """Have the hooks called as soon as a child is free; returns at once."""
        task = asyncio.create_task(self._tell(ended))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def stop(self) -> None:
        """Call no more."""
        tasks = [*self._tasks]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _tell(self, ended: Ended) -> None:
        try:
            child = await self._child()
            try:
                lines = await self._have_called(child, ended)
            finally:
                self._put_back(child)
            if lines:
                await self._database.write(partial(_write, ended=ended, lines=lines))
        except (PenstockError, TimeoutError) as error:
            _log.warning(
                "run.hooks_not_called", run=ended.run_id, state=ended.state, reason=str(error) or "took too long"
            )
        except Exception as error:
            if not unavailable(error):
                raise
            _log.warning("run.hooks_log_lost", run=ended.run_id, error=str(error))

    async def _child(self) -> Child:
        async with asyncio.timeout(_PATIENCE):
            while (child := self._take()) is None:  # noqa: ASYNC110 -- whatever run ends, here or elsewhere
                await asyncio.sleep(_AGAIN)
        return child

    async def _have_called(self, child: Child, ended: Ended) -> list[LogLine]:
        """What the hooks logged."""
        try:
            secrecy = Secrecy(ended.parameters, ended.nonce, os.environ)
        except UnknownSecretError:
            return []  # it failed for that, before any code of it ran
        order = Execute(
            run_id=ended.run_id,
            epoch=ended.epoch,
            flow=ended.flow,
            parameters=secrecy.parameters,
            namespace=ended.namespace,
            attempt=ended.attempt,
            ended=ended.state,
            reason=ended.error,
        )
        lines: list[LogLine] = []

        def take_line(log: Log) -> None:
            lines.append(LogLine(log.at, log.level, secrecy.mask(log.line)))

        async with asyncio.timeout(_PATIENCE):
            await child.execute(order, on_task=_journal, on_log=take_line)
        return lines


async def _journal(task: TaskFinished) -> None:
    """A hook has no journal; a task that it calls is a plain function."""


async def _write(connection: AsyncConnection, ended: Ended, lines: list[LogLine]) -> None:
    await write_logs(connection, ended.run_id, ended.epoch, lines)
