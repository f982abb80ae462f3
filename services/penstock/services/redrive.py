"""Re-driving a dead letter: what failed is tried once more, and nothing else.

A letter of a firing restarts that firing at the step that failed. A letter of a record puts the record back where it
came from, as it was; what its event had led to before is recognised and not done again.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, TypeAlias

import msgspec
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from penstock.automations.facts import Redriven
from penstock.automations.firing import Firing
from penstock.events import bus
from penstock.events.bus import Outgoing
from penstock.events.errors import PenstockError
from penstock.services import hints as hint
from penstock.services.context import Context
from penstock.services.database.records import publish_later, service_lane, tell_firing, write_audit
from penstock.services.database.tables import firing
from penstock.services.dead_letters import headers_of, key_of, value_of

Redone: TypeAlias = Literal["firing", "record"]


class NotRedrivableError(PenstockError):
    """A dead letter cannot be tried again; the text says why, and what can be done instead."""


async def redrive(context: Context, letter: Mapping[str, Any], *, actor: str, namespace: str) -> Redone:
    """Have what a dead letter tells of tried again.  Returns what that is.  Raises NotRedrivableError."""
    origin: Mapping[str, Any] = letter.get("origin") or {}
    async with context.database.begin() as connection:
        if "firing" in origin:
            await _restart(connection, letter, str(origin["firing"]), namespace)
        else:
            await _republish(connection, letter, origin)
        await write_audit(
            connection,
            namespace=namespace,
            actor=actor,
            action="dead_letter.redriven",
            object_=f"dead-letter/{letter['id']}",
            detail={"origin": dict(origin)},
        )
    await context.hints.give(hint.OUTBOX, hint.FACTS)
    return "firing" if "firing" in origin else "record"


async def _restart(connection: AsyncConnection, letter: Mapping[str, Any], firing_id: str, namespace: str) -> None:
    """Tell the firing; the engine that owns its lane does the rest."""
    query = sa.select(firing.c.lane, firing.c.status, firing.c.body)
    row = (
        await connection.execute(query.where(firing.c.id == firing_id, firing.c.namespace == namespace))
    ).one_or_none()
    if row is None:
        raise NotRedrivableError(f"its firing {firing_id} is not kept any more; send the event again under a new id")
    if row.status != "dead_lettered":
        raise NotRedrivableError(f"its firing {firing_id} is {row.status} by now; there is nothing to try again")
    found = Firing.from_json(row.body)
    # A firing that has not ended by its own account failed over a fact: the letter holds it.
    fact = msgspec.json.encode(Redriven(found.redrives)) if found.ended else value_of(letter)
    if fact is None:
        raise NotRedrivableError("only the digest of its body was kept")
    await tell_firing(connection, namespace=namespace, firing_id=firing_id, lane=row.lane, fact=fact)


async def _republish(connection: AsyncConnection, letter: Mapping[str, Any], origin: Mapping[str, Any]) -> None:
    """Put the record back, behind all that came since."""
    topic, value = str(origin.get("topic", "")), value_of(letter) if "value" in letter else None
    if topic != bus.EVENTS:
        raise NotRedrivableError(f"it came from {topic or 'nowhere'}; only records of {bus.EVENTS} are put back")
    if value is None:
        raise NotRedrivableError("only the digest of its body was kept: it was too large; send a smaller event")
    record = Outgoing(topic, value, key_of(letter), headers=_readable(letter), partition=origin.get("partition"))
    publish_later(connection, service_lane(str(letter["id"])), [record])


def _readable(letter: Mapping[str, Any]) -> tuple[tuple[str, bytes], ...]:
    """The headers that are text; CloudEvents has no others."""
    return tuple((name, value) for name, value in headers_of(letter) if _is_text(value))


def _is_text(value: bytes) -> bool:
    try:
        value.decode()
    except UnicodeDecodeError:
        return False
    return True
