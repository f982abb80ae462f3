"""Partitions are shared by leases: fairly, one owner each, handed over without waiting where that is possible."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta

import pytest
import sqlalchemy as sa

from penstock.services.database import Database, StaleEpochError, connect, migrate
from penstock.services.database.tables import position
from penstock.services.engine.ownership import Lane, Ownership, advance_position, hold

LONG = timedelta(minutes=5)
TOPIC = "penstock.matches"


@pytest.fixture
async def database(any_database_url: str) -> AsyncIterator[Database]:
    made = connect(any_database_url)
    await migrate.upgrade(made)
    yield made
    await made.close()


async def owner(database: Database, name: str, partitions: int = 24) -> Ownership:
    made = Ownership(database, name, LONG)
    await made.add_topic(TOPIC, partitions)
    await made.balance()
    return made


def numbers(ownership: Ownership) -> set[int]:
    return {lane.partition for lane in ownership.lanes(TOPIC)}


async def hand_back_what_is_too_much(ownership: Ownership) -> None:
    for lane in ownership.lanes(TOPIC):
        if lane.leaving:
            await ownership.hand_back(lane)


async def test_the_first_owner_takes_everything_and_a_second_one_gets_its_fair_share(database: Database) -> None:
    first = await owner(database, "a")
    assert len(numbers(first)) == 24
    second = await owner(database, "b")
    assert numbers(second) == set()
    await first.balance()
    await hand_back_what_is_too_much(first)
    await second.balance()
    assert (len(numbers(first)), len(numbers(second))) == (12, 12)
    assert numbers(first) & numbers(second) == set()


async def test_whoever_leaves_hands_everything_over_at_once(database: Database) -> None:
    first = await owner(database, "a")
    second = await owner(database, "b")
    await first.leave()
    await second.balance()
    assert len(numbers(second)) == 24


async def test_an_expired_lease_is_taken_over_with_a_higher_epoch(database: Database) -> None:
    first = await owner(database, "a", partitions=1)
    [old] = first.lanes(TOPIC)
    await expire(database)
    second = await owner(database, "b", partitions=1)
    await second.balance()
    [new] = second.lanes(TOPIC)
    assert new.epoch == old.epoch + 1
    await first.balance()
    assert first.lanes(TOPIC) == []


async def test_the_commit_of_a_former_owner_changes_nothing(database: Database) -> None:
    first = await owner(database, "a", partitions=1)
    [old] = first.lanes(TOPIC)
    await expire(database)
    second = await owner(database, "b", partitions=1)
    [new] = second.lanes(TOPIC)
    for attempt in (advance(database, old, 10), hold_only(database, old)):
        with pytest.raises(StaleEpochError):
            await attempt
    await advance(database, new, 20)
    assert await stored(database) == 20


async def test_a_position_moves_only_from_where_its_owner_believes_it_to_be(database: Database) -> None:
    first = await owner(database, "a", partitions=1)
    [lane] = first.lanes(TOPIC)
    await advance(database, lane, 5)
    with pytest.raises(StaleEpochError):
        await advance(database, lane, 9)  # it still believes in the position before
    lane.position = 5
    await advance(database, lane, 9)
    assert await stored(database) == 9


async def expire(database: Database) -> None:
    from penstock.services.database.tables import member

    async with database.begin() as connection:
        await connection.execute(sa.update(position).values(lease_until=1))
        await connection.execute(sa.delete(member))


async def advance(database: Database, lane: Lane, to: int) -> None:
    async with database.begin() as connection:
        await advance_position(connection, lane, to=to)


async def hold_only(database: Database, lane: Lane) -> None:
    async with database.begin() as connection:
        await hold(connection, lane)


async def stored(database: Database) -> int:
    async with database.read() as connection:
        return int((await connection.execute(sa.select(position.c.position))).scalar_one())
