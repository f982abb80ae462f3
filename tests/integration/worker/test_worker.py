"""The worker with real child processes, on both databases and with real Redis."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from tests.support.runs import add, rows, run_row, states, told
from tests.support.workers import apply_rules, connected, ended, until, working, write_flows

from penstock.automations.secrets import placeholder
from penstock.events.bus import Outgoing, runs_topic
from penstock.flows.states import State
from penstock.services.context import Context
from penstock.services.database import Database, tables
from penstock.services.runs import NewRun, change_state
from penstock.services.settings import Settings
from penstock.services.worker.service import LAST_CLAIM, Pace

LIMITS = """
limits: [{name: erp, rate: 10/1s, burst: 1}]
"""


@pytest.fixture
def settings(any_database_url: str, redis_url: str, redis_bus_url: str, tmp_path: Path) -> Settings:
    return Settings(
        bus_url=redis_bus_url,
        database_url=any_database_url,
        redis_url=redis_url,
        flows=(write_flows(tmp_path),),
        concurrency=2,
        run_attempts=3,
        run_lease=timedelta(seconds=10),
    )


@pytest.fixture
async def context(settings: Settings, database: Database) -> AsyncIterator[Context]:
    async with connected(settings) as found:
        yield found


def words(path: Path) -> list[str]:
    return path.read_text().split() if path.exists() else []


def run(name: str, flow: str, **parameters: object) -> NewRun:
    return NewRun(name, flow, json.dumps(parameters))


async def log_lines(database: Database, run_id: str) -> list[str]:
    return [row["line"] for row in await rows(database, tables.run_log, tables.run_log.c.run_id == run_id)]


async def journalled(database: Database, calls: int) -> bool:
    return len(await rows(database, tables.journal)) == calls


async def test_a_run_is_claimed_carried_out_and_told(context: Context, database: Database) -> None:
    async with working(context):
        await add(database, run("r1", "quick", n=6))
        (row,) = await ended(database, "r1")
    assert (row["state"], row["result"], row["error"], row["attempt"]) == ("completed", "7", None, 1)
    assert await states(database, "r1") == ["pending", "running", "completed"]
    types = [event["type"] for event in await told(database, "r1")]
    assert types == ["penstock.run.pending", "penstock.run.started", "penstock.run.completed"]


async def test_a_record_of_a_newer_format_wakes_the_worker(context: Context, database: Database) -> None:
    async with working(context, Pace(sweep=60)):
        await add(database, run("r1", "quick"))
        wake = {"v": 2, "run": "r1", "namespace": "default", "hue": {"warm": True}}
        publisher = await context.bus.publisher()
        await publisher.publish([Outgoing(runs_topic("default"), json.dumps(wake).encode(), key=b"r1")])
        await ended(database, "r1")
        await publisher.close()


async def test_flows_and_worker_are_registered_with_what_rules_need(context: Context, database: Database) -> None:
    async with working(context):
        flows = {row["name"]: row for row in await rows(database, tables.flow)}
        assert {"quick", "limited", "third-time"} <= set(flows)
        assert json.loads(flows["quick"]["parameters"])["properties"]["n"]["type"] == "integer"
        assert json.loads(flows["limited"]["options"])["limits"] == ["erp"]
        assert [row["id"] for row in await rows(database, tables.worker)] == [context.instance]
    assert await rows(database, tables.worker) == []
    events = [json.loads(row["value"]) for row in await rows(database, tables.outbox)]
    assert [event["type"] for event in events] == ["penstock.worker.online", "penstock.worker.offline"]


async def test_a_flow_that_raises_exits_or_never_returns_fails_and_the_worker_lives_on(
    context: Context, database: Database
) -> None:
    async with working(context):
        await add(database, run("raises", "fails"), run("exits", "leaves"), run("hangs", "never-ends"))
        await add(database, run("wrong", "quick", n="many"), run("after", "quick"))
        found = {row["id"]: row for row in await ended(database, "raises", "exits", "hangs", "wrong", "after")}
    assert (found["raises"]["state"], found["raises"]["error"]) == ("failed", "ValueError: no such truck")
    assert any("raise ValueError" in line for line in await log_lines(database, "raises"))
    assert (found["exits"]["state"], "sys.exit(3)" in found["exits"]["error"]) == ("failed", True)
    assert (found["hangs"]["state"], "0.3 s" in found["hangs"]["error"]) == ("timed_out", True)
    assert (found["wrong"]["state"], "'quick'" in found["wrong"]["error"]) == ("failed", True)
    assert found["after"]["state"] == "completed"


async def test_a_failed_run_is_retried_by_the_policy_of_its_flow_and_keeps_its_finished_tasks(
    context: Context, database: Database, tmp_path: Path
) -> None:
    async with working(context):
        await add(database, run("r1", "third-time", path=str(tmp_path / "notes")))
        (row,) = await ended(database, "r1")
    assert (row["state"], row["result"], row["retries"]) == ("completed", '"done"', 2)
    assert words(tmp_path / "notes") == ["once"]
    assert await states(database, "r1") == ["pending", *["running", "retrying"] * 2, "running", "completed"]


async def test_a_run_whose_process_is_killed_is_tried_again_in_another_one(
    context: Context, database: Database, tmp_path: Path
) -> None:
    async with working(context):
        await add(database, run("r1", "dies", path=str(tmp_path / "notes"), times=2))
        (row,) = await ended(database, "r1")
    assert (row["state"], row["result"]) == ("completed", '"alive"')
    assert words(tmp_path / "notes") == ["once"]
    again = ["running", "crashed", "retrying"]
    assert await states(database, "r1") == ["pending", *again, *again, "running", "completed"]
    crashed = [event for event in await told(database, "r1") if event["type"] == "penstock.run.crashed"]
    assert [event["data"]["final"] for event in crashed] == [False, False]
    assert "SIGKILL" in crashed[0]["data"]["detail"]


async def test_a_run_that_kills_every_process_ends_as_crashed_and_its_hook_is_called_by_another(
    context: Context, database: Database, tmp_path: Path
) -> None:
    async def hook_logged() -> bool:
        return "told of r1" in await log_lines(database, "r1")

    async with working(context):
        await add(database, run("r1", "dies-for-good", path=str(tmp_path / "notes")))
        (row,) = await ended(database, "r1")
        await until(hook_logged)
    assert (row["state"], row["attempt"]) == ("crashed", 3)
    assert (await told(database, "r1"))[-1]["data"]["final"] is True
    (word,) = words(tmp_path / "notes")
    assert word.startswith("crashed:its_process_was_killed_by_SIGKILL")


async def test_the_end_of_a_run_is_a_fact_for_the_firing_that_waits_for_it(
    context: Context, database: Database
) -> None:
    waited = NewRun("r1", "quick", '{"n": 1}', firing_id="d1", lane="penstock.matches/0", step="0", report=1)
    async with working(context):
        await add(database, waited, NewRun("r2", "fails", firing_id="d2", lane="penstock.matches/0", step="0"))
        await ended(database, "r1", "r2")
    (fact,) = await rows(database, tables.fact)
    assert (fact["firing_id"], fact["lane"]) == ("d1", "penstock.matches/0")
    assert json.loads(fact["body"]) == {
        "type": "RunEnded",
        "step": "0",
        "state": "completed",
        "result": 2,
        "run_id": "r1",
    }


async def test_a_secret_reaches_the_flow_and_nothing_else(
    context: Context, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PENSTOCK_SECRET_TOKEN", "s3cr3t-value")
    given = json.dumps({"word": placeholder("TOKEN", "n0nce")})
    async with working(context):
        await add(database, NewRun("r1", "talk", given, nonce="n0nce"), NewRun("r2", "leak", given, nonce="n0nce"))
        await ended(database, "r1", "r2")
    assert "they gave me •••" in await log_lines(database, "r1")
    assert (await run_row(database, "r2"))["error"] == "ValueError: cannot use •••"
    assert json.loads((await run_row(database, "r1"))["result"]) == placeholder("TOKEN", "n0nce")
    for table in (tables.run, tables.run_event, tables.run_log, tables.journal, tables.outbox):
        assert "s3cr3t-value" not in repr(await rows(database, table))


async def test_a_secret_without_a_value_fails_the_run_by_name(context: Context, database: Database) -> None:
    async with working(context):
        await add(database, NewRun("r1", "talk", json.dumps({"word": placeholder("NOWHERE", "n")}), nonce="n"))
        (row,) = await ended(database, "r1")
    assert (row["state"], "PENSTOCK_SECRET_NOWHERE" in row["error"]) == ("failed", True)


async def test_thirty_runs_pass_a_limit_of_ten_a_second_in_order(
    context: Context, database: Database, tmp_path: Path
) -> None:
    await apply_rules(database, LIMITS)
    names = [f"r{n:02}" for n in range(30)]
    async with working(context):
        await add(database, *(run(name, "limited", path=str(tmp_path / "notes"), n=n) for n, name in enumerate(names)))
        found = await ended(database, *names)
    assert {row["state"] for row in found} == {"completed"}
    lines = [line.split() for line in (tmp_path / "notes").read_text().splitlines()]
    times = sorted(float(line[1]) for line in lines)
    assert len(lines) == 30
    for first, last in zip(times, times[15:], strict=False):  # 11 in a second, and some slack for a busy machine
        assert last - first > 0.9
    begun = sorted(found, key=lambda row: row["started"])
    assert [row["id"] for row in begun] == names
    parked = [await states(database, name) for name in names]
    assert all(
        each in (["pending", "running", "completed"], ["pending", "waiting", "running", "completed"]) for each in parked
    )
    reached = [row for row in await rows(database, tables.outbox) if b"penstock.limit.reached" in row["value"]]
    assert len(reached) == sum("waiting" in each for each in parked) > 0


@pytest.mark.parametrize("limits", [(), ("erp",)])
async def test_a_run_runs_before_its_first_line_however_late_that_is_written(
    context: Context, database: Database, tmp_path: Path, limits: tuple[str, ...]
) -> None:
    await apply_rules(database, LIMITS)
    gate = tmp_path / "gate"
    gate.touch()
    slow = run("r1", "gated", path=str(tmp_path / "notes"), gate=str(gate))
    async with working(context):
        await add(database, replace(slow, limits=limits))
        (row,) = await ended(database, "r1")
    (running,) = [each for each in await rows(database, tables.run_event) if each["state"] == "running"]
    first = min(call["started"] for call in await rows(database, tables.journal))
    assert row["created"] <= running["at"] == row["started"] <= first


async def test_a_limit_that_no_rule_file_defines_is_waited_for(context: Context, database: Database) -> None:
    async with working(context):
        await add(database, NewRun("r1", "quick", limits=("erp",)))

        async def parked() -> bool:
            return bool((await run_row(database, "r1"))["state"] == "waiting")

        await until(parked)
        await apply_rules(database, LIMITS)
        await context.rulebook.refresh()
        await ended(database, "r1")
    (waiting,) = [each for each in await rows(database, tables.run_event) if each["state"] == "waiting"]
    assert "no rule file defines" in waiting["detail"]


async def test_a_worker_that_stops_hands_its_runs_back_and_another_goes_on(
    context: Context, settings: Settings, database: Database, tmp_path: Path
) -> None:
    notes, gate = tmp_path / "notes", tmp_path / "gate"
    async with working(context, Pace(sweep=0.05, drain=0.05)):
        await add(database, run("r1", "gated", path=str(notes), gate=str(gate)))
        await until(lambda: journalled(database, 2))
    row = await run_row(database, "r1")
    assert (row["state"], row["worker"], row["lease_until"], row["attempt"]) == ("pending", None, 0, 0)
    gate.touch()
    async with connected(settings) as other, working(other):
        (row,) = await ended(database, "r1")
    assert (row["state"], words(notes)) == ("completed", ["one", "two", "three"])
    assert await states(database, "r1") == ["pending", "running", "pending", "running", "completed"]


async def test_a_worker_that_stops_lets_a_run_end_that_is_nearly_done(
    context: Context, database: Database, tmp_path: Path
) -> None:
    notes, gate = tmp_path / "notes", tmp_path / "gate"
    async with working(context, Pace(sweep=0.05, drain=20)) as task:
        await add(database, run("r1", "gated", path=str(notes), gate=str(gate)))
        await until(lambda: journalled(database, 2))
        task.cancel()
        await add(database, run("r2", "quick"))
        gate.touch()
    assert (await run_row(database, "r1"))["state"] == "completed"
    assert (await run_row(database, "r2"))["state"] == "pending"


async def test_a_worker_without_a_run_stops_without_waiting_for_anything(context: Context) -> None:
    async with working(context):
        began = time.monotonic()
    assert time.monotonic() - began < LAST_CLAIM  # what it waits for a claim in hand; none was


async def test_an_operator_who_cancels_a_run_ends_its_process(
    context: Context, database: Database, tmp_path: Path
) -> None:
    notes, gate = tmp_path / "notes", tmp_path / "gate"
    async with working(context):
        await add(database, run("r1", "gated", path=str(notes), gate=str(gate)))
        await until(lambda: journalled(database, 2))
        async with database.begin() as connection:
            await change_state(connection, "r1", None, State.CANCELLED, actor="user/ann")
        gate.touch()  # its next task is refused by the journal
        await add(database, *(run(f"q{n}", "quick") for n in range(5)))
        await ended(database, *(f"q{n}" for n in range(5)))
    assert await states(database, "r1") == ["pending", "running", "cancelled"]
    assert len(await rows(database, tables.journal)) == 2
