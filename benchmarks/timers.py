"""How late timers ring: one deadline per key, at a steady rate, on the broker's clock.

Lateness: from the deadline to the decision's row, on one machine's clock. The floor is a bare heap of the same
deadlines whose rows are written as soon as they are due.
"""

from __future__ import annotations

import asyncio
import heapq
import time

import asyncpg
import sqlalchemy as sa
from tests.support.fleet import Fleet
from tests.support.rig import until

from penstock.events import AsyncEmitter, Event, bus
from penstock.services.database import tables

RULES = """
automations:
  - name: silent
    when: {absent: {event: bench.answered}, after: {event: bench.asked}, within: 3s, per: subject}
    then: [{emit: {type: bench.seen}}]
"""
_WITHIN = 3.0
_INSERT = (
    "INSERT INTO bench_timer SELECT unnest($1::bigint[]), (extract(epoch from clock_timestamp()) * 1000000)::bigint"
)


async def timer_lateness(fleet: Fleet, rate: int, seconds: float) -> list[float]:
    """Milliseconds, of `rate` timers a second for so long; the first second's, as the engine warms, are left out."""
    await fleet.rig.context.bus.ensure_topic(bus.EVENTS, 6)
    await fleet.rig.apply(RULES)
    await fleet.start("engine")
    count = int(rate * seconds)
    async with AsyncEmitter(fleet.environment["PENSTOCK_BUS_URL"]) as emitter, asyncio.TaskGroup() as group:
        began = time.perf_counter()
        for number in range(0, count, 10):
            await asyncio.sleep(max(0.0, began + number / rate - time.perf_counter()))
            for each in range(number, min(count, number + 10)):
                event = Event(id=f"t{each}", source="/bench", type="bench.asked", subject=f"s{each}")
                group.create_task(emitter.emit(event))

    async def all_there() -> bool:
        query = sa.select(sa.func.count()).select_from(tables.decision)
        async with fleet.rig.context.database.read() as connection:
            return int((await connection.execute(query)).scalar_one()) >= count

    await until(all_there, within=seconds + 60, what=f"{count} timers")
    found = sorted((row.at, row.created) for row in await fleet.rig.rows(tables.decision))
    return [(created - at) / 1_000 for at, created in found[rate:]]


async def floor_lateness(database_url: str, rate: int, seconds: float) -> list[float]:
    """The same deadlines from a heap in memory."""
    connection = await asyncpg.connect(database_url.replace("+asyncpg", ""))
    await connection.execute("CREATE TABLE IF NOT EXISTS bench_timer (at bigint, created bigint)")
    began = time.time_ns() // 1_000
    heap = [began + round((1 + number / rate) * 1e6) for number in range(int(rate * seconds))]
    heapq.heapify(heap)
    while heap:
        await asyncio.sleep(max(0.0, heap[0] / 1e6 - time.time()))
        now, due = time.time_ns() // 1_000, []
        while heap and heap[0] <= now:
            due.append(heapq.heappop(heap))
        if due:
            await connection.execute(_INSERT, due)
    rows = await connection.fetch("SELECT at, created FROM bench_timer")
    await connection.close()
    return [(row["created"] - row["at"]) / 1_000 for row in rows]
