"""How long decisions wait when an engine is killed, with the leases as they are by default.

An event every 10 ms, each for another partition in turn as its key falls, and each decides. After the kill: until the
first, and until the last partition of the killed engine has moved again.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass

import sqlalchemy as sa
from tests.support.fleet import Fleet, Process
from tests.support.rig import until

from penstock.events import AsyncEmitter, Event, bus
from penstock.services.database import tables

RULES = """
automations:
  - name: all
    when: {event: bench.beat}
    then: [{emit: {type: bench.seen}}]
"""


@dataclass(frozen=True)
class Recovery:
    """Seconds from the kill to the first and to the last partition that decides again."""

    first: float
    last: float


async def recovery(fleet: Fleet, engines: int) -> Recovery:
    """Kill one of so many; where it was the only one, start another at once, as a supervisor does."""
    await fleet.rig.context.bus.ensure_topic(bus.EVENTS, 6)
    await fleet.rig.apply(RULES)
    victim = await fleet.start("engine")
    for _ in range(engines - 1):
        await fleet.start("engine")
    beating = asyncio.create_task(_beat(fleet.environment["PENSTOCK_BUS_URL"]))
    try:
        await _shared(fleet, engines)
        return await _killed(fleet, victim, alone=engines == 1)
    finally:
        beating.cancel()
        with suppress(asyncio.CancelledError):
            await beating


async def _beat(url: str) -> None:
    async with AsyncEmitter(url) as emitter:
        number = 0
        while True:
            number += 1
            await emitter.emit(Event(source="/bench", type="bench.beat", subject=f"s{number % 97}"))
            await asyncio.sleep(0.01)


async def _shared(fleet: Fleet, engines: int) -> None:
    """Until each engine owns its share, and every partition decides."""

    async def fair() -> bool:
        rows = await _lanes(fleet)
        return len({row.owner for row in rows}) == engines and all(row.position > 3 and row.owner for row in rows)

    await until(fair, what="a fair share for each engine")


async def _killed(fleet: Fleet, victim: Process, *, alone: bool) -> Recovery:
    victim.kill()
    began = time.perf_counter()
    before = {row.partition: row for row in await _lanes(fleet)}
    if alone:
        fleet.spawn("engine")
    dead = {row.owner for row in before.values()} if alone else {await _silent(fleet, before)}
    waiting = {number for number, row in before.items() if row.owner in dead}
    times: list[float] = []
    while waiting:
        moved = {row.partition for row in await _lanes(fleet) if row.position > before[row.partition].position}
        times += [time.perf_counter() - began] * len(moved & waiting)
        waiting -= moved
        await asyncio.sleep(0.01)
    return Recovery(times[0], times[-1])


async def _silent(fleet: Fleet, before: Mapping[int, sa.Row[tuple[object, ...]]]) -> str:
    """The owner none of whose partitions moves any more."""
    await asyncio.sleep(1.5)
    after = await _lanes(fleet)
    moved = {row.owner for row in after if row.position > before[row.partition].position}
    (found,) = {row.owner for row in before.values()} - moved
    return str(found)


async def _lanes(fleet: Fleet) -> list[sa.Row[tuple[object, ...]]]:
    return list(await fleet.rig.rows(tables.position, tables.position.c.topic == bus.EVENTS))
