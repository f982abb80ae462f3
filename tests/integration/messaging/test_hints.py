"""Hints through a real Redis: heard by whoever waits, however soon after its start, and by nobody else."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest
from redis.asyncio import Redis

from penstock.services.hints import Hints

PREFIX = "penstock:hint:"


@asynccontextmanager
async def hearing(url: str) -> AsyncIterator[Hints]:
    redis = Redis.from_url(url)
    hints = Hints(redis)
    running = asyncio.create_task(hints.run())
    yield hints
    running.cancel()
    with suppress(asyncio.CancelledError):
        await running
    await redis.aclose()


async def listeners(redis: Redis, name: str) -> int:
    found = await redis.pubsub_numsub(PREFIX + name)
    return int(found[0][1])


async def until_heard(redis: Redis, *names: str) -> None:
    async with asyncio.timeout(10):
        while not all([await listeners(redis, name) for name in names]):
            await asyncio.sleep(0.005)


@pytest.mark.parametrize("turns", range(6))
async def test_a_hint_is_heard_however_soon_after_the_start_it_is_waited_for(redis_url: str, turns: int) -> None:
    other, names = Redis.from_url(redis_url), [f"name-{turns}-{n}" for n in range(8)]
    async with hearing(redis_url) as hints:
        waiting = []
        for name in names:  # some before the first subscription, some amid it, some after it
            waiting.append(asyncio.create_task(hints.wait(name, 20)))
            for _ in range(turns):
                await asyncio.sleep(0)
        await until_heard(other, *names)
        await Hints(other).give(*names)
        assert await asyncio.gather(*waiting) == [True] * 8
    await other.aclose()


async def test_nobody_is_woken_for_what_it_does_not_wait_for(redis_url: str) -> None:
    other = Redis.from_url(redis_url)
    async with hearing(redis_url) as hints:
        waiting = asyncio.create_task(hints.wait("mine", 20))
        await until_heard(other, "mine")
        assert await listeners(other, "not-mine") == 0
        await Hints(other).give("not-mine", "mine")
        assert await waiting
    await other.aclose()


async def test_a_connection_that_is_lost_is_made_anew_with_all_that_was_waited_for(redis_url: str) -> None:
    other = Redis.from_url(redis_url)
    async with hearing(redis_url) as hints:
        waiting = [asyncio.create_task(hints.wait(name, 20)) for name in ("first", "second")]
        await until_heard(other, "first", "second")
        await other.client_kill_filter(_type="pubsub")
        async with asyncio.timeout(10):
            while await listeners(other, "first"):
                await asyncio.sleep(0.005)
        await until_heard(other, "first", "second")
        await Hints(other).give("first", "second")
        assert await asyncio.gather(*waiting) == [True, True]
    await other.aclose()
