"""Rows that any service writes beside its own: audit, facts for a firing, records for the bus."""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from penstock.events import bus
from penstock.events.bus import Outgoing
from penstock.events.ids import new_id
from penstock.events.instants import Instant, format_instant
from penstock.services.database import clock, tables
from penstock.services.database.late import Writes, at_the_end
from penstock.services.database.prepared import inserting

SERVICES = "services"  # the lanes of all services but the engine; engines relay them too
SERVICE_LANES = 4
SYSTEM_SOURCE = "/penstock"


def service_lane(object_id: str) -> str:
    """The lane for records about one object: one object, one lane, hence one order."""
    return f"{SERVICES}/{zlib.crc32(object_id.encode()) % SERVICE_LANES}"


def system_event(
    type_: str,
    *,
    subject: str,
    data: Mapping[str, Any],
    at: Instant,
    namespace: str = "default",
    event_id: str | None = None,
    correlationid: str | None = None,
    causationid: str | None = None,
    traceparent: str | None = None,
    hops: int = 0,
) -> Outgoing:
    """One of Penstock's own events (`penstock.*`), as a record for `penstock.system`."""
    mapping: dict[str, Any] = {
        "specversion": "1.0",
        "id": event_id or new_id(),
        "source": f"{SYSTEM_SOURCE}/{namespace}",
        "type": type_,
        "subject": subject,
        "time": format_instant(at),
        "partitionkey": subject,
    }
    extensions = {"correlationid": correlationid, "causationid": causationid, "traceparent": traceparent}
    mapping |= {name: value for name, value in extensions.items() if value is not None}
    if hops:
        mapping["hops"] = hops
    mapping["data"] = dict(data)
    return Outgoing(topic=bus.SYSTEM, key=subject.encode(), value=msgspec.json.encode(mapping))


_publish = inserting(tables.outbox, "lane", "topic", "partition", "key", "value", "headers", created=clock.now())
_tell = inserting(tables.fact, "namespace", "firing_id", "lane", "body", created=clock.now())


def publish_later(connection: AsyncConnection | Writes, lane: str, records: Iterable[Outgoing]) -> None:
    """Put records into the outbox of `lane` in the caller's transaction; an engine publishes them in this order."""
    publish_each(connection, [(lane, record) for record in records])


def publish_each(connection: AsyncConnection | Writes, records: Iterable[tuple[str, Outgoing]]) -> None:
    """As `publish_later`, for records of several lanes."""
    rows = [
        {
            "lane": lane,
            "topic": record.topic,
            "partition": record.partition,
            "key": record.key,
            "value": record.value,
            "headers": _headers(record),
        }
        for lane, record in records
    ]
    at_the_end(connection, _publish, rows)


def _headers(record: Outgoing) -> str:
    return json.dumps([[name, value.decode()] for name, value in record.headers]) if record.headers else "[]"


async def tell_firing(connection: AsyncConnection, *, namespace: str, firing_id: str, lane: str, fact: bytes) -> None:
    """Put a fact (JSON of automations.firing) into the inbox of a firing, within the caller's transaction."""
    await _tell.fetch(connection, namespace=namespace, firing_id=firing_id, lane=lane, body=fact.decode())


async def write_audit(
    connection: AsyncConnection,
    *,
    namespace: str,
    actor: str,
    action: str,
    object_: str,
    detail: Mapping[str, Any] | None = None,
) -> None:
    """Append to the audit log in the caller's transaction. actor: "user/ann", "key/…", "automation/…", "system"."""
    row = {"id": new_id(), "namespace": namespace, "actor": actor, "action": action, "object": object_}
    values = {**row, "detail": json.dumps(detail or {})}
    await connection.execute(sa.insert(tables.audit).values(at=clock.now(), **values))
