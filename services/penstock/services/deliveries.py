"""Rows of the table `delivery`: the message that stands in one, claiming it, giving it back.

A row is due when it is pending, its `due_at` has come and nobody holds a lease on it. Each claim raises its epoch;
every later write names the epoch that it was claimed with and changes nothing once somebody else has claimed it since.
Due times and leases are the database's clock.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import msgspec
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from penstock.automations.actions import RetryPolicy
from penstock.events.instants import Instant, microseconds
from penstock.services.database import Database, clock, tables
from penstock.services.database.prepared import Prepared, one_of

FORMAT = 1
_row = tables.delivery.c


class Message(msgspec.Struct, frozen=True):
    """The column `body`. Secrets stand in it as placeholders with the row's nonce."""

    text: str
    title: str | None = None
    retry: RetryPolicy = RetryPolicy()
    v: int = FORMAT

    def to_json(self) -> str:
        """As it is stored."""
        return msgspec.json.encode(self).decode()


@dataclass(frozen=True, slots=True)
class Delivery:
    """A claimed row.

    epoch: of this claim.  lease_ends: on this process's monotonic clock, never later than the database's lease.
    body: JSON of a Message, not yet decoded.  progress: what an earlier try has achieved already (column `response`).
    """

    id: str
    namespace: str
    epoch: int
    lease_ends: float
    channel: str
    body: str
    nonce: str
    attempts: int
    progress: Mapping[str, Any]
    firing_id: str | None
    lane: str | None
    step: str | None
    automation: str | None
    correlationid: str | None
    causationid: str | None
    traceparent: str | None
    hops: int
    due_at: Instant

    def covers(self, span: float) -> bool:
        """Whether the lease holds for `span` more seconds."""
        return time.monotonic() + span < self.lease_ends


_COLUMNS = tuple(name for name in Delivery.__dataclass_fields__ if name not in ("lease_ends", "progress"))


def _claiming() -> Prepared:
    now = sa.select(clock.now()).scalar_subquery()
    due = (_row.status == "pending", _row.due_at <= now, _row.lease_until <= now)
    wanted = sa.select(_row.id).where(_row.namespace == sa.bindparam("of"), *due, ~one_of(_row.id, "but"))
    ordered = wanted.order_by(_row.due_at, _row.id).limit(sa.bindparam("most", type_=sa.BigInteger()))
    picked = ordered.with_for_update(skip_locked=True).cte("picked")
    held = {"owner": sa.bindparam("holder"), "lease_until": clock.now() + sa.bindparam("lease", type_=sa.BigInteger())}
    claimed = sa.update(tables.delivery).where(_row.id.in_(sa.select(picked.c.id)))
    return Prepared(claimed.values(held | {"epoch": _row.epoch + 1}).returning(tables.delivery))


_claim = _claiming()
_soonest = sa.case((_row.due_at > _row.lease_until, _row.due_at), else_=_row.lease_until)
_next = Prepared(
    sa.select((sa.func.min(_soonest) - clock.now()).label("wait")).where(
        _row.namespace == sa.bindparam("of"), _row.status == "pending"
    )
)


async def claim(
    database: Database, *, namespace: str, owner: str, lease: timedelta, limit: int, but: Collection[str] = ()
) -> list[Delivery]:
    """Claim up to `limit` due rows, the longest due first.  but: ids that this process has in hand already."""
    began = time.monotonic()  # before the database sets the lease: ours then never ends after it
    given = {"of": namespace, "holder": owner, "lease": microseconds(lease), "most": limit, "but": list(but)}
    rows = await database.alone(_claim, **given)
    ends = began + lease.total_seconds()
    return sorted((_claimed(row, ends) for row in rows), key=lambda each: (each.due_at, each.id))


async def next_due(database: Database, *, namespace: str) -> timedelta | None:
    """How long until a row may become due; None where no row is pending."""
    async with database.read() as connection:
        found = (await _next.fetch(connection, of=namespace))[0]["wait"]
    return None if found is None else timedelta(microseconds=max(0, int(found)))


async def put_back(database: Database, delivery: Delivery, *, wait: timedelta = timedelta(0), **changed: Any) -> bool:
    """Give the lease back; due again after `wait`. Returns whether the claim was still ours."""
    due_at = clock.now() + microseconds(wait) if wait else _row.due_at
    return await database.write(
        lambda connection: update(connection, delivery, owner=None, lease_until=0, due_at=due_at, **changed)
    )


async def update(connection: AsyncConnection, delivery: Delivery, **values: Any) -> bool:
    """Change a row under its epoch. Returns False, having changed nothing, where the claim is no longer ours."""
    mine = (_row.id == delivery.id, _row.epoch == delivery.epoch, _row.status == "pending")
    statement = sa.update(tables.delivery).where(*mine).values(updated=clock.now(), **values)
    return (await connection.execute(statement)).rowcount == 1


def _claimed(row: Mapping[str, Any], ends: float) -> Delivery:
    progress = msgspec.json.decode(row["response"]) if row["response"] else {}
    return Delivery(lease_ends=ends, progress=progress, **{name: row[name] for name in _COLUMNS})
