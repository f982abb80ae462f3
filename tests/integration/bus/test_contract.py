"""What every bus keeps: positions, order, append times, topics, ends."""

from __future__ import annotations

import asyncio
import time

import pytest
from tests.integration.bus.conftest import Side
from tests.support.bus import publish, read, read_all
from tests.support.scale import scaled

from penstock.events.bus import Bus, End, Outgoing, TopicPartition
from penstock.events.errors import BusError, PositionLostError
from penstock.services.bus import BusUrlError, connect

TOPIC = "penstock.test"
FIRST = TopicPartition(TOPIC, 0)


def numbered(count: int, *, start: int = 0, key: bytes | None = None, partition: int | None = 0) -> list[Outgoing]:
    return [Outgoing(TOPIC, b"%d" % number, key, partition) for number in range(start, start + count)]


async def test_what_is_published_is_read_once_in_order_with_growing_offsets(bus: Bus) -> None:
    count = scaled(20_000)
    await bus.ensure_topic(TOPIC, 1)
    await publish(bus, numbered(count))
    records = await read_all(bus, FIRST)
    assert [int(record.value) for record in records] == list(range(count))
    offsets = [record.offset for record in records]
    assert offsets == sorted(set(offsets))


async def test_reading_from_a_position_gives_it_and_everything_after(bus: Bus) -> None:
    await bus.ensure_topic(TOPIC, 1)
    await publish(bus, numbered(100))
    everything = await read_all(bus, FIRST)
    for at in (0, 1, 50, 99):
        assert await read_all(bus, FIRST, everything[at].offset) == everything[at:]
    assert await read_all(bus, FIRST, everything[98].offset + 1) == everything[99:]


async def test_a_reader_that_takes_little_at_a_time_misses_nothing(bus: Bus) -> None:
    await bus.ensure_topic(TOPIC, 3)
    await publish(bus, [Outgoing(TOPIC, b"%d" % number, partition=number % 3) for number in range(3_000)])
    reader = bus.reader()
    for partition in range(3):
        await reader.take(TopicPartition(TOPIC, partition), 0)
    polls = [await reader.poll(max_records=7, timeout=1.0) for _ in range(20)]
    assert all(len(records) <= 7 for poll in polls for records in poll.values())
    read_so_far = sum(len(records) for poll in polls for records in poll.values())
    rest = await read(reader, 3_000 - read_so_far, max_records=7)
    values = [int(record.value) for poll in [*polls, rest] for records in poll.values() for record in records]
    assert sorted(values) == list(range(3_000))
    await reader.close()


async def test_records_of_one_key_lie_in_one_partition_in_order(bus: Bus) -> None:
    await bus.ensure_topic(TOPIC, 6)
    keys = [b"truck/%d" % number for number in range(20)]
    for round_ in range(10):
        await publish(bus, [Outgoing(TOPIC, b"%d" % round_, key) for key in keys])
    reader = bus.reader()
    for partition in range(6):
        await reader.take(TopicPartition(TOPIC, partition), 0)
    found = await read(reader, 200)
    await reader.close()
    assert len(found) > 1
    for key in keys:
        homes = {where for where, records in found.items() if any(record.key == key for record in records)}
        assert len(homes) == 1
        values = [int(record.value) for record in found[homes.pop()] if record.key == key]
        assert values == list(range(10))


async def test_both_buses_send_a_key_to_the_partition_that_kafka_s_own_clients_choose(bus: Bus) -> None:
    await bus.ensure_topic(TOPIC, 6)
    hashes = {b"21": -973932308, b"foobar": -790332482, b"abc": 479470107}  # from the tests of Kafka's Java client
    expected = {key: (hash_ & 0x7FFFFFFF) % 6 for key, hash_ in hashes.items()}
    await publish(bus, [Outgoing(TOPIC, b"", key) for key in expected])
    for key, partition in expected.items():
        assert key in {record.key for record in await read_all(bus, TopicPartition(TOPIC, partition))}


async def test_an_explicit_partition_wins_over_the_key(bus: Bus) -> None:
    await bus.ensure_topic(TOPIC, 4)
    await publish(bus, [Outgoing(TOPIC, b"x", b"same", partition) for partition in range(4)])
    for partition in range(4):
        assert [record.key for record in await read_all(bus, TopicPartition(TOPIC, partition))] == [b"same"]


async def test_a_partition_that_does_not_exist_is_refused(bus: Bus) -> None:
    await bus.ensure_topic(TOPIC, 2)
    with pytest.raises(BusError, match="partitions 0 to 1, not 2"):
        await publish(bus, [Outgoing(TOPIC, b"x", partition=2)])


async def test_from_the_position_at_a_time_everything_is_read_that_came_then_or_later(bus: Bus) -> None:
    await bus.ensure_topic(TOPIC, 1)
    for number in range(3):
        await publish(bus, numbered(2, start=2 * number))
    records = await read_all(bus, FIRST)
    for each in records:
        later = [record for record in records if record.appended_at >= each.appended_at]
        found = await read_all(bus, FIRST, await bus.position_at(FIRST, each.appended_at))
        assert found[-len(later) :] == later
        assert len(found) <= len(later) + 1
    end = (await bus.end(FIRST)).position
    assert await bus.position_at(FIRST, records[-1].appended_at + 3_600_000_000) == end
    assert await read_all(bus, FIRST, await bus.position_at(FIRST, 0)) == records


async def test_the_bus_sets_the_append_time(bus: Bus) -> None:
    await bus.ensure_topic(TOPIC, 1)
    before = time.time_ns() // 1_000
    await publish(bus, [Outgoing(TOPIC, b"x", partition=0, timestamp=1_000_000)])
    (record,) = await read_all(bus, FIRST)
    assert before - 2_000 <= record.appended_at <= time.time_ns() // 1_000 + 2_000


async def test_a_topic_stamped_by_the_producer_keeps_its_times(bus: Bus) -> None:
    await bus.ensure_topic(TOPIC, 1, stamped_by_producer=True)
    await publish(bus, [Outgoing(TOPIC, b"x", partition=0, timestamp=at) for at in (1_000_000, 5_000_000, 3_000_000)])
    assert [record.appended_at for record in await read_all(bus, FIRST)] == [1_000_000, 5_000_000, 3_000_000]


async def test_time_stands_at_the_last_record_of_a_topic_stamped_by_the_producer(bus: Bus) -> None:
    await bus.ensure_topic(TOPIC, 1, stamped_by_producer=True)
    assert await bus.end(FIRST) == End(0, 0)
    await publish(bus, [Outgoing(TOPIC, b"x", partition=0, timestamp=at) for at in (1_000_000, 5_000_000)])
    records = await read_all(bus, FIRST)
    assert await bus.end(FIRST) == End(records[-1].offset + 1, 5_000_000)


async def test_keys_headers_and_any_bytes_come_through_untouched(bus: Bus) -> None:
    await bus.ensure_topic(TOPIC, 1)
    garbage = [bytes(range(256)), b"\x00", b"", b"\xff\xfe{not json", b'{"id": "\\u0000"}']
    sent = [Outgoing(TOPIC, value, value, 0, (("a", value), ("b", b"2"), ("a", b""))) for value in garbage]
    await publish(bus, [*sent, Outgoing(TOPIC, b"no key", partition=0)])
    *found, last = await read_all(bus, FIRST)
    assert [record.value for record in found] == garbage
    assert [record.key for record in found] == garbage
    assert [record.headers for record in found] == [record.headers for record in sent]
    assert (last.key, last.headers) == (None, ())


async def test_a_record_of_one_mebibyte_and_more_comes_through(bus: Bus) -> None:
    await bus.ensure_topic(TOPIC, 1)
    large = bytes(range(256)) * (5 << 10)  # 1.25 MiB
    await publish(bus, [Outgoing(TOPIC, value, partition=0) for value in (b"before", large, large, b"after")])
    assert [record.value for record in await read_all(bus, FIRST)] == [b"before", large, large, b"after"]


async def test_the_end_lies_behind_everything_appended_before_its_time(bus: Bus) -> None:
    await bus.ensure_topic(TOPIC, 2)
    empty = await bus.end(FIRST)
    await publish(bus, numbered(10))
    reader = bus.reader()
    await reader.take(FIRST, 0)
    await reader.take(TopicPartition(TOPIC, 1), 0)
    ends = await reader.ends()
    assert (empty.position, ends[TopicPartition(TOPIC, 1)].position) == (0, 0)
    records = await read_all(bus, FIRST)
    assert ends[FIRST].position == records[-1].offset + 1
    assert abs(ends[FIRST].at - time.time_ns() // 1_000) < 2_000_000
    assert await bus.beginning(FIRST) == 0
    await reader.close()


async def test_ends_never_claim_a_time_that_a_later_record_precedes(bus: Bus) -> None:
    await bus.ensure_topic(TOPIC, 1)
    publisher = await bus.publisher()
    stop = asyncio.Event()

    async def keep_publishing() -> None:
        while not stop.is_set():
            await publisher.publish(numbered(5))

    work = asyncio.create_task(keep_publishing())
    ends = [await bus.end(FIRST) for _ in range(scaled(500))]
    stop.set()
    await work
    await publisher.close()
    records = await read_all(bus, FIRST)
    for end in ends:
        assert all(record.appended_at >= end.at for record in records if record.offset >= end.position)


async def test_what_is_dropped_is_not_returned_and_can_be_taken_again(bus: Bus) -> None:
    await bus.ensure_topic(TOPIC, 2)
    second = TopicPartition(TOPIC, 1)
    await publish(bus, [*numbered(10), *numbered(10, partition=1)])
    reader = bus.reader()
    await reader.take(FIRST, 0)
    await reader.take(second, 0)
    await read(reader, 20)
    await reader.drop(FIRST)
    await publish(bus, [*numbered(5, start=10), *numbered(5, start=10, partition=1)])
    assert set(await read(reader, 5)) == {second}
    await reader.take(FIRST, 0)
    again = await read(reader, 15)
    assert [int(record.value) for record in again[FIRST]] == list(range(15))
    await reader.close()


async def test_an_empty_poll_returns_after_its_timeout(bus: Bus) -> None:
    await bus.ensure_topic(TOPIC, 1)
    reader = bus.reader()
    started = time.monotonic()
    assert await reader.poll(max_records=1, timeout=0.1) == {}
    await reader.take(FIRST, 0)
    assert await reader.poll(max_records=1, timeout=0.3) == {}
    assert 0.35 < time.monotonic() - started < 3
    await reader.close()


async def test_a_trimmed_position_is_reported_with_both_offsets(bus: Bus, side: Side) -> None:
    await bus.ensure_topic(TOPIC, 1)
    await publish(bus, numbered(10))
    records = await read_all(bus, FIRST)
    kept = records[6].offset
    reader = bus.reader()
    await reader.take(FIRST, records[2].offset)
    await side.trim(bus, FIRST, kept)
    assert await bus.beginning(FIRST) == kept
    with pytest.raises(PositionLostError) as taken:
        await bus.reader().take(FIRST, records[5].offset)
    assert (taken.value.wanted, taken.value.found) == (records[5].offset, kept)
    with pytest.raises(PositionLostError) as polled:
        await read(reader, 1)
    assert (polled.value.wanted, polled.value.found) == (records[2].offset, kept)
    await reader.take(FIRST, kept)
    assert (await read(reader, 4))[FIRST] == records[6:]
    await reader.close()


async def test_trimming_everything_leaves_a_log_that_goes_on(bus: Bus, side: Side) -> None:
    await bus.ensure_topic(TOPIC, 1)
    await publish(bus, numbered(3))
    end = await bus.end(FIRST)
    await side.trim(bus, FIRST, end.position)
    assert (await bus.end(FIRST)).position == end.position == await bus.beginning(FIRST)
    await publish(bus, numbered(2, start=3))
    assert [record.value for record in await read_all(bus, FIRST, end.position)] == [b"3", b"4"]


async def test_a_position_behind_the_end_is_lost_too(bus: Bus) -> None:
    await bus.ensure_topic(TOPIC, 1)
    with pytest.raises(PositionLostError):
        await bus.reader().take(FIRST, 1_000)


async def test_a_topic_is_made_once_and_keeps_its_id_and_partitions(bus: Bus, side: Side) -> None:
    assert await bus.topic(TOPIC) is None
    made = await bus.ensure_topic(TOPIC, 3)
    assert (made.name, made.partitions) == (TOPIC, 3)
    assert await bus.ensure_topic(TOPIC, 5) == made == await bus.topic(TOPIC)
    other = await connect(side.url)
    assert await other.topic(TOPIC) == made
    await other.close()


async def test_several_that_make_a_topic_at_once_see_the_same_one(bus: Bus) -> None:
    made = await asyncio.gather(*(bus.ensure_topic(TOPIC, 2) for _ in range(5)))
    assert len(set(made)) == 1


async def test_a_topic_made_anew_has_another_id(bus: Bus, side: Side) -> None:
    made = await bus.ensure_topic(TOPIC, 1)
    await side.delete_topic(TOPIC)
    async with asyncio.timeout(10):
        while await bus.topic(TOPIC) is not None:  # Kafka deletes in the background
            await asyncio.sleep(0)
    again = await bus.ensure_topic(TOPIC, 1)
    assert again.id != made.id


async def test_prefixes_keep_buses_on_one_server_apart(bus: Bus, another_bus: Bus) -> None:
    mine, theirs = await bus.ensure_topic(TOPIC, 1), await another_bus.ensure_topic(TOPIC, 2)
    assert (mine.partitions, theirs.partitions) == (1, 2)
    await publish(bus, numbered(3))
    assert await read_all(another_bus, FIRST) == []
    assert len(await read_all(bus, FIRST)) == 3
    assert {record.topic for record in await read_all(bus, FIRST)} == {TOPIC}


async def test_many_publish_calls_at_once_are_all_kept_in_order_per_caller(bus: Bus) -> None:
    await bus.ensure_topic(TOPIC, 3)
    publisher = await bus.publisher()

    async def caller(name: int) -> None:
        for number in range(20):
            await publisher.publish([Outgoing(TOPIC, b"%d %d" % (name, number), partition=name % 3)])

    await asyncio.gather(*(caller(name) for name in range(30)))
    await publisher.close()
    found = [record for number in range(3) for record in await read_all(bus, TopicPartition(TOPIC, number))]
    for name in range(30):
        values = [int(record.value.split()[1]) for record in found if int(record.value.split()[0]) == name]
        assert values == list(range(20))


async def test_publishing_to_a_topic_that_does_not_exist_is_an_error(bus: Bus) -> None:
    publisher = await bus.publisher()
    with pytest.raises(BusError):
        await publisher.publish([Outgoing("penstock.nowhere", b"x")])
    await bus.ensure_topic(TOPIC, 1)
    await publisher.publish(numbered(1))
    await publisher.close()


async def test_a_record_is_there_within_milliseconds(bus: Bus) -> None:
    await bus.ensure_topic(TOPIC, 6)
    publisher, reader = await bus.publisher(), bus.reader()
    for partition in range(6):
        await reader.take(TopicPartition(TOPIC, partition), 0)
    await publisher.publish(numbered(1))
    await read(reader, 1)
    delays = []
    for number in range(60):
        polling = asyncio.create_task(read(reader, 1))
        await publisher.publish(numbered(1, start=number))
        acknowledged = time.perf_counter()
        await polling
        delays.append(time.perf_counter() - acknowledged)
    await publisher.close()
    await reader.close()
    assert sorted(delays)[len(delays) // 2] < 0.03  # measured: below 3 ms; a busy machine gets room


async def test_healthy_says_whether_the_broker_answers(bus: Bus) -> None:
    assert await bus.healthy()


async def test_everything_can_be_closed_twice(bus: Bus) -> None:
    reader, publisher = bus.reader(), await bus.publisher()
    for each in (reader, reader, publisher, publisher, bus, bus):
        await each.close()
    with pytest.raises(BusError, match="closed"):
        await publisher.publish(numbered(1))


@pytest.mark.parametrize("url", ["", "kafka://", "amqp://127.0.0.1", "redis:/x", "127.0.0.1:9092"])
async def test_a_url_that_names_no_bus_is_refused(url: str) -> None:
    with pytest.raises(BusUrlError):
        await connect(url)
