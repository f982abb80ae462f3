"""A database with runs in it, for tests of the run store and of the worker."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import sqlalchemy as sa

from penstock.services.database import Database, connect, tables
from penstock.services.database.migrate import upgrade
from penstock.services.database.records import publish_later
from penstock.services.runs import NewRun, create_runs
from penstock.services.worker.claims import Claimer, Given, claim

LANE = "penstock.matches/0"


@asynccontextmanager
async def migrated(url: str) -> AsyncIterator[Database]:
    """The database at `url`, with all tables."""
    database = connect(url)
    try:
        await upgrade(database)
        yield database
    finally:
        await database.close()


async def add(database: Database, *runs: NewRun) -> int:
    """Make runs, as an engine does.  Returns how many are new."""
    async with database.begin() as connection:
        told = await create_runs(connection, runs)
        publish_later(connection, LANE, told)
    return len(told) // 2  # each has a wake-up and an event


def claimer(
    worker: str, *, flows: tuple[str, ...] = ("reroute",), lease: timedelta = timedelta(minutes=1), attempts: int = 5
) -> Claimer:
    """A worker of the default namespace and pool."""
    return Claimer(worker, "default", "default", flows, lease, attempts)


async def look(database: Database, who: Claimer, limit: int = 1) -> Given:
    """One look for due runs."""
    return await claim(database, who, limit)


async def end_leases(database: Database) -> None:
    """Let all leases end now, as if their time had passed."""
    async with database.begin() as connection:
        await connection.execute(sa.update(tables.run).where(tables.run.c.lease_until > 0).values(lease_until=1))


async def make_due(database: Database) -> None:
    """Let the due times of all runs have come."""
    async with database.begin() as connection:
        await connection.execute(sa.update(tables.run).values(due_at=1))


async def rows(database: Database, table: sa.Table, *where: Any) -> list[dict[str, Any]]:
    """The rows of a table, by its primary key."""
    async with database.read() as connection:
        found = await connection.execute(sa.select(table).where(*where).order_by(*table.primary_key.columns))
        return [dict(row) for row in found.mappings()]


async def run_row(database: Database, run_id: str) -> dict[str, Any]:
    """The row of one run."""
    return (await rows(database, tables.run, tables.run.c.id == run_id))[0]


async def states(database: Database, run_id: str) -> list[str]:
    """The states that a run went through, as its rows tell."""
    return [row["state"] for row in await rows(database, tables.run_event, tables.run_event.c.run_id == run_id)]


async def told(database: Database, run_id: str) -> list[dict[str, Any]]:
    """The events of one run that wait in the outbox, in order of their lane."""
    records = await rows(database, tables.outbox, tables.outbox.c.topic == "penstock.system")
    events = [json.loads(record["value"]) for record in records]
    return [event for event in events if event["subject"] == f"run/{run_id}"]
