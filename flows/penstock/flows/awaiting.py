"""`wait_for_event`: a run waits for an event, holds no process meanwhile, and sees also what came just before."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from penstock.events.event import Event, from_mapping
from penstock.flows.answering import Question, ask_here
from penstock.flows.errors import EventTimeoutError, FlowDefinitionError
from penstock.flows.operations import Life, drive, drive_async
from penstock.flows.retries import Seconds, seconds
from penstock.flows.waits import answered


async def wait_for_event(
    type: str | Sequence[str],
    where: Mapping[str, Any] | None = None,
    *,
    lookback: Seconds = 0,
    timeout: Seconds | None = None,
) -> Event:
    """The next event that matches; the run holds no process until it is there.

    type: of the event, or several; `*` stands for any part of it.  where: an EventBridge pattern over the event, as in
    rules: `{"subject": ["truck/7"], "data": {"celsius": [{"numeric": [">", 8]}]}}`.
    lookback: seconds, or a timedelta: events that arrived so long before count, too, the oldest first (of those that
    the bus still has). Without it: those that arrive from the first call on.
    timeout: seconds, or a timedelta; None: wait for ever.
    Raises EventTimeoutError; CallError within a task; WaitError for a pattern that cannot be, and in plain Python,
    where no events arrive.
    """
    return await drive_async(_event(type, where, lookback, timeout))


def wait_for_event_sync(
    type: str | Sequence[str],
    where: Mapping[str, Any] | None = None,
    *,
    lookback: Seconds = 0,
    timeout: Seconds | None = None,
) -> Event:
    """As `wait_for_event`, for sync code."""
    return drive(_event(type, where, lookback, timeout))


def _event(
    type_: str | Sequence[str], where: Mapping[str, Any] | None, lookback: Seconds, timeout: Seconds | None
) -> Life[Event]:
    types = [type_] if isinstance(type_, str) else list(type_)
    if not types or not all(isinstance(each, str) and each for each in types):
        raise FlowDefinitionError(f'wait_for_event({type_!r}): give a type of event, e.g. "order.paid", or several')
    arguments = {"type": types, "where": dict(where or {})}
    limit = None if timeout is None else seconds(timeout, "timeout")
    question = {**arguments, "lookback": seconds(lookback, "lookback"), "seconds": limit}
    told = " or ".join(types)
    reason = f"waits for an event {told}"
    body = yield from answered("event", arguments, question, reason, lambda: _event_here(told, where))
    found = msgspec.json.decode(body)
    if found is None:
        raise EventTimeoutError(told, limit or 0.0)
    return from_mapping(found)


def _event_here(told: str, where: Mapping[str, Any] | None) -> bytes:
    found = ask_here(Question("event", told, where=where))
    if found is None:
        return b"null"
    given = found.model_dump(mode="json") if isinstance(found, Event) else dict(found)
    return from_mapping({"id": "here", "source": "/here", "type": told, **given}).to_json()
