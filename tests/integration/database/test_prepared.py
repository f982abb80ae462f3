"""Prepared statements do on both databases what SQLAlchemy's do."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
import sqlalchemy as sa

from penstock.services.database import Database, connect, is_broken, migrate, unavailable
from penstock.services.database.prepared import Prepared, inserting, one_of
from penstock.services.database.tables import lease, outbox, position

ADD = inserting(lease, "name", "owner", ignore=True, returning=("name",), lease_until=sa.literal(7))
NAMED = Prepared(sa.select(lease).where(one_of(lease.c.name, "names")).order_by(lease.c.name))
UNTIL = Prepared(sa.select(lease.c.name).where(one_of(lease.c.lease_until, "times")))


@pytest.fixture
async def database(any_database_url: str) -> AsyncIterator[Database]:
    made = connect(any_database_url)
    await migrate.upgrade(made)
    yield made
    await made.close()


def row(name: str) -> dict[str, Any]:
    return {"name": name, "owner": "me"}


async def test_a_row_is_inserted_once_and_only_the_new_ones_come_back(database: Database) -> None:
    async with database.begin() as connection:
        assert [each["name"] for each in await ADD.many(connection, [row("a"), row("b")])] == ["a", "b"]
        assert [each["name"] for each in await ADD.many(connection, [row("b"), row("c")])] == ["c"]
        assert [each["name"] for each in await ADD.fetch(connection, **row("d"))] == ["d"]
        assert await ADD.many(connection, []) == []
    async with database.read() as connection:
        found = await NAMED.fetch(connection, names=["a", "c", "x"])
        assert [dict(each) for each in found] == [
            {"name": name, "owner": "me", "lease_until": 7} for name in ("a", "c")
        ]
        assert len(await UNTIL.fetch(connection, times=[7, 8])) == 4
        assert await UNTIL.fetch(connection, times=[]) == []


async def test_prepared_and_ordinary_statements_share_a_transaction(database: Database) -> None:
    async def fail() -> None:
        async with database.begin() as connection:
            await ADD.fetch(connection, **row("a"))
            await connection.execute(sa.insert(lease).values(lease_until=1, **row("b")))
            assert len(await NAMED.fetch(connection, names=["a", "b"])) == 2
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fail()
    async with database.begin() as connection:
        assert await NAMED.fetch(connection, names=["a", "b"]) == []
        await ADD.fetch(connection, **row("a"))
    async with database.read() as connection:
        assert len(await NAMED.fetch(connection, names=["a", "b"])) == 1


async def test_bytes_nulls_and_expressions_come_back_as_they_were(database: Database) -> None:
    insert = inserting(outbox, "lane", "topic", "partition", "key", "value", created=sa.literal(1), returning=("id",))
    values = {"lane": "l/1", "topic": "t", "partition": None, "key": None, "value": b"\x00\xff"}
    async with database.begin() as connection:
        first, second = await insert.many(connection, [values, values | {"partition": 3, "key": b"k"}])
        rows = await Prepared(sa.select(outbox).order_by(outbox.c.id)).fetch(connection)
    assert first["id"] < second["id"]
    assert [(each["partition"], each["key"], bytes(each["value"])) for each in rows] == [
        (None, None, b"\x00\xff"),
        (3, b"k", b"\x00\xff"),
    ]


async def test_many_rows_are_written_in_their_order_and_change_what_is_there(database: Database) -> None:
    put = inserting(lease, "name", "owner", lease_until=sa.literal(7), changing=("owner",))
    log = inserting(outbox, "lane", "topic", "value", created=sa.literal(1))
    async with database.begin() as connection:
        await put.fetch(connection, **row("b"))
        await put.many(connection, [{"name": name, "owner": "you"} for name in "abc"])
        await log.many(connection, [{"lane": "l/1", "topic": str(n), "value": b""} for n in range(300)])
        owners = [each["owner"] for each in await NAMED.fetch(connection, names=["a", "b", "c"])]
        rows = await Prepared(sa.select(outbox.c.topic).order_by(outbox.c.id)).fetch(connection)
    assert owners == ["you", "you", "you"]
    assert [each["topic"] for each in rows] == [str(n) for n in range(300)]


async def test_its_errors_are_those_that_everybody_knows(database: Database) -> None:
    twice = inserting(lease, "name", "owner", lease_until=sa.literal(7))
    missing = Prepared(sa.select(sa.column("x")).select_from(sa.table("nowhere")))
    async with database.begin() as connection:
        await twice.fetch(connection, **row("a"))
    async with database.begin() as connection:
        with pytest.raises(sa.exc.IntegrityError) as refused:
            await twice.fetch(connection, **row("a"))
    assert not unavailable(refused.value)
    async with database.read() as connection:
        with pytest.raises(sa.exc.DBAPIError) as broken:
            await missing.fetch(connection)
    assert is_broken(broken.value)
    assert not unavailable(broken.value)


async def test_an_update_tells_whether_it_met_a_row(database: Database) -> None:
    move = Prepared(
        sa.update(position)
        .where(position.c.topic == sa.bindparam("topic_"), position.c.position == sa.bindparam("before"))
        .values(position=sa.bindparam("to"))
        .returning(position.c.position)
    )
    async with database.begin() as connection:
        await connection.execute(sa.insert(position).values(topic="t", partition=0))
        assert len(await move.fetch(connection, topic_="t", before=-1, to=5)) == 1
        assert len(await move.fetch(connection, topic_="t", before=-1, to=6)) == 0


async def test_connections_that_died_are_found_out_once_and_replaced(postgres_url: str, postgres: Any) -> None:
    database = connect(postgres_url)
    await migrate.upgrade(database)

    async def read() -> None:
        async with database.read() as connection:
            await NAMED.fetch(connection, names=["a"])

    async def write() -> None:
        async with database.begin() as connection:
            await ADD.fetch(connection, **row("a"))

    for use in (read, write):
        await asyncio.gather(*(use() for _ in range(5)))  # five connections in the pool
        await asyncio.to_thread(postgres.restart)
        failures = [error for error in [await _error_of(use) for _ in range(12)] if error is not None]
        assert all(unavailable(error) for error in failures)
        assert len(failures) <= 5
        await use()
    await database.close()


async def _error_of(use: Callable[[], Awaitable[None]]) -> Exception | None:
    try:
        await use()
    except Exception as error:
        return error
    return None
