"""A beginning and an end that are written with those of other runs leave the same rows as when each is made alone."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
import sqlalchemy as sa
from tests.support.runs import add, claimer, end_leases, look, migrated, rows, run_row, states

from penstock.flows.states import State
from penstock.services.database import Database, tables
from penstock.services.run_steps import NotAsKnownError, Step
from penstock.services.runs import NewRun, change_state
from penstock.services.worker.claims import ClaimedRun
from penstock.services.worker.execution import begin, pause, settle
from penstock.services.worker.journaling import steps_of
from penstock.services.worker.outcome import Outcome

_OF_TIME = ("created", "due_at", "started", "ended", "rank", "id", "at", "run_id")


@pytest.fixture
async def database(postgres_url: str) -> AsyncIterator[Database]:
    async with migrated(postgres_url) as found:
        yield found


async def claimed(database: Database, run_id: str, **more: Any) -> ClaimedRun:
    await add(database, NewRun(id=run_id, flow="reroute", correlationid="c", firing_id="f", hops=2, **more))
    (found,) = (await look(database, claimer("w1"))).claimed
    return found


def step(run: ClaimedRun, seq: int, state: State, **more: Any) -> Step:
    return Step({**run.told, "seq": run.seq + seq}, state, run.at + seq, actor="worker/w1", **more)


async def left_by(database: Database, run_id: str) -> list[Any]:
    """All that there is of a run, without times and without its id."""

    def plain(row: dict[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in row.items() if name not in _OF_TIME}

    run = await run_row(database, run_id)
    changes = await rows(database, tables.run_event, tables.run_event.c.run_id == run_id)
    told = [
        json.loads(row["value"])
        for row in await rows(database, tables.outbox)
        if row["key"] == f"run/{run_id}".encode()
    ]
    events = [{**each, "id": "", "time": "", "subject": "", "partitionkey": ""} for each in told]
    for each in events:
        each["data"].pop("run")
    known = [name for name in _OF_TIME if run.get(name) is not None]
    return [plain(run), known, [plain(row) for row in changes], events]


@pytest.mark.parametrize("end", [State.COMPLETED, State.FAILED, State.CANCELLED])
async def test_both_ways_leave_the_same_rows_and_events(database: Database, end: State) -> None:
    result, error = ("7", None) if end is State.COMPLETED else (None, "ValueError: no")
    one, other = await claimed(database, "r1"), await claimed(database, "r2")
    steps = steps_of(database)
    await steps.put(step(one, 1, State.RUNNING, source="s", version="v"))
    await steps.put(step(one, 2, end, result=result, error=error, detail=error or ""))
    async with database.begin() as connection:
        await begin(connection, other, "worker/w1", other.at, source="s", version="v")
    async with database.begin() as connection:
        await change_state(
            connection, "r2", other.epoch, end, detail=error or "", actor="worker/w1", result=result, error=error
        )
    assert await left_by(database, "r1") == await left_by(database, "r2")
    assert await states(database, "r1") == ["pending", "running", end.value]


async def test_a_run_that_was_taken_over_holds_up_no_other_and_is_told_to_its_holder(database: Database) -> None:
    lost, mine = await claimed(database, "r1"), await claimed(database, "r2")
    await end_leases(database)
    await look(database, claimer("w2"))  # takes r1
    steps = steps_of(database)
    first = asyncio.create_task(steps.put(step(mine, 1, State.RUNNING)))
    await asyncio.sleep(0)  # the others come while it is under way
    ends = await asyncio.gather(
        first,
        steps.put(step(lost, 1, State.RUNNING)),
        steps.put(step(mine, 2, State.COMPLETED)),
        return_exceptions=True,
    )
    assert [type(each) for each in ends] == [type(None), NotAsKnownError, type(None)]
    assert await states(database, "r2") == ["pending", "running", "completed"]
    assert "running" not in await states(database, "r1")


async def test_what_a_person_has_asked_of_a_run_is_not_passed_over(database: Database) -> None:
    run = await claimed(database, "r1")
    async with database.begin() as connection:
        await connection.execute(sa.update(tables.run).values(asked="cancel", asked_by="user/ann"))
    with pytest.raises(NotAsKnownError):
        await steps_of(database).put(step(run, 1, State.RUNNING))
    assert await states(database, "r1") == ["pending"]


async def test_a_change_whose_answer_was_lost_is_known_again_as_ones_own(database: Database) -> None:
    run = await claimed(database, "r1")
    for _ in range(2):
        async with database.begin() as connection:
            await begin(connection, run, "worker/w1", run.at)
    for _ in range(2):
        async with database.begin() as connection:
            await settle(connection, run, Outcome(State.COMPLETED), b"1", None, "worker/w1")
    assert await states(database, "r1") == ["pending", "running", "completed"]


async def test_a_cancellation_that_comes_as_a_suspended_run_leaves_its_process_is_obeyed(database: Database) -> None:
    run = await claimed(database, "r1")
    async with database.begin() as connection:
        await begin(connection, run, "worker/w1", run.at)
        await connection.execute(sa.update(tables.run).values(asked="cancel", asked_by="user/ann"))
    async with database.begin() as connection:
        await pause(connection, run, "user/bob")
    assert (await states(database, "r1"))[-1] == "cancelled"
    assert (await run_row(database, "r1"))["asked"] is None
