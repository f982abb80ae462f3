"""Deadlines are set by the clock they are compared with, however wrong that of this machine is."""

from __future__ import annotations

import time
from datetime import timedelta

import pytest
import sqlalchemy as sa

from penstock.services.database import Database, clock, connect, migrate
from penstock.services.database.clock import Skew
from penstock.services.engine.ownership import Ownership

HOUR = 3_600_000_000
SECOND = 1_000_000


async def database_now(database: Database) -> int:
    async with database.begin() as connection:
        return int((await connection.execute(sa.select(clock.now()))).scalar_one())


@pytest.mark.parametrize("wrong", [-HOUR, 0, HOUR])
async def test_a_machine_knows_the_clock_of_the_database(any_database_url: str, wrong: int) -> None:
    database = connect(any_database_url)
    skew = Skew(lambda: time.time_ns() // 1_000 + wrong)
    async with database.begin() as connection:
        await skew.measure(connection)
    before = await database_now(database)
    found = skew.now()
    after = await database_now(database)
    await database.close()
    assert before - SECOND < found < after + SECOND


async def test_a_slow_answer_changes_nothing_once_there_is_a_better_one(sqlite_url: str) -> None:
    database, moments = connect(sqlite_url), [0, 0]
    skew = Skew(lambda: moments.pop(0))
    async with database.begin() as connection:
        await skew.measure(connection)
        moments += [0, 100]
        first = skew.now()
        assert first > SECOND
        moments[:] = [0, 60 * SECOND, 0]
        await skew.measure(connection)
        assert skew.now() == first
    await database.close()


async def test_whoever_renews_its_leases_measures(sqlite_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    database = connect(sqlite_url)
    await migrate.upgrade(database)
    wrong = Skew(lambda: time.time_ns() // 1_000 - HOUR)
    monkeypatch.setattr(database, "skew", wrong)
    await Ownership(database, "one", timedelta(seconds=3)).balance()
    assert abs(wrong.now() - time.time_ns() // 1_000) < 5 * SECOND
    await database.close()
