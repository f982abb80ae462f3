"""What every bus keeps while its broker goes away and comes back."""

from __future__ import annotations

import asyncio
import time

import pytest
from tests.integration.bus.conftest import Side
from tests.support.bus import merge, publish, read, read_all

from penstock.events.bus import Bus, Outgoing, Publisher, TopicPartition
from penstock.events.errors import BusError, BusUnavailableError
from penstock.services.bus import kafka_reader, redis_reader

TOPIC = "penstock.test"
PARTITIONS = 3


async def test_a_restart_loses_nothing_acknowledged_and_doubles_nothing_read(bus: Bus, side: Side) -> None:
    await bus.ensure_topic(TOPIC, PARTITIONS)
    reader = bus.reader()
    where = [TopicPartition(TOPIC, number) for number in range(PARTITIONS)]
    for partition in where:
        await reader.take(partition, 0)
    acknowledged: set[bytes] = set()
    stop = asyncio.Event()
    sending = asyncio.create_task(keep_publishing(await bus.publisher(), acknowledged, stop))
    found: dict[TopicPartition, list[object]] = {}

    async def poll_until(done: asyncio.Event) -> None:
        while not done.is_set():
            merge(found, await reader.poll(max_records=500, timeout=0.2))  # type: ignore[arg-type]  # values are records

    reading_done = asyncio.Event()
    reading = asyncio.create_task(poll_until(reading_done))
    await until(lambda: len(acknowledged) > 200)
    await side.restart()
    before = len(acknowledged)
    await until(lambda: len(acknowledged) > before + 200)
    await side.kill()
    await side.start()
    before = len(acknowledged)
    await until(lambda: len(acknowledged) > before + 200)
    stop.set()
    await sending
    stored = {partition: await read_all(bus, partition) for partition in where}
    await until(lambda: sum(map(len, found.values())) >= sum(map(len, stored.values())))
    reading_done.set()
    await reading
    await reader.close()
    assert found == {partition: records for partition, records in stored.items() if records}
    assert acknowledged <= {record.value for records in stored.values() for record in records}


async def test_publishing_to_a_dead_broker_fails_in_time_and_works_again_later(bus: Bus, side: Side) -> None:
    await bus.ensure_topic(TOPIC, 1)
    publisher = await bus.publisher()
    await publisher.publish([Outgoing(TOPIC, b"before", partition=0)])
    await side.kill()
    started = time.monotonic()
    with pytest.raises(BusError):
        await publisher.publish([Outgoing(TOPIC, b"lost", partition=0)])
    assert time.monotonic() - started < 40
    assert not await bus.healthy()
    await side.start()
    await publisher.publish([Outgoing(TOPIC, b"after", partition=0)])
    values = [record.value for record in await read_all(bus, TopicPartition(TOPIC, 0))]
    assert (values[0], values[-1]) == (b"before", b"after")
    await publisher.close()


async def test_a_poll_outlives_an_outage_and_then_returns_what_came(bus: Bus, side: Side) -> None:
    await bus.ensure_topic(TOPIC, 1)
    reader = bus.reader()
    await reader.take(TopicPartition(TOPIC, 0), 0)
    await side.kill()
    assert await reader.poll(max_records=10, timeout=0.3) == {}
    polling = asyncio.create_task(reader.poll(max_records=10, timeout=25))
    await side.start()
    await publish(bus, [Outgoing(TOPIC, b"back", partition=0)])
    (records,) = (await polling).values()
    assert [record.value for record in records] == [b"back"]
    await reader.close()


async def test_a_broker_that_stays_away_is_reported_in_time(
    bus: Bus, side: Side, monkeypatch: pytest.MonkeyPatch
) -> None:
    await bus.ensure_topic(TOPIC, 1)
    reader = bus.reader()
    await reader.take(TopicPartition(TOPIC, 0), 0)
    await reader.poll(max_records=1, timeout=0.1)
    monkeypatch.setattr(kafka_reader, "UNAVAILABLE_AFTER", 0.5)
    monkeypatch.setattr(redis_reader, "UNAVAILABLE_AFTER", 0.5)
    await side.kill()
    with pytest.raises(BusUnavailableError, match=r"see whether .* runs"):
        await reader.poll(max_records=1, timeout=20)
    await side.start()
    await publish(bus, [Outgoing(TOPIC, b"x", partition=0)])
    assert len(await read(reader, 1)) == 1  # it goes on where it was
    await reader.close()


async def keep_publishing(publisher: Publisher, acknowledged: set[bytes], stop: asyncio.Event) -> None:
    """A few records at a time; those of a failed call count as not sent, and are not sent again."""
    number = 0
    while not stop.is_set():
        values = [b"%d" % (number + step) for step in range(5)]
        number += 5
        try:
            await publisher.publish([Outgoing(TOPIC, value, partition=int(value) % PARTITIONS) for value in values])
        except BusError:
            await asyncio.sleep(0.05)  # a broker that is away answers at once: leave the loop to others
        else:
            acknowledged.update(values)
    await publisher.close()


async def until(condition: object, within: float = 60.0) -> None:
    """Wait for a condition, with a deadline."""
    assert callable(condition)
    async with asyncio.timeout(within):
        while not condition():
            await asyncio.sleep(0.01)
