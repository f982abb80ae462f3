"""`sleep`: time passes, and where a server looks after the run no process is held for it.

The instant of waking is recorded first; so a replay waits for what is left, or not at all. In a run whose worker takes
`Suspended`, a long sleep of the flow itself ends this process's part of the run with it. In a task, whose body begins
anew after that, and in plain Python, the code just waits.
"""

from __future__ import annotations

import asyncio
import time

from penstock.events.instants import format_instant
from penstock.flows import tries
from penstock.flows.context import current_context
from penstock.flows.errors import Suspended
from penstock.flows.recorded import recorded
from penstock.flows.retries import Seconds, seconds

SHORT = 5.0  # seconds that are not worth leaving the process for


async def sleep(duration: Seconds) -> None:
    """Wait for that many seconds, or a timedelta.  Raises FlowDefinitionError for what is no duration."""
    await asyncio.sleep(_left(duration))


def sleep_sync(duration: Seconds) -> None:
    """As `sleep`, for sync code."""
    time.sleep(_left(duration))


def _left(duration: Seconds) -> float:
    """Seconds until the recorded instant.  Raises Suspended where they are not to be waited for here."""
    wanted = seconds(duration, "sleep")
    until = recorded("sleep", {"seconds": wanted}, lambda: tries.now() + round(wanted * 1_000_000), int)
    left = max(0.0, (until - tries.now()) / 1_000_000)
    context = current_context()
    if context is not None and context.may_suspend and context.task is None and left > SHORT:
        raise Suspended(f"sleeps until {format_instant(until)}", until=until)
    return left
