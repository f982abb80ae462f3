"""The bus port on lists, in one process: for unit tests."""

from __future__ import annotations

import asyncio
import zlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import count

from penstock.events.bus import End, Outgoing, Record, Topic, TopicPartition
from penstock.events.errors import BusUnavailableError
from penstock.events.instants import Instant


class FakeBus:
    """Keeps every record. `away`: nothing is acknowledged. `gate`: cleared, publishing waits for it to be set."""

    def __init__(self, partitions: int = 2) -> None:
        self.logs: dict[TopicPartition, list[Record]] = defaultdict(list)
        self.topics: dict[str, Topic] = {}
        self.publishes: list[int] = []  # how many records each call of publish had
        self.away = False
        self.gate = asyncio.Event()
        self.gate.set()
        self.appended = asyncio.Condition()
        self._partitions, self._clock = partitions, count(1_700_000_000_000_000)

    def records(self, topic: str) -> list[Record]:
        """All of a topic, partition by partition."""
        return [record for log, records in sorted(self.logs.items()) if log.topic == topic for record in records]

    def now(self) -> Instant:
        return next(self._clock)

    async def append(self, record: Outgoing) -> None:
        topic = await self.ensure_topic(record.topic, self._partitions)
        partition = record.partition
        if partition is None:
            partition = zlib.crc32(record.key or b"") % topic.partitions
        log = self.logs[TopicPartition(record.topic, partition)]
        log.append(
            Record(record.topic, partition, len(log), self.now(), record.value, record.key, tuple(record.headers))
        )
        async with self.appended:
            self.appended.notify_all()

    async def ensure_topic(self, name: str, partitions: int, *, stamped_by_producer: bool = False) -> Topic:
        return self.topics.setdefault(name, Topic(name, f"id-{name}", partitions))

    async def topic(self, name: str) -> Topic | None:
        return self.topics.get(name)

    async def beginning(self, partition: TopicPartition) -> int:
        return 0

    async def end(self, partition: TopicPartition) -> End:
        return End(len(self.logs[partition]), self.now())

    async def position_at(self, partition: TopicPartition, at: Instant) -> int:
        return sum(record.appended_at < at for record in self.logs[partition])

    async def trim(self, partition: TopicPartition, below: int) -> None:
        return None

    def reader(self) -> FakeReader:
        return FakeReader(self)

    async def publisher(self) -> FakePublisher:
        return FakePublisher(self)

    async def healthy(self) -> bool:
        return not self.away

    async def close(self) -> None:
        return None


class FakePublisher:
    """Appends at once, or refuses all."""

    def __init__(self, bus: FakeBus) -> None:
        self._bus = bus

    async def publish(self, records: Sequence[Outgoing]) -> None:
        await self._bus.gate.wait()
        if self._bus.away:
            raise BusUnavailableError("the fake bus is away")
        self._bus.publishes.append(len(records))
        for record in records:
            await self._bus.append(record)

    async def close(self) -> None:
        return None


class FakeReader:
    """Reads what is there; waits for a record to be appended."""

    def __init__(self, bus: FakeBus) -> None:
        self._bus = bus
        self._positions: dict[TopicPartition, int] = {}

    async def take(self, partition: TopicPartition, position: int) -> None:
        self._positions[partition] = position

    async def drop(self, partition: TopicPartition) -> None:
        self._positions.pop(partition, None)

    async def poll(self, *, max_records: int, timeout: float) -> Mapping[TopicPartition, Sequence[Record]]:
        found = self._read(max_records)
        if not found:
            try:
                async with asyncio.timeout(timeout), self._bus.appended:
                    await self._bus.appended.wait()
            except TimeoutError:
                return {}
            found = self._read(max_records)
        return found

    def _read(self, max_records: int) -> dict[TopicPartition, Sequence[Record]]:
        found: dict[TopicPartition, Sequence[Record]] = {}
        for partition, position in self._positions.items():
            records = self._bus.logs[partition][position : position + max_records]
            if records:
                found[partition] = records
                self._positions[partition] = position + len(records)
        return found

    async def ends(self) -> Mapping[TopicPartition, End]:
        return {partition: await self._bus.end(partition) for partition in self._positions}

    async def close(self) -> None:
        return None
