"""Events a second through engines: one event in so many matches exactly one of many rules, the others match none."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice
from typing import Any

import msgspec
import sqlalchemy as sa
from aiokafka import AIOKafkaConsumer
from benchmarks.processes import cpu_seconds
from tests.support.fleet import Fleet, Process

from penstock.events import Event, bus
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
    """Start engines on a backlog; from when each of them has committed something until a tenth of it is left.

    Loading rules is no part of it, nor the end, where an engine may have nothing left to do.
    """
    started = [fleet.spawn("engine") for _ in range(engines)]
    first = await _sample(fleet, started)
    while await _at_work(fleet) < engines:
        await asyncio.sleep(0.02)
        first = await _sample(fleet, started)
    last = first
    while last.done < count * 0.9:
        await asyncio.sleep(0.02)
        last = await _sample(fleet, started)
    for each in started:
        await asyncio.to_thread(each.terminate)
    if last.done - first.done < count / 4:
        raise RuntimeError(f"only {last.done - first.done} of {count} events were left to measure; raise BENCH_EVENTS")
    events = last.done - first.done
    return Rate(events / (last.at - first.at), events / (last.cpu - first.cpu))


@dataclass(frozen=True)
class _Sample:
    at: float  # seconds
    done: int  # events
    cpu: float  # seconds of all engines


async def _sample(fleet: Fleet, engines: list[Process]) -> _Sample:
    done = int(await _scalar(fleet, sa.func.sum(_read.c.position)) or 0)
    return _Sample(time.perf_counter(), done, sum(cpu_seconds(each.popen.pid) for each in engines))


async def _at_work(fleet: Fleet) -> int:
    """How many engines have read something."""
    return int(await _scalar(fleet, sa.func.count(sa.distinct(_read.c.owner))))


_read = (
    sa.select(tables.position.c.position, tables.position.c.owner)
    .where(tables.position.c.topic == bus.EVENTS, tables.position.c.position > 0)
    .subquery()
)


async def _scalar(fleet: Fleet, what: sa.ColumnElement[Any]) -> Any:
    async with fleet.rig.context.database.read() as connection:
        return (await connection.execute(sa.select(what))).scalar()
