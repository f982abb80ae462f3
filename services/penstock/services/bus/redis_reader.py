"""Reading Redis streams from positions: an exact look at streams and marks in one step, and a wait for news between.

XREAD alone would pass over entries that were trimmed before it came. So entries are read together with the marks, in a
transaction; the blocking read only says that it is worth looking.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from redis.asyncio import Redis
from redis.exceptions import RedisError

from penstock.events.bus import End, Record, TopicPartition
from penstock.events.errors import BusError, PositionLostError
from penstock.services.bus.redis_link import BACKOFF, BLOCK, UNREACHABLE, unavailable
from penstock.services.bus.redis_streams import before, start_key, stream_key, to_record

if TYPE_CHECKING:
    from penstock.services.bus.redis import RedisBus

UNAVAILABLE_AFTER = 30.0  # seconds without an answer


class RedisReader:
    """See Reader."""

    def __init__(self, bus: RedisBus, client: Redis, prefix: str) -> None:
        """client: with one connection, since it blocks."""
        self._bus, self._redis, self._prefix = bus, client, prefix
        self._positions: dict[TopicPartition, int] = {}
        self._failing_since: float | None = None

    async def take(self, partition: TopicPartition, position: int) -> None:
        """See Reader. A position behind the end is lost too: the log was cut."""
        first = await self._bus.beginning(partition)
        if not first <= position <= max(first, (await self._bus.end(partition)).position):
            raise PositionLostError(*partition, wanted=position, found=first)
        self._positions[partition] = position

    async def drop(self, partition: TopicPartition) -> None:
        """See Reader."""
        self._positions.pop(partition, None)

    async def poll(self, *, max_records: int, timeout: float) -> Mapping[TopicPartition, Sequence[Record]]:
        """See Reader. Raises BusUnavailableError once nobody has answered for UNAVAILABLE_AFTER seconds."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout
        while True:
            try:
                found = await self._look(max_records) if self._positions else {}
                self._failing_since = None
                left = deadline - loop.time()
                if found or left <= 0:
                    return found
                await self._wait(left)
            except UNREACHABLE as error:
                self._note_failure(error, loop.time())
                await asyncio.sleep(max(0.0, min(BACKOFF, deadline - loop.time())))
                if loop.time() >= deadline:
                    return {}
            except RedisError as error:
                raise BusError(f"Redis refuses to let streams be read: {error}") from error

    async def ends(self) -> Mapping[TopicPartition, End]:
        """See Reader."""
        return await self._bus.ends(self._positions)

    async def close(self) -> None:
        """See Reader."""
        self._positions.clear()
        await self._redis.aclose()

    async def _look(self, max_records: int) -> dict[TopicPartition, list[Record]]:
        asked = dict(self._positions)
        async with self._redis.pipeline(transaction=True) as pipe:
            pipe.mget([start_key(self._prefix, each) for each in asked])
            pipe.xread(self._streams(asked), count=max_records)
            marks, answer = await pipe.execute()
        for (each, position), start in zip(asked.items(), marks, strict=True):
            if start is not None and int(start) > position:
                raise PositionLostError(*each, wanted=position, found=int(start))
        found = self._records(answer)
        for each, records in found.items():
            self._positions[each] = records[-1].offset + 1
        return found

    async def _wait(self, left: float) -> None:
        """Until there is something to read, or for a while; what comes is left for the exact look."""
        if not self._positions:
            await asyncio.sleep(left)
            return
        milliseconds = max(1, int(min(left, BLOCK) * 1_000))
        await self._redis.xread(self._streams(self._positions), count=1, block=milliseconds)

    def _streams(self, positions: Mapping[TopicPartition, int]) -> Any:
        return {stream_key(self._prefix, each): before(position) for each, position in positions.items()}

    def _records(self, answer: Any) -> dict[TopicPartition, list[Record]]:
        by_key = {stream_key(self._prefix, each).encode(): each for each in self._positions}
        return {
            by_key[key]: [to_record(by_key[key], entry_id, fields) for entry_id, fields in entries]
            for key, entries in answer or ()
        }

    def _note_failure(self, error: Exception, now: float) -> None:
        if self._failing_since is None:
            self._failing_since = now
        if now - self._failing_since > UNAVAILABLE_AFTER:
            self._failing_since = None  # a caller that goes on waits as long again
            raise unavailable("a read of streams", error, UNAVAILABLE_AFTER) from error
