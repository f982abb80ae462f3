"""A cancellation that redis-py swallows is kept by our client."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any

import pytest
from redis.asyncio import Redis
from redis.asyncio.client import Pipeline

from penstock.services.cancellation import CancellableRedis, keeping_cancellation


async def test_a_command_that_swallows_its_cancellation_is_cancelled_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Redis, "execute_command", _swallowing)
    redis = CancellableRedis()
    assert await _cancelled_amid(redis.ping())


async def test_a_pipeline_that_turns_its_cancellation_into_a_timeout_is_cancelled_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def timing_out(*_: Any) -> None:
        await _swallowing()
        raise TimeoutError

    monkeypatch.setattr(Pipeline, "execute", timing_out)
    assert await _cancelled_amid(CancellableRedis().pipeline().execute())


async def test_clean_up_in_a_cancelled_task_goes_through(monkeypatch: pytest.MonkeyPatch) -> None:
    async def answering(*_: Any, **__: Any) -> bool:
        await asyncio.sleep(0)
        return True

    monkeypatch.setattr(Redis, "execute_command", answering)
    cleaned: list[bool] = []

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            cleaned.append(await CancellableRedis().ping())

    assert await _cancelled_amid(work())
    assert cleaned == [True]


async def test_what_is_not_cancelled_keeps_its_error_and_its_result() -> None:
    with pytest.raises(ValueError, match="mine"), keeping_cancellation():
        raise ValueError("mine")
    with keeping_cancellation():
        await asyncio.sleep(0)


async def _swallowing(*_: Any, **__: Any) -> bool:
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        return True
    return False


async def _cancelled_amid(work: Awaitable[Any]) -> bool:
    """Whether it ends as cancelled when it is cancelled once."""
    task = asyncio.ensure_future(work)
    await asyncio.sleep(0.01)
    task.cancel()
    await asyncio.wait([task], timeout=10)
    return bool(task.cancelled())
