"""Sensors against a real MQTT broker, real buses and databases."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import aiomqtt
import psutil
import pytest
import sqlalchemy as sa
from redis.asyncio import Redis
from tests.support.services.mosquitto import mosquitto_pub

from penstock.events.bus import DEAD_LETTER, EVENTS, Bus, Outgoing, Publisher, TopicPartition
from penstock.events.errors import BusUnavailableError
from penstock.services.bus import connect as connect_bus
from penstock.services.context import Context
from penstock.services.database import Database, clock, connect, migrate, tables
from penstock.services.hints import Hints
from penstock.services.rulebook import RuleBook
from penstock.services.sensors import SensorsService
from penstock.services.settings import Settings

PLANT = """
sensors:
  - {{name: {name}, driver: mqtt, url: "{url}", topics: ["{topic}/+/temp"], qos: 1,
     event: {{type: sensor.temperature, subject: "{{{{ topic }}}}"}}}}
"""


class GatedBus:
    """A real bus; while `shut`, it acknowledges nothing."""

    def __init__(self, bus: Bus) -> None:
        self._bus, self.shut, self.attempts = bus, False, 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._bus, name)

    async def publisher(self) -> Publisher:
        publisher, gate = await self._bus.publisher(), self

        class Gated:
            async def publish(self, records: list[Outgoing]) -> None:
                gate.attempts += 1
                if gate.shut:
                    raise BusUnavailableError("shut by the test")
                await publisher.publish(records)

            async def close(self) -> None:
                await publisher.close()

        return Gated()  # type: ignore[return-value]  # a list is a sequence


class World:
    """A database with rules, a bus, and processes of the sensors service."""

    def __init__(self, database_url: str, bus_url: str, redis_url: str) -> None:
        self.database_url, self.bus_url, self.redis_url = database_url, bus_url, redis_url
        self.database: Database = connect(database_url)
        self.bus: Bus

    async def apply(self, text: str) -> None:
        row = {"namespace": "default", "digest": text, "files": json.dumps({"f.yaml": text}), "actor": "test"}
        async with self.database.begin() as connection:
            await connection.execute(sa.insert(tables.revision).values(created=clock.now(), **row))

    async def owners(self) -> dict[str, str]:
        async with self.database.read() as connection:
            query = sa.select(tables.lease.c.name, tables.lease.c.owner).where(tables.lease.c.lease_until > clock.now())
            return {row.name: row.owner for row in (await connection.execute(query)).all()}

    async def read(self, topic: str = EVENTS) -> list[dict[str, Any]]:
        """What is on a topic now, in order per partition."""
        known = await self.bus.topic(topic)
        logs = [TopicPartition(topic, number) for number in range(known.partitions if known else 0)]
        ends = {log: (await self.bus.end(log)).position for log in logs}
        reader, found = self.bus.reader(), []
        for log, end in ends.items():
            position = await self.bus.beginning(log)
            await reader.take(log, position)
            while position < end and (batch := (await reader.poll(max_records=5_000, timeout=0.5)).get(log)):
                found += [json.loads(record.value) for record in batch]
                position = batch[-1].offset + 1
            await reader.drop(log)
        await reader.close()
        return found

    @asynccontextmanager
    async def process(self, name: str, bus: Any = None) -> AsyncIterator[asyncio.Task[None]]:
        database, redis = connect(self.database_url), Redis.from_url(self.redis_url)
        hints = Hints(redis)
        rulebook = RuleBook(database, hints, "default")
        settings = Settings(event_partitions=3)
        context = Context(settings, database, bus or self.bus, redis, hints, rulebook, name)
        started = asyncio.Event()
        service = asyncio.create_task(SensorsService(context).run(started.set))
        tasks = [service, asyncio.create_task(rulebook.run()), asyncio.create_task(hints.run())]
        try:
            async with asyncio.timeout(30):
                await started.wait()
            yield service
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
            await redis.aclose()
            await database.close()


@pytest.fixture
async def world(sqlite_url: str, any_bus_url: str, redis_url: str) -> AsyncIterator[World]:
    world = World(sqlite_url, any_bus_url, redis_url)
    await migrate.upgrade(world.database)
    world.bus = await connect_bus(any_bus_url)
    yield world
    await world.bus.close()
    await world.database.close()


async def until(condition: Callable[[], Any], within: float = 40) -> Any:
    async with asyncio.timeout(within):
        while not (found := await condition()):
            await asyncio.sleep(0.05)
        return found


async def publish(port: int, messages: dict[str, list[bytes]], qos: int = 1) -> None:
    async with aiomqtt.Client("127.0.0.1", port) as client:
        for topic, payloads in messages.items():
            for payload in payloads:
                await client.publish(topic, payload, qos=qos)


async def subscribed(world: World, mosquitto: Any, prefix: str) -> None:
    """Publish until one arrives: the driver has subscribed."""

    async def arrived() -> bool:
        await publish(mosquitto.port, {f"{prefix}/0/temp": [b'{"probe": true}']})
        return bool(await world.read())

    await until(arrived)


def celsius(events: list[dict[str, Any]]) -> list[Any]:
    return [event["data"]["celsius"] for event in events if "celsius" in (event["data"] or {})]


async def test_the_host_sensor_tells_what_psutil_measures(world: World) -> None:
    await world.apply("sensors: [{name: machine, driver: host, every: 100ms}]")
    async with world.process("one"):

        async def enough() -> bool:
            return len(await world.read()) >= 9

        await until(enough)
    by_type: dict[str, list[dict[str, Any]]] = {}
    for event in await world.read():
        by_type.setdefault(event["type"], []).append(event)
    assert by_type.keys() == {"host.cpu", "host.memory", "host.disk"}
    total = by_type["host.memory"][0]["data"]["total"]
    assert total == psutil.virtual_memory().total
    assert all(0 <= event["data"]["percent"] <= 100 for events in by_type.values() for event in events)
    assert {event["source"] for event in by_type["host.cpu"]} == {"/sensors/machine"}
    assert len({event["subject"] for events in by_type.values() for event in events}) == 1


async def test_a_reading_published_by_mosquitto_pub_becomes_an_event(world: World, mosquitto: Any, prefix: str) -> None:
    await world.apply(PLANT.format(name=prefix, url=mosquitto.url, topic=prefix))
    async with world.process("one"):
        await subscribed(world, mosquitto, prefix)
        command = [mosquitto_pub(), "-p", str(mosquitto.port), "-q", "1", "-t", f"{prefix}/7/temp"]
        program = await asyncio.create_subprocess_exec(*command, "-m", '{"celsius": 9.5}')
        assert await program.wait() == 0

        async def arrived() -> list[dict[str, Any]]:
            return [event for event in await world.read() if "celsius" in event["data"]]

        (event,) = await until(arrived)
    assert (event["type"], event["subject"]) == ("sensor.temperature", f"{prefix}/7/temp")


async def test_malformed_payloads_never_stop_the_driver(world: World, mosquitto: Any, prefix: str) -> None:
    text = PLANT.format(name=prefix, url=mosquitto.url, topic=prefix).replace(
        'subject: "{{ topic }}"', 'subject: "{{ body.device }}"'
    )
    await world.apply(text)
    good = b'{"device": "d", "celsius": 1}'
    async with world.process("one"):

        async def probe() -> bool:
            await publish(mosquitto.port, {f"{prefix}/0/temp": [b'{"device": "probe"}']})
            return bool(await world.read())

        await until(probe)
        bad = [b"\xff\xfe", b"{", b'{"device": "\\u0000"}', b"21", b'{"no": "device"}', b"x" * 1_200_000]
        await publish(mosquitto.port, {f"{prefix}/1/temp": [*bad, good]})

        async def arrived() -> bool:
            return bool(celsius(await world.read()))

        await until(arrived)
        letters = await world.read(DEAD_LETTER)
    assert len(letters) == len(bad)
    assert {letter["origin"]["topic"] for letter in letters} == {f"mqtt/{prefix}/1/temp"}


async def test_a_message_is_acknowledged_only_once_the_bus_has_it(world: World, mosquitto: Any, prefix: str) -> None:
    """The bus is away, the process dies; the next one gets from the broker what was not acknowledged."""
    await world.apply(PLANT.format(name=prefix, url=mosquitto.url, topic=prefix))
    gate = GatedBus(world.bus)
    payloads = [json.dumps({"celsius": number}).encode() for number in range(100)]
    async with world.process("one", gate):
        await subscribed(world, mosquitto, prefix)
        gate.shut = True
        before = gate.attempts
        await publish(mosquitto.port, {f"{prefix}/7/temp": payloads})

        async def tried() -> bool:
            return gate.attempts > before

        await until(tried)
    assert celsius(await world.read()) == []
    async with world.process("two"):

        async def all_there() -> bool:
            return len(set(celsius(await world.read()))) == 100

        await until(all_there)
    events = [event for event in await world.read() if "celsius" in event["data"]]
    first_of_each = list(dict.fromkeys(celsius(events)))
    assert first_of_each == list(range(100))


async def test_a_broker_that_is_killed_and_restarted_loses_nothing(world: World, mosquitto: Any, prefix: str) -> None:
    await world.apply(PLANT.format(name=prefix, url=mosquitto.url, topic=prefix))
    async with world.process("one"):
        await subscribed(world, mosquitto, prefix)
        await publish(mosquitto.port, {f"{prefix}/7/temp": [b'{"celsius": 1}']})
        await asyncio.to_thread(mosquitto.stop)
        await asyncio.to_thread(mosquitto.start)
        await publish(mosquitto.port, {f"{prefix}/7/temp": [b'{"celsius": 2}']})

        async def both() -> bool:
            return set(celsius(await world.read())) == {1, 2}

        await until(both)


async def test_one_of_several_processes_owns_a_sensor_and_another_takes_over(
    world: World, mosquitto: Any, prefix: str
) -> None:
    await world.apply(PLANT.format(name=prefix, url=mosquitto.url, topic=prefix))
    async with AsyncExitStack() as stack:
        first = AsyncExitStack()
        await first.enter_async_context(world.process("one"))
        await stack.enter_async_context(world.process("two"))
        assert await world.owners() == {f"sensor/default/{prefix}": "one"}
        await subscribed(world, mosquitto, prefix)
        await first.aclose()

        async def taken_over() -> bool:
            return await world.owners() == {f"sensor/default/{prefix}": "two"}

        await until(taken_over)
        await publish(mosquitto.port, {f"{prefix}/7/temp": [b'{"celsius": 5}']})

        async def arrived() -> bool:
            return celsius(await world.read()) == [5]

        await until(arrived)


async def test_sensors_follow_the_rules(world: World, mosquitto: Any, prefix: str) -> None:
    await world.apply(PLANT.format(name=prefix, url=mosquitto.url, topic=prefix))
    async with world.process("one"):
        await subscribed(world, mosquitto, prefix)
        await world.apply(PLANT.format(name=prefix, url=mosquitto.url, topic=f"{prefix}/new"))

        async def moved() -> bool:
            await publish(mosquitto.port, {f"{prefix}/new/1/temp": [b'{"celsius": 3}']})
            return 3 in celsius(await world.read())

        await until(moved)
        await world.apply("sensors: []")

        async def given_back() -> bool:
            return await world.owners() == {}

        await until(given_back)


async def test_a_broker_that_is_not_there_is_waited_for(world: World) -> None:
    await world.apply(PLANT.format(name="plant", url="mqtt://127.0.0.1:1", topic="t"))
    async with world.process("one") as service:

        async def owned() -> bool:
            return bool(await world.owners())

        await until(owned)
        assert not service.done()
