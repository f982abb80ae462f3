"""The child processes of one worker: as many as it has slots, each dead, worn or swollen one replaced."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

import structlog

from penstock.services.backoff import Backoff
from penstock.services.worker.children import Child, ChildError
from penstock.services.worker.frames import FlowInfo, Problem
from penstock.services.worker.places import Place

_AGAIN = Backoff(attempts=2**31)  # of starting a child: whatever keeps it from coming up may be mended meanwhile
_LOOK = 0.2  # seconds between looks at what children occupy
_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Wear:
    """What a child may go through.  runs: until it is replaced.  memory: bytes that it may occupy; None: any."""

    runs: int = 1_000
    memory: int | None = None


class Crew:
    """Holds `size` children. `changed` is called whenever one becomes free, `loaded` with what the newest one holds."""

    def __init__(
        self,
        place: Place,
        size: int,
        *,
        changed: Callable[[], None],
        loaded: Callable[[dict[str, FlowInfo], list[Problem]], None],
        wear: Wear | None = None,
    ) -> None:
        self._place, self.size, self._wear = place, size, wear or Wear()
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
        first = await self._next()
        slots = [asyncio.create_task(self._keep(child)) for child in (first, *[None] * (self.size - 1))]
        if self._wear.memory is not None:
            slots.append(asyncio.create_task(self._weigh(self._wear.memory)))
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
        if child.spent or child in self._outdated or child.runs >= self._wear.runs:
            self._aside(child.kill())
        elif child.alive:
            self._free.append(child)
            self._changed()

    async def renew(self) -> bool:
        """The users' code has changed: replace every child, those with a run after it.

        Code that cannot be loaded changes nothing: the children go on with what they hold.  Returns whether it could.
        """
        place = self._place.again()
        trial = await self._start_one(place)
        problems = trial.problems
        await trial.stop()
        for problem in problems:
            _log.warning("worker.flow_unusable", module=problem.module, reason=problem.reason, kept="the code before")
        if problems:
            await place.stop()
            return False
        before, self._place = self._place, place
        self._outdated = set(self._all)
        free, self._free = self._free, []
        for child in free:
            self._aside(child.kill())
        self._aside(before.stop())
        return True

    def _aside(self, coroutine: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(coroutine)
        self._keepers.add(task)
        task.add_done_callback(self._keepers.discard)

    async def stop(self) -> None:
        """End all children; those with a run are killed."""
        self._free.clear()
        await asyncio.gather(*(child.kill() if child.busy else child.stop() for child in self._all))
        await self._place.stop()

    async def _keep(self, child: Child | None) -> None:
        """One slot: a child, and after its end another one."""
        while True:
            if child is None:
                child = await self._next()
            code = await child.wait_exited()
            told = _log.debug if child.runs >= self._wear.runs else _log.info
            told("worker.child_ended", pid=child.pid, exit_code=code, runs=child.runs)
            self._all.discard(child)
            self._outdated.discard(child)
            if child in self._free:
                self._free.remove(child)
            child = None

    async def _weigh(self, most: int) -> None:
        """End children that occupy too much, with their runs: before the machine does it to whom it likes."""
        while True:
            for child in list(self._all):
                used = child.rss()
                if used is None or used <= most:
                    continue
                if child.busy or child.runs:  # where importing took it all, the next would be no smaller
                    told = f"it used {used / (1 << 20):.0f} MiB, the pool allows {most / (1 << 20):.0f} MiB"
                    _log.warning("worker.child_too_big", pid=child.pid, reason=told)
                    child.end("failed", told)
            await asyncio.sleep(_LOOK)

    async def _next(self) -> Child:
        """One that holds the code in force."""
        failures = 0
        while True:
            place = self._place  # asked for each time: one that is not in force any more starts nothing
            child = await self._try_to_start(place, failures)
            failures = 0 if child is not None else failures + 1
            if child is not None and place is self._place:
                self._add(child)
                return child
            if child is not None:
                await child.kill()  # the code has changed while it started

    async def _start_one(self, place: Place) -> Child:
        failures = 0
        while (child := await self._try_to_start(place, failures)) is None:
            failures += 1
        return child

    async def _try_to_start(self, place: Place, failures: int) -> Child | None:
        """None: it could not, and some time has passed.  failures: how often it could not before."""
        try:
            return await place.start()
        except (ChildError, OSError) as error:
            _log.warning("worker.child_not_started", failures=failures + 1, error=str(error))
        await asyncio.sleep(_AGAIN.pause(failures + 1).total_seconds())
        return None

    def _add(self, child: Child) -> None:
        self._all.add(child)
        self._loaded(child.flows, child.problems)
        self._free.append(child)
        self._changed()
