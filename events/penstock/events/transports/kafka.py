"""Straight to Kafka: aiokafka's idempotent producer, acks=all, lz4."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from aiokafka import AIOKafkaProducer
from aiokafka.errors import (
    KafkaError,
    KafkaTimeoutError,
    MessageSizeTooLargeError,
    RecordTooLargeError,
    UnknownTopicOrPartitionError,
)

from penstock.events.bus import Outgoing
from penstock.events.errors import BusError, BusUnavailableError, InvalidEventError
from penstock.events.event import MAX_BODY
from penstock.events.targets import Target

_LARGEST = MAX_BODY + (64 << 10)  # bytes of one request: an event of the largest size with its key and headers


class KafkaTransport:
    """One producer at a time. After a failure the next call begins with a new one."""

    def __init__(self, target: Target) -> None:
        self._servers, self._prefix = target.server, target.prefix
        self._producer: AIOKafkaProducer | None = None
        self._opening = asyncio.Lock()

    async def send(self, records: Sequence[Outgoing], timeout: float) -> None:
        """See Transport. Cancelled, it leaves what is in flight to the producer: the same events are no others."""
        producer = None
        try:
            async with asyncio.timeout(timeout):
                producer = await self._connected()
                await self._append(producer, records)
        except (MessageSizeTooLargeError, RecordTooLargeError) as error:
            raise InvalidEventError(f"is larger than the topic takes: {error}", field="data") from error
        except (TimeoutError, KafkaTimeoutError, UnknownTopicOrPartitionError, OSError) as error:
            unknown = producer is not None and self._unknown_topics(producer, records)
            await self._discard(producer)
            if unknown:
                raise BusUnavailableError(
                    f"Kafka at {self._servers} does not show topic {unknown}; is Penstock running on it?"
                ) from error
            raise BusUnavailableError(
                f"Kafka at {self._servers} did not acknowledge within {timeout:g} s; take the events as not sent."
                " To emit the same ones again is safe"
            ) from error
        except KafkaError as error:
            await self._discard(producer)
            raise BusError(f"Kafka at {self._servers} did not take the events: {error!r}") from error

    async def close(self) -> None:
        """See Transport. Nothing waits here: `send` returns only when it is done."""
        await self._discard(self._producer)

    async def _append(self, producer: AIOKafkaProducer, records: Sequence[Outgoing]) -> None:
        waiting = []
        try:
            for record in records:
                topic, headers = self._prefix + record.topic, list(record.headers)
                waiting.append(
                    await producer.send(
                        topic, record.value, key=record.key, partition=record.partition, headers=headers
                    )
                )
            await asyncio.gather(*waiting)
        finally:
            for future in waiting:
                future.add_done_callback(_retrieved)

    def _unknown_topics(self, producer: AIOKafkaProducer, records: Sequence[Outgoing]) -> str:
        topics = {self._prefix + record.topic for record in records}
        return ", ".join(sorted(topic for topic in topics if not producer.client.cluster.partitions_for_topic(topic)))

    async def _connected(self) -> AIOKafkaProducer:
        async with self._opening:
            if self._producer is None:
                producer = AIOKafkaProducer(
                    bootstrap_servers=self._servers,
                    acks="all",
                    enable_idempotence=True,
                    compression_type="lz4",
                    linger_ms=0,  # what is sent while a batch travels gathers anyway
                    max_request_size=_LARGEST,
                    request_timeout_ms=10_000,
                )
                try:
                    await producer.start()
                except BaseException as error:
                    await _end(producer)
                    if isinstance(error, KafkaError):
                        raise OSError(str(error)) from error
                    raise
                self._producer = producer
            return self._producer

    async def _discard(self, producer: AIOKafkaProducer | None) -> None:
        if producer is not None and self._producer is producer:
            self._producer = None
            await _end(producer)


def _retrieved(future: asyncio.Future[object]) -> None:
    """The first failure is the one that is told; the others need no log line of their own."""
    if not future.cancelled():
        future.exception()


async def _end(producer: AIOKafkaProducer) -> None:
    """Stop it without flushing: `stop()` would wait for a dead broker for ever, since it resends for ever."""
    producer._closed = True
    await producer._sender.close()
    await producer.client.close()
