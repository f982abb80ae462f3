"""So many runs of a deployment at once, on both databases."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import sqlalchemy as sa
from tests.support.deployed import deployed, launch
from tests.support.runs import claimer, end_leases, look, rows, run_row, states, told

from penstock.flows.states import State
from penstock.services.database import Database, connect, tables
from penstock.services.deployments import remove
from penstock.services.places import give_places
from penstock.services.runs import change_state

ONE = {"limit": 1}


async def give(database: Database) -> int:
    return (await give_places(database, "default"))[1]


async def end(database: Database, run_id: str, new: State = State.CANCELLED) -> None:
    async with database.begin() as connection:
        await change_state(connection, run_id, None, new)


async def now(database: Database) -> dict[str, str]:
    return {row["id"]: row["state"] for row in await rows(database, tables.run)}


async def test_in_a_queue_runs_wait_without_a_process_and_begin_in_order(database: Database) -> None:
    await deployed(database, concurrency=ONE)
    await launch(database, "a", "b", "c")
    assert await now(database) == dict.fromkeys("abc", "scheduled")
    assert (await look(database, claimer("w1", flows=("quick",)), 5)).claimed == []
    assert await give(database) == 1
    assert await now(database) == {"a": "pending", "b": "scheduled", "c": "scheduled"}
    assert await give(database) == 0
    await end(database, "a")
    await give(database)
    assert await now(database) == {"a": "cancelled", "b": "pending", "c": "scheduled"}
    assert [each.id for each in (await look(database, claimer("w1", flows=("quick",)), 5)).claimed] == ["b"]
    assert await states(database, "b") == ["scheduled", "pending"]
    assert [event["type"] for event in await told(database, "b")] == ["penstock.run.scheduled", "penstock.run.pending"]
    assert {event["data"]["deployment"] for event in await told(database, "b")} == {"nightly"}


async def test_a_run_that_finds_no_place_is_cancelled_with_the_reason(database: Database) -> None:
    await deployed(database, concurrency=ONE | {"when_full": "cancel_new"})
    await launch(database, "a", "b")
    await give(database)
    assert await now(database) == {"a": "pending", "b": "cancelled"}
    assert (await run_row(database, "b"))["error"] == "deployment nightly runs 1 at a time: not begun"
    assert (await told(database, "b"))[-1]["data"]["detail"] == "deployment nightly runs 1 at a time: not begun"


async def test_a_newer_run_replaces_the_oldest_whose_worker_then_writes_nothing(database: Database) -> None:
    await deployed(database, concurrency={"limit": 2, "when_full": "replace"})
    await launch(database, "a", "b")
    await give(database)
    (first, _) = (await look(database, claimer("w1", flows=("quick",)), 5)).claimed
    async with database.begin() as connection:
        await change_state(connection, first.id, first.epoch, State.RUNNING)
    await launch(database, "c")
    await give(database)
    assert await now(database) == {"a": "cancelled", "b": "pending", "c": "pending"}
    assert (await run_row(database, "a"))["epoch"] > first.epoch


async def test_a_run_keeps_its_place_through_a_crash_and_frees_it_when_it_is_given_up(database: Database) -> None:
    await deployed(database, concurrency=ONE)
    await launch(database, "a", "b")
    await give(database)
    worker = claimer("w1", flows=("quick",), attempts=2)
    for _ in range(2):
        (claimed,) = (await look(database, worker)).claimed
        async with database.begin() as connection:
            await change_state(connection, "a", claimed.epoch, State.RUNNING)
        await end_leases(database)  # its worker was killed
        await give(database)
        assert (await now(database))["b"] == "scheduled"
    assert [row["id"] for row in (await look(database, worker)).crashed] == ["a"]
    await give(database)
    assert await now(database) == {"a": "crashed", "b": "pending"}


async def test_a_run_that_is_retried_waits_for_a_place_again(database: Database) -> None:
    await deployed(database, concurrency=ONE)
    await launch(database, "a", "b")
    await give(database)
    await end(database, "a")
    await give(database)
    async with database.begin() as connection:
        await change_state(connection, "a", None, State.RETRYING, due_in=timedelta(0))
    await give(database)
    assert [each.id for each in (await look(database, claimer("w1", flows=("quick",)), 5)).claimed] == ["b"]
    await end(database, "b")
    await give(database)
    assert [each.id for each in (await look(database, claimer("w1", flows=("quick",)), 5)).claimed] == ["a"]


async def test_many_who_give_places_at_once_never_give_too_many(any_database_url: str, database: Database) -> None:
    await deployed(database, concurrency={"limit": 3})
    names = [f"r{n:02}" for n in range(12)]
    await launch(database, *names)
    others = [connect(any_database_url) for _ in range(4)]
    try:
        for finished in range(0, 12, 3):
            await asyncio.gather(*(give(each) for each in others))
            begun = [name for name, state in (await now(database)).items() if state == "pending"]
            assert begun == names[finished : finished + 3]
            await asyncio.gather(*(end(each, name) for each, name in zip(others, begun, strict=False)))
    finally:
        for each in others:
            await each.close()


async def test_a_limit_counts_what_runs_already_and_its_end_lets_all_begin(database: Database) -> None:
    await deployed(database)
    await launch(database, "a")
    await deployed(database, concurrency=ONE)
    await launch(database, "b", "c")
    await give(database)
    assert await now(database) == {"a": "pending", "b": "scheduled", "c": "scheduled"}
    await deployed(database, concurrency={"limit": 2})
    await give(database)
    assert (await now(database))["b"] == "pending"
    await remove(database, "default", "nightly", "user/ann")
    await give(database)
    assert (await now(database))["c"] == "pending"


async def test_what_is_retried_paused_and_resumed_waits_for_a_place_all_the_same(database: Database) -> None:
    await deployed(database)
    await launch(database, "early")  # made when there was no limit
    await end(database, "early")
    await deployed(database, concurrency=ONE)
    await launch(database, "a", "b")
    await give(database)
    await end(database, "a")
    await give(database)  # b has the place
    for run_id in ("a", "early"):
        for new, due in ((State.RETRYING, timedelta(0)), (State.PAUSED, None), (State.PENDING, timedelta(0))):
            async with database.begin() as connection:
                await change_state(connection, run_id, None, new, due_in=due)
    await give(database)
    worker = claimer("w1", flows=("quick",))
    assert [each.id for each in (await look(database, worker, 5)).claimed] == ["b"]
    for run_id, next_one in (("b", "early"), ("early", "a")):
        await end(database, run_id)
        await give(database)
        assert [each.id for each in (await look(database, worker, 5)).claimed] == [next_one]


async def test_the_newest_run_replaces_others_whatever_its_priority(database: Database) -> None:
    await deployed(database, concurrency=ONE | {"when_full": "replace"})
    await launch(database, "older")
    async with database.begin() as connection:
        await connection.execute(sa.update(tables.run).values(priority=5))
    await launch(database, "newest")
    await give(database)
    assert await now(database) == {"older": "cancelled", "newest": "pending"}
