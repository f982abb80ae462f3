"""A thousand runs that wait for one event: none is lost, and they do not wake in one instant."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest
import sqlalchemy as sa
from tests.support.runs import add, migrated, rows
from tests.support.workers import connected

from penstock.services.context import Context
from penstock.services.database import Database, tables
from penstock.services.engine.ownership import Ownership
from penstock.services.engine.waits import Wait, Waits
from penstock.services.runs import NewRun
from penstock.services.settings import Settings

NAMES = [f"r{number:04}" for number in range(1_000)]


@pytest.fixture
async def database(sqlite_url: str) -> AsyncIterator[Database]:
    async with migrated(sqlite_url) as found:
        yield found


@pytest.fixture
async def context(database: Database, sqlite_url: str, redis_url: str, redis_bus_url: str) -> AsyncIterator[Context]:
    settings = Settings(bus_url=redis_bus_url, database_url=sqlite_url, redis_url=redis_url)
    async with connected(settings) as found:
        yield found


def most_within_a_second(due: list[int]) -> int:
    due = sorted(due)
    return max(bisect_left(due, at + 1_000_000) - place for place, at in enumerate(due))


async def test_a_thousand_runs_that_wait_for_one_event_go_on_in_turns(context: Context, database: Database) -> None:
    await add(database, *(NewRun(name, "reroute") for name in NAMES))
    async with database.begin() as connection:
        await connection.execute(sa.update(tables.run).values(state="waiting", waiting_for="answer"))
        same = {"call": "c", "namespace": "default", "kind": "event", "status": "open", "body": "{}", "created": 1}
        await connection.execute(sa.insert(tables.run_wait), [same | {"run_id": name} for name in NAMES])
    waits = Waits(context, Ownership(database, "e1", timedelta(seconds=10)))
    await waits.keep({Wait(name, "c"): b'{"id": "1", "type": "order.paid"}' for name in NAMES})
    while await waits._tell():
        pass
    found = await rows(database, tables.run, tables.run.c.state == "pending")
    assert [row["id"] for row in found] == NAMES
    assert most_within_a_second([row["due_at"] for row in found]) < 300  # 200 a second, and slow moments
    assert len(await rows(database, tables.journal)) == len(NAMES)
