"""The warm children of one worker: as many as it has slots, each dead or worn one replaced."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from penstock.services.backoff import Backoff
from penstock.services.worker.children import Child, ChildError
from penstock.services.worker.frames import FlowInfo, Problem

_AGAIN = Backoff(attempts=2**31)  # of starting a child: whatever keeps it from coming up may be mended meanwhile
_log = structlog.get_logger()

StartChild = Callable[[], Awaitable[Child]]


class Crew:
    """Holds `size` children. `changed` is called whenever one becomes free, `loaded` with what the newest one holds."""

    def __init__(
        self,
        start: StartChild,
        size: int,
        *,
        changed: Callable[[], None],
        loaded: Callable[[dict[str, FlowInfo], list[Problem]], None],
    ) -> None:
        self._start, self.size = start, size
        self._changed, self._loaded = changed, loaded
        self._free: list[Child] = []
        self._all: set[Child] = set()
        self._keepers: set[asyncio.Task[None]] = set()
        self._outdated: set[Child] = set()  # they hold code that has changed since

    @property
    def free(self) -> int:
        """Children without a run."""
        return len(self._free)

    async def run(self) -> None:
        """Keep every slot filled until cancelled. The first child alone tells what can be run; the others follow."""
        first = await self._start_one()
        self._add(first)
        slots = [asyncio.create_task(self._keep(child)) for child in (first, *[None] * (self.size - 1))]
        try:
            await asyncio.gather(*slots)
        finally:
            for slot in slots:
                slot.cancel()

    def take(self) -> Child | None:
        """A child without a run, the one used last: its memory is warm."""
        while self._free:
            child = self._free.pop()
            if child.alive:
                return child
        return None

    def put_back(self, child: Child) -> None:
        """Its run has ended."""
        if child.spent or child in self._outdated:
            self._retire(child)
        elif child.alive:
            self._free.append(child)
            self._changed()

    async def renew(self) -> bool:
        """The users' code has changed: replace every child, those with a run after it.

        Code that cannot be loaded changes nothing: the children go on with what they hold.  Returns whether it could.
        """
        trial = await self._start_one()
        problems = trial.problems
        await trial.stop()
        for problem in problems:
            _log.warning("worker.flow_unusable", module=problem.module, reason=problem.reason, kept="the code before")
        if problems:
            return False
        self._outdated = set(self._all)
        free, self._free = self._free, []
        for child in free:
            self._retire(child)
        return True

    def _retire(self, child: Child) -> None:
        retiring = asyncio.create_task(child.kill())
        self._keepers.add(retiring)
        retiring.add_done_callback(self._keepers.discard)

    async def stop(self) -> None:
        """End all children; those with a run are killed."""
        self._free.clear()
        await asyncio.gather(*(child.kill() if child.busy else child.stop() for child in self._all))

    async def _keep(self, child: Child | None) -> None:
        """One slot: a child, and after its end another one."""
        while True:
            if child is None:
                child = await self._start_one()
                self._add(child)
            code = await child.wait_exited()
            _log.info("worker.child_ended", pid=child.pid, exit_code=code, runs=child.runs)
            self._all.discard(child)
            self._outdated.discard(child)
            if child in self._free:
                self._free.remove(child)
            child = None

    async def _start_one(self) -> Child:
        failures = 0
        while True:
            try:
                return await self._start()
            except (ChildError, OSError) as error:
                failures += 1
                _log.warning("worker.child_not_started", failures=failures, error=str(error))
            await asyncio.sleep(_AGAIN.pause(failures).total_seconds())

    def _add(self, child: Child) -> None:
        self._all.add(child)
        self._loaded(child.flows, child.problems)
        self._free.append(child)
        self._changed()
