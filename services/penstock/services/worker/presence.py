"""Keeps a worker's row and the rows of its flows true: heartbeat, registration, striking out of workers that died."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from pathlib import Path

import structlog
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection

from penstock.events.errors import PenstockError
from penstock.services import hints
from penstock.services.context import Context
from penstock.services.versions import versions_of
from penstock.services.worker import registry
from penstock.services.worker.frames import FlowInfo, Problem

HEARTBEAT = 5.0  # seconds
_AGAIN = 1.0  # seconds until a write that failed is tried again

_log = structlog.get_logger()


class Presence:
    """What the database knows of this worker. `registered` is set once its flows can be asked for."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._changed = asyncio.Event()
        self.flows: dict[str, FlowInfo] = {}
        self.versions: dict[str, str | None] = {}  # git commits by the place of a flow
        self.problems: list[Problem] = []
        self.registered = asyncio.Event()

    def take(self, flows: dict[str, FlowInfo], problems: list[Problem]) -> None:
        """What the newest child holds."""
        new = [problem for problem in problems if problem not in self.problems]  # each child brings the same again
        self.problems = problems
        for problem in new:
            _log.warning("worker.flow_unusable", module=problem.module, reason=problem.reason)
        if flows != self.flows or not self.registered.is_set():
            self.flows = flows
            self._changed.set()

    def register_again(self) -> None:
        """Other code may look the same from outside."""
        self._changed.set()

    async def run(self) -> None:
        """Register, and keep it true, until cancelled."""
        while True:
            await self._changed.wait()
            while await tried("worker.not_registered", self._register):
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(HEARTBEAT):
                        await self._changed.wait()
            await asyncio.sleep(_AGAIN)
            self._changed.set()

    async def unloadable(self) -> tuple[str, ...]:
        """Flows that this pool had from modules that cannot be imported now."""
        modules = {_module(problem.module) for problem in self.problems}
        if not modules:
            return ()
        settings = self._context.settings
        async with self._context.database.read() as connection:
            known = await registry.flows_of(connection, settings.namespace, settings.pool, modules)
        return tuple(name for name in known if name not in self.flows)

    async def leave(self) -> None:
        """Strike the worker out; best effort, others do it when its heartbeat is missing."""

        async def leave(connection: AsyncConnection) -> None:
            await registry.go_offline(connection, self._context.instance)

        async def within() -> None:
            async with asyncio.timeout(HEARTBEAT):
                await self._context.database.write(leave)

        await tried("worker.not_struck_out", within)
        await self._context.hints.give(hints.OUTBOX, hints.RUNS)

    async def _register(self) -> None:
        changed, flows = self._changed.is_set(), list(self.flows.values())
        self._changed.clear()
        if changed:  # in a thread: git is asked
            self.versions = await asyncio.to_thread(versions_of, [flow.place for flow in flows])
        name, settings = self._context.instance, self._context.settings

        async def write(connection: AsyncConnection) -> None:
            if not await registry.heartbeat(connection, name):
                await registry.come_online(connection, name, settings.namespace, settings.pool)
            if changed:
                await registry.register_flows(connection, settings.namespace, settings.pool, flows, self.versions)
            await registry.strike_out_silent(connection)

        await self._context.database.write(write)
        self.registered.set()
        if changed:
            _log.info("worker.registered", flows=sorted(self.flows), pool=settings.pool)
            await self._context.hints.give(hints.OUTBOX, hints.FLOWS)


def _module(name: str) -> str:
    """As flows name it: a path by its file's name."""
    return Path(name).stem if name.endswith(".py") else name


async def tried(told: str, deed: Callable[[], Awaitable[object]]) -> bool:
    """Do it; what another try may mend is logged under the name `told`.  Returns whether it was done."""
    try:
        await deed()
    except (SQLAlchemyError, PenstockError, OSError, TimeoutError) as error:
        _log.warning(told, error=str(error))
        return False
    return True
