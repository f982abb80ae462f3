"""Matches a second through rules with a memory, over as many live keys as BENCH_KEYS says, on PostgreSQL.

The keys are live beforehand: each has a window with one event in it, written as the engine writes it. The floor reads
the same records with a bare client and, a batch at a time, reads and writes the same rows.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import asyncpg
import msgspec
import sqlalchemy as sa
from aiokafka import AIOKafkaConsumer
from benchmarks.processes import cpu_seconds, resident_mib
from benchmarks.throughput import put
from tests.support.fleet import Fleet

from penstock.automations import Automation
from penstock.events import Event, bus
from penstock.services.bus import parse_address
from penstock.services.database import tables
from penstock.services.engine.correlation import Place, encode, home
from penstock.services.engine.states import FORMAT
from penstock.triggers import machine
from penstock.triggers.evidence import Evidence
from penstock.triggers.state import EMPTY

RULES = """
automations:
  - name: attempts
    when: {event: bench.login, count: 5, within: 1h, per: subject}
    then: [{emit: {type: bench.seen}}]
"""
_COLUMNS = [
    *["id", "namespace", "automation", "when_digest", "key", "partition", "body", "format", "expires_at", "updated"]
]
_ROWS = 2_000  # in one transaction of the floor
_SELECT = "SELECT id, body FROM state WHERE id = ANY($1::text[])"
_UPSERT = (
    "INSERT INTO state (id, namespace, automation, when_digest, key, partition, body, format, expires_at, updated)"
    " SELECT unnest($1::text[]), 'default', 'attempts', '', '', 0, unnest($2::bytea[]), 2, 0, 0"
    " ON CONFLICT (id) DO UPDATE SET body = excluded.body"
)


@dataclass(frozen=True)
class Stateful:
    """What one run comes to.  rate, floor: matches a second.  cpu: of the engine, µs a match.  memory: MiB."""

    rate: float
    floor: float
    cpu: float
    memory: float


async def measure(fleet: Fleet, keys: int, count: int) -> Stateful:
    """Make `keys` states, publish `count` events over them at random, then the floor, then the engine."""
    await fleet.rig.context.bus.ensure_topic(bus.EVENTS, 6)
    await fleet.rig.apply(RULES)
    await _make_live(fleet, keys)
    chosen = random.Random(4)  # the same keys in every run
    await put(fleet, (_event(number, chosen.randrange(keys)) for number in range(count)))
    floor = await floor_rate(fleet, count)
    return await _engine(fleet, count, floor)


def _event(number: int, key: int) -> Event:
    return Event(id=f"e{number:07d}", source="/bench", type="bench.login", subject=f"s{key:07d}", data={"n": number})


async def _make_live(fleet: Fleet, keys: int) -> None:
    """One state for each key, copied into the table."""
    revision = await fleet.rig.context.rulebook.refresh()
    automation = revision.rules.rules[0]
    connection = await asyncpg.connect(_url(fleet))
    try:
        await connection.copy_records_to_table("state", records=_rows(automation, keys), columns=_COLUMNS)
        await connection.execute("ANALYZE state")
    finally:
        await connection.close()


def _rows(automation: Automation, keys: int) -> Iterator[tuple[Any, ...]]:
    """The row of one key, with the names of all others put in: they are as long."""
    now = time.time_ns() // 1_000
    event = _event(0, 0)
    given = machine.Match((0,), Evidence(now, event.source, event.id, event.to_json()), now)
    step = machine.feed(automation.rule, '"s0000000"', EMPTY, given, now)
    body, due = encode(step.state), step.wake or step.expires
    for number in range(keys):
        name = f"s{number:07d}"
        place = Place(automation.name, automation.when_digest, f'"{name}"')
        mine = body.replace(b"s0000000", name.encode()).replace(b"e0000000", f"p{number:07d}".encode())
        partition = home(automation, place.key, bus.MATCH_PARTITIONS)
        yield (
            place.id("default"),
            "default",
            place.automation,
            place.when_digest,
            place.key,
            partition,
            mine,
            *(
                FORMAT,
                due,
                now,
            ),
        )


async def floor_rate(fleet: Fleet, count: int) -> float:
    """Records a second: fetched, decoded, their rows read and written back, 2,000 in a transaction."""
    address = parse_address(fleet.environment["PENSTOCK_BUS_URL"])
    automation = fleet.rig.context.rulebook.current.rules.rules[0]
    consumer = AIOKafkaConsumer(
        f"{address.prefix}{bus.EVENTS}", bootstrap_servers=address.server, auto_offset_reset="earliest"
    )
    connection = await asyncpg.connect(_url(fleet))
    await consumer.start()
    try:
        began, done = time.perf_counter(), 0
        while done < count:
            for records in (await consumer.getmany(timeout_ms=1_000, max_records=_ROWS)).values():
                await _write(connection, automation, [msgspec.json.decode(each.value or b"null") for each in records])
                done += len(records)
        return count / (time.perf_counter() - began)
    finally:
        await consumer.stop()
        await connection.close()


async def _write(connection: Any, automation: Automation, events: list[Any]) -> None:
    ids = {Place(automation.name, automation.when_digest, f'"{each["subject"]}"').id("default") for each in events}
    async with connection.transaction():
        found = await connection.fetch(_SELECT, list(ids))
        await connection.execute(_UPSERT, [row["id"] for row in found], [row["body"] for row in found])


async def _engine(fleet: Fleet, count: int, floor: float) -> Stateful:
    """From when the engine is ready, with nothing read, to the commit of the last match: both stages."""
    engine = await fleet.start("engine")
    began, before = time.perf_counter(), cpu_seconds(engine.popen.pid)
    while await _taken(fleet) < count:
        assert engine.alive, engine.text()[-3000:]
        await asyncio.sleep(0.1)
    took = time.perf_counter() - began
    cpu = (cpu_seconds(engine.popen.pid) - before) / count
    memory = resident_mib(engine.popen.pid)
    await asyncio.to_thread(engine.terminate)
    return Stateful(count / took, floor, cpu * 1e6, memory)


async def _taken(fleet: Fleet) -> int:
    """Each event that took part has its identity here."""
    async with fleet.rig.context.database.read() as connection:
        return int((await connection.execute(sa.select(sa.func.count()).select_from(tables.seen))).scalar_one())


def _url(fleet: Fleet) -> str:
    return fleet.environment["PENSTOCK_DATABASE_URL"].replace("+asyncpg", "")
