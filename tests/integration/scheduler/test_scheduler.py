"""Schedules against real databases: each due time fires once, whatever happens to the schedulers."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest
import sqlalchemy as sa
from redis.asyncio import Redis
from tests.support.fake_bus import FakeBus

from penstock.events.instants import SECOND
from penstock.services.context import Context
from penstock.services.database import Database, clock, connect, migrate, tables
from penstock.services.hints import Hints
from penstock.services.rulebook import RuleBook
from penstock.services.scheduler import SchedulerService, Spec
from penstock.services.scheduler.store import adopt, fire_due, until_next
from penstock.services.settings import Settings

HERE = frozenset({"default"})


@pytest.fixture
async def database(any_database_url: str) -> AsyncIterator[Database]:
    database = connect(any_database_url)
    await migrate.upgrade(database)
    yield database
    await database.close()


async def apply(database: Database, text: str) -> int:
    """A new revision; returns its number."""
    row = {"namespace": "default", "digest": text, "files": json.dumps({"f.yaml": text}), "actor": "test"}
    async with database.begin() as connection:
        await connection.execute(sa.insert(tables.revision).values(created=clock.now(), **row))
        return int((await connection.execute(sa.select(sa.func.max(tables.revision.c.id)))).scalar_one())


async def rows(database: Database, table: sa.Table) -> list[dict[str, Any]]:
    async with database.read() as connection:
        return [dict(row) for row in (await connection.execute(sa.select(table))).mappings()]


async def events(database: Database, type_: str = "penstock.schedule.fired") -> list[dict[str, Any]]:
    found = [json.loads(row["value"]) for row in await rows(database, tables.outbox)]
    return [event for event in found if event["type"] == type_]


async def move_due(database: Database, by: int) -> None:
    """As if `by` microseconds had passed for every schedule."""
    async with database.begin() as connection:
        await connection.execute(sa.update(tables.schedule).values(next_at=tables.schedule.c.next_at - by))


async def until(condition: Any, within: float = 30) -> Any:
    async with asyncio.timeout(within):
        while True:
            if found := await condition():
                return found
            await asyncio.sleep(0.02)


async def no_revision(database: Database, **specs: Spec) -> None:
    assert await adopt(database, 0, "default", {("default", name): spec for name, spec in specs.items()})


async def test_a_due_schedule_fires_once_with_its_event_and_its_row(database: Database) -> None:
    await no_revision(database, tick=Spec(every=60 * SECOND))
    assert await fire_due(database, HERE) == []
    await move_due(database, 61 * SECOND)
    (tick,) = await fire_due(database, HERE)
    assert await fire_due(database, HERE) == []
    (event,) = await events(database)
    (fire,) = await rows(database, tables.schedule_fire)
    assert (event["subject"], event["source"], event["data"]["missed"]) == ("tick", "/penstock/default", 0)
    assert (fire["due"], fire["event_id"]) == (tick.due, event["id"])
    left = await until_next(database, HERE)
    assert left is not None
    assert 50 * SECOND < left <= 60 * SECOND


async def test_many_schedulers_at_once_fire_each_due_time_once(any_database_url: str, database: Database) -> None:
    await no_revision(database, **{f"s{number}": Spec(every=3_600 * SECOND) for number in range(40)})
    others = [connect(any_database_url) for _ in range(4)]
    try:
        for _ in range(5):
            await move_due(database, 3_600 * SECOND + 1)  # to a due time of its own
            ticks = await asyncio.gather(*(fire_due(each, HERE) for each in others))
            while any(more := await asyncio.gather(*(fire_due(each, HERE) for each in others))):
                ticks += more
            assert sorted(tick.name for some in ticks for tick in some) == sorted(f"s{n}" for n in range(40))
        found = await events(database)
        assert len(found) == len({event["id"] for event in found}) == 200
    finally:
        for each in others:
            await each.close()


async def test_after_an_outage_the_latest_due_time_fires_and_the_others_are_told_as_missed(database: Database) -> None:
    await no_revision(database, tick=Spec(every=10 * SECOND))
    await move_due(database, 95 * SECOND)
    (tick,) = await fire_due(database, HERE)
    assert tick.missed == 8
    (missed,) = await events(database, "penstock.schedule.missed")
    (fired,) = await events(database)
    assert (missed["data"]["count"], missed["data"]["exact"]) == (8, True)
    assert missed["data"]["before"] == fired["data"]["due"]
    assert await fire_due(database, HERE) == []


async def test_a_changed_definition_starts_anew_and_another_ones_keeps_its_time(database: Database) -> None:
    await no_revision(database, a=Spec(every=60 * SECOND), b=Spec(every=60 * SECOND), gone=Spec(every=SECOND))
    await move_due(database, 30 * SECOND)
    before = {row["name"]: row["next_at"] for row in await rows(database, tables.schedule)}
    await no_revision(database, a=Spec(every=600 * SECOND), b=Spec(every=60 * SECOND))
    after = {row["name"]: row["next_at"] for row in await rows(database, tables.schedule)}
    assert after.keys() == {"a", "b"}
    assert after["b"] == before["b"]
    assert after["a"] > before["a"] + 500 * SECOND


async def test_an_older_revision_is_not_adopted_over_a_newer_one(database: Database) -> None:
    newest = await apply(database, "schedules: [{name: tick, every: 5s}]")
    assert not await adopt(database, newest - 1, "default", {})
    assert await adopt(database, newest, "default", {("default", "tick"): Spec(every=5 * SECOND)})


async def test_a_tick_whose_transaction_fails_is_fired_by_the_next_one(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    from penstock.services.scheduler import store

    def die(*_: Any) -> None:
        raise ConnectionError("killed before the commit")

    await no_revision(database, tick=Spec(every=60 * SECOND))
    await move_due(database, 61 * SECOND)
    with monkeypatch.context() as patch:
        patch.setattr(store, "publish_later", die)
        with pytest.raises(ConnectionError):
            await fire_due(database, HERE)
    assert await rows(database, tables.schedule_fire) == []
    assert len(await fire_due(database, HERE)) == 1


@asynccontextmanager
async def scheduler(database_url: str, redis_url: str, name: str) -> AsyncIterator[None]:
    """A scheduler with its rule book and hints, as `wiring` runs it."""
    database, redis = connect(database_url), Redis.from_url(redis_url)
    hints = Hints(redis)
    rulebook = RuleBook(database, hints, "default")
    context = Context(Settings(), database, FakeBus(), redis, hints, rulebook, name)
    started = asyncio.Event()
    tasks = [
        asyncio.create_task(SchedulerService(context).run(started.set)),
        asyncio.create_task(rulebook.run()),
        asyncio.create_task(hints.run()),
    ]
    try:
        async with asyncio.timeout(30):
            await started.wait()
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        await redis.aclose()
        await database.close()


async def test_two_schedulers_follow_the_rules_and_fire_once_and_in_time(
    any_database_url: str, database: Database, redis_url: str
) -> None:
    await apply(database, "schedules: [{name: fast, every: 200ms}]")
    async with AsyncExitStack() as stack:
        for name in ("one", "two"):
            await stack.enter_async_context(scheduler(any_database_url, redis_url, name))

        async def enough() -> bool:
            return len(await events(database)) >= 15

        await until(enough)
        await apply(database, "schedules: [{name: other, every: 150ms}]")

        async def changed() -> bool:
            return [event["subject"] for event in await events(database)].count("other") >= 5

        await until(changed)
        assert {row["name"] for row in await rows(database, tables.schedule)} == {"other"}
    found = await events(database)
    assert len(found) == len({event["id"] for event in found}) == len(await rows(database, tables.schedule_fire))
    fires = [row for row in await rows(database, tables.schedule_fire) if row["name"] == "fast"]
    late = sorted(row["at"] - row["due"] for row in fires)
    assert late[0] >= 0
    assert late[len(late) // 2] < SECOND, "half of them fire well within a second"


async def test_a_scheduler_waits_for_a_database_that_is_away(postgres_url: str, postgres: Any, redis_url: str) -> None:
    database = connect(postgres_url)
    await migrate.upgrade(database)
    await apply(database, "schedules: [{name: tick, every: 200ms}]")
    async with scheduler(postgres_url, redis_url, "one"):

        async def one() -> bool:
            return bool(await events(database))

        await until(one)
        await asyncio.to_thread(postgres.restart)
        await database.close()
        database = connect(postgres_url)
        before = len(await events(database))

        async def more() -> bool:
            return len(await events(database)) > before + 2

        await until(more)
    await database.close()
