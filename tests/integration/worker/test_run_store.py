"""A run's rows: every change is one row and one event, and a stale writer changes nothing."""

from __future__ import annotations

import json

import pytest
from tests.support.runs import LANE, add, claimer, end_leases, look, rows, run_row, states, told

from penstock.events.bus import runs_topic
from penstock.flows.journal import TaskCall
from penstock.flows.states import State
from penstock.services.database import Database, StaleEpochError, tables
from penstock.services.database.records import service_lane
from penstock.services.runs import (
    LogLine,
    NewRun,
    RunNotFoundError,
    TransitionError,
    change_state,
    record_calls,
    recorded_calls,
    write_logs,
)

CAUSED = NewRun(
    id="r1",
    flow="reroute",
    parameters='{"truck": "truck/7"}',
    firing_id="d1",
    lane=LANE,
    step="0",
    correlationid="root",
    causationid="d1",
    traceparent="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    hops=2,
    actor="automation/cold-chain-breach",
)


def call(key: str, state: State = State.COMPLETED, result: bytes = b"1", error: str | None = None) -> TaskCall:
    return TaskCall(key, "", "step", state, result, 10, 20, error)


async def change(database: Database, epoch: int | None, new: State, **columns: object) -> None:
    async with database.begin() as connection:
        await change_state(connection, "r1", epoch, new, **columns)  # type: ignore[arg-type]  # any column


async def test_a_new_run_is_one_row_one_wake_up_and_one_event(database: Database) -> None:
    assert await add(database, CAUSED) == 1
    row = await run_row(database, "r1")
    assert (row["state"], row["seq"], row["epoch"], row["due_at"] > 0) == ("pending", 1, 0, True)
    assert await states(database, "r1") == ["pending"]
    wake, event = await rows(database, tables.outbox)
    assert (wake["lane"], wake["topic"]) == (LANE, runs_topic("default"))
    assert json.loads(wake["value"]) == {"v": 1, "run": "r1", "namespace": "default"}
    assert event["lane"] == LANE
    assert json.loads(event["value"])["type"] == "penstock.run.pending"


async def test_making_runs_again_adds_only_those_that_are_new(database: Database) -> None:
    await add(database, CAUSED)
    assert await add(database, CAUSED, NewRun("r2", "reroute"), NewRun("r2", "reroute")) == 1
    assert await states(database, "r1") == ["pending"]
    assert len(await rows(database, tables.outbox)) == 4


async def test_a_thousand_runs_are_made_at_once(database: Database) -> None:
    assert await add(database, *(NewRun(f"r{n}", "reroute") for n in range(1000))) == 1000
    assert len(await rows(database, tables.run_event)) == 1000


async def test_every_change_is_one_row_and_one_event_with_the_causes_of_the_run(database: Database) -> None:
    await add(database, CAUSED)
    (claimed,) = (await look(database, claimer("w1"))).claimed
    await change(database, claimed.epoch, State.RUNNING)
    await change(database, claimed.epoch, State.COMPLETED, result="7", detail="done")
    assert await states(database, "r1") == ["pending", "running", "completed"]
    events = await told(database, "r1")
    assert [event["type"] for event in events] == [f"penstock.run.{n}" for n in ("pending", "started", "completed")]
    assert len({event["id"] for event in events}) == 3
    for event in events:
        assert (event["correlationid"], event["causationid"], event["hops"]) == ("root", "d1", 2)
        assert event["traceparent"] == CAUSED.traceparent
        assert (event["data"]["flow"], event["data"]["firing"]) == ("reroute", "d1")
    row = await run_row(database, "r1")
    assert (row["result"], row["worker"], row["lease_until"]) == ("7", None, 0)
    assert row["started"] <= row["ended"]


async def test_events_after_the_first_go_through_the_lane_of_the_run(database: Database) -> None:
    await add(database, CAUSED)
    await change(database, None, State.CANCELLED, actor="user/ann")
    assert (await rows(database, tables.outbox))[-1]["lane"] == service_lane("r1")
    assert (await rows(database, tables.run_event))[-1]["actor"] == "user/ann"


async def test_an_operator_ends_the_claim(database: Database) -> None:
    await add(database, CAUSED)
    (claimed,) = (await look(database, claimer("w1"))).claimed
    await change(database, claimed.epoch, State.RUNNING)
    await change(database, None, State.CANCELLED)
    with pytest.raises(StaleEpochError):
        await change(database, claimed.epoch, State.COMPLETED)
    assert await states(database, "r1") == ["pending", "running", "cancelled"]


async def test_a_change_that_no_run_makes_is_refused_and_leaves_no_trace(database: Database) -> None:
    await add(database, CAUSED)
    with pytest.raises(TransitionError, match="pending cannot become completed"):
        await change(database, None, State.COMPLETED)
    assert await states(database, "r1") == ["pending"]
    assert (await run_row(database, "r1"))["epoch"] == 0


async def test_a_change_of_a_run_that_is_not_there_says_so(database: Database) -> None:
    with pytest.raises(RunNotFoundError, match="r1"):
        await change(database, None, State.CANCELLED)


async def test_every_write_of_a_stale_epoch_is_refused(database: Database) -> None:
    await add(database, CAUSED)
    (old,) = (await look(database, claimer("w1"))).claimed
    await end_leases(database)
    (new,) = (await look(database, claimer("w2"))).claimed
    with pytest.raises(StaleEpochError):
        await change(database, old.epoch, State.RUNNING)
    async with database.begin() as connection:
        with pytest.raises(StaleEpochError):
            await record_calls(connection, "r1", old.epoch, [call("a")])
        with pytest.raises(StaleEpochError):
            await write_logs(connection, "r1", old.epoch, [LogLine(1, "INFO", "late")])
        await record_calls(connection, "r1", new.epoch, [call("a")])
    assert await rows(database, tables.run_log) == []
    assert [row["epoch"] for row in await rows(database, tables.journal)] == [new.epoch]


async def test_the_journal_gives_back_completed_calls_only_and_a_later_try_overwrites(database: Database) -> None:
    await add(database, CAUSED)
    (claimed,) = (await look(database, claimer("w1"))).claimed
    async with database.begin() as connection:
        failed = call("b", State.FAILED, b"null", "ValueError: no")
        await record_calls(connection, "r1", claimed.epoch, [call("a", result=b'{"x": 1}'), failed])
        assert (await recorded_calls(connection, ["r1"]))["r1"].results == {"a": b'{"x": 1}'}
        await record_calls(connection, "r1", claimed.epoch, [call("b", result=b"2")])
        found = await recorded_calls(connection, ["r1", "r2"])
    assert {run_id: each.results for run_id, each in found.items()} == {"r1": {"a": b'{"x": 1}', "b": b"2"}, "r2": {}}


async def test_log_lines_are_kept_in_order_without_what_databases_refuse(database: Database) -> None:
    await add(database, CAUSED)
    (claimed,) = (await look(database, claimer("w1"))).claimed
    lines = [LogLine(1, "INFO", "one"), LogLine(2, "ERROR", "n\0l \ud800"), LogLine(3, "INFO", "x" * 20_000)]
    async with database.begin() as connection:
        await write_logs(connection, "r1", claimed.epoch, lines)
    kept = [row["line"] for row in await rows(database, tables.run_log)]
    assert kept[:2] == ["one", "n\ufffdl ?"]
    assert kept[2].endswith("… (20000 characters)")
