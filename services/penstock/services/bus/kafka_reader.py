"""Reading from Kafka by positions that are not Kafka's: fetch requests of our own over aiokafka's connections.

aiokafka's consumer fetches for groups: a partition whose records are being handled is missing from the next request,
and waits until that one has idled out on the others. Here the next request leaves as soon as an answer is in, always
for every partition, so a record is here as soon as the broker has it; and batches are unpacked when they are asked for.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Any

from aiokafka import errors
from aiokafka.errors import KafkaError
from aiokafka.protocol.fetch import FetchRequest
from aiokafka.record.memory_records import MemoryRecords
from aiokafka.structs import TopicPartition as WirePartition

from penstock.events.bus import End, Record, TopicPartition
from penstock.events.errors import BusError, BusUnavailableError, PositionLostError
from penstock.services.bus.kafka_link import BACKOFF, Link, may_pass

if TYPE_CHECKING:
    from penstock.services.bus.kafka import KafkaBus

UNAVAILABLE_AFTER = 30.0  # seconds without an answer for a partition
_WAIT_MS = 250  # how long the broker holds a request that it cannot answer; a newly taken partition waits as long
_PARTITION_BYTES = 1 << 20  # of one answer; a larger batch still comes, alone
_ANSWER_BYTES = 32 << 20
_AHEAD = 4  # answers kept for a partition that is not read fast enough

Answer = tuple[dict[WirePartition, int], Any]  # the offsets asked for, and the response or the error


@dataclass(slots=True)
class _Log:
    """One partition that is read."""

    asked: TopicPartition
    position: int  # of the next fetch
    ready: deque[Iterator[Record]] = field(default_factory=deque)
    lost: bool = False
    failing_since: float | None = None
    failure: str = ""


class KafkaReader:
    """See Reader."""

    def __init__(self, bus: KafkaBus, link: Link, prefix: str) -> None:
        self._bus, self._link, self._prefix = bus, link, prefix
        self._logs: dict[WirePartition, _Log] = {}
        self._fetches: dict[int, asyncio.Task[Answer]] = {}  # by node; -1: looking for leaders

    async def take(self, partition: TopicPartition, position: int) -> None:
        """See Reader. A position behind the end is lost too: the log was cut."""
        first = await self._bus.beginning(partition)
        if not first <= position <= (await self._bus.end(partition)).position:
            raise PositionLostError(*partition, wanted=position, found=first)
        wire = WirePartition(self._prefix + partition.topic, partition.partition)
        self._logs[wire] = _Log(partition, position)

    async def drop(self, partition: TopicPartition) -> None:
        """See Reader."""
        self._logs.pop(WirePartition(self._prefix + partition.topic, partition.partition), None)

    async def poll(self, *, max_records: int, timeout: float) -> Mapping[TopicPartition, Sequence[Record]]:
        """See Reader. Raises BusUnavailableError for a partition that nobody has answered for UNAVAILABLE_AFTER."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout
        while True:
            self._take_in()
            await self._raise_lost()
            found = self._hand_out(max_records)
            self._fetch(loop)
            if found:
                return found
            self._raise_unavailable(loop.time())
            left = deadline - loop.time()
            if left <= 0:
                return {}
            if self._fetches:
                await asyncio.wait(self._fetches.values(), timeout=left, return_when=asyncio.FIRST_COMPLETED)
            else:
                await asyncio.sleep(left)

    async def ends(self) -> Mapping[TopicPartition, End]:
        """See Reader."""
        return await self._bus.ends([log.asked for log in self._logs.values()])

    async def close(self) -> None:
        """See Reader."""
        self._logs.clear()
        fetches, self._fetches = list(self._fetches.values()), {}
        for task in fetches:
            task.cancel()
        await asyncio.gather(*fetches, return_exceptions=True)
        await self._link.close()

    def _fetch(self, loop: asyncio.AbstractEventLoop) -> None:
        """Have one request under way at each node that leads something."""
        wanted: dict[int, dict[WirePartition, int]] = {}
        client = self._link.connected
        for wire, log in self._logs.items():
            if len(log.ready) < _AHEAD and not log.lost:
                node = None if client is None else client.cluster.leader_for_partition(wire)
                wanted.setdefault(-1 if node is None else node, {})[wire] = log.position
        for node, offsets in wanted.items():
            if node not in self._fetches:
                work = self._ask(node, offsets) if node >= 0 else self._look_for_leaders(offsets)
                self._fetches[node] = loop.create_task(work)

    async def _ask(self, node: int, offsets: dict[WirePartition, int]) -> Answer:
        topics: dict[str, list[tuple[int, int, int]]] = {}
        for wire, offset in offsets.items():
            topics.setdefault(wire.topic, []).append((wire.partition, offset, _PARTITION_BYTES))
        try:
            client = await self._link.client()
            answer = await client.send(node, FetchRequest(_WAIT_MS, 1, _ANSWER_BYTES, 0, list(topics.items())))
        except (KafkaError, OSError) as error:
            await self._pause()
            return offsets, error
        if any(part[1] for _, parts in answer.topics for part in parts):
            await self._pause()
        return offsets, answer

    async def _look_for_leaders(self, offsets: dict[WirePartition, int]) -> Answer:
        try:
            client = await self._link.client()
            for topic in {wire.topic for wire in offsets}:
                client.add_topic(topic)
            await client.force_metadata_update()
        except (KafkaError, OSError) as error:
            await asyncio.sleep(BACKOFF)
            return offsets, error
        if any(client.cluster.leader_for_partition(wire) in (None, -1) for wire in offsets):
            await asyncio.sleep(BACKOFF)
        return offsets, KafkaError("no leader is known")

    async def _pause(self) -> None:
        """Before the next attempt: a while, and news about who leads what."""
        await asyncio.sleep(BACKOFF)
        try:
            await self._link.refresh()
        except (KafkaError, OSError):
            return  # the next request fails as well and counts

    def _take_in(self) -> None:
        for node in [node for node, task in self._fetches.items() if task.done()]:
            offsets, answer = self._fetches.pop(node).result()
            if isinstance(answer, Exception):
                for wire in offsets:
                    self._note_failure(wire, answer)
            else:
                self._take_in_answer(offsets, answer)

    def _take_in_answer(self, offsets: dict[WirePartition, int], answer: Any) -> None:
        for topic, parts in answer.topics:
            for partition, code, *_, content in parts:
                wire = WirePartition(topic, partition)
                log = self._logs.get(wire)
                if log is None or log.position != offsets[wire]:
                    continue  # dropped, or taken anew from elsewhere, while the request was under way
                if code == errors.OffsetOutOfRangeError.errno:
                    log.lost = True
                elif code:
                    self._note_failure(wire, errors.for_code(code)())
                else:
                    log.failing_since = None
                    _add(log, content)

    def _note_failure(self, wire: WirePartition, error: Exception) -> None:
        log = self._logs.get(wire)
        if log is None:
            return
        if not may_pass(error):
            raise BusError(f"Kafka refuses to let {log.asked} be read: {error!r}") from error
        if log.failing_since is None:
            log.failing_since = asyncio.get_running_loop().time()
        log.failure = repr(error)

    def _hand_out(self, max_records: int) -> dict[TopicPartition, list[Record]]:
        found: dict[TopicPartition, list[Record]] = {}
        for log in self._logs.values():
            records: list[Record] = []
            while log.ready and len(records) < max_records:
                records.extend(islice(log.ready[0], max_records - len(records)))
                if len(records) < max_records:
                    log.ready.popleft()
            if records:
                found[log.asked] = records
        return found

    async def _raise_lost(self) -> None:
        for log in self._logs.values():
            if log.lost and not log.ready:
                first = await self._bus.beginning(log.asked)
                log.lost = False  # asked again at the next poll, should the caller go on regardless
                raise PositionLostError(*log.asked, wanted=log.position, found=first)

    def _raise_unavailable(self, now: float) -> None:
        for log in self._logs.values():
            if log.failing_since is not None and now - log.failing_since > UNAVAILABLE_AFTER:
                waited, log.failing_since = now - log.failing_since, None  # a caller that goes on waits as long again
                raise BusUnavailableError(
                    f"{log.asked} could not be read for {waited:.0f} s ({log.failure});"
                    " see whether Kafka runs and whether the topic still exists"
                )


def _add(log: _Log, content: bytes | None) -> None:
    """Queue the batches of one answer; only their headers are looked at now."""
    memory, batches = MemoryRecords(content or b""), []
    while memory.has_next():
        batch: Any = memory.next_batch()
        if not batch.validate_crc():
            raise BusError(f"{log.asked}: a batch near offset {log.position} fails its checksum; it will be read again")
        batches.append(batch)
    if batches:
        log.ready.append(_records(log.asked, batches, log.position))
        log.position = max(log.position, batches[-1].next_offset)


def _records(asked: TopicPartition, batches: list[Any], start: int) -> Iterator[Record]:
    topic, partition = asked
    for batch in batches:
        if batch.is_control_batch:
            continue
        for each in batch:
            offset = each.offset
            if offset >= start:  # the first batch may begin before the position
                headers = tuple(each.headers)
                yield Record(topic, partition, offset, each.timestamp * 1_000, each.value or b"", each.key, headers)
