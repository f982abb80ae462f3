"""redis-py may swallow a cancellation that meets it at the wrong moment (8.1: while a command is being sent).

A task that missed its one cancellation never ends, and whoever waits for it waits for ever. So our clients compare, and
loops that talk to Redis by other ways look once a round.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from redis.asyncio import Redis
from redis.asyncio.client import Pipeline


def check_cancelled() -> None:
    """Raise the CancelledError that a call in between has swallowed.

    For loops that talk to Redis; not for clean-up, which runs in a task that is already being cancelled.
    """
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError


@contextmanager
def keeping_cancellation() -> Iterator[None]:
    """What is cancelled within ends with CancelledError, whatever the body returned or raised instead.

    Clean-up may use it: a cancellation from before does not count.
    """
    task = asyncio.current_task()
    before = task.cancelling() if task is not None else 0
    error: BaseException | None = None
    try:
        yield
    except BaseException as raised:
        error = raised
        raise
    finally:
        swallowed = task is not None and task.cancelling() > before
        if swallowed and not isinstance(error, asyncio.CancelledError):
            raise asyncio.CancelledError from error


class CancellableRedis(Redis):
    """redis-py's client, whose commands and pipelines can be relied on to be cancelled."""

    async def execute_command(self, *args: Any, **options: Any) -> Any:
        """See Redis."""
        with keeping_cancellation():
            return await super().execute_command(*args, **options)  # type: ignore[no-untyped-call]  # redis-py types its methods in part

    def pipeline(self, transaction: bool = True, shard_hint: str | None = None) -> Pipeline:
        """See Redis."""
        return _CancellablePipeline(self.connection_pool, self.response_callbacks, transaction, shard_hint)


class _CancellablePipeline(Pipeline):
    async def execute(self, raise_on_error: bool = True) -> list[Any]:
        with keeping_cancellation():
            return await super().execute(raise_on_error)
