"""Straight to Redis streams, as the bus of an embedded Penstock lays them out."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

from penstock.events.bus import Outgoing
from penstock.events.errors import BufferFullError, BusError, BusUnavailableError, PenstockError
from penstock.events.partitioning import choose_partition, redis_entry, redis_partitions, redis_stream
from penstock.events.targets import Target


class ClientMissingError(PenstockError, ImportError):
    """The client library of this kind of bus is not installed."""


try:
    from redis.asyncio import BlockingConnectionPool, Redis
    from redis.asyncio.retry import Retry
    from redis.backoff import NoBackoff
    from redis.exceptions import BusyLoadingError, OutOfMemoryError, RedisError
    from redis.exceptions import ConnectionError as RedisConnectionError
    from redis.exceptions import TimeoutError as RedisTimeoutError
except ImportError as error:
    raise ClientMissingError(
        "to emit to a redis:// or unix:// bus, install the extra: pip install 'penstock[server]';"
        " or emit over HTTP: set PENSTOCK_API_URL and PENSTOCK_API_KEY"
    ) from error

_KNOWN_FOR = 5.0  # seconds that a topic's number of partitions is trusted
_AWAY = (RedisConnectionError, RedisTimeoutError, BusyLoadingError, OSError, TimeoutError)


class RedisTransport:
    """A small pool; each call is one transaction, appended as a whole or not at all."""

    def __init__(self, target: Target) -> None:
        self._prefix = target.prefix
        # Without retries: redis-py would send a command again after a timeout, and append twice.
        pool = BlockingConnectionPool.from_url(
            target.server, max_connections=8, timeout=20, retry=Retry(NoBackoff(), 0), retry_on_timeout=False
        )
        self._redis = Redis.from_pool(pool)
        self._known: dict[str, tuple[int, float]] = {}

    async def send(self, records: Sequence[Outgoing], timeout: float) -> None:
        """See Transport."""
        try:
            async with asyncio.timeout(timeout):
                sizes = {topic: await self._partitions(topic) for topic in {record.topic for record in records}}
                async with self._redis.pipeline(transaction=True) as pipe:
                    for record in records:
                        number = choose_partition(record, sizes[record.topic])
                        pipe.xadd(redis_stream(self._prefix, record.topic, number), redis_entry(record))
                    await pipe.execute()
        except _AWAY as error:
            raise BusUnavailableError(
                f"Redis did not acknowledge within {timeout:g} s ({error!r}); take the events as not sent."
                " To emit the same ones again is safe"
            ) from error
        except OutOfMemoryError as error:
            raise BufferFullError(
                "Redis has no memory left for events; let Penstock catch up, or give it more"
            ) from error
        except RedisError as error:
            raise BusError(f"Redis did not take the events: {error}") from error

    async def close(self) -> None:
        """See Transport."""
        await self._redis.aclose()

    async def _partitions(self, topic: str) -> int:
        number, at = self._known.get(topic, (0, 0.0))
        if not number or time.monotonic() - at > _KNOWN_FOR:
            number = redis_partitions(topic, await self._redis.get(self._prefix + topic))
            self._known[topic] = number, time.monotonic()
        return number
