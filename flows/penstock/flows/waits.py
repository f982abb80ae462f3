"""`sleep`: time passes, and where a server looks after the run no process is held for it.

The instant of waking is recorded first; so a replay waits for what is left, or not at all. In a run whose worker takes
`Suspended`, a long sleep of the flow itself ends this process's part of the run with it. In a task, whose body begins
anew after that, and in plain Python, the code just waits.

`answered` is the same for what somebody else has to answer (approving.py, awaiting.py).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Literal

from penstock.events.instants import format_instant
from penstock.flows import tries
from penstock.flows.context import RunContext, current_context
from penstock.flows.errors import CallError, Suspended
from penstock.flows.operations import Blocking, Life, Settled
from penstock.flows.recorded import keep, recorded
from penstock.flows.results import encode_json
from penstock.flows.retries import Seconds, seconds

_NAMES = {"approval": "approve", "event": "wait_for_event"}
SHORT = 5.0  # seconds that are not worth leaving the process for


async def sleep(duration: Seconds) -> None:
    """Wait for that many seconds, or a timedelta.  Raises FlowDefinitionError for what is no duration."""
    await asyncio.sleep(_left(duration))


def sleep_sync(duration: Seconds) -> None:
    """As `sleep`, for sync code."""
    time.sleep(_left(duration))


def answered(
    what: Literal["approval", "event"],
    arguments: Mapping[str, Any],
    question: Mapping[str, Any],
    reason: str,
    here: Callable[[], bytes],
) -> Life[bytes]:
    """The recorded answer to a question, as JSON.

    Raises Suspended where a worker has it answered, and no answer is recorded yet; elsewhere `here` answers, at once.
    arguments: what names the call in the journal.  question: what the worker is sent.  reason: what the run waits for,
    in one line.  Raises CallError within a task, WaitError where the worker refuses the question.
    """
    name = _NAMES[what]
    context = current_context()
    if context is not None and context.task is not None:
        raise CallError(
            f"{name} is called in task {context.task!r}, whose body would begin anew after it; call it from the flow"
        )
    if context is None or context.journal is None:
        found: bytes = yield Blocking(here)
        return found
    key = context.journal.name_call(context.parent, name, arguments)
    known = context.journal.recorded(key)
    if known is not None:
        return known
    if context.host is None or not context.may_suspend:
        started = tries.now()
        answer: bytes = yield Blocking(here)
        yield Blocking(partial(keep, context, context.journal, key, name, answer, started))
        return answer
    yield Settled(context.host.ask(what, key, encode_json({**question, "parent": context.parent}, name)))
    raise leave(context, reason, key, paused=what == "approval")


def leave(
    context: RunContext, reason: str, key: str = "", until: int | None = None, *, paused: bool = False
) -> Suspended:
    """What to raise where the code cannot go on; whoever looks after the run knows when it is to be replayed."""
    if context.host is not None:
        context.host.leaving(until)
    return Suspended(reason, key, until, paused=paused)


def _left(duration: Seconds) -> float:
    """Seconds until the recorded instant.  Raises Suspended where they are not to be waited for here."""
    wanted = seconds(duration, "sleep")
    until = recorded("sleep", {"seconds": wanted}, lambda: tries.now() + round(wanted * 1_000_000), int)
    left = max(0.0, (until - tries.now()) / 1_000_000)
    context = current_context()
    if context is not None and context.may_suspend and context.task is None and left > SHORT:
        raise leave(context, f"sleeps until {format_instant(until)}", until=until)
    return left
