"""Wake-ups on both buses: published through the Bus port, as the engine does, and read through FastStream."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from typing import Any

import pytest
from redis.asyncio import Redis

from penstock.events.bus import DEAD_LETTER, Bus, Outgoing, TopicPartition
from penstock.services.backoff import Backoff
from penstock.services.bus import connect, parse_address
from penstock.services.dead_letters import headers_of, key_of, value_of
from penstock.services.messaging import Messaging, Patience

TOPIC = "penstock.notifications"
QUICK = Backoff(attempts=3, base=timedelta(milliseconds=5), cap=timedelta(milliseconds=10))


@pytest.fixture
async def bus(any_bus_url: str) -> AsyncIterator[Bus]:
    bus = await connect(any_bus_url)
    yield bus
    await bus.close()


@pytest.fixture
async def member(any_bus_url: str, bus: Bus) -> AsyncIterator[Callable[[], Messaging]]:
    made: list[Messaging] = []

    def make() -> Messaging:
        patience = Patience(grace=timedelta(milliseconds=100), abandoned=timedelta(milliseconds=600))
        made.append(Messaging(any_bus_url, bus, backoff=QUICK, patience=patience))
        return made[-1]

    yield make
    for each in made:
        await each.stop()


async def publish(bus: Bus, *values: bytes, partition: int | None = None) -> None:
    await bus.ensure_topic(TOPIC, 6)
    publisher = await bus.publisher()
    await publisher.publish(
        [Outgoing(TOPIC, value, key=value, partition=partition, headers=(("x", b"\xff"),)) for value in values]
    )
    await publisher.close()


async def until(true: Callable[[], bool], within: float = 60) -> None:
    async with asyncio.timeout(within):
        while not true():
            await asyncio.sleep(0.01)


async def dead_letters(bus: Bus, count: int) -> list[dict[str, Any]]:
    topic = await bus.topic(DEAD_LETTER)
    assert topic is not None
    reader = bus.reader()
    for partition in range(topic.partitions):
        await reader.take(TopicPartition(DEAD_LETTER, partition), 0)
    found: list[dict[str, Any]] = []
    async with asyncio.timeout(30):
        while len(found) < count:
            for records in (await reader.poll(max_records=100, timeout=0.2)).values():
                found += [json.loads(record.value) for record in records]
    await reader.close()
    return found


async def test_records_from_before_and_after_the_start_reach_the_handler(
    bus: Bus, member: Callable[[], Messaging]
) -> None:
    got: list[bytes] = []

    async def note(value: bytes) -> None:
        got.append(value)

    await publish(bus, *(b"before-%d" % n for n in range(20)))
    messaging = member()
    messaging.on(TOPIC, "notifier", note)
    await messaging.start()
    await publish(bus, *(b"after-%d" % n for n in range(20)))
    await until(lambda: len(set(got)) == 40)
    assert sorted(got) == sorted(set(got))


async def test_members_of_one_group_share_and_groups_each_get_everything(
    bus: Bus, member: Callable[[], Messaging]
) -> None:
    got: dict[str, list[bytes]] = {"one": [], "two": [], "other": []}

    def note(name: str) -> Callable[[bytes], Any]:
        async def handler(value: bytes) -> None:
            got[name].append(value)

        return handler

    for name, group in (("one", "notifier"), ("two", "notifier"), ("other", "audit")):
        messaging = member()
        messaging.on(TOPIC, group, note(name))
        await messaging.start()
    values = [b"%d" % n for n in range(60)]
    await publish(bus, *values)
    await until(lambda: set(got["one"] + got["two"]) == set(values) and set(got["other"]) == set(values))


async def test_a_handler_that_fails_twice_is_tried_a_third_time(bus: Bus, member: Callable[[], Messaging]) -> None:
    calls: list[bytes] = []

    async def stumble(value: bytes) -> None:
        calls.append(value)
        if len(calls) < 3:
            raise ConnectionError("not yet")

    messaging = member()
    messaging.on(TOPIC, "notifier", stumble)
    await messaging.start()
    await publish(bus, b"wake")
    await until(lambda: len(calls) == 3)


async def test_poison_is_dead_lettered_with_its_origin_and_the_line_goes_on(
    bus: Bus, member: Callable[[], Messaging]
) -> None:
    calls: list[bytes] = []

    async def choke(value: bytes) -> None:
        calls.append(value)
        if value == b"\xffpoison":
            raise ValueError("cannot be read")

    messaging = member()
    messaging.on(TOPIC, "notifier", choke)
    await messaging.start()
    await publish(bus, b"\xffpoison", b"next", partition=4)
    await until(lambda: b"next" in calls)
    assert calls.count(b"\xffpoison") == 3
    (letter,) = await dead_letters(bus, 1)
    assert letter["reason"] == "ValueError: cannot be read"
    assert "choke" in letter["stack"]
    assert letter["origin"] == {
        "topic": TOPIC,
        "partition": 4,
        "offset": letter["origin"]["offset"],
        "group": "notifier",
    }
    assert isinstance(letter["origin"]["offset"], int)
    assert (value_of(letter), key_of(letter)) == (b"\xffpoison", b"\xffpoison")
    assert headers_of(letter) == (("x", b"\xff"),)


async def test_a_record_that_a_member_had_in_hand_when_it_ended_goes_to_another(
    bus: Bus, member: Callable[[], Messaging]
) -> None:
    begun, got = asyncio.Event(), list[bytes]()

    async def hang(value: bytes) -> None:
        begun.set()
        await asyncio.Event().wait()

    async def note(value: bytes) -> None:
        got.append(value)

    first = member()
    first.on(TOPIC, "notifier", hang)
    await first.start()
    await publish(bus, b"wake")
    async with asyncio.timeout(60):
        await begun.wait()
    await first.stop()
    second = member()
    second.on(TOPIC, "notifier", note)
    await second.start()
    await until(lambda: got == [b"wake"])


async def test_on_redis_what_every_group_has_acknowledged_is_trimmed_and_a_lost_group_is_made_again(
    redis_bus_url: str,
) -> None:
    got: list[bytes] = []

    async def note(value: bytes) -> None:
        got.append(value)

    bus, address = await connect(redis_bus_url), parse_address(redis_bus_url)
    redis = Redis.from_url(address.server)
    stream = f"{address.prefix}{TOPIC}:3"
    patience = Patience(trim_every=timedelta(milliseconds=100))
    messaging = Messaging(redis_bus_url, bus, backoff=QUICK, patience=patience)
    messaging.on(TOPIC, "notifier", note)
    await messaging.start()
    await publish(bus, b"one", b"two", partition=3)
    await until(lambda: len(got) == 2)
    async with asyncio.timeout(30):
        while await redis.xlen(stream):
            await asyncio.sleep(0.02)
    await redis.delete(stream)
    await publish(bus, b"three", partition=3)
    await until(lambda: got[2:] == [b"three"])
    await messaging.stop()
    assert await redis.xinfo_consumers(stream, "notifier") == []
    await redis.aclose()
    await bus.close()
