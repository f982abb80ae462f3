"""Schedules of deployments: one run for each due time, on both databases."""

from __future__ import annotations

import asyncio
import json

import sqlalchemy as sa
from tests.support.deployed import deployed, launch, move_due
from tests.support.runs import rows, run_row

from penstock.events.instants import SECOND
from penstock.services.database import Database, connect, tables
from penstock.services.deployments import set_paused
from penstock.services.scheduler.deployed import fire_due, until_next

HOUR = 3_600 * SECOND


async def events(database: Database) -> list[tuple[str, dict[str, object]]]:
    found = [json.loads(row["value"]) for row in await rows(database, tables.outbox, tables.outbox.c.topic != "")]
    return [(event["type"], event["data"]) for event in found if event.get("type", "").startswith("penstock.schedule")]


async def test_each_schedule_runs_with_its_own_parameters(database: Database) -> None:
    schedules = [{"every": "1h", "parameters": {"n": 2}}, {"every": "2h"}, {"cron": "0 0 1 1 *"}]
    await deployed(database, parameters={"n": 1, "path": "x"}, tags=["trucks"], limits=["erp"], schedules=schedules)
    assert await fire_due(database, "default") == []
    await move_due(database, 2 * HOUR)
    ticks = await fire_due(database, "default")
    assert len(ticks) == 2
    found = {row["id"]: row for row in await rows(database, tables.run)}
    assert found.keys() == {tick.run for tick in ticks}
    given = [json.loads(found[tick.run or ""]["parameters"]) for tick in ticks]
    assert sorted(given, key=lambda each: each["n"]) == [{"n": 1, "path": "x"}, {"n": 2, "path": "x"}]
    for row in found.values():
        assert (row["deployment"], row["flow"], row["version"], row["tags"]) == (
            *("nightly", "quick", "c0ffee"),
            '["trucks"]',
        )
        assert json.loads(row["limits"]) == ["erp"]
    told = [data for type_, data in await events(database) if type_ == "penstock.schedule.fired"]
    assert {data["run"] for data in told} == found.keys()
    left = await until_next(database, "default")
    assert left is not None
    assert 0 < left <= HOUR


async def test_many_schedulers_make_one_run_of_each_due_time(any_database_url: str, database: Database) -> None:
    for number in range(10):
        await deployed(database, f"d{number}", schedules=[{"every": "1h"}])
    others = [connect(any_database_url) for _ in range(3)]
    try:
        for _ in range(3):
            await move_due(database, HOUR + 1)
            ticks = await asyncio.gather(*(fire_due(each, "default") for each in others))
            while any(more := await asyncio.gather(*(fire_due(each, "default") for each in others))):
                ticks += more
            assert sorted(tick.deployment for some in ticks for tick in some) == [f"d{n}" for n in range(10)]
        assert len(await rows(database, tables.run)) == len(await events(database)) == 30
    finally:
        for each in others:
            await each.close()


async def test_a_due_time_that_comes_again_makes_no_second_run(database: Database) -> None:
    await deployed(database, schedules=[{"cron": "0 3 * * *"}])
    (before,) = await rows(database, tables.deployment_schedule)
    yesterday = before["next_at"] - 24 * HOUR
    for _ in range(2):
        async with database.begin() as connection:
            await connection.execute(sa.update(tables.deployment_schedule).values(next_at=yesterday))
        assert len(await fire_due(database, "default")) == 1
    assert len(await rows(database, tables.run)) == 1


async def test_a_paused_deployment_skips_and_goes_on_in_time(database: Database) -> None:
    await deployed(database, schedules=[{"rrule": "FREQ=HOURLY"}], paused=True)
    await move_due(database, HOUR)
    (tick,) = await fire_due(database, "default")
    assert tick.run is None
    ((type_, data),) = await events(database)
    assert (type_, data["deployment"], data["reason"]) == (
        *("penstock.schedule.skipped", "nightly"),
        "the deployment is paused",
    )
    assert await rows(database, tables.run) == []
    await launch(database, "by-hand")
    assert (await run_row(database, "by-hand"))["state"] == "pending", "only its schedules are paused"
    await set_paused(database, "default", "nightly", "user/ann", paused=False)
    assert await fire_due(database, "default") == [], "what was skipped is not made up for"
    await move_due(database, HOUR)
    assert [tick.run is None for tick in await fire_due(database, "default")] == [False]


async def test_missed_due_times_are_told_and_the_latest_one_runs(database: Database) -> None:
    await deployed(database, schedules=[{"every": "10s"}])
    await move_due(database, 95 * SECOND)
    (tick,) = await fire_due(database, "default")
    assert tick.missed == 8
    assert [type_ for type_, _ in await events(database)] == ["penstock.schedule.missed", "penstock.schedule.fired"]
    assert (await events(database))[0][1]["count"] == 8
    assert len(await rows(database, tables.run)) == 1
