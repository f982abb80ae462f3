"""What a transaction writes last, or at once: all of it or nothing, in as few statements as the database allows."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError

from penstock.services.database import Database, clock, connect, migrate
from penstock.services.database.late import Writes, at_the_end
from penstock.services.database.prepared import Prepared, inserting
from penstock.services.database.tables import lease, notice, outbox

HELD = Prepared(
    sa.update(lease)
    .where(lease.c.name == sa.bindparam("which"), lease.c.owner == sa.bindparam("mine"))
    .values(lease_until=clock.now())
    .returning(lease.c.name)
)
SEND = inserting(outbox, "lane", "topic", "partition", "key", "value", "headers", created=clock.now())
NOTE = inserting(notice, "namespace", "what", "object", at=clock.now())
NOTE_AGAIN = inserting(notice, "namespace", "what", "object", at=sa.literal(7), changing=("at",))
FORGET = Prepared(sa.delete(notice).where(notice.c.object == sa.bindparam("which")))


@pytest.fixture
async def database(any_database_url: str) -> AsyncIterator[Database]:
    made = connect(any_database_url)
    await migrate.upgrade(made)
    async with made.begin() as connection:
        await connection.execute(sa.insert(lease).values(name="line", owner="me", lease_until=0))
    yield made
    await made.close()


def record(value: str) -> dict[str, Any]:
    return {"lane": "l", "topic": "t", "partition": None, "key": b"k", "value": value.encode(), "headers": "[]"}


def noted(name: str) -> dict[str, Any]:
    return {"namespace": "default", "what": "told", "object": name}


def all_of(records: list[str], notices: list[str]) -> Writes:
    writes = Writes()
    at_the_end(writes, SEND, [record(each) for each in records])
    at_the_end(writes, NOTE, [noted(each) for each in notices])
    return writes


async def kept(database: Database) -> tuple[list[str], list[str]]:
    async with database.read() as connection:
        values = await connection.scalars(sa.select(outbox.c.value).order_by(outbox.c.id))
        names = await connection.scalars(sa.select(notice.c.object).order_by(notice.c.object))
        return [bytes(value).decode() for value in values], list(names)


async def test_everything_is_written_at_once_in_the_order_given_where_the_guard_holds(database: Database) -> None:
    records = [str(n) for n in range(50)]
    assert await database.at_once(HELD, {"which": "line", "mine": "me"}, all_of(records, ["a", "b"]))
    assert await kept(database) == (records, ["a", "b"])


async def test_nothing_is_written_where_the_guard_does_not_hold(database: Database) -> None:
    assert not await database.at_once(HELD, {"which": "line", "mine": "another"}, all_of(["1"], ["a"]))
    assert await kept(database) == ([], [])


async def test_nothing_is_written_where_one_row_is_there_already(database: Database) -> None:
    assert await database.at_once(HELD, {"which": "line", "mine": "me"}, all_of([], ["a"]))
    with pytest.raises(IntegrityError):
        await database.at_once(HELD, {"which": "line", "mine": "me"}, all_of(["1"], ["b", "a"]))
    assert await kept(database) == ([], ["a"])


async def test_a_guard_alone_is_a_transaction_too(database: Database) -> None:
    assert await database.at_once(HELD, {"which": "line", "mine": "me"}, Writes())
    assert not await database.at_once(HELD, {"which": "line", "mine": "another"}, Writes())


async def test_what_no_single_statement_can_write_is_a_transaction_of_several(database: Database) -> None:
    writes = all_of(["1"], ["a", "b"])
    at_the_end(writes, NOTE_AGAIN, [noted("a")])  # the same table twice
    at_the_end(writes, FORGET, [{"which": "b"}])  # and what has no form for many rows
    assert await database.at_once(HELD, {"which": "line", "mine": "me"}, writes)
    assert await kept(database) == (["1"], ["a"])


async def test_what_is_left_for_the_end_is_written_in_the_order_in_which_it_was_given(database: Database) -> None:
    async with database.begin() as connection:
        at_the_end(connection, SEND, [record("1")])
        at_the_end(connection, NOTE, [noted("a"), noted("b")])
        at_the_end(connection, FORGET, [{"which": "a"}])
        at_the_end(connection, NOTE_AGAIN, [noted("a"), noted("b")])
        at_the_end(connection, SEND, [record("2")])
        assert await kept(database) == ([], [])
    assert await kept(database) == (["1", "2"], ["a", "b"])
    async with database.read() as connection:
        assert list(await connection.scalars(sa.select(notice.c.at))) == [7, 7]
