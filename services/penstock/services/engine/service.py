"""The engine as a process: two stages, the relay, the firings, and what must be done every so often."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine

import structlog

from penstock.events import bus
from penstock.services.context import Context
from penstock.services.database import unavailable
from penstock.services.database.records import SERVICE_LANES, SERVICES
from penstock.services.engine.compiled import CompiledRules
from penstock.services.engine.decisions import Decisions
from penstock.services.engine.effects import FlowPools
from penstock.services.engine.firings import Firings
from penstock.services.engine.housekeeping import Housekeeping
from penstock.services.engine.ownership import Ownership
from penstock.services.engine.reading import EachRound, PartitionLoop, Stage
from penstock.services.engine.relay import Relay
from penstock.services.engine.stage_one import StageOne
from penstock.services.engine.stage_two import StageTwo
from penstock.services.engine.topics import ensure_topics
from penstock.services.engine.waits import Waits

_log = structlog.get_logger()


class EngineService:
    """Reads events, decides, and carries decisions out; any number of engines share the partitions."""

    def __init__(self, context: Context) -> None:
        self._context = context
        settings = context.settings
        self._ownership = Ownership(context.database, context.instance, settings.ownership_lease)
        self._relay = Relay(context.database, context.bus, self._ownership, context.hints, settings.outbox_ceiling)
        rules = CompiledRules(context.rulebook)
        self._pools = FlowPools(settings.namespace)
        decisions = Decisions(settings.namespace, self._pools, context.database.skew)
        parts = (context, self._ownership, rules, decisions, self._relay)
        self._waits = Waits(context, self._ownership)
        self._one, self._two = StageOne(*parts, self._waits), StageTwo(*parts)
        self._firings = Firings(context, self._ownership, rules, self._relay, self._pools)
        self._housekeeping = Housekeeping(context)

    async def run(self, started: Callable[[], None]) -> None:
        """Work until cancelled; then commit what is handled and hand every partition back."""
        await self._prepare()
        try:
            async with asyncio.TaskGroup() as group:
                for work in self._tasks():
                    group.create_task(work)
                started()
        finally:
            await asyncio.shield(self._leave())

    async def _prepare(self) -> None:
        context = self._context
        topics = await ensure_topics(context.bus, context.database, context.settings.event_partitions)
        for name, topic in topics.items():
            await self._ownership.add_topic(name, topic.partitions)
        await self._ownership.add_topic(SERVICES, SERVICE_LANES)
        await context.rulebook.refresh()
        await self._ownership.balance()

    def _tasks(self) -> list[Coroutine[None, None, None]]:
        first = self._loop(self._one, [bus.EVENTS, bus.SYSTEM], self._one.each_round)
        second = self._loop(self._two, [bus.MATCHES], None, gathers=True)
        return [
            self._ownership.run(),
            first.run(),
            second.run(),
            self._relay.run(),
            self._firings.run(),
            self._housekeeping.run(),
            self._pools.run(self._context.database),
            self._one.follow_timers(),
            self._waits.run(),
            self._hand_back_lanes(),
        ]

    def _loop(
        self, stage: Stage, topics: list[str], each_round: EachRound | None, *, gathers: bool = False
    ) -> PartitionLoop:
        context = self._context
        return PartitionLoop(
            stage,
            topics,
            bus=context.bus,
            database=context.database,
            ownership=self._ownership,
            batch=context.settings.batch,
            may_read=lambda: not self._relay.congested,
            each_round=each_round,
            gathers=gathers,
        )

    async def _hand_back_lanes(self) -> None:
        """The services' lanes have no stage that would hand them back."""
        while True:
            for lane in self._ownership.lanes(SERVICES):
                if lane.leaving:
                    await self._ownership.hand_back(lane)
            await asyncio.sleep(1.0)

    async def _leave(self) -> None:
        await self._one.close()
        try:
            async with asyncio.timeout(5):
                await self._ownership.leave()
        except Exception as error:
            if not (unavailable(error) or isinstance(error, TimeoutError)):
                raise
            _log.info("engine.left_without_word", error=str(error))  # the leases will end by themselves
