"""A flow file that is saved is in force a moment later; one that cannot be loaded leaves the code before in force."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest
from tests.support.runs import add, migrated, rows
from tests.support.workers import connected, ended, until, working

from penstock.services.context import Context
from penstock.services.database import Database, tables
from penstock.services.runs import NewRun
from penstock.services.settings import Settings

FLOW = """
from penstock.flows import flow

@flow
def greet() -> str:
    return "{word}"
"""


@pytest.fixture
async def database(sqlite_url: str) -> AsyncIterator[Database]:
    async with migrated(sqlite_url) as found:
        yield found


@pytest.fixture
async def context(
    database: Database, sqlite_url: str, redis_url: str, redis_bus_url: str, tmp_path: Path
) -> AsyncIterator[Context]:
    path = tmp_path / "greetings.py"
    path.write_text(FLOW.format(word="good morning"))
    settings = Settings(
        bus_url=redis_bus_url,
        database_url=sqlite_url,
        redis_url=redis_url,
        flows=(str(path),),
        concurrency=2,
        run_lease=timedelta(seconds=10),
    )
    async with connected(settings) as found:
        yield found


async def said(database: Database, name: str) -> str:
    await add(database, NewRun(name, "greet"))
    (row,) = await ended(database, name)
    return str(row["result"])


async def test_a_saved_flow_file_is_in_force_a_moment_later(context: Context, database: Database) -> None:
    path = Path(context.settings.flows[0])
    async with working(context):
        assert await said(database, "r0") == '"good morning"'
        path.write_text(FLOW.format(word="good evening"))
        numbers = iter(range(1, 200))

        async def changed() -> bool:
            return await said(database, f"r{next(numbers)}") == '"good evening"'

        await until(changed)


async def test_a_flow_that_is_added_is_registered_and_a_broken_file_leaves_all_as_it_was(
    context: Context, database: Database
) -> None:
    path = Path(context.settings.flows[0])
    async with working(context):
        path.write_text(FLOW.format(word="x") + FLOW.format(word="y").replace("greet", "leave"))

        async def both() -> bool:
            return {row["name"] for row in await rows(database, tables.flow)} >= {"greet", "leave"}

        await until(both)
        path.write_text("def broken(:\n")
        assert await said(database, "r1") == '"x"'
        assert await both()
