"""The scheduler's process: sleep until the next due time, fire, and follow the rules as they change."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

import structlog

from penstock.automations import RuleSet
from penstock.events.instants import SECOND
from penstock.services import hints as hint
from penstock.services.backoff import Backoff
from penstock.services.context import Context
from penstock.services.database import unavailable
from penstock.services.rulebook import Revision
from penstock.services.scheduler.deployed import DeploymentTicks
from penstock.services.scheduler.due import Spec
from penstock.services.scheduler.store import Key, adopt, fire_due, until_next

_LONGEST_SLEEP = 5.0  # seconds: another scheduler may have adopted what ours does not know yet, clocks are set
_BACKOFF = Backoff()
_log = structlog.get_logger()


class SchedulerService:
    """Any number of them share the schedules; each due time is fired by one."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._adopted: int | None = None  # the revision that the table says, as far as we know
        self._namespaces = frozenset({context.settings.namespace})

    @property
    def revision(self) -> int | None:
        """The revision of the rules that it follows."""
        return self._adopted

    async def run(self, started: Callable[[], None]) -> None:
        """See Service."""
        async with asyncio.TaskGroup() as group:
            group.create_task(DeploymentTicks(self._context).run())
            await self._follow(started)

    async def _follow(self, started: Callable[[], None]) -> None:
        failures = 0
        while True:
            try:
                if self._adopted is None:
                    await self._context.rulebook.refresh()
                if await self._adopt(self._context.rulebook.current):
                    started()
                    started = _already
                pause = await self._fire()
                failures = 0
            except Exception as error:
                if not unavailable(error):
                    raise
                failures += 1
                pause = _BACKOFF.pause(failures).total_seconds()
                _log.warning("scheduler.waiting_for_database", error=str(error), seconds=round(pause, 1))
            await self._sleep(pause)

    async def _adopt(self, revision: Revision) -> bool:
        """Returns whether the revision in force is the one in the table."""
        if self._adopted == revision.id:
            return True
        specs = specs_of(revision.rules)
        if not await adopt(self._context.database, revision.id, self._context.settings.namespace, specs):
            await self._context.rulebook.refresh()  # a newer one is in force
            return False
        self._adopted = revision.id
        self._namespaces = frozenset({self._context.settings.namespace, *(namespace for namespace, _ in specs)})
        _log.info("scheduler.adopted", revision=revision.id, schedules=len(specs))
        return True

    async def _fire(self) -> float:
        """Fire what is due; returns the seconds until the next look."""
        if self._adopted != self._context.rulebook.current.id:
            return 0.05
        ticks = await fire_due(self._context.database, self._namespaces)
        if ticks:
            await self._context.hints.give(hint.OUTBOX)
        for tick in ticks:
            late = (tick.at - tick.due) // 1_000
            _log.info("schedule.fired", schedule=tick.name, late_ms=late, missed=tick.missed)
        left = await until_next(self._context.database, self._namespaces)
        return _LONGEST_SLEEP if left is None else min(_LONGEST_SLEEP, left / SECOND)

    async def _sleep(self, seconds: float) -> None:
        """Until then, or until the rules change."""
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        with contextlib.suppress(TimeoutError):
            since = self._adopted if self._adopted is not None else -1
            if self._context.rulebook.current.id == since:
                async with asyncio.timeout(seconds):
                    await self._context.rulebook.changed(since)
            else:
                await asyncio.sleep(seconds)


def specs_of(rules: RuleSet) -> dict[Key, Spec]:
    """What a set of rules says of schedules."""
    return {key: Spec(found.every, found.cron, found.timezone) for key, found in rules.schedules.items()}


def _already() -> None:
    """It was told that we have started."""
