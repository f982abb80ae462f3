"""Schedules in the database: what the rules say of them, and due ones claimed once.

A tick is one transaction: the due time's own row (unique), the schedule's next due time, and the event in the outbox.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from penstock.events import types
from penstock.events.bus import Outgoing
from penstock.events.ids import derived_id
from penstock.events.instants import Instant, format_instant
from penstock.services.database import Database, clock, tables
from penstock.services.database.records import publish_later, service_lane, system_event
from penstock.services.scheduler.due import Passed, Spec, next_due, passed

Key = tuple[str, str]  # namespace, name
_AT_ONCE = 100  # schedules claimed in one transaction
_schedule = tables.schedule


@dataclass(frozen=True, slots=True)
class Tick:
    """A schedule that fired: due when, fired when (database clock)."""

    namespace: str
    name: str
    due: Instant
    at: Instant
    missed: int


@dataclass(frozen=True, slots=True)
class _Claimed:
    namespace: str
    name: str
    spec: Spec
    due: Instant


async def adopt(database: Database, revision: int, rules_namespace: str, specs: Mapping[Key, Spec]) -> bool:
    """Make the table say what a revision says: new ones begin, changed ones start anew, others keep their time.

    Returns whether it did; not where a newer revision is in force already.
    """
    async with database.begin() as connection:
        newest = sa.select(sa.func.max(tables.revision.c.id)).where(tables.revision.c.namespace == rules_namespace)
        if ((await connection.execute(newest)).scalar() or 0) != revision:
            return False
        now = await _now(connection)
        known = await _digests(connection, {namespace for namespace, _ in specs} | {rules_namespace})
        for namespace, name in known.keys() - specs.keys():
            await connection.execute(sa.delete(_schedule).where(*_is(namespace, name)))
        for key, spec in specs.items():
            if known.get(key) != spec.digest:
                await _begin(database, connection, key, spec, now)
    return True


async def fire_due(database: Database, namespaces: frozenset[str]) -> list[Tick]:
    """Fire every schedule of these namespaces that is due and that nobody else is firing."""
    async with database.begin() as connection:
        now = await _now(connection)
        ticks = []
        for claimed in await _claim(connection, database, namespaces, now):
            what = passed(claimed.spec, claimed.due, now)
            await connection.execute(
                sa.update(_schedule)
                .where(*_is(claimed.namespace, claimed.name))
                .values(next_at=next_due(claimed.spec, what.latest), updated=now)
            )
            if await _first(database, connection, claimed, what.latest, now):
                publish_later(connection, service_lane(claimed.name), _events(claimed, what, now))
                ticks.append(Tick(claimed.namespace, claimed.name, what.latest, now, what.missed))
        return ticks


async def until_next(database: Database, namespaces: frozenset[str]) -> int | None:
    """Microseconds until the next due time, 0 or less where one has passed; None where there is none."""
    earliest = sa.select(sa.func.min(_schedule.c.next_at)).where(_schedule.c.namespace.in_(namespaces))
    async with database.read() as connection:
        found = (await connection.execute(earliest)).scalar()
        return None if found is None else int(found) - await _now(connection)


async def _claim(
    connection: AsyncConnection, database: Database, namespaces: frozenset[str], now: Instant
) -> list[_Claimed]:
    query = (
        sa.select(_schedule.c.namespace, _schedule.c.name, _schedule.c.spec, _schedule.c.next_at)
        .where(_schedule.c.namespace.in_(namespaces), _schedule.c.next_at <= now)
        .order_by(_schedule.c.next_at)
        .limit(_AT_ONCE)
    )
    if not database.is_sqlite:  # SQLite has one writer at a time anyway
        query = query.with_for_update(skip_locked=True)
    rows = (await connection.execute(query)).all()
    return [_Claimed(row.namespace, row.name, Spec.from_json(row.spec), row.next_at) for row in rows]


async def _first(
    database: Database, connection: AsyncConnection, claimed: _Claimed, due: Instant, now: Instant
) -> bool:
    row = {"namespace": claimed.namespace, "name": claimed.name, "due": due, "at": now}
    insert = database.insert(tables.schedule_fire).values(**row, event_id=_event_id(claimed, "fired", due))
    return bool((await connection.execute(insert.on_conflict_do_nothing())).rowcount)


def _events(claimed: _Claimed, what: Passed, now: Instant) -> list[Outgoing]:
    """The tick; before it, where due times have passed unfired, one event that tells of all of them."""
    due = format_instant(what.latest)
    fired_id = _event_id(claimed, "fired", what.latest)
    fired = _event(types.SCHEDULE_FIRED, claimed, {"due": due, "missed": what.missed}, now, fired_id)
    if not what.missed:
        return [fired]
    data = {"first": format_instant(claimed.due), "before": due, "count": what.missed, "exact": what.exact}
    missed_id = _event_id(claimed, "missed", claimed.due)
    return [_event(types.SCHEDULE_MISSED, claimed, data, now, missed_id), fired]


def _event(type_: str, claimed: _Claimed, data: Mapping[str, object], at: Instant, event_id: str) -> Outgoing:
    return system_event(type_, subject=claimed.name, data=data, at=at, namespace=claimed.namespace, event_id=event_id)


def _event_id(claimed: _Claimed, kind: str, due: Instant) -> str:
    return derived_id("schedule", kind, claimed.namespace, claimed.name, str(due))


async def _begin(database: Database, connection: AsyncConnection, key: Key, spec: Spec, now: Instant) -> None:
    namespace, name = key
    changed = {"digest": spec.digest, "spec": spec.to_json(), "next_at": next_due(spec, now), "updated": now}
    insert = database.insert(_schedule).values(namespace=namespace, name=name, **changed)
    await connection.execute(
        insert.on_conflict_do_update(
            index_elements=["namespace", "name"], set_=changed, where=_schedule.c.digest != spec.digest
        )
    )


async def _digests(connection: AsyncConnection, namespaces: set[str]) -> dict[Key, str]:
    query = sa.select(_schedule.c.namespace, _schedule.c.name, _schedule.c.digest)
    rows = (await connection.execute(query.where(_schedule.c.namespace.in_(namespaces)))).all()
    return {(row.namespace, row.name): row.digest for row in rows}


async def _now(connection: AsyncConnection) -> Instant:
    return int((await connection.execute(sa.select(clock.now()))).scalar_one())


def _is(namespace: str, name: str) -> tuple[sa.ColumnElement[bool], sa.ColumnElement[bool]]:
    return _schedule.c.namespace == namespace, _schedule.c.name == name
