"""Workers for tests: one in this process, or one in a process of its own that can be killed and stopped."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from tests.support.runs import run_row

from penstock.services.context import Context
from penstock.services.database import Database, clock, tables
from penstock.services.settings import Settings
from penstock.services.wiring import open_context
from penstock.services.worker.service import Pace, WorkerService

FLOWS = """
import asyncio
import os
import signal
import time

from penstock.flows import flow, get_logger, get_run_context, task


@task
def note(path: str, word: str) -> str:
    with open(path, "a") as file:
        file.write(word + "\\n")
    return word


@flow
def quick(n: int = 0) -> int:
    return n + 1


@flow
def gated(path: str, gate: str) -> list[str]:
    words = [note(path, "one"), note(path, "two")]
    while not os.path.exists(gate):
        time.sleep(0.01)
    return [*words, note(path, "three")]


@flow
def talk(word: str) -> str:
    get_logger().info("they gave me %s", word)
    print("printed")
    return note(os.devnull, word)


@flow
def leak(word: str) -> None:
    raise ValueError(f"cannot use {word}")


@flow
def fails() -> None:
    raise ValueError("no such truck")


@flow
def leaves() -> None:
    raise SystemExit(3)


@flow(timeout=0.3)
def never_ends() -> None:
    while True:
        time.sleep(0.05)


@flow(retries=2, retry_delay=0.05)
def third_time(path: str) -> str:
    note(path, "once")
    if get_run_context().attempt < 3:
        raise ValueError("not yet")
    return "done"


@flow
def dies(path: str, times: int) -> str:
    note(path, "once")
    if get_run_context().attempt <= times:
        os.kill(os.getpid(), signal.SIGKILL)
    return "alive"


def mourn(moment):
    note(moment.arguments["path"], f"{moment.state}:{moment.error}".replace(" ", "_"))
    print("told of", moment.run_id)


@flow(on_crash=mourn)
def dies_for_good(path: str) -> None:
    os.kill(os.getpid(), signal.SIGKILL)
@task
def book(path: str) -> str:
    with open(path, "a") as file:
        file.write("booked\\n")
    return path


@book.on_rollback
def unbook(moment) -> None:
    with open(moment.result, "a") as file:
        file.write("undone\\n")


@flow
async def trip(path: str, gate: str) -> str:
    book(path)
    get_logger().info("waiting")
    while not os.path.exists(gate):
        await asyncio.sleep(0.01)
    return "gone"


@flow
def steps(path: str, gate: str) -> int:
    number = 0
    while not os.path.exists(gate):
        note(path, str(number := number + 1))
        time.sleep(0.01)
    return number


@flow(limits=["erp"])
def limited(path: str, n: int) -> int:
    note(path, f"{n} {time.time()}")
    return n
"""
_WORKER = """
import asyncio, sys
from datetime import timedelta
from penstock.services.settings import Settings
from penstock.services.wiring import open_context, run_services

async def main():
    async with open_context(Settings()) as context:
        await run_services(context, ["worker"], started=lambda *_: print("started", flush=True), restart=False)

asyncio.run(main())
"""


def write_flows(folder: Path) -> str:
    """The module of flows that these tests run."""
    path = folder / "flows_of_tests.py"
    path.write_text(FLOWS)
    return str(path)


@asynccontextmanager
async def connected(settings: Settings) -> AsyncIterator[Context]:
    """A context as one process of Penstock has it, with hints arriving."""
    async with open_context(settings) as context:
        listening = asyncio.create_task(context.hints.run())
        try:
            yield context
        finally:
            listening.cancel()
            await asyncio.gather(listening, return_exceptions=True)


@asynccontextmanager
async def working(context: Context, pace: Pace | None = None) -> AsyncIterator[asyncio.Task[None]]:
    """A worker in this process, stopped at the end as by SIGTERM."""
    started = asyncio.Event()
    service = WorkerService(context, pace or Pace(sweep=0.05))
    task = asyncio.create_task(service.run(started.set))
    waiting = asyncio.create_task(started.wait())
    await asyncio.wait([task, waiting], return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
    try:
        if task.done():
            task.result()
        yield task
    finally:
        if not task.cancelling():  # a second time would cut short what it does in order to stop
            task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


class WorkerProcess:
    """A worker in a process of its own."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process

    def send(self, number: signal.Signals) -> None:
        """A signal to the worker alone; its children are in sessions of their own."""
        self.process.send_signal(number)

    async def kill(self) -> None:
        """SIGKILL, and wait for its end."""
        if self.process.returncode is None:
            self.process.send_signal(signal.SIGCONT)
            self.process.kill()
        await self.process.wait()


@asynccontextmanager
async def worker_process(settings: Settings) -> AsyncIterator[WorkerProcess]:
    """Started and at work; killed at the end."""
    given = settings.model_dump(mode="json", include={"bus_url", "database_url", "redis_url", "concurrency"})
    given |= {"flows": ",".join(settings.flows), "run_lease": f"PT{settings.run_lease.total_seconds()}S"}
    environment = os.environ | {f"PENSTOCK_{name.upper()}": str(value) for name, value in given.items()}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", _WORKER), env=environment, stdout=asyncio.subprocess.PIPE
    )
    found = WorkerProcess(process)
    try:
        assert process.stdout is not None
        async with asyncio.timeout(60):
            while (line := await process.stdout.readline()) != b"started\n":
                assert line, "the worker ended while it started"
        yield found
    finally:
        await found.kill()


async def until(condition: Callable[[], Awaitable[bool]], timeout: float = 30.0) -> None:
    """Poll until it holds."""
    async with asyncio.timeout(timeout):
        while not await condition():
            await asyncio.sleep(0.01)


async def ended(database: Database, *run_ids: str, timeout: float = 30.0) -> list[dict[str, Any]]:
    """The rows of these runs once all have ended."""

    async def all_ended() -> bool:
        wanted = sa.select(sa.func.count()).where(tables.run.c.id.in_(run_ids), tables.run.c.ended.is_not(None))
        async with database.read() as connection:
            return await connection.scalar(wanted) == len(run_ids)

    await until(all_ended, timeout)
    return [await run_row(database, run_id) for run_id in run_ids]


async def apply_rules(database: Database, text: str) -> None:
    """Put a rule file in force."""
    row = {"digest": text, "files": json.dumps({"rules.yaml": text}), "actor": "user/owner"}
    async with database.begin() as connection:
        await connection.execute(sa.insert(tables.revision).values(**row, created=clock.now()))
