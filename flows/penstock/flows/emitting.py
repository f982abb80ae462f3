"""`emit` from flows: events that carry the run's chain of causes, and are sent once however often the run is replayed.

In a run with a journal the emission is recorded once the bus has acknowledged it. Where a process dies between the two,
the event is sent again with the same id, which changes nothing for who reads it. Without a server, and with no target
configured (see `penstock.events`), an event is only logged.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import msgspec

from penstock.events import Event, NoTargetError
from penstock.events import aemit as send_async
from penstock.events import emit as send
from penstock.events.event import from_mapping
from penstock.events.ids import derived_id, new_id
from penstock.events.instants import format_instant
from penstock.flows import tries
from penstock.flows.context import RunContext, current_context, get_logger
from penstock.flows.operations import Blocking, Life, drive, drive_async
from penstock.flows.recorded import keep

_NOTHING: Any = object()  # "no data" is not "data: null"


def emit(event: str | Event, /, data: Any = _NOTHING, *, subject: str | None = None, **attributes: Any) -> Event:
    """Send an event, as `penstock.events.emit`; returns it once it is acknowledged.

    source: by default `flow/<name>`.  Raises what `penstock.events.emit` raises.
    """
    return drive(_emitted(event, data, subject, attributes))


async def aemit(event: str | Event, /, data: Any = _NOTHING, *, subject: str | None = None, **attributes: Any) -> Event:
    """As `emit`, for async code."""
    return await drive_async(_emitted(event, data, subject, attributes))


@dataclass(frozen=True, slots=True)
class _Sending:
    """The operation: hand the event to whoever takes it.  Returns it as it was acknowledged."""

    event: Event

    def block(self) -> Event:
        return send(self.event)

    async def unfold(self) -> Event:
        return await send_async(self.event)


def _emitted(event: str | Event, data: Any, subject: str | None, attributes: dict[str, Any]) -> Life[Event]:
    """Send it, once for each call of the run."""
    context = current_context()
    key = _name(context, event, data, subject, attributes)
    if (known := _recorded(context, key)) is not None:
        return known
    started = tries.now()
    made = _event(context, key, event, data, subject, attributes)
    try:
        made = yield _Sending(made)
    except NoTargetError:
        _only_logged(context, made)
    if context is not None and context.journal is not None:
        yield Blocking(partial(keep, context, context.journal, key, "emit", made.to_json(), started))
    return made


def _name(context: RunContext | None, *given: Any) -> str:
    if context is None or context.journal is None:
        return ""
    event, data, subject, attributes = given
    told = event.model_dump(mode="json") if isinstance(event, Event) else event
    arguments = {"event": told, "data": None if data is _NOTHING else data, "subject": subject, **attributes}
    return context.journal.name_call(context.parent, "emit", arguments)


def _recorded(context: RunContext | None, key: str) -> Event | None:
    found = None if context is None or context.journal is None else context.journal.recorded(key)
    return None if found is None else from_mapping(msgspec.json.decode(found))


def _event(
    context: RunContext | None, key: str, event: str | Event, data: Any, subject: str | None, attributes: dict[str, Any]
) -> Event:
    if isinstance(event, Event):
        return event
    given: dict[str, Any] = {"id": new_id(), "source": Event.model_fields["source"].default}
    given |= {"time": format_instant(tries.now()), "type": event}
    given |= {} if context is None else _causes(context, key)
    given |= {} if subject is None else {"subject": subject}
    given |= attributes
    if data is not _NOTHING:
        given["data"] = data
    return from_mapping(given)


def _causes(context: RunContext, key: str) -> dict[str, Any]:
    made: dict[str, Any] = {
        **({"id": derived_id("emit", context.run_id, key)} if key else {}),
        "source": f"flow/{context.flow}",
        "correlationid": context.correlationid or context.run_id,
        "causationid": context.run_id,
        "hops": context.hops,
    }
    return made | ({"traceparent": context.traceparent} if context.traceparent else {})


def _only_logged(context: RunContext | None, event: Event) -> None:
    """Raises NoTargetError again where a server is meant to take the event."""
    if context is None or context.journal is not None:
        raise
    get_logger().info("emit %s (not sent: no target is configured): %s", event.type, event.to_json().decode())
