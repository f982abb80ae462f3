"""The database's one interface, on both databases."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from penstock.services.database import Database, clock, connect, migrate, unavailable
from penstock.services.database.tables import lease, metadata


@pytest.fixture
async def database(any_database_url: str) -> AsyncIterator[Database]:
    made = connect(any_database_url)
    await migrate.upgrade(made)
    yield made
    await made.close()


async def put(connection: AsyncConnection, name: str) -> str:
    row = {"name": name, "owner": "test"}
    found = await connection.execute(sa.insert(lease).values(lease_until=clock.now(), **row).returning(lease.c.name))
    return str(found.scalar_one())


async def names(database: Database) -> set[str]:
    async with database.read() as connection:
        return {name for (name,) in await connection.execute(sa.select(lease.c.name))}


@pytest.mark.filterwarnings("ignore:autogenerate skipping")  # an index of PostgreSQL's alone
async def test_migrations_lead_to_exactly_the_tables_that_the_code_uses(database: Database) -> None:
    from alembic.autogenerate import compare_metadata
    from alembic.runtime.migration import MigrationContext

    def difference(connection: sa.Connection) -> list[object]:
        return list(compare_metadata(MigrationContext.configure(connection), metadata))

    async with database.begin() as connection:
        assert await connection.run_sync(difference) == []


async def test_migrating_twice_and_at_once_changes_nothing(any_database_url: str) -> None:
    first, second = connect(any_database_url), connect(any_database_url)
    await asyncio.gather(migrate.upgrade(first), migrate.upgrade(second))
    assert await migrate.is_current(first)
    await first.close()
    await second.close()


async def test_the_clock_of_the_database_is_in_microseconds_and_moves_within_a_transaction(database: Database) -> None:
    import time

    async with database.begin() as connection:
        first = (await connection.execute(sa.select(clock.now()))).scalar_one()
        await asyncio.sleep(0.01)  # the clock must have moved by itself
        second = (await connection.execute(sa.select(clock.now()))).scalar_one()
    assert second > first
    assert abs(first - time.time_ns() // 1_000) < 5_000_000


async def test_a_failed_write_of_a_group_leaves_the_others_alone(database: Database) -> None:
    await database.write(lambda connection: put(connection, "taken"))
    writes = [database.write(lambda connection, n=n: put(connection, n)) for n in ("a", "taken", "b")]  # type: ignore[misc]
    results = await asyncio.gather(*writes, return_exceptions=True)
    assert [results[0], results[2]] == ["a", "b"]
    assert isinstance(results[1], sa.exc.IntegrityError)
    assert await names(database) == {"taken", "a", "b"}


async def test_many_writes_at_once_are_all_stored(database: Database) -> None:
    wanted = {f"n{number}" for number in range(300)}
    await asyncio.gather(*(database.write(lambda connection, n=n: put(connection, n)) for n in wanted))  # type: ignore[misc]
    assert await names(database) == wanted


async def test_tasks_cancelled_amid_their_transactions_leave_no_lock_behind(database: Database) -> None:
    async def transaction(name: str) -> None:
        async with database.begin() as connection:
            await put(connection, name)
            await put(connection, name + "'")

    chance = random.Random(7)
    for number in range(150):
        task = asyncio.create_task(transaction(f"t{number}"))
        await asyncio.sleep(chance.random() * 0.004)  # cancelled wherever it happens to be
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    other = connect(database.engine.url.render_as_string(hide_password=False))
    async with asyncio.timeout(10):
        await other.write(lambda connection: put(connection, "free"))
    await other.close()
    found = await names(database)
    assert all((name + "'" in found) == (name in found) for name in {n.rstrip("'") for n in found - {"free"}})


async def test_a_transaction_that_fails_stores_nothing(database: Database) -> None:
    async def fails() -> None:
        async with database.begin() as connection:
            await put(connection, "lost")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fails()
    assert await names(database) == set()


async def test_a_transaction_whose_process_was_stopped_is_rolled_back_with_its_locks(postgres_url: str) -> None:
    stopped, other = connect(postgres_url, abandoned_after=timedelta(milliseconds=200)), connect(postgres_url)
    await migrate.upgrade(other)
    async with other.begin() as connection:
        await put(connection, "duty")
    mine = sa.update(lease).where(lease.c.name == "duty")

    async def amid() -> None:
        async with stopped.begin() as connection:
            await connection.execute(mine.values(owner="stopped"))
            async with other.begin() as beside:  # waits for the lock
                await beside.execute(mine.values(owner="other"))
            await connection.execute(mine.values(owner="stopped"))

    with pytest.raises(sa.exc.DBAPIError) as raised:
        await amid()
    assert unavailable(raised.value)
    async with other.read() as connection:
        assert (await connection.execute(sa.select(lease.c.owner))).scalar_one() == "other"
    await stopped.close()
    await other.close()


async def test_a_deadlock_is_the_databases_fault_and_not_the_records(postgres_url: str) -> None:
    database = connect(postgres_url)
    await migrate.upgrade(database)
    async with database.begin() as connection:
        await put(connection, "a")
        await put(connection, "b")
    both = asyncio.Barrier(2)

    async def take(first: str, second: str) -> None:
        async with database.begin() as connection:
            await connection.execute(sa.update(lease).where(lease.c.name == first).values(owner="x"))
            await both.wait()
            await connection.execute(sa.update(lease).where(lease.c.name == second).values(owner="x"))

    found = await asyncio.gather(take("a", "b"), take("b", "a"), return_exceptions=True)
    [error] = [each for each in found if each is not None]
    assert unavailable(error)
    await database.close()


async def test_a_session_that_stopped_halfway_through_a_pipeline_is_ended_by_another_process(postgres_url: str) -> None:
    stopped, other = connect(postgres_url), connect(postgres_url, abandoned_after=timedelta(milliseconds=200))
    await migrate.upgrade(other)
    async with other.begin() as connection:
        await put(connection, "duty")
    mine = sa.update(lease).where(lease.c.name == "duty")

    async def amid() -> None:
        async with stopped.begin() as connection:
            await connection.execute(mine.values(owner="stopped"))
            driver: Any = (await connection.get_raw_connection()).driver_connection
            driver._transport.write(b"P" + (4 + 1 + 9 + 2).to_bytes(4, "big") + b"\0SELECT 1\0\0\0")  # and no Sync
            while not await other.end_abandoned():
                await asyncio.sleep(0.02)
            await connection.execute(mine.values(owner="stopped"))

    with pytest.raises(sa.exc.DBAPIError) as raised:
        await amid()
    assert unavailable(raised.value)
    async with other.begin() as connection:
        await connection.execute(mine.values(owner="other"))
    await stopped.close()
    await other.close()
