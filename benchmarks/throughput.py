"""Events a second through engines: one event in so many matches exactly one of many rules, the others match none."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice

import msgspec
import sqlalchemy as sa
from aiokafka import AIOKafkaConsumer
from benchmarks.processes import cpu_seconds
from tests.support.fleet import Fleet

from penstock.events import Event, bus
from penstock.events.bus import TopicPartition
from penstock.events.codec import outgoing
from penstock.services.bus import parse_address
from penstock.services.database import tables

_CHUNK = 5_000


def rules(count: int) -> str:
    """Rules that differ in one exact field; the events of rule 0 .. count-1 are spread over all of them."""
    each = (
        "  - {{name: r{n}, when: {{event: bench.reading, where: {{data: {{code: [{n}]}}}}}},"
        " then: [{{emit: {{type: bench.seen}}}}]}}"
    )
    return "automations:\n" + "\n".join(each.format(n=n) for n in range(count))


def event(number: int, rule_count: int, every: int) -> Event:
    """Every so manieth event carries the code of one rule, the others one that no rule has."""
    code = number // every % rule_count if number % every == 0 else -1 - number
    data = {"code": code, "celsius": number % 40, "where": "hall 7", "note": "x" * 60}
    return Event(id=f"e{number}", source="/bench", type="bench.reading", subject=f"s{number % 997}", data=data)


async def publish(fleet: Fleet, count: int, rule_count: int, every: int) -> None:
    """Put all events onto the bus."""
    await put(fleet, (event(number, rule_count, every) for number in range(count)))


async def put(fleet: Fleet, events: Iterable[Event]) -> None:
    """Put events onto the bus, some thousands at a time, with the headers that clients give them."""
    publisher = await fleet.rig.context.bus.publisher()
    remaining = iter(events)
    while chunk := list(islice(remaining, _CHUNK)):
        await publisher.publish([outgoing(each) for each in chunk])
    await publisher.close()


async def floor_rate(fleet: Fleet, count: int) -> float:
    """Events a second that a bare client fetches and msgspec decodes."""
    address = parse_address(fleet.environment["PENSTOCK_BUS_URL"])
    topic = f"{address.prefix}{bus.EVENTS}"
    consumer = AIOKafkaConsumer(topic, bootstrap_servers=address.server, auto_offset_reset="earliest")
    await consumer.start()
    began, done, decode = time.perf_counter(), 0, msgspec.json.decode
    while done < count:
        for records in (await consumer.getmany(timeout_ms=1_000, max_records=2_000)).values():
            done += len([decode(each.value or b"null") for each in records])
    rate = count / (time.perf_counter() - began)
    await consumer.stop()
    return rate


@dataclass(frozen=True)
class Rate:
    """Events a second by the clock, and by the CPU time of the engines' processes."""

    wall: float
    cpu: float


async def engine_rate(fleet: Fleet, count: int, engines: int = 1) -> Rate:
    """Start engines on the backlog; between the first and the last position that they commit."""
    topic = await fleet.rig.context.bus.topic(bus.EVENTS)
    assert topic is not None
    partitions = [TopicPartition(bus.EVENTS, number) for number in range(topic.partitions)]
    total = sum([(await fleet.rig.context.bus.end(each)).position for each in partitions])
    started = [fleet.spawn("engine") for _ in range(engines)]
    first: tuple[float, int, float] | None = None
    while True:
        done, now = await _read(fleet), time.perf_counter()
        cpu = sum(cpu_seconds(each.popen.pid) for each in started)
        if done and first is None:
            first = (now, done, cpu)
        if done >= total:
            break
        await asyncio.sleep(0.02)
    assert first is not None
    for each in started:
        await asyncio.to_thread(each.terminate)
    left = max(1, total - first[1])
    return Rate(left / (now - first[0]), left / max(1e-9, cpu - first[2]))


async def _read(fleet: Fleet) -> int:
    query = sa.select(sa.func.sum(tables.position.c.position)).where(
        tables.position.c.topic == bus.EVENTS, tables.position.c.position > 0
    )
    async with fleet.rig.context.database.read() as connection:
        return int((await connection.execute(query)).scalar() or 0)
