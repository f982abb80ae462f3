"""`flow.serve()` and `flow.deploy()`, in programs of their own."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

from tests.support.deployed import launch
from tests.support.runs import rows
from tests.support.workers import ended, until

from penstock.flows.load import load_flows
from penstock.services.database import Database, connect, tables
from penstock.services.serving import join, offer_of
from penstock.services.settings import Settings

PROGRAM = """
from datetime import timedelta

from penstock.flows import flow

@flow
def count(n: int = 0) -> int:
    return n + 1

if __name__ == "__main__":
    count.serve(
        "often",
        schedules=[{"every": timedelta(milliseconds=300), "parameters": {"n": 6}}],
        parameters={"n": 1},
        tags=["served"],
        concurrency=1,
    )
"""


@asynccontextmanager
async def program(folder: Path, text: str = PROGRAM, **settings: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """The program at work; killed at the end if it has not ended."""
    (folder / "counting.py").write_text(text)
    environment = os.environ | {f"PENSTOCK_{name.upper()}": value for name, value in settings.items()}
    with (folder / "log").open("w") as log:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "counting.py"), cwd=folder, env=environment, stderr=log, stdout=log
        )
        try:
            yield process
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()


async def ended_runs(database: Database) -> list[dict[str, Any]]:
    return await rows(database, tables.run, tables.run.c.ended.is_not(None))


async def interrupted(process: asyncio.subprocess.Process) -> int:
    process.send_signal(signal.SIGINT)
    async with asyncio.timeout(30):
        return await process.wait()


async def test_a_served_flow_is_a_penstock_by_itself_and_pauses_its_schedules_when_it_stops(tmp_path: Path) -> None:
    database = connect(f"sqlite+aiosqlite:///{tmp_path / '.penstock/state.db'}")
    async with program(tmp_path, port="0") as process:

        async def some_ran() -> bool:
            if process.returncode is not None or not (tmp_path / ".penstock/instance.json").exists():
                assert process.returncode is None, (tmp_path / "log").read_text()
                return False
            return len(await ended_runs(database)) >= 2

        await until(some_ran)
        assert await interrupted(process) == 0, (tmp_path / "log").read_text()
    (deployed,) = await rows(database, tables.deployment)
    assert (deployed["name"], deployed["paused"], deployed["origin"]) == ("often", 1, "code")
    run = (await ended_runs(database))[0]
    assert (run["state"], run["result"], run["tags"], run["deployment"]) == ("completed", "7", '["served"]', "often")
    await database.close()


async def at_work(database: Database, serving: asyncio.Task[None]) -> bool:
    """Whether the worker is there and the deployment is not paused."""
    assert not serving.done(), serving.result()
    paused = [row["paused"] for row in await rows(database, tables.deployment)]
    return bool(await rows(database, tables.worker)) and paused == [0]


async def test_a_served_flow_joins_the_penstock_that_the_settings_name(
    any_database_url: str, database: Database, redis_url: str, redis_bus_url: str, tmp_path: Path
) -> None:
    (tmp_path / "counting.py").write_text(PROGRAM)
    loaded = load_flows([str(tmp_path / "counting.py")]).flows["count"]
    offer = offer_of(loaded.flow, {"name": "often", "schedules": [{"every": "1h"}], "parameters": {"n": 1}})
    settings = Settings(
        bus_url=redis_bus_url,
        database_url=any_database_url,
        redis_url=redis_url,
        flows=(str(tmp_path / "counting.py"),),
        concurrency=1,
    )

    for _ in range(2):  # the second time it has been paused by the first
        serving = asyncio.create_task(join(settings, offer))
        await until(partial(at_work, database, serving))
        run_id = f"r{len(await rows(database, tables.run))}"
        await launch(database, run_id, name="often")
        (row,) = await ended(database, run_id)
        assert (row["state"], row["result"]) == ("completed", "2")
        serving.cancel()
        await asyncio.wait([serving])
        assert [row["paused"] for row in await rows(database, tables.deployment)] == [1]
        assert await rows(database, tables.worker) == []


def test_serving_where_a_worker_would_serve_again_is_refused(tmp_path: Path) -> None:
    text = PROGRAM.replace('if __name__ == "__main__":', "if True:")
    (tmp_path / "counting.py").write_text(text)
    code = "import sys, penstock.services.worker.child as child\n"
    code += "sys.modules['__main__'].__spec__ = child.__spec__\n"  # as `python -m` would have it
    code += "from penstock.flows.load import load_flows\nprint(load_flows(['counting.py']).problems[0])"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert 'put it below `if __name__ == "__main__":`' in done.stdout, done.stderr
