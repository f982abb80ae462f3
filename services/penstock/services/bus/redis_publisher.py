"""Publishing to Redis streams, in transactions: each is appended as a whole or not at all."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import RedisError

from penstock.events.bus import Outgoing, TopicPartition
from penstock.events.errors import BusError, BusUnavailableError
from penstock.events.partitioning import choose_partition
from penstock.services.bus.gathering import Addressed, Failures, Gatherer, Round
from penstock.services.bus.redis_link import UNREACHABLE, persist
from penstock.services.bus.redis_streams import StoredTopic, stream_key, to_entry

_ROUND = 2_000  # records in a transaction; the server does nothing else meanwhile
_KNOWN_FOR = 5.0  # seconds that a topic's description is trusted


class RedisPublisher:
    """One connection; safe for concurrent use."""

    def __init__(self, client: Redis, shared: Redis, prefix: str) -> None:
        """client: with one connection, for appending alone.  shared: for questions."""
        self._redis, self._shared, self._prefix = client, shared, prefix
        self._gatherer = Gatherer(self._send, limit=_ROUND)
        self._topics: dict[str, tuple[StoredTopic, float]] = {}
        self._connection: tuple[str, int] | None = None  # which server process, and our number there
        self._broken: tuple[str, int] | None = None
        self._closed = False

    async def connect(self) -> None:
        """See whether the server answers.  Raises BusUnavailableError."""
        self._connection = await persist(self._identify, what="the first connection")

    async def publish(self, records: Sequence[Outgoing]) -> None:
        """See Publisher."""
        if self._closed:
            raise BusError("this publisher is closed; open another one")
        if records:
            topics = {topic: await self._topic(topic) for topic in {record.topic for record in records}}
            await self._gatherer.publish([_address(record, topics[record.topic]) for record in records])

    async def close(self) -> None:
        """See Publisher."""
        self._closed = True
        await self._gatherer.drain()
        await self._redis.aclose()

    async def _topic(self, name: str) -> StoredTopic:
        found, at = self._topics.get(name, (None, 0.0))
        if found is None or time.monotonic() - at > _KNOWN_FOR:
            text = await persist(lambda: self._shared.get(self._prefix + name), what=f"what topic {name!r} is")
            if text is None:
                raise BusError(f"there is no topic {name!r} to publish to; make it first with ensure_topic")
            found = StoredTopic.decode(name, text)
            self._topics[name] = found, time.monotonic()
        return found

    async def _send(self, round_: Round) -> Failures:
        try:
            if self._connection is None:
                await self._begin_afresh()
            entries = self._entries(round_)
            for at in range(0, len(entries), _ROUND):
                await self._append(entries[at : at + _ROUND])
        except UNREACHABLE as error:
            self._broken, self._connection = self._connection or self._broken, None
            raise BusUnavailableError(f"Redis did not acknowledge ({error!r}); take the records as not sent") from error
        except RedisError as error:
            raise BusError(f"Redis did not take the records: {error}") from error
        return {}

    def _entries(self, round_: Round) -> list[tuple[str, dict[Any, Any]]]:
        now = time.time_ns() // 1_000
        entries: list[tuple[str, dict[Any, Any]]] = []
        for where, records in round_.items():
            key = stream_key(self._prefix, where)
            stamp = now if self._topics[where.topic][0].stamped_by_producer else None
            entries += [(key, to_entry(record, stamp)) for record in records]
        return entries

    async def _append(self, entries: Sequence[tuple[str, dict[Any, Any]]]) -> None:
        async with self._redis.pipeline(transaction=True) as pipe:
            for key, fields in entries:
                pipe.xadd(key, fields)
            await pipe.execute()

    async def _begin_afresh(self) -> None:
        """A new connection, and the end of the old one: what it still had to say is never carried out."""
        await self._redis.connection_pool.disconnect()
        connection = await self._identify()
        if self._broken is not None and self._broken[0] == connection[0]:  # else that server process is gone
            await self._redis.client_kill_filter(_id=str(self._broken[1]))
        self._broken, self._connection = None, connection

    async def _identify(self) -> tuple[str, int]:
        server = await self._redis.info("server")
        return str(server["run_id"]), int(await self._redis.client_id())


def _address(record: Outgoing, stored: StoredTopic) -> Addressed:
    return TopicPartition(record.topic, choose_partition(record, stored.topic.partitions)), record
