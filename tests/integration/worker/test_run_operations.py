"""Cancel, retry, suspend, resume: with real child processes, on both databases."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest
from tests.support.runs import add, claimer, end_leases, look, make_due, rows, run_row, states, told
from tests.support.workers import connected, ended, until, working, write_flows

from penstock.events.instants import SECOND
from penstock.flows.journal import TaskCall
from penstock.flows.states import State
from penstock.services.context import Context
from penstock.services.database import Database, tables
from penstock.services.run_filter import RunFilter
from penstock.services.run_operations import Order, operate, operate_on_many
from penstock.services.run_rules import OperationRefusedError
from penstock.services.runs import NewRun, RunNotFoundError, change_state, record_calls
from penstock.services.settings import Settings
from penstock.services.worker import service
from penstock.services.worker.claims import ClaimedRun, give_back

ANN = "user/ann"


@pytest.fixture
async def context(
    any_database_url: str, database: Database, redis_url: str, redis_bus_url: str, tmp_path: Path
) -> AsyncIterator[Context]:
    settings = Settings(
        bus_url=redis_bus_url,
        database_url=any_database_url,
        redis_url=redis_url,
        flows=(write_flows(tmp_path),),
        concurrency=1,
        run_lease=timedelta(seconds=30),  # hints, not renewals, bring what is asked
    )
    async with connected(settings) as found:
        yield found


def words(path: Path) -> list[str]:
    return path.read_text().split() if path.exists() else []


async def audited(database: Database) -> list[tuple[str, str]]:
    return [(row["actor"], row["action"]) for row in await rows(database, tables.audit)]


async def in_state(database: Database, state: State, run_id: str = "r1") -> bool:
    return bool((await run_row(database, run_id))["state"] == state)


async def journalled(database: Database, calls: int) -> bool:
    return len(await rows(database, tables.journal)) >= calls


async def begun(database: Database, run_id: str = "r1") -> ClaimedRun:
    """Claimed by a worker, which is not there, and running."""
    await add(database, NewRun(run_id, "reroute"))
    (claimed,) = (await look(database, claimer("w1"))).claimed
    async with database.begin() as connection:
        await change_state(connection, run_id, claimed.epoch, State.RUNNING)
    return claimed


async def test_a_cancelled_run_undoes_what_it_did_and_a_retry_does_it_again(
    context: Context, database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "_HEED", 60.0)  # the hint alone brings it
    notes, gate = tmp_path / "notes", tmp_path / "gate"
    async with working(context):
        await add(database, NewRun("r1", "trip", json.dumps({"path": str(notes), "gate": str(gate)})))
        await until(lambda: journalled(database, 1))
        assert (await operate(context, "default", "r1", Order("cancel", ANN))).asked
        (row,) = await ended(database, "r1", timeout=10)
        assert (row["state"], row["asked"], words(notes)) == ("cancelled", None, ["booked", "undone"])
        assert await states(database, "r1") == ["pending", "running", "cancelled"]
        assert (await rows(database, tables.run_event))[-1]["actor"] == ANN
        gate.touch()
        done = await operate(context, "default", "r1", Order("retry", ANN))
        assert (done.state, done.asked) == (State.RETRYING, False)
        (row,) = await ended(database, "r1")
    assert (row["state"], row["result"], words(notes)) == ("completed", '"gone"', ["booked", "undone", "booked"])
    running = [each["detail"] for each in await rows(database, tables.run_event) if each["state"] == "running"]
    assert running == ["", "try 2"]
    assert await audited(database) == [(ANN, "run.cancelled"), (ANN, "run.retried")]


async def no_hint(*names: str) -> None:
    """They are lost."""


async def test_a_suspended_run_ends_its_process_after_a_call_and_goes_on_from_there(
    context: Context, database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "_HEED", 0.05)  # the worker looks by itself
    monkeypatch.setattr(context.hints, "give", no_hint)
    notes, gate = tmp_path / "notes", tmp_path / "gate"
    async with working(context):
        await add(database, NewRun("r1", "steps", json.dumps({"path": str(notes), "gate": str(gate)})))
        await until(lambda: journalled(database, 2))
        assert (await operate(context, "default", "r1", Order("suspend", ANN))).asked
        await until(lambda: in_state(database, State.PAUSED), timeout=10)
        row, calls = await run_row(database, "r1"), await rows(database, tables.journal)
        assert (row["worker"], row["asked"], row["attempt"]) == (None, None, 0)
        assert words(notes) == [str(number + 1) for number in range(len(calls))]  # all that was done is recorded
        await operate(context, "default", "r1", Order("resume", ANN))
        await until(lambda: journalled(database, len(calls) + 2))
        gate.touch()
        (row,) = await ended(database, "r1")
    assert row["state"] == "completed"
    assert words(notes) == [str(number + 1) for number in range(int(row["result"]))]  # each was done once
    assert int(row["result"]) > len(calls)
    assert await states(database, "r1") == ["pending", "running", "paused", "pending", "running", "completed"]
    types = [event["type"].rpartition(".")[2] for event in await told(database, "r1")]
    assert types == ["pending", "started", "paused", "resumed", "started", "completed"]


async def test_suspending_at_once_does_not_wait_for_a_call(
    context: Context, database: Database, tmp_path: Path
) -> None:
    notes, gate = tmp_path / "notes", tmp_path / "gate"
    async with working(context):
        await add(database, NewRun("r1", "gated", json.dumps({"path": str(notes), "gate": str(gate)})))
        await until(lambda: journalled(database, 2))
        done = await operate(context, "default", "r1", Order("suspend", ANN, at_once=True))
        assert (done.state, done.asked) == (State.PAUSED, False)
        await add(database, NewRun("r2", "quick"))  # the one child is free again
        await ended(database, "r2")
        gate.touch()
        await operate(context, "default", "r1", Order("resume", ANN))
        await ended(database, "r1")
    assert words(notes) == ["one", "two", "three"]


async def test_what_was_asked_of_a_worker_that_died_is_done_by_the_next(database: Database, context: Context) -> None:
    await begun(database)
    await begun(database, "r2")
    await operate(context, "default", "r1", Order("cancel", ANN))
    await operate(context, "default", "r2", Order("suspend", ANN))
    await end_leases(database)
    given = await look(database, claimer("w2"), 5)
    assert (given.claimed, given.crashed, {row["id"] for row in given.stopped}) == ([], [], {"r1", "r2"})
    assert await states(database, "r1") == ["pending", "running", "pending", "cancelled"]
    assert await states(database, "r2") == ["pending", "running", "pending", "paused"]


async def test_what_was_asked_holds_where_the_worker_parks_or_retries_the_run(
    database: Database, context: Context
) -> None:
    for number, new in enumerate((State.WAITING, State.RETRYING, State.PENDING, State.PAUSED)):
        claimed = await begun(database, f"r{number}")
        await operate(context, "default", claimed.id, Order("cancel", ANN))
        async with database.begin() as connection:
            await give_back(connection, claimed, new, wait=timedelta(hours=1))
        row = await run_row(database, claimed.id)
        assert (row["state"], row["asked"]) == ("cancelled", None)


async def test_a_run_that_completes_before_it_hears_is_completed(database: Database, context: Context) -> None:
    claimed = await begun(database)
    await operate(context, "default", "r1", Order("cancel", ANN))
    async with database.begin() as connection:
        await change_state(connection, "r1", claimed.epoch, State.COMPLETED, result="7")
    row = await run_row(database, "r1")
    assert (row["state"], row["result"], row["asked"]) == ("completed", "7", None)


async def test_a_run_that_nobody_works_on_is_cancelled_at_once_and_its_firing_is_told(
    database: Database, context: Context
) -> None:
    await add(database, NewRun("r1", "reroute", firing_id="d1", lane="penstock.matches/0", step="0", report=1))
    done = await operate(context, "default", "r1", Order("cancel", ANN, reason="not today"))
    assert (done.state, done.asked) == (State.CANCELLED, False)
    assert (await rows(database, tables.run_event))[-1]["detail"] == "not today"
    assert [row["firing_id"] for row in await rows(database, tables.fact)] == ["d1"]
    assert (await look(database, claimer("w1"))).claimed == []


async def test_a_retry_keeps_the_journal_and_gives_back_the_budgets(database: Database, context: Context) -> None:
    claimed = await begun(database)
    call = TaskCall("a", "", "find_route", State.COMPLETED, b"7", SECOND, SECOND)
    async with database.begin() as connection:
        await record_calls(connection, "r1", claimed.epoch, [call])
        await give_back(connection, claimed, State.RETRYING, attempt=1, retries=2)
    await make_due(database)
    (claimed,) = (await look(database, claimer("w1"))).claimed
    async with database.begin() as connection:
        await change_state(connection, "r1", claimed.epoch, State.RUNNING)
        await change_state(connection, "r1", claimed.epoch, State.FAILED, error="ValueError: no")
    tries = claimed.tries
    await operate(context, "default", "r1", Order("retry", ANN))
    (again,) = (await look(database, claimer("w1", attempts=1))).claimed
    assert (again.recorded, again.retries, again.tries) == ({"a": b"7"}, 0, tries + 1)
    assert (await run_row(database, "r1"))["error"] is None
    async with database.begin() as connection:
        await change_state(connection, "r1", None, State.CANCELLED)
    await operate(context, "default", "r1", Order("retry", ANN, from_start=True))
    (fresh,) = (await look(database, claimer("w1"))).claimed
    assert (fresh.recorded, fresh.tries) == ({}, again.tries + 1)


async def test_an_operation_that_the_state_does_not_allow_changes_nothing(database: Database, context: Context) -> None:
    await add(database, NewRun("r1", "reroute"))
    with pytest.raises(OperationRefusedError, match="r1 is pending: only a run that is failed, crashed, timed_out or"):
        await operate(context, "default", "r1", Order("retry", ANN))
    with pytest.raises(OperationRefusedError, match="only a run that is paused can be resumed"):
        await operate(context, "default", "r1", Order("resume", ANN))
    with pytest.raises(RunNotFoundError, match="'r1'"):
        await operate(context, "another", "r1", Order("cancel", ANN))
    assert await states(database, "r1") == ["pending"]
    assert await audited(database) == []


async def test_a_filter_names_many_runs_and_each_has_its_row_event_and_audit(
    database: Database, context: Context
) -> None:
    await add(database, *(NewRun(f"r{n}", "reroute") for n in range(60)), NewRun("other", "report"))
    found = await operate_on_many(context, "default", RunFilter(flow="reroute"), Order("suspend", ANN))
    assert (len(found.done), found.refused, found.more) == (60, {}, False)
    assert not await in_state(database, State.PAUSED, "other")
    assert len(await audited(database)) == 60
    resumed = await operate_on_many(context, "default", RunFilter(states=(State.PAUSED,)), Order("resume", ANN))
    assert len(resumed.done) == 60
    assert (await operate_on_many(context, "default", RunFilter(flow="reroute"), Order("retry", ANN))).done == []
