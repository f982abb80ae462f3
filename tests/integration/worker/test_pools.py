"""Workers of named pools: fresh processes, ceilings, bad flows, and an orderly stop."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from datetime import timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa
from tests.support.kubernetes import a_cluster
from tests.support.runs import add, rows, run_row, states
from tests.support.workers import connected, ended, until, working, write_flows

from penstock.automations.pools import Pool, UnknownPoolError
from penstock.services.database import Database, clock, tables
from penstock.services.runs import NewRun
from penstock.services.settings import Settings
from penstock.services.worker.service import Pace, WorkerService

BAD = """
import os
import sys
import threading
import time

from penstock.flows import flow

SEEN = []


@flow
def counts() -> int:
    SEEN.append(1)
    return len(SEEN)


@flow
def returns_a_lock():
    return threading.Lock()


@flow
def eats():
    kept = bytearray(400 << 20)
    kept[::4096] = bytes(len(range(0, len(kept), 4096)))
    time.sleep(600)


@flow
def forks() -> str:
    if os.fork() == 0:
        raise ValueError("in the copy")
    os.wait()
    return "once"


@flow
def exits():
    sys.exit(3)


@flow
def exits_at_once():
    os._exit(3)
"""
# Flow, its parameters, the state that it ends in, and what its error says.
ENDS = [
    ("counts", {"n": "many"}, "failed", "n is no parameter of it"),
    ("returns-a-lock", {}, "failed", "cannot be kept: an object of type _thread.lock"),
    ("eats", {}, "failed", "MiB, the pool allows 200 MiB"),
    ("forks", {}, "completed", ""),
    ("exits", {}, "failed", "the flow called sys.exit(3)"),
    ("exits-at-once", {}, "crashed", "its process exited with code 3 (os._exit?)"),
]


@pytest.fixture
def settings(any_database_url: str, redis_url: str, redis_bus_url: str, tmp_path: Path) -> Settings:
    (tmp_path / "bad.py").write_text(BAD)
    return Settings(
        bus_url=redis_bus_url,
        database_url=any_database_url,
        redis_url=redis_url,
        flows=(write_flows(tmp_path), str(tmp_path / "bad.py")),
        concurrency=2,
        run_attempts=1,
        run_lease=timedelta(seconds=10),
        pool="heavy",
        pools=(Pool.model_validate({"name": "heavy", "kind": "process", "memory": "200MiB"}),),
    )


def gated(folder: Path) -> NewRun:
    return NewRun(
        "r1", "gated", json.dumps({"path": str(folder / "notes"), "gate": str(folder / "gate")}), pool="heavy"
    )


async def test_a_bad_flow_ends_with_the_reason_each_run_has_a_fresh_process_and_the_worker_lives_on(
    settings: Settings, database: Database
) -> None:
    async with connected(settings) as context, working(context):
        await add(database, *(NewRun(f"bad-{flow}", flow, json.dumps(given), pool="heavy") for flow, given, *_ in ENDS))
        await add(database, *(NewRun(f"after{n}", "counts", pool="heavy") for n in range(3)))
        after = await ended(database, "after0", "after1", "after2")
        bad = await ended(database, *(f"bad-{flow}" for flow, *_ in ENDS))
    assert [(row["state"], row["result"]) for row in after] == [("completed", "1")] * 3
    for row, (_, _, state, reason) in zip(bad, ENDS, strict=True):
        assert row["state"] == state, row
        assert reason in (row["error"] or ""), row


@pytest.mark.parametrize("any_database_url", ["sqlite"], indirect=True)  # pods see neither
async def test_a_run_in_a_pod_is_journalled_by_its_worker_and_nothing_of_it_stays_in_the_cluster(
    settings: Settings, database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    boxed = Pool.model_validate(
        {"name": "heavy", "kind": "kubernetes", "image": "flows:7", "kubernetes": {"namespace": "flows"}}
    )
    async with a_cluster(tmp_path) as cluster:
        monkeypatch.setenv("KUBECONFIG", cluster.kubeconfig(tmp_path))
        given = settings.model_copy(update={"pools": (boxed,), "concurrency": 1})
        async with connected(given) as context, working(context):
            await add(database, gated(tmp_path))
            async with asyncio.timeout(30):
                job = await cluster.wait_for(2)  # the first has shown what the image holds
            (tmp_path / "gate").touch()
            (row,) = await ended(database, "r1")
        assert not cluster.jobs
    assert (row["state"], json.loads(row["result"])) == ("completed", ["one", "two", "three"])
    assert (job.labels["penstock.run"], job.labels["penstock.flow"]) == ("r1", "gated")


async def test_a_run_of_a_module_that_cannot_be_imported_fails_with_the_reason(
    settings: Settings, database: Database
) -> None:
    known = {"name": "lost", "pool": "heavy", "module": "broken", "parameters": "{}", "options": "{}"}
    async with database.begin() as connection:  # as it was registered when it could be imported
        await connection.execute(sa.insert(tables.flow).values(**known, updated=clock.now()))
    broken = Path(settings.flows[0]).parent / "broken.py"
    broken.write_text("import no_such_library")
    more = settings.model_copy(update={"flows": (*settings.flows, str(broken))})
    await add(database, NewRun("r1", "lost", pool="heavy"))
    async with connected(more) as context, working(context, Pace(sweep=0.05, patience=0.3)):
        (row,) = await ended(database, "r1")
    assert row["state"] == "failed"
    assert "No module named 'no_such_library'" in row["error"]


async def test_a_second_signal_hands_back_at_once(settings: Settings, database: Database, tmp_path: Path) -> None:
    (tmp_path / "penstock.yaml").write_text("pools: [{name: heavy, kind: process}]\n")
    urls = {f"PENSTOCK_{name.upper()}": getattr(settings, name) for name in ("bus_url", "database_url", "redis_url")}
    worker = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "penstock.services.cli", "worker", "start", "--pool", "heavy", "--name", "ann"),
        *("--limit", "1", "--drain", "10m"),
        cwd=tmp_path,
        env=os.environ | urls | {"PENSTOCK_FLOWS": settings.flows[0], "PENSTOCK_LOG_JSON": "true"},
        stderr=asyncio.subprocess.PIPE,
    )
    assert worker.stderr is not None
    try:
        await add(database, gated(tmp_path))
        await until(lambda: journalled(database, 2))
        (row,) = await rows(database, tables.worker)
        assert (row["id"].rpartition("-")[0], row["pool"]) == ("ann", "heavy")
        worker.send_signal(signal.SIGTERM)
        async with asyncio.timeout(30):
            while b"worker.draining" not in await worker.stderr.readline():
                pass
        assert (await run_row(database, "r1"))["state"] == "running"
        worker.send_signal(signal.SIGTERM)
        async with asyncio.timeout(30):
            await worker.communicate()
    finally:
        if worker.returncode is None:
            worker.kill()
            await worker.communicate()
    row = await run_row(database, "r1")
    assert (row["state"], row["worker"], row["epoch"], row["attempt"]) == ("pending", None, 2, 0)
    assert worker.returncode == 0
    assert len(await rows(database, tables.journal)) == 2
    assert await states(database, "r1") == ["pending", "running", "pending"]


async def journalled(database: Database, calls: int) -> bool:
    return len(await rows(database, tables.journal)) == calls


async def test_a_pool_that_the_project_does_not_name_is_refused(settings: Settings) -> None:
    async with connected(settings.model_copy(update={"pool": "heavi"})) as context:
        with pytest.raises(UnknownPoolError, match=r"no pool 'heavi'.*did you mean `heavy`"):
            WorkerService(context)
