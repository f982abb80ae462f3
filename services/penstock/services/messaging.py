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
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import parse_qs, urlencode, urlsplit, urlunsplit

import structlog
from aiokafka import ConsumerRecord
from faststream import AckPolicy, StreamMessage
from faststream.kafka import KafkaBroker, Topic
from faststream.redis import RedisBroker, StreamSub
from redis.asyncio import Redis
from redis.exceptions import RedisError, ResponseError

from penstock.events import bus as topics
from penstock.events.bus import Bus
from penstock.events.errors import BusError, PenstockError
from penstock.events.ids import new_id
from penstock.services.backoff import Backoff
from penstock.services.poison import Arrived, DeadLetters

Handler = Callable[[bytes], Awaitable[None]]

WAKE_PARTITIONS = 6  # of penstock.runs.*, penstock.notifications and penstock.dead-letter, at their making
RETRY = Backoff(attempts=5)  # of a handler that raises; about 1.5 s in all
_CONNECT = Backoff()
_BLOCK_MS = 2_000  # of a blocking read; redis-py gives a socket up after 5 s
_ABANDONED_MS = 30_000  # an entry whose reader has been silent for so long is given to another one
_RECLAIM_EVERY_MS = 5_000
_GRACE_SECONDS = 5.0  # to finish a message at the end

_log = structlog.get_logger()
_faststream_log = logging.getLogger("penstock.faststream")


class BusUrlError(PenstockError, ValueError):
    """PENSTOCK_BUS_URL names no bus that we know."""


@dataclass(frozen=True, slots=True)
class BusAddress:
    """A bus URL taken apart.  server: bootstrap servers of Kafka, or a Redis URL.  prefix: put before every topic."""

    kind: str  # kafka | redis
    server: str
    prefix: str = ""

    @staticmethod
    def parse(url: str) -> BusAddress:
        """`kafka://a:9092,b:9092?prefix=x.`, `redis://…?prefix=x:`, `unix:///socket?prefix=x:`.  Raises BusUrlError."""
        parts = urlsplit(url)
        query = {name: values[-1] for name, values in parse_qs(parts.query).items()}
        prefix = query.pop("prefix", "")
        if parts.scheme == "kafka":
            return BusAddress("kafka", parts.netloc, prefix)
        if parts.scheme in ("redis", "rediss", "unix"):
            return BusAddress("redis", urlunsplit(parts._replace(query=urlencode(query))), prefix)
        raise BusUrlError(f"{url!r} is no bus; PENSTOCK_BUS_URL begins with kafka://, redis:// or unix://")


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
    ) -> None:
        """instance: names this process within its groups; none: a random name."""
        self._address, self._bus = BusAddress.parse(bus_url), bus
        self._instance = instance or new_id()
        self._letters = DeadLetters(bus, backoff, namespace)
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
        kind = _KafkaSide if self._address.kind == "kafka" else _RedisSide
        return kind(self._address, self._instance, self._subscriptions, self._letters)

    async def _ensure_topics(self) -> dict[str, int]:
        names = {each.topic for each in self._subscriptions} | {topics.DEAD_LETTER}
        return {name: (await self._bus.ensure_topic(name, WAKE_PARTITIONS)).partitions for name in sorted(names)}

    async def _keep(self, side: _Side) -> None:
        while True:
            await asyncio.sleep(1.0)
            try:
                await side.mend()
            except (RedisError, OSError, TimeoutError) as error:
                _log.warning("messaging.not_mended", error=str(error))

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
        self, address: BusAddress, instance: str, subscriptions: list[_Subscription], letters: DeadLetters
    ) -> None:
        self._prefix = address.prefix
        self._broker = KafkaBroker(
            address.server.split(","),
            client_id=f"penstock-{instance}",
            middlewares=[letters],
            logger=_faststream_log,
            log_level=logging.DEBUG,
            apply_types=False,
            graceful_timeout=_GRACE_SECONDS,
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
        self, address: BusAddress, instance: str, subscriptions: list[_Subscription], letters: DeadLetters
    ) -> None:
        self._prefix, self._instance, self._subscriptions = address.prefix, instance, subscriptions
        self._streams: list[tuple[str, str]] = []  # stream, group
        self._redis = Redis.from_url(address.server)
        self._broker = RedisBroker(
            address.server,
            middlewares=[letters],
            logger=_faststream_log,
            log_level=logging.DEBUG,
            apply_types=False,
            graceful_timeout=_GRACE_SECONDS,
            max_connections=1_000,
        )

    async def start(self, partitions: Mapping[str, int]) -> None:
        for each in self._subscriptions:
            for partition in range(partitions[each.topic]):
                await self._read(each, partition)
        await self._broker.start()

    async def _read(self, each: _Subscription, partition: int) -> None:
        stream = f"{self._prefix}{each.topic}:{partition}"
        self._streams.append((stream, each.group))
        await self._ensure_group(stream, each.group)
        for interval, idle in ((_BLOCK_MS, None), (_RECLAIM_EVERY_MS, _ABANDONED_MS)):
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

    def _parser(self, subscription: _Subscription, partition: int) -> Callable[..., Awaitable[StreamMessage[Any]]]:
        async def parse(entry: Mapping[str, Any], original: Any) -> StreamMessage[Any]:
            fields: dict[bytes, bytes] = entry["data"]
            message: StreamMessage[Any] = await original({**entry, "data": {b"__data__": b""}})
            message.body = Arrived(
                subscription.topic,
                partition,
                entry["message_ids"][0].decode(),
                subscription.group,
                value=fields.get(b"value", b""),
                key=fields.get(b"key"),
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
            for stream, group in self._streams:
                await self._ensure_group(stream, group)
            for each in silent:
                await each.start()

    async def stop(self) -> None:
        await self._broker.stop()
        with contextlib.suppress(RedisError, OSError):
            await self._leave()
        await self._redis.aclose()

    async def _leave(self) -> None:
        """Remove this reader from its groups; one with entries in hand stays, so that another can take them over."""
        for stream, group in self._streams:
            readers = await self._redis.xinfo_consumers(stream, group)
            names = {_text(each["name"]): each["pending"] for each in readers}
            if names.get(self._instance) == 0:
                await self._redis.xgroup_delconsumer(stream, group, self._instance)


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else value
