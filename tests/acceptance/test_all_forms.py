"""However many engines there are, and whatever is done to them: every form of the language, as the core decides it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.support.every_form import ACROSS, OWN, RULES, STATELESS, arrival, stream
from tests.support.fleet import Fleet, Process, open_fleet
from tests.support.live import AFTER, arriving, ticks, was_applied
from tests.support.replayed import caught_up, replayed, simulated
from tests.support.rig import Rig
from tests.support.scale import scaled

from penstock.events import bus
from penstock.events.instants import Instant
from penstock.services.database import tables

PARTITIONS = 6
PIECES = 6  # of the stream, one before each incident and one after the last


class Engines:
    """A fleet of engines, and a publisher that goes on while things happen to them."""

    def __init__(self, fleet: Fleet, events: Sequence[dict[str, Any]]) -> None:
        self.fleet = fleet
        size = -(-len(events) // PIECES)
        self._pieces = [events[at : at + size] for at in range(0, len(events), size)]
        self._publishing: asyncio.Task[None] | None = None

    async def next_piece(self) -> None:
        """Begin to publish the next piece, and wait until the engines have gone on; they are in the middle of it."""
        await self.all_published()
        before = await self.decided()
        self._publishing = asyncio.create_task(self._publish(self._pieces.pop(0)))

        async def went_on() -> bool:
            return await self.decided() > before

        await self.fleet.rig.until(went_on, what="a decision")

    async def all_published(self) -> None:
        """Until the bus has what was begun."""
        if self._publishing is not None:
            await self._publishing

    async def _publish(self, events: Sequence[dict[str, Any]]) -> None:
        publisher = await self.fleet.rig.context.bus.publisher()
        for at in range(0, len(events), 50):
            await publisher.publish([arriving(arrival(each), each) for each in events[at : at + 50]])
        await publisher.close()

    async def decided(self) -> int:
        """How many decisions there are."""
        return len(await self.fleet.rig.rows(tables.decision))

    async def share(self, engine: Process) -> int:
        """How many match partitions a process holds."""
        rows = await self.fleet.rig.rows(tables.position, tables.position.c.topic == bus.MATCHES)
        return sum(f"-{engine.popen.pid}-" in (row.owner or "") for row in rows)

    async def join(self) -> Process:
        """One more, until it has its share."""
        joined = await self.fleet.start("engine")
        await self.fleet.rig.until(lambda: self.share(joined), what="the share of an engine that joined")
        return joined

    async def stop_past_its_lease(self, engine: Process) -> None:
        """SIGSTOP, until the others have all that it held; then SIGCONT."""
        engine.pause()

        async def lost() -> bool:
            return await self.share(engine) == 0

        await self.fleet.rig.until(lost, what="the others to take over")
        engine.go_on()


async def test_one_two_and_three_engines_killed_stopped_and_joined_decide_what_the_core_decides(
    postgres_url: str, kafka_bus_url: str, redis_url: str, tmp_path: Path
) -> None:
    events = stream(scaled(20_000), seed=11)
    end = arrival(events[-1]) + AFTER
    urls = {"database_url": postgres_url, "bus_url": kafka_bus_url, "redis_url": redis_url}
    async with open_fleet(
        **urls, folder=tmp_path, ownership_lease="PT2S", keep="P3650D", event_partitions=PARTITIONS
    ) as fleet:
        rig = fleet.rig
        await rig.context.bus.ensure_topic(bus.EVENTS, PARTITIONS, stamped_by_producer=True)
        await rig.apply(RULES)
        await was_applied(rig, arrival(events[0]))
        engines = Engines(fleet, events)
        first = await fleet.start("engine")
        await engines.next_piece()
        second = await engines.join()
        await engines.next_piece()
        first.kill()
        await engines.next_piece()
        third, fourth = await asyncio.gather(engines.join(), engines.join())
        await engines.next_piece()
        await engines.stop_past_its_lease(second)
        await engines.next_piece()
        third.kill()
        await engines.next_piece()
        await engines.all_published()
        await publish_ticks(rig, end)
        core = await replayed(rig, end)
        live = await caught_up(rig, core)
        expected = simulated(rig, events, end)
        assert live.without(STATELESS).beside(core) == {}, live.without(STATELESS).beside(core)
        assert live.without(STATELESS).of(OWN, end).beside(expected.without(STATELESS).of(OWN, end)) == {}
        assert live.of(STATELESS, end).decisions == expected.of(STATELESS, end).decisions
        assert len(live.of(OWN, end).decisions) > len(events) // 4
        assert live.of(ACROSS, end).decisions
        assert second.alive
        assert fourth.alive


async def publish_ticks(rig: Rig, end: Instant) -> None:
    """Move the clock of every partition to `end`."""
    publisher = await rig.context.bus.publisher()
    await publisher.publish(ticks(end, PARTITIONS))
    await publisher.close()
