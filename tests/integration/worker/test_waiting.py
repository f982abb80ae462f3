"""Runs that wait for time, persons and events hold no process, and go on where they stood."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa
from tests.support.rig import Rig, open_rig
from tests.support.runs import add, claimer, end_leases, look, rows, run_row, states, told
from tests.support.waiting import asked, is_in, notes, order, pass_time, result, vote, write_flows
from tests.support.workers import ended, working

from penstock.flows.states import State
from penstock.services.approvals import expire_due
from penstock.services.database import Database, StaleEpochError, tables
from penstock.services.runs import NewRun, change_state
from penstock.services.waits import end_waits, ended_with_waits, request_approval, spread
from penstock.services.worker.asking import suspend
from penstock.services.worker.claims import ClaimedRun


@pytest.fixture(params=["production", "embedded"])
async def rig(request: pytest.FixtureRequest, redis_url: str, tmp_path: Path) -> AsyncIterator[Rig]:
    """A rig on each pair whose workers have the flows of `waiting`."""
    production = request.param == "production"
    database_url = request.getfixturevalue("postgres_url" if production else "sqlite_url")
    bus_url = request.getfixturevalue("kafka_bus_url" if production else "redis_bus_url")
    more = {"flows": (write_flows(tmp_path),), "concurrency": 1, "event_partitions": 2}
    async with open_rig(
        database_url=database_url, bus_url=bus_url, redis_url=redis_url, folder=tmp_path, **more
    ) as made:
        yield made


@pytest.fixture
def database(rig: Rig) -> Database:
    return rig.context.database


QUESTION = {
    "ask": "Pay?", "approvers": ["user/ann"], "needs": 1, "four_eyes": True, "seconds": 60, "on_timeout": "reject",
    "form": None,
}  # fmt: skip


def run(name: str, flow: str, **parameters: object) -> NewRun:
    return NewRun(name, flow, json.dumps(parameters))


async def until_in(rig: Rig, run_id: str, state: str) -> None:
    await rig.until(lambda: is_in(rig.context.database, run_id, state), within=20, what=f"{run_id} to be {state}")


async def test_a_long_sleep_leaves_the_process_and_its_graph_is_kept(
    rig: Rig, database: Database, tmp_path: Path
) -> None:
    async with working(rig.context):
        await add(database, run("r1", "naps"), run("r2", "naps", hours=0))
        await ended(database, "r2")  # the one child was free for it
        row = await run_row(database, "r1")
        assert (row["state"], row["name"], row["worker"], row["waiting_for"]) == (
            "waiting",
            "nap of 1 h",
            None,
            "answer",
        )
        slept = (tables.journal.c.name == "sleep", tables.journal.c.run_id == "r1")
        (until,) = [int(each["result"]) for each in await rows(database, tables.journal, *slept)]
        later = spread("r1", timedelta(hours=1)).total_seconds()
        assert (row["due_at"] - until) / 1e6 == pytest.approx(later, abs=2)
        await pass_time(database)
        (row,) = await ended(database, "r1")
    assert (row["state"], result(row), row["attempt"]) == ("completed", "beforeafter", 1)
    assert notes(tmp_path).count("before") == 2
    assert await states(database, "r1") == ["pending", "running", "waiting", "running", "completed"]
    calls = {each["call"]: each for each in await rows(database, tables.journal, tables.journal.c.run_id == "r1")}
    (joined,) = (each for each in calls.values() if each["name"] == "join")
    assert [calls[key]["label"] for key in json.loads(joined["takes"])] == ["note before", "note after"]
    assert (joined["parent"], bool(joined["source"]), bool(row["source"])) == ("", True, True)


async def test_an_approval_with_a_form_survives_the_worker_and_the_engine(
    rig: Rig, database: Database, tmp_path: Path
) -> None:
    engine = await rig.start_engine()
    async with working(rig.context):
        await add(database, run("r1", "pays"))
        await until_in(rig, "r1", "paused")
    await rig.stop(engine)
    assert "NAME=VALUE" in (await vote(rig, "r1", "user/ann")).message
    assert (
        "amuont: the form has no such field; did you mean 'amount'?"
        in (await vote(rig, "r1", "user/ann", form={"amuont": 3})).message
    )
    assert (await vote(rig, "r1", "user/ann", form={"amount": "much"})).kind == "invalid"
    assert (await vote(rig, "r1", "user/ann", form={"amount": 3})).kind == "approved"
    assert (await vote(rig, "r1", "user/bob", form={"amount": 4})).kind == "late"
    await rig.start_engine()
    async with working(rig.context):
        (row,) = await ended(database, "r1")
    assert (result(row), notes(tmp_path)) == ("Payment-3-as_agreed", ["asked", "Payment-3-as_agreed"])
    assert await states(database, "r1") == ["pending", "running", "paused", "pending", "running", "completed"]


async def test_a_decision_is_the_runs_and_of_none_who_started_it(rig: Rig, database: Database) -> None:
    async with working(rig.context):
        await add(database, NewRun("r1", "asks", actor="user/ann"), run("r2", "asks"), run("r3", "asks"))
        for name in ("r1", "r2", "r3"):
            await until_in(rig, name, "paused")
        assert "four-eyes" in (await vote(rig, "r1", "user/ann")).message
        assert (await vote(rig, "r2", "user/ann", "reject", comment="too dear")).kind == "rejected"
        (late,) = await asked(database, "r3")
        await expire_due(rig.context, late["expires_at"])
        found = await ended(database, "r2", "r3")
    assert [result(row) for row in found] == ["ApprovalRejected user/ann too dear", "ApprovalExpired None "]
    types = [event["type"] for event in await told(database, "r2")]
    assert types[2:4] == ["penstock.run.paused", "penstock.run.resumed"]


async def test_two_questions_at_once_are_both_asked_and_answered_in_any_order(rig: Rig, database: Database) -> None:
    async with working(rig.context):
        await add(database, run("r1", "asks-two"))
        await until_in(rig, "r1", "paused")
        assert [row["ask"] for row in await asked(database, "r1")] == ["One?", "Two?"]
        await vote(rig, "r1", "user/ann", number=1, comment="second")
        await rig.until(lambda: is_in(database, "r1", "paused"))
        await vote(rig, "r1", "user/ann", number=0, comment="first")
        (row,) = await ended(database, "r1")
    assert result(row) == ["first", "second"]


async def test_runs_see_the_event_that_comes_next_and_that_came_before_and_none_else(
    rig: Rig, database: Database
) -> None:
    await rig.publish([order("A", 1), order("B", 2)])
    engine = await rig.start_engine()
    async with working(rig.context):
        await add(database, run("next", "listens", subject="A"), run("before", "listens", subject="B", lookback=60))
        await add(database, run("never", "listens", subject="C"), run("wrong", "listens-wrongly"))
        assert [result(row) for row in await ended(database, "before")] == [2]
        assert "numeric" in (await ended(database, "wrong"))[0]["error"]
        await until_in(rig, "next", "waiting")
        await until_in(rig, "never", "waiting")
    await rig.stop(engine)
    await rig.publish([order("A", 3, "shop.closed"), order("A", 4), order("A", 5)])
    async with database.begin() as connection:
        late = tables.run_wait.c.run_id == "never"
        await connection.execute(sa.update(tables.run_wait).where(late).values(expires_at=1))
    await rig.start_engine()
    async with working(rig.context):
        found = await ended(database, "next", "never")
    assert [result(row) for row in found] == [4, -1]
    assert await rows(database, tables.wait_position) == []


async def running(rig: Rig, *run_ids: str) -> list[ClaimedRun]:
    """Runs that are being carried out, and have asked."""
    database = rig.context.database
    await add(database, *(NewRun(run_id, "reroute") for run_id in run_ids))
    claimed = (await look(database, claimer("w1"), len(run_ids))).claimed
    async with database.begin() as connection:
        for each in claimed:
            await change_state(connection, each.id, each.epoch, State.RUNNING)
            await request_approval(connection, each.id, each.epoch, "c", QUESTION)
    return claimed


async def leave(rig: Rig, claimed: ClaimedRun) -> None:
    """Its process is told nothing any more."""
    async with rig.context.database.begin() as connection:
        more = {"detail": "waits", "waits_for": "answer", "actor": "worker/w1"}
        await suspend(connection, claimed, State.PAUSED, None, **more)


async def change(database: Database, run_id: str, state: State) -> None:
    """As an operator changes it."""
    async with database.begin() as connection:
        await change_state(connection, run_id, None, state)


async def test_an_answer_that_comes_as_the_run_leaves_its_process_is_not_missed(rig: Rig, database: Database) -> None:
    (late,) = await running(rig, "late")
    await vote(rig, "late", "user/ann")
    assert await is_in(database, "late", "running")
    await leave(rig, late)
    assert (await states(database, "late"))[-2:] == ["paused", "pending"]
    await change(database, "late", State.CANCELLED)
    claimed = await running(rig, *(f"r{number:02}" for number in range(20)))
    votes = [vote(rig, each.id, "user/ann") for each in claimed]
    leaving = [leave(rig, each) for each in claimed]
    await asyncio.gather(*(each for pair in zip(votes, leaving, strict=True) for each in pair))
    assert {(await run_row(database, each.id))["state"] for each in claimed} == {"pending"}
    assert len(await rows(database, tables.journal)) == 1 + len(claimed)


async def test_who_takes_a_run_over_asks_nothing_twice_and_its_holder_before_nothing_more(
    rig: Rig, database: Database
) -> None:
    (first,) = await running(rig, "r1")
    await end_leases(database)
    (second,) = (await look(database, claimer("w2"))).claimed
    async with database.begin() as connection:
        await request_approval(connection, "r1", second.epoch, "c", QUESTION)
    with pytest.raises(StaleEpochError):
        async with database.begin() as connection:
            await request_approval(connection, "r1", first.epoch, "d", QUESTION)
    assert len(await asked(database, "r1")) == 1


async def test_a_question_of_a_run_that_was_cancelled_is_void(rig: Rig, database: Database) -> None:
    claimed = await running(rig, "r1", "r2")
    for each in claimed:
        await leave(rig, each)
        await change(database, each.id, State.CANCELLED)
    assert (await vote(rig, "r1", "user/ann")).kind == "void"
    async with database.begin() as connection:
        assert sorted(await ended_with_waits(connection, 10)) == ["r1", "r2"]
        for each in claimed:
            await end_waits(connection, each.id)
    assert {row["status"] for row in await rows(database, tables.approval)} == {"void"}
    assert [await rows(database, table) for table in (tables.run_wait, tables.journal)] == [[], []]
