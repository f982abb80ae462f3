"""Short ways to fill and read a bus in tests."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

from penstock.events.bus import Bus, Outgoing, Reader, Record, TopicPartition


async def publish(bus: Bus, records: Sequence[Outgoing]) -> None:
    """With a publisher of its own."""
    publisher = await bus.publisher()
    try:
        await publisher.publish(records)
    finally:
        await publisher.close()


async def read(
    reader: Reader, count: int, *, within: float = 20.0, max_records: int = 1_000
) -> dict[TopicPartition, list[Record]]:
    """Poll until `count` records are there in all.  Raises TimeoutError, saying how many came."""
    found: dict[TopicPartition, list[Record]] = {}
    deadline = asyncio.get_running_loop().time() + within
    while sum(map(len, found.values())) < count:
        if asyncio.get_running_loop().time() > deadline:
            raise TimeoutError(f"{sum(map(len, found.values()))} of {count} records came within {within:g} s")
        merge(found, await reader.poll(max_records=max_records, timeout=0.5))
    return found


async def read_all(bus: Bus, partition: TopicPartition, position: int = 0) -> list[Record]:
    """Everything from `position` to the end as it is now."""
    end = (await bus.end(partition)).position
    reader = bus.reader()
    found: list[Record] = []
    try:
        await reader.take(partition, position)
        while position < end:
            for records in (await reader.poll(max_records=1_000, timeout=1.0)).values():
                found += records
                position = records[-1].offset + 1
    finally:
        await reader.close()
    return found


def merge(into: dict[TopicPartition, list[Record]], polled: Mapping[TopicPartition, Sequence[Record]]) -> None:
    """Append what a poll gave."""
    for partition, records in polled.items():
        into.setdefault(partition, []).extend(records)
