"""Events a second through one engine process: 1 % of the events match exactly one of many rules."""

from __future__ import annotations

import asyncio
import time

import sqlalchemy as sa
from tests.support.fleet import Fleet

from penstock.events import Event, bus
from penstock.events.bus import TopicPartition
from penstock.services.database import tables

_CHUNK = 5_000


def rules(count: int) -> str:
    """Rules that differ in one exact field; the events of rule 0 .. count-1 are spread over all of them."""
    each = (
        "  - {{name: r{n}, when: {{event: bench.reading, where: {{data: {{code: [{n}]}}}}}},"
        " then: [{{emit: {{type: bench.seen}}}}]}}"
    )
    return "automations:\n" + "\n".join(each.format(n=n) for n in range(count))


def event(number: int, rule_count: int) -> Event:
    """Every hundredth event carries the code of one rule, the others one that no rule has."""
    code = number // 100 % rule_count if number % 100 == 0 else -1 - number
    data = {"code": code, "celsius": number % 40, "where": "hall 7", "note": "x" * 60}
    return Event(id=f"e{number}", source="/bench", type="bench.reading", subject=f"s{number % 997}", data=data)


async def publish(fleet: Fleet, count: int, rule_count: int) -> float:
    """Put all events onto the bus.  Returns events a second."""
    began = time.perf_counter()
    for start in range(0, count, _CHUNK):
        await fleet.rig.publish([event(number, rule_count) for number in range(start, min(count, start + _CHUNK))])
    return count / (time.perf_counter() - began)


async def engine_rate(fleet: Fleet, count: int) -> float:
    """Start one engine on the backlog; events a second between its first and its last committed position."""
    ends = {}
    topic = await fleet.rig.context.bus.topic(bus.EVENTS)
    assert topic is not None
    for number in range(topic.partitions):
        ends[number] = (await fleet.rig.context.bus.end(TopicPartition(bus.EVENTS, number))).position
    total = sum(ends.values())
    engine = fleet.spawn("engine")
    first: tuple[float, int] | None = None
    while True:
        done = await _read(fleet)
        now = time.perf_counter()
        if done and first is None:
            first = (now, done)
        if done >= total:
            break
        await asyncio.sleep(0.02)
    assert first is not None
    engine.terminate()
    return (total - first[1]) / (now - first[0]) if total > first[1] else float(count)


async def _read(fleet: Fleet) -> int:
    query = sa.select(sa.func.sum(tables.position.c.position)).where(
        tables.position.c.topic == bus.EVENTS, tables.position.c.position > 0
    )
    async with fleet.rig.context.database.read() as connection:
        return int((await connection.execute(query)).scalar() or 0)
