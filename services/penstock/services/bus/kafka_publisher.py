"""Publishing to Kafka: whole batches, acknowledged by all in-sync replicas, in order per partition.

aiokafka's idempotent producer resends a batch for as long as it lives, so a bound of our own ends it. After any failure
it is taken out of service, its requests in flight are waited for, and a new one begins before the next round: no record
of an earlier call can be appended behind one of a later call.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError, MessageSizeTooLargeError, UnknownTopicOrPartitionError

from penstock.events.bus import Outgoing, TopicPartition
from penstock.events.errors import BusError, BusUnavailableError
from penstock.events.partitioning import choose_partition
from penstock.services.bus.gathering import Addressed, Failures, Gatherer, Round

DELIVER_WITHIN = 15.0  # seconds until a record that is not acknowledged counts as failed
CONNECT_WITHIN = 10.0  # seconds
_REQUEST_MS = 5_000
_BATCH = 512 << 10  # bytes; a larger record travels alone
_ROUND = 20_000  # records


class KafkaPublisher:
    """One producer at a time; safe for concurrent use."""

    def __init__(self, servers: str, prefix: str) -> None:
        self._servers, self._prefix = servers, prefix
        self._producer: AIOKafkaProducer | None = None
        self._opening = asyncio.Lock()
        self._gatherer = Gatherer(self._send, limit=_ROUND)
        self._closed = False

    async def connect(self) -> AIOKafkaProducer:
        """The producer in service, a new one where there is none.  Raises BusUnavailableError."""
        async with self._opening:
            if self._producer is None:
                self._producer = await self._started()
            return self._producer

    async def publish(self, records: Sequence[Outgoing]) -> None:
        """See Publisher."""
        if self._closed:
            raise BusError("this publisher is closed; open another one")
        if records:
            await self._gatherer.publish(await self._addressed(records))

    async def close(self) -> None:
        """See Publisher."""
        self._closed = True
        await self._gatherer.drain()
        producer, self._producer = self._producer, None
        if producer is not None:
            await _end(producer)

    async def _started(self) -> AIOKafkaProducer:
        producer = AIOKafkaProducer(
            bootstrap_servers=self._servers,
            acks="all",
            enable_idempotence=True,
            compression_type="lz4",
            linger_ms=0,  # rounds gather already; waiting would only add to the latency
            max_batch_size=_BATCH,
            request_timeout_ms=_REQUEST_MS,
            metadata_max_age_ms=60_000,
        )
        try:
            async with asyncio.timeout(CONNECT_WITHIN):
                await producer.start()
        except (KafkaError, OSError, TimeoutError) as error:
            await _end(producer)
            raise BusUnavailableError(f"cannot publish to Kafka at {self._servers}: {error!r}") from error
        except BaseException:
            await _end(producer)
            raise
        return producer

    async def _addressed(self, records: Sequence[Outgoing]) -> list[Addressed]:
        sizes = {topic: await self._partitions(topic) for topic in {record.topic for record in records}}
        return [
            (TopicPartition(record.topic, choose_partition(record, sizes[record.topic])), record) for record in records
        ]

    async def _partitions(self, topic: str) -> int:
        producer = self._producer or await self.connect()
        try:
            return len(await producer.partitions_for(self._prefix + topic))
        except UnknownTopicOrPartitionError as error:
            raise BusUnavailableError(
                f"Kafka does not show topic {topic!r}; is it made, and does Kafka run?"
            ) from error
        except KafkaError as error:
            raise BusError(f"cannot publish to topic {topic!r}: {error!r}") from error

    async def _send(self, round_: Round) -> Failures:
        producer = await self.connect()
        sending = {
            asyncio.create_task(self._send_partition(producer, where, records)): where
            for where, records in round_.items()
        }
        done, late = await asyncio.wait(sending, timeout=DELIVER_WITHIN)
        failures = {sending[task]: _explained(sending[task], task.exception()) for task in done if task.exception()}
        failures |= {sending[task]: self._overdue(sending[task]) for task in late}
        if failures:
            self._producer = None
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)
            await _end(producer)
        return failures

    async def _send_partition(
        self, producer: AIOKafkaProducer, where: TopicPartition, records: Sequence[Outgoing]
    ) -> None:
        """Batch after batch; the next one is filled while the one before travels."""
        topic, at = self._prefix + where.topic, 0
        acknowledged = []
        now = time.time_ns() // 1_000_000
        while at < len(records):
            batch = producer.create_batch()
            while at < len(records) and _append(batch, records[at], now):
                at += 1
            batch.close()
            acknowledged.append(await producer.send_batch(batch, topic, partition=where.partition))
        await asyncio.gather(*acknowledged)

    def _overdue(self, where: TopicPartition) -> BusUnavailableError:
        return BusUnavailableError(
            f"Kafka at {self._servers} did not acknowledge records for {where} within {DELIVER_WITHIN:g} s;"
            " take them as not sent"
        )


def _append(batch: object, record: Outgoing, now: int) -> bool:
    at = now if record.timestamp is None else record.timestamp // 1_000
    appended = batch.append(  # type: ignore[attr-defined]  # aiokafka's BatchBuilder is untyped
        timestamp=at, key=record.key, value=record.value, headers=list(record.headers)
    )
    return appended is not None


def _explained(where: TopicPartition, error: BaseException | None) -> BusError:
    if isinstance(error, MessageSizeTooLargeError):
        return BusError(f"a record for {where} is larger than the topic takes; send a reference to its content instead")
    return BusError(f"Kafka did not take records for {where}: {error!r}")


async def _end(producer: AIOKafkaProducer) -> None:
    """Stop it without flushing: `stop()` would resend for ever. Requests in flight are answered or time out first."""
    producer._closed = True
    task = producer._sender.sender_task
    if task is not None:
        task.cancel()
        await asyncio.wait([task])
    await producer.client.close()
