"""redis-py may swallow a cancellation that meets it at the wrong moment (8.1: while a command is being sent)."""

from __future__ import annotations

import asyncio


def check_cancelled() -> None:
    """Raise the CancelledError that a call in between has swallowed.

    For loops that talk to Redis; not for clean-up, which runs in a task that is already being cancelled.
    """
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError
