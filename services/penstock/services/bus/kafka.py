"""The bus on Apache Kafka. Positions are offsets; append times are the broker's, to the millisecond."""

from __future__ import annotations

import time
from collections.abc import Iterable
from functools import partial
from typing import Any
from uuid import UUID
from weakref import WeakSet

from aiokafka import errors
from aiokafka.protocol.admin import CreateTopicsRequest, DescribeConfigsRequest
from aiokafka.protocol.fetch import FetchRequest
from aiokafka.protocol.metadata import MetadataRequest
from aiokafka.protocol.offset import OffsetRequest
from aiokafka.record.memory_records import MemoryRecords
from aiokafka.structs import TopicPartition as WirePartition

from penstock.events.bus import End, Publisher, Reader, Topic, TopicPartition
from penstock.events.errors import BusUnavailableError
from penstock.events.instants import MILLISECOND, Instant
from penstock.services.bus.address import BusAddress
from penstock.services.bus.kafka_link import DescribeTopic, Link
from penstock.services.bus.kafka_publisher import KafkaPublisher
from penstock.services.bus.kafka_reader import KafkaReader

RETENTION_MS = 7 * 24 * 3_600_000
MAX_BATCH = 4 << 20  # bytes of one batch on the wire: an event of 1 MiB with what we add to it fits
CLOCK_MARGIN = 20_000  # microseconds: a broker stamps a batch shortly before it shows, and clocks differ a little

_CONSUMER, _DEBUGGER = -1, -2  # "replica ids" of those who ask: a consumer is shown replicated records alone
_EARLIEST, _LATEST = -2, -1
_TOPIC_RESOURCE = 2
_STAMPED_BY = "message.timestamp.type"


class KafkaBus:
    """A connection to one cluster."""

    def __init__(self, address: BusAddress) -> None:
        self._address = address
        self._link = Link(address.server)
        self._open: WeakSet[Reader | Publisher] = WeakSet()  # those that their users still hold
        self._stamped: dict[str, bool] = {}

    async def connect(self) -> None:
        """See whether the cluster answers.  Raises BusUnavailableError."""
        await self._link.persist(self._link.client, what="the first connection")

    async def ensure_topic(self, name: str, partitions: int, *, stamped_by_producer: bool = False) -> Topic:
        """See Bus. Replicated three times where there are three brokers, two of which must have each record."""
        found = await self.topic(name)
        if found is None:
            await self._link.persist(
                lambda: self._create(name, partitions, stamped_by_producer), what=f"the making of topic {name!r}"
            )
            found = await self._link.persist(lambda: self._seen(name), what=f"where the new topic {name!r} is")
        return found

    async def topic(self, name: str) -> Topic | None:
        """See Bus."""
        return await self._link.persist(lambda: self._describe(name), what=f"what topic {name!r} is")

    async def beginning(self, partition: TopicPartition) -> int:
        """See Bus."""
        return (await self.offsets([partition], beginning=True))[partition]

    async def end(self, partition: TopicPartition) -> End:
        """See Bus."""
        return (await self.ends([partition]))[partition]

    async def ends(self, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, End]:
        """The ends of several partitions.

        Kafka has no clock to ask: `at` is this machine's, taken before the question, less a margin (CLOCK_MARGIN).
        Records that are written but not yet replicated lie below the end: they have their append time already.
        """
        at = time.time_ns() // 1_000 - CLOCK_MARGIN
        found = await self.offsets(partitions, beginning=False)
        ends = {partition: End(position, at) for partition, position in found.items()}
        for partition, position in found.items():
            if await self._stamped_by_producer(partition.topic):
                stamp = await self._link.persist(
                    partial(self._stamp, self._wire(partition), position),
                    what=f"the last record of {partition}",
                )
                ends[partition] = End(position, stamp)
        return ends

    async def position_at(self, partition: TopicPartition, at: Instant) -> int:
        """See Bus."""
        wire, moment = self._wire(partition), max(0, at) // MILLISECOND
        found = await self._link.persist(
            lambda: self._offsets([wire], _CONSUMER, moment), what=f"the offset of a time in {partition}"
        )
        return found[wire] if found[wire] >= 0 else (await self.end(partition)).position  # nothing is as young

    async def trim(self, partition: TopicPartition, below: int) -> None:
        """Nothing: Kafka's retention removes old records, by age."""

    def reader(self) -> Reader:
        """See Bus."""
        reader = KafkaReader(self, Link(self._address.server), self._address.prefix)
        self._open.add(reader)
        return reader

    async def publisher(self) -> Publisher:
        """See Bus."""
        publisher = KafkaPublisher(self._address.server, self._address.prefix)
        await publisher.connect()
        self._open.add(publisher)
        return publisher

    async def healthy(self) -> bool:
        """See Bus."""
        try:
            await self._link.persist(self._ping, what="a ping", within=2.0)
        except BusUnavailableError:
            return False
        return True

    async def close(self) -> None:
        """See Bus."""
        for each in list(self._open):
            await each.close()
        await self._link.close()

    async def offsets(self, partitions: Iterable[TopicPartition], *, beginning: bool) -> dict[TopicPartition, int]:
        """The first offsets that are left, or the next ones to be written.  Raises BusUnavailableError."""
        asked = {self._wire(each): each for each in partitions}
        asker, moment = (_CONSUMER, _EARLIEST) if beginning else (_DEBUGGER, _LATEST)
        found = await self._link.persist(
            lambda: self._offsets(asked, asker, moment), what=f"the offsets of {', '.join(map(str, asked.values()))}"
        )
        return {asked[wire]: offset for wire, offset in found.items()}

    async def _offsets(self, asked: Iterable[WirePartition], asker: int, moment: int) -> dict[WirePartition, int]:
        """One request to each node that leads some of them.  moment: in milliseconds; -1 for a partition without it."""
        questions: dict[int, dict[str, list[tuple[int, int]]]] = {}
        for wire in asked:
            _, node = await self._link.leader(wire)
            questions.setdefault(node, {}).setdefault(wire.topic, []).append((wire.partition, moment))
        client = await self._link.client()
        found: dict[WirePartition, int] = {}
        for node, topics in questions.items():
            answer = await client.send(node, OffsetRequest(asker, 0, list(topics.items())))
            for topic, parts in answer.topics:
                for partition, code, _, offset in parts:
                    if code:
                        client.force_metadata_update()
                        raise errors.for_code(code)()
                    found[WirePartition(topic, partition)] = int(offset)
        return found

    async def _stamped_by_producer(self, topic: str) -> bool:
        """Remembered: it is settled when a topic is made."""
        if topic not in self._stamped:
            self._stamped[topic] = await self._link.persist(
                lambda: self._ask_stamped(topic), what=f"who stamps topic {topic!r}"
            )
        return self._stamped[topic]

    async def _ask_stamped(self, topic: str) -> bool:
        client = await self._link.client()
        wanted: Any = [(_TOPIC_RESOURCE, self._address.prefix + topic, [_STAMPED_BY])]
        answer = await client.send(client.get_random_node(), DescribeConfigsRequest(wanted, False))
        code, _, _, _, settings = answer.resources[0]
        if code:
            raise errors.for_code(code)()
        return any(value == "CreateTime" for name, value, *_ in settings if name == _STAMPED_BY)

    async def _stamp(self, wire: WirePartition, position: int) -> Instant:
        """The append time of the last record before `position`; 0 where there is none."""
        if position == 0:
            return 0
        _, node = await self._link.leader(wire)
        client = await self._link.client()
        question = FetchRequest(0, 0, MAX_BATCH, 0, [(wire.topic, [(wire.partition, position - 1, MAX_BATCH)])])
        answer = await client.send(node, question)
        memory = MemoryRecords(answer.topics[0][1][0][-1] or b"")
        batch: Any = memory.next_batch() if memory.has_next() else None
        return max((each.timestamp * MILLISECOND for each in batch or () if each.offset < position), default=0)

    def _wire(self, partition: TopicPartition) -> WirePartition:
        return WirePartition(self._address.prefix + partition.topic, partition.partition)

    async def _ping(self) -> None:
        client = await self._link.client()
        await client.send(client.get_random_node(), MetadataRequest([]))

    async def _describe(self, name: str) -> Topic | None:
        client = await self._link.client()
        answer = await client.send(client.get_random_node(), DescribeTopic(self._address.prefix + name))
        ((code, _, topic_id, _, partitions, _, _),) = answer.topics
        if code == errors.UnknownTopicOrPartitionError.errno:
            return None
        if code:
            raise errors.for_code(code)()
        return Topic(name, str(UUID(int=topic_id.int)), len(partitions))

    async def _seen(self, name: str) -> Topic:
        found = await self._describe(name)
        if found is None:
            raise errors.UnknownTopicOrPartitionError
        every = [WirePartition(self._address.prefix + name, number) for number in range(found.partitions)]
        await self._offsets(every, _CONSUMER, _EARLIEST)  # a leader is announced shortly before it serves
        return found

    async def _create(self, name: str, partitions: int, stamped_by_producer: bool) -> None:
        client = await self._link.client()
        await client.force_metadata_update()
        replicas = min(3, len(client.cluster.brokers()))
        settings = {
            _STAMPED_BY: "CreateTime" if stamped_by_producer else "LogAppendTime",
            "retention.ms": str(RETENTION_MS if not stamped_by_producer else -1),  # stamps may lie in the past
            "max.message.bytes": str(MAX_BATCH),
            "min.insync.replicas": "2" if replicas == 3 else "1",
            "unclean.leader.election.enable": "false",
        }
        wanted: Any = (self._address.prefix + name, partitions, replicas, [], list(settings.items()))
        controller = client.cluster.controller
        if controller is None:
            raise errors.NotControllerError
        answer = await client.send(
            controller.nodeId, CreateTopicsRequest(create_topic_requests=[wanted], timeout=10_000, validate_only=False)
        )
        code = answer.topic_errors[0][1]
        if code and code != errors.TopicAlreadyExistsError.errno:  # another process was faster
            raise errors.for_code(code)(answer.topic_errors[0][2])
