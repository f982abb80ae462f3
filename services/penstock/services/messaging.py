"""Commands and notifications over FastStream, on Kafka and on Redis streams alike.

A record is delivered at least once to one member of each group, in order within its partition; a group that is new
starts at the oldest record. What a handler cannot take is retried and then dead-lettered (`poison`). These records only
wake their readers: the rows in the database are the truth, and a lost record delays by one sweep.
Where positions are owned (engine, archiver) the Bus port is used instead.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Protocol

import structlog
from aiokafka import ConsumerRecord
from faststream import AckPolicy, StreamMessage
from faststream.kafka import KafkaBroker, Topic
from faststream.redis import RedisBroker, StreamSub
from redis.exceptions import RedisError, ResponseError

from penstock.events import bus as topics
from penstock.events.bus import Bus, TopicPartition
from penstock.events.errors import BusError
from penstock.events.ids import new_id
from penstock.services.backoff import Backoff
from penstock.services.bus.address import BusAddress, parse_address
from penstock.services.bus.redis_streams import stream_key, to_offset, to_record
from penstock.services.cancellation import CancellableRedis, check_cancelled
from penstock.services.poison import Arrived, DeadLetters

Handler = Callable[[bytes], Awaitable[None]]

WAKE_PARTITIONS = 6  # of penstock.runs.*, penstock.notifications and penstock.dead-letter, at their making
RETRY = Backoff(attempts=5)  # of a handler that raises; about 1.5 s in all
_REST = 0.5  # seconds between commits of a group's offsets: each one costs Kafka as much as a record
_CONNECT = Backoff()
_BLOCK_MS = 2_000  # of a blocking read; redis-py gives a socket up after 5 s


@dataclass(frozen=True, slots=True)
class Patience:
    """grace: for the message in hand at the end.  abandoned: silence of a reader of a Redis stream after which what it
    had in hand goes to another one (Kafka: the session timeout).  trim_every: how often what all groups have
    acknowledged is removed from such a stream.
    """

    grace: timedelta = timedelta(seconds=5)
    abandoned: timedelta = timedelta(seconds=30)
    trim_every: timedelta = timedelta(seconds=30)


_log = structlog.get_logger()
_faststream_log = logging.getLogger("penstock.faststream")


@dataclass(frozen=True, slots=True)
class _Subscription:
    topic: str
    group: str
    handler: Handler


class _Side(Protocol):
    """One of the two brokers, connected once."""

    async def start(self, partitions: Mapping[str, int]) -> None: ...

    async def stop(self) -> None: ...

    async def mend(self) -> None: ...


class Messaging:
    """Subscriptions of one process.  `on` first, then `start`; `stop` finishes the message in hand."""

    def __init__(
        self,
        bus_url: str,
        bus: Bus,
        *,
        instance: str | None = None,
        namespace: str = "default",
        backoff: Backoff = RETRY,
        patience: Patience | None = None,
    ) -> None:
        """instance: names this process within its groups; none: a random name."""
        self._address, self._bus = parse_address(bus_url), bus
        self._instance = instance or new_id()
        rest = _REST if self._address.kind == "kafka" else 0.0
        self._letters = DeadLetters(bus, backoff, namespace, rest)
        self._patience = patience or Patience()
        self._subscriptions: list[_Subscription] = []
        self._side: _Side | None = None
        self._keeper: asyncio.Task[None] | None = None

    def on(self, topic: str, group: str, handler: Handler) -> None:
        """Call `handler(value)` for each record of `topic`, shared with the other members of `group`."""
        self._subscriptions.append(_Subscription(topic, group, handler))

    async def start(self) -> None:
        """Returns once every subscription reads. A broker that is away is waited for, with a log line."""
        failures = 0
        while True:
            side = self._make_side()
            try:
                await side.start(await self._ensure_topics())
            except (BusError, RedisError, OSError, TimeoutError) as error:
                await self._close(side)
                check_cancelled()
                failures += 1
                _log.warning("messaging.waiting_for_bus", server=self._address.kind, error=str(error))
                await asyncio.sleep(_CONNECT.pause(failures).total_seconds())
            except BaseException:
                await self._close(side)
                raise
            else:
                self._side, self._keeper = side, asyncio.create_task(self._keep(side))
                return

    async def stop(self) -> None:
        """Finish the message in hand and leave the groups; safe to call twice."""
        side, self._side = self._side, None
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.wait([self._keeper])
            self._keeper = None
        if side is not None:
            await self._close(side)
        await self._letters.close()

    def _make_side(self) -> _Side:
        if self._address.kind == "kafka":
            return _KafkaSide(self._address, self._instance, self._subscriptions, self._letters, self._patience)
        return _RedisSide(self._address, self._instance, self._subscriptions, self._letters, self._patience, self._bus)

    async def _ensure_topics(self) -> dict[str, int]:
        names = {each.topic for each in self._subscriptions} | {topics.DEAD_LETTER}
        return {name: (await self._bus.ensure_topic(name, WAKE_PARTITIONS)).partitions for name in sorted(names)}

    async def _keep(self, side: _Side) -> None:
        while True:
            await asyncio.sleep(1.0)
            try:
                await side.mend()
            except (BusError, RedisError, OSError, TimeoutError) as error:
                _log.warning("messaging.not_mended", error=str(error))
            check_cancelled()

    async def _close(self, side: _Side) -> None:
        try:
            await side.stop()
        except Exception as error:  # closing a connection that is gone may raise anything; there is nothing to save
            _log.info("messaging.closed_uncleanly", error=repr(error))


async def _body(message: StreamMessage[Any]) -> Any:
    """The decoder of both sides: the parser has made the body already."""
    return message.body


def _receive(handler: Handler) -> Callable[[Arrived], Awaitable[None]]:
    async def receive(arrived: Arrived) -> None:
        await handler(arrived.value)

    return receive


class _KafkaSide:
    """One consumer a subscription. Single messages: FastStream's batches wait even when there is something to read."""

    def __init__(
        self,
        address: BusAddress,
        instance: str,
        subscriptions: list[_Subscription],
        letters: DeadLetters,
        patience: Patience,
    ) -> None:
        self._prefix = address.prefix
        self._broker = KafkaBroker(
            address.server.split(","),
            client_id=f"penstock-{instance}",
            middlewares=[letters],
            logger=_faststream_log,
            log_level=logging.DEBUG,
            apply_types=False,
            graceful_timeout=patience.grace.total_seconds(),
        )
        for each in subscriptions:
            subscriber = self._broker.subscriber(
                Topic(address.prefix + each.topic, declare=False),  # the bus has made it
                group_id=address.prefix + each.group,
                auto_offset_reset="earliest",
                ack_policy=AckPolicy.MANUAL,
                session_timeout_ms=10_000,
                parser=self._parser(each),
                decoder=_body,
            )
            subscriber(_receive(each.handler))

    def _parser(self, subscription: _Subscription) -> Callable[..., Awaitable[StreamMessage[Any]]]:
        async def parse(record: ConsumerRecord[Any, Any], original: Any) -> StreamMessage[Any]:
            # FastStream decodes headers as UTF-8 and would drop a record whose headers are not.
            message: StreamMessage[Any] = await original(dataclasses.replace(record, headers=()))
            message.body = Arrived(
                subscription.topic,
                record.partition,
                record.offset,
                subscription.group,
                value=record.value or b"",
                key=record.key,
                headers=tuple(record.headers),
            )
            return message

        return parse

    async def start(self, partitions: Mapping[str, int]) -> None:
        await self._broker.start()

    async def stop(self) -> None:
        await self._broker.stop()

    async def mend(self) -> None:
        """aiokafka mends itself."""


class _RedisSide:
    """Two readers for each partition of a topic: of new entries, and of those whose reader fell silent."""

    def __init__(
        self,
        address: BusAddress,
        instance: str,
        subscriptions: list[_Subscription],
        letters: DeadLetters,
        patience: Patience,
        bus: Bus,
    ) -> None:
        self._prefix, self._instance, self._subscriptions, self._bus = address.prefix, instance, subscriptions, bus
        self._read_from: list[tuple[TopicPartition, str]] = []  # with the group
        self._trimmed, self._trim_every = time.monotonic(), patience.trim_every.total_seconds()
        self._abandoned = patience.abandoned // timedelta(milliseconds=1)
        self._redis = CancellableRedis.from_url(address.server)
        self._broker = RedisBroker(
            address.server,
            middlewares=[letters],
            logger=_faststream_log,
            log_level=logging.DEBUG,
            apply_types=False,
            graceful_timeout=patience.grace.total_seconds(),
            max_connections=1_000,
        )

    async def start(self, partitions: Mapping[str, int]) -> None:
        for each in self._subscriptions:
            for partition in range(partitions[each.topic]):
                await self._read(each, TopicPartition(each.topic, partition))
        await self._broker.start()

    async def _read(self, each: _Subscription, partition: TopicPartition) -> None:
        stream = stream_key(self._prefix, partition)
        self._read_from.append((partition, each.group))
        await self._ensure_group(stream, each.group)
        for interval, idle in ((_BLOCK_MS, None), (self._abandoned // 6, self._abandoned)):
            source = StreamSub(
                stream,
                group=each.group,
                consumer=self._instance,
                polling_interval=interval,
                min_idle_time=idle,
                max_records=100,
            )
            subscriber = self._broker.subscriber(
                stream=source, ack_policy=AckPolicy.MANUAL, parser=self._parser(each, partition), decoder=_body
            )
            subscriber(_receive(each.handler))

    def _parser(
        self, subscription: _Subscription, partition: TopicPartition
    ) -> Callable[..., Awaitable[StreamMessage[Any]]]:
        async def parse(entry: Mapping[str, Any], original: Any) -> StreamMessage[Any]:
            message: StreamMessage[Any] = await original({**entry, "data": {b"__data__": b""}})
            record = to_record(partition, entry["message_ids"][0], entry["data"])
            message.body = Arrived(
                record.topic,
                record.partition,
                record.offset,
                subscription.group,
                value=record.value,
                key=record.key,
                headers=record.headers,
            )
            return message

        return parse

    async def _ensure_group(self, stream: str, group: str) -> None:
        try:
            await self._redis.xgroup_create(stream, group, id="0", mkstream=True)
        except ResponseError as error:
            if "BUSYGROUP" not in str(error):
                raise

    async def mend(self) -> None:
        """FastStream gives a reader up for good when its group has gone (a Redis that came back empty)."""
        silent = [each for each in self._broker.subscribers if not getattr(each, "running", True)]
        if silent:
            _log.warning("messaging.rejoining", readers=len(silent))
            for partition, group in self._read_from:
                await self._ensure_group(stream_key(self._prefix, partition), group)
            for each in silent:
                await each.start()
        if time.monotonic() - self._trimmed > self._trim_every:
            self._trimmed = time.monotonic()
            for partition in {partition for partition, _ in self._read_from}:
                await self._trim(partition)

    async def _trim(self, partition: TopicPartition) -> None:
        """Remove what every group has acknowledged: nobody else trims these streams."""
        stream = stream_key(self._prefix, partition)
        unread = []
        for group in await self._redis.xinfo_groups(stream):
            pending = (await self._redis.xpending(stream, group["name"]))["min"]
            unread.append(to_offset(pending) if pending else to_offset(_bytes(group["last-delivered-id"])) + 1)
        if unread:
            await self._bus.trim(partition, min(unread))

    async def stop(self) -> None:
        await self._broker.stop()
        with contextlib.suppress(RedisError, OSError):
            await self._leave()
        await self._redis.aclose()

    async def _leave(self) -> None:
        """Remove this reader from its groups; one with entries in hand stays, so that another can take them over."""
        for partition, group in self._read_from:
            stream = stream_key(self._prefix, partition)
            readers = await self._redis.xinfo_consumers(stream, group)
            pending = {_bytes(each["name"]): each["pending"] for each in readers}
            if pending.get(self._instance.encode()) == 0:
                await self._redis.xgroup_delconsumer(stream, group, self._instance)


def _bytes(value: bytes | str) -> bytes:
    return value.encode() if isinstance(value, str) else value
