"""Workers in processes of their own, killed with SIGKILL and stopped with SIGSTOP past their lease."""

from __future__ import annotations

import json
import os
import signal
from datetime import timedelta
from pathlib import Path

import psutil
import pytest
from tests.support.runs import add, end_leases, rows, run_row, states
from tests.support.workers import connected, ended, until, worker_process, working, write_flows

from penstock.services.database import Database, tables
from penstock.services.runs import NewRun
from penstock.services.settings import Settings


@pytest.fixture
def settings(any_database_url: str, redis_url: str, redis_bus_url: str, tmp_path: Path) -> Settings:
    return Settings(
        bus_url=redis_bus_url,
        database_url=any_database_url,
        redis_url=redis_url,
        flows=(write_flows(tmp_path),),
        concurrency=2,
        run_lease=timedelta(seconds=3),
    )


_OF_RUNS = (tables.run_event, tables.journal, tables.run_log)


def gated(name: str, folder: Path) -> NewRun:
    return NewRun(name, "gated", json.dumps({"path": str(folder / "notes"), "gate": str(folder / "gate")}))


async def two_tasks_done(database: Database) -> bool:
    return len(await rows(database, tables.journal)) == 2


async def test_a_killed_worker_s_run_goes_on_elsewhere_and_its_finished_tasks_are_not_run_again(
    settings: Settings, database: Database, tmp_path: Path
) -> None:
    async with worker_process(settings) as first:
        await add(database, gated("r1", tmp_path))
        await until(lambda: two_tasks_done(database))
        await first.kill()
    (tmp_path / "gate").touch()
    async with connected(settings) as context, working(context):
        (row,) = await ended(database, "r1")  # after the lease of the dead one
    assert (row["state"], row["result"]) == ("completed", '["one","two","three"]')
    assert (tmp_path / "notes").read_text().split() == ["one", "two", "three"]
    assert await states(database, "r1") == ["pending", "running", "pending", "running", "completed"]


async def test_a_worker_stopped_past_its_lease_and_continued_changes_nothing(
    settings: Settings, database: Database, tmp_path: Path
) -> None:
    async with worker_process(settings) as first:
        await add(database, gated("r1", tmp_path))
        await until(lambda: two_tasks_done(database))
        children = _children(first.process.pid)
        first.send(signal.SIGSTOP)
        for pid in children:
            os.kill(pid, signal.SIGSTOP)
        await end_leases(database)
        (tmp_path / "gate").touch()
        async with connected(settings) as context, working(context):
            (before,) = await ended(database, "r1")
            kept = [await rows(database, table, table.c.run_id == "r1") for table in _OF_RUNS]
            first.send(signal.SIGCONT)
            for pid in children:
                os.kill(pid, signal.SIGCONT)
            await until(lambda: _at_work_again(database, first.process.pid))
            assert before == await run_row(database, "r1")
            assert kept == [await rows(database, table, table.c.run_id == "r1") for table in _OF_RUNS]


def _children(pid: int) -> list[int]:
    return [each.pid for each in psutil.Process(pid).children()]


async def _at_work_again(database: Database, pid: int) -> bool:
    """Whether the continued worker has begun another run; gives it one more if not."""
    begun = await rows(database, tables.run_event, tables.run_event.c.state == "running")
    if any(f"-{pid}-" in row["actor"] and row["run_id"] != "r1" for row in begun):
        return True
    await add(database, NewRun(f"more-{len(begun)}", "quick"))
    return False


async def test_the_child_of_a_stopped_worker_ends_itself_before_its_run_can_be_claimed_elsewhere(
    settings: Settings, database: Database, tmp_path: Path
) -> None:
    async with worker_process(settings) as first:
        await add(database, gated("r1", tmp_path))
        await until(lambda: two_tasks_done(database))
        first.send(signal.SIGSTOP)

        async def one_has_ended() -> bool:
            children = psutil.Process(first.process.pid).children()
            return any(child.status() == psutil.STATUS_ZOMBIE for child in children)

        await until(one_has_ended)
        (tmp_path / "gate").touch()
        async with connected(settings) as context, working(context):
            (row,) = await ended(database, "r1")
        first.send(signal.SIGCONT)
    assert row["state"] == "completed"
    assert (tmp_path / "notes").read_text().split() == ["one", "two", "three"]
