"""What differs from call to call, and must not from replay to replay: `now()`, `uuid4()`, `random()`.

In a run with a journal each call is recorded like a task's, and a replay gets the same value again; without one they
are the plain ones. They wait for the journal (about a millisecond), also in async code: what a value is used for may
be out of the world before the next task is recorded.
"""

from __future__ import annotations

import random as _random
import uuid as _uuid
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, TypeVar

import msgspec

from penstock.flows import tries
from penstock.flows.context import RunContext, current_context
from penstock.flows.journal import Journal, TaskCall
from penstock.flows.results import encode_result
from penstock.flows.states import State

T = TypeVar("T")


def now() -> datetime:
    """The time in UTC; the same again in a replay."""
    return recorded("now", {}, lambda: datetime.now(UTC), datetime)


def uuid4() -> _uuid.UUID:
    """A random UUID; the same again in a replay, so that it can name a payment that must not be made twice."""
    return recorded("uuid4", {}, _uuid.uuid4, _uuid.UUID)


def random() -> float:
    """A random number in [0, 1); the same again in a replay."""
    return recorded("random", {}, _random.random, float)


def recorded(name: str, arguments: Mapping[str, Any], make: Callable[[], T], kind: type[T]) -> T:
    """What `make` returned when this call was first made in this run.

    name, arguments: as of a task.  kind: its type, which JSON has a form for.
    """
    context = current_context()
    if context is None or context.journal is None:
        return make()
    key = context.journal.name_call(context.parent, name, arguments)
    known = context.journal.recorded(key)
    if known is not None:
        return msgspec.json.decode(known, type=kind)
    started = tries.now()
    value = make()
    keep(context, context.journal, key, name, encode_result(value, name), started)
    return value


def keep(context: RunContext, journal: Journal, key: str, name: str, result: bytes, started: int) -> None:
    """Record a call that has completed, and wait until it is."""
    journal.record(TaskCall(key, context.parent, name, State.COMPLETED, result, started, tries.now())).result()
