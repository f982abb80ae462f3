"""Connections to Redis that do exactly what they are told.

redis-py sends a command again by itself after a timeout, which would append twice; its pool fails at 100 connections;
its socket timeout of 5 s cuts long blocking reads. All three are set aside here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import BusyLoadingError, RedisError
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from penstock.events.errors import BusError, BusUnavailableError
from penstock.services.cancellation import CancellableRedis

T = TypeVar("T")

BACKOFF = 0.1  # seconds between attempts
ANSWER_WITHIN = 15.0  # seconds for a question, retries included: a restart fits in
BLOCK = 1.0  # seconds of one blocking read, well below the socket's timeout
_SOCKET_TIMEOUT = 5.0  # seconds

UNREACHABLE = (RedisConnectionError, RedisTimeoutError, BusyLoadingError, OSError)


def open_client(url: str, connections: int) -> Redis:
    """A client with a pool of its own, that never repeats a command."""
    pool = BlockingConnectionPool.from_url(
        url,
        max_connections=connections,
        timeout=20,
        socket_timeout=_SOCKET_TIMEOUT,
        socket_connect_timeout=_SOCKET_TIMEOUT,
        retry=Retry(NoBackoff(), 0),
        retry_on_timeout=False,
        protocol=2,
    )
    return CancellableRedis.from_pool(pool)


async def persist(ask: Callable[[], Awaitable[T]], *, what: str, within: float = ANSWER_WITHIN) -> T:
    """Ask until an answer comes.  Raises BusUnavailableError after `within` seconds, BusError where Redis refuses."""
    last: Exception | None = None
    try:
        async with asyncio.timeout(within):
            while True:
                try:
                    return await ask()
                except UNREACHABLE as error:
                    last = error
                except RedisError as error:
                    raise BusError(f"Redis refused {what}: {error}") from error
                await asyncio.sleep(BACKOFF)
    except TimeoutError as error:
        raise unavailable(what, last or error, within) from last


def unavailable(what: str, error: Exception, within: float) -> BusUnavailableError:
    """The error for a Redis that stays away."""
    return BusUnavailableError(f"Redis did not answer {what} within {within:g} s ({error!r}); see whether it runs")
