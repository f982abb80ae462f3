"""Deployments with real workers: what their runs are given, and how many there are at once."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from itertools import pairwise
from pathlib import Path

import psutil
import pytest
from tests.support.deployed import deployed, launch, move_due
from tests.support.git import committed
from tests.support.runs import migrated, rows, run_row
from tests.support.workers import connected, ended, until, worker_process, working, write_flows

from penstock.events.bus import EVENTS
from penstock.events.instants import SECOND
from penstock.services.context import Context
from penstock.services.database import Database, tables
from penstock.services.deployments import deploy
from penstock.services.offers import offers_of
from penstock.services.project import read_file
from penstock.services.scheduler.deployed import fire_due
from penstock.services.settings import Settings
from penstock.services.versions import version_of


@pytest.fixture
async def context(any_database_url: str, redis_url: str, redis_bus_url: str, tmp_path: Path) -> AsyncIterator[Context]:
    (tmp_path / "flows").mkdir()
    settings = Settings(
        bus_url=redis_bus_url,
        database_url=any_database_url,
        redis_url=redis_url,
        flows=(write_flows(tmp_path / "flows"),),
        concurrency=3,
        run_lease=timedelta(seconds=30),
    )
    committed(tmp_path)
    async with connected(settings) as found:
        yield found


async def test_one_at_a_time_through_several_children_and_with_the_version_that_ran(
    context: Context, database: Database, tmp_path: Path
) -> None:
    names = [f"r{n}" for n in range(6)]
    async with working(context):
        await deployed(database, parameters={"n": 6}, concurrency={"limit": 1})
        await launch(database, *names)
        found = await ended(database, *names)
    assert {row["result"] for row in found} == {"7"}
    spans = sorted((row["started"], row["ended"], row["id"]) for row in found)
    assert [each[2] for each in spans] == names
    assert all(before[1] <= after[0] for before, after in pairwise(spans))
    assert {row["version"] for row in found} == {version_of(tmp_path / "flows")}
    assert (await rows(database, tables.flow))[0]["version"] == version_of(tmp_path / "flows")


async def test_a_replaced_run_ends_its_process_long_before_its_lease_and_the_new_one_runs(
    context: Context, database: Database, tmp_path: Path
) -> None:
    gate, path = tmp_path / "gate", tmp_path / "words"
    async with working(context):
        await deployed(database, flow="gated", concurrency={"limit": 1, "when_full": "replace"})
        await launch(database, "old", path=str(path), gate=str(gate))

        async def both_noted() -> bool:
            return path.exists() and path.read_text().split() == ["one", "two"]

        await until(both_noted)
        children = psutil.Process().children()
        await launch(database, "new", path=str(tmp_path / "other"), gate=str(gate))
        await ended(database, "old")
        row = await run_row(database, "old")
        assert (row["state"], row["error"]) == (
            "cancelled",
            "deployment nightly runs 1 at a time: replaced by a newer run",
        )

        async def one_is_gone() -> bool:
            return not all(each.is_running() and each.status() != psutil.STATUS_ZOMBIE for each in children)

        await until(one_is_gone)
        gate.touch()
        (new,) = await ended(database, "new")
    assert new["state"] == "completed"
    assert path.read_text().split() == ["one", "two"], "the old one did nothing more"


async def test_one_at_a_time_holds_across_workers_though_processes_and_a_worker_are_killed(
    postgres_url: str, redis_url: str, redis_bus_url: str, tmp_path: Path
) -> None:
    names, path = [f"r{n}" for n in range(4)], tmp_path / "words"
    settings = Settings(
        bus_url=redis_bus_url,
        database_url=postgres_url,
        redis_url=redis_url,
        flows=(write_flows(tmp_path),),
        concurrency=2,
        run_lease=timedelta(seconds=3),
    )
    async with (
        migrated(postgres_url) as database,
        worker_process(settings) as one,
        connected(settings) as context,
        working(context),
    ):
        # Each run's process dies once; a worker dies, perhaps with a run in hand.
        await deployed(database, flow="dies", concurrency={"limit": 1})
        await launch(database, *names, path=str(path), times=1)
        await ended(database, names[0])
        await one.kill()
        found = await ended(database, *names, timeout=60)
    assert {row["state"] for row in found} == {"completed"}
    spans = sorted((row["started"], row["ended"], row["id"]) for row in found)
    assert [each[2] for each in spans] == names
    assert all(before[1] <= after[0] for before, after in pairwise(spans))


async def test_the_example_project_runs_by_the_clock(
    database: Database, any_database_url: str, redis_url: str, redis_bus_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(Path(__file__).parents[3] / "examples/reports")
    monkeypatch.setenv("PENSTOCK_BUS_URL", redis_bus_url)  # where its flows emit
    project = read_file(Path("penstock.yaml"))
    assert project.flows is not None
    settings = Settings(
        bus_url=redis_bus_url, database_url=any_database_url, redis_url=redis_url, flows=project.flows, concurrency=1
    )
    async with connected(settings) as context, working(context):
        await context.bus.ensure_topic(EVENTS, 1)
        offers = offers_of(project.deployments, project.flows)
        await deploy(database, "default", offers, actor="user/ann")
        await move_due(database, 32 * 24 * 3_600 * SECOND)
        ticks = await fire_due(database, "default")
        found = await ended(database, *(tick.run or "" for tick in ticks))
    results = sorted(str(row["result"] or row["error"]) for row in found)
    assert results == ['["nuts"]', '{"north":120,"south":80}', '{"north":3600,"south":2400}']
