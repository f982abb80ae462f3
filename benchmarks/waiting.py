"""What runs that wait cost: processes, memory, and CPU time while nothing happens."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass

import psutil
import sqlalchemy as sa
from benchmarks.processes import cpu_seconds, resident_mib
from benchmarks.report import Figure
from benchmarks.throughput import put
from tests.support.fleet import Fleet, Process

from penstock.events import Event
from penstock.services.database import tables

_PATIENCE = 900  # seconds for all of them to come to wait


@dataclass(frozen=True)
class Cost:
    """At one moment. memory: MiB by name.  cpu: percent of one core by name, over the seconds before."""

    children: int
    memory: dict[str, float]
    cpu: dict[str, float]


async def measure(fleet: Fleet, count: int, seconds: float) -> list[Figure]:
    """Have `count` runs wait; compare the processes before with those after, idle for `seconds` each time."""
    position = tables.wait_position
    before = await _cost(fleet, seconds)
    began = time.perf_counter()
    await put(fleet, (_wanted(number) for number in range(count)))
    await _until(fleet, count, tables.run, *_WAITS)
    took = time.perf_counter() - began
    await _until(fleet, 0, position, position.c.joined == 0)  # the engine watches for all of them
    after = await _cost(fleet, seconds)
    figures = [
        Figure(f"{count} runs come to wait", "s", took, higher_is_better=False),
        Figure("processes of the worker with them", "", after.children, before.children, 1.0, True, False),
    ]
    for name, value in after.memory.items():
        figures.append(Figure(f"memory of the {name} with them", "MiB", value, before.memory[name], 1.2, True, False))
    for name, value in after.cpu.items():
        figures.append(
            Figure(f"CPU of the {name}, idle with them", "% of a core", value, before.cpu[name], higher_is_better=False)
        )
    return figures


_WAITS = (tables.run.c.flow == "waits", tables.run.c.state == "waiting", tables.run.c.worker.is_(None))


def _wanted(number: int) -> Event:
    return Event(type="bench.wait", source="/bench", subject=f"s{number}", data={"n": number})


async def _until(fleet: Fleet, count: int, table: sa.Table, *where: sa.ColumnElement[bool]) -> None:
    """Until that many rows are so."""
    query = sa.select(sa.func.count()).select_from(table).where(*where)
    async with asyncio.timeout(_PATIENCE):
        while True:
            async with fleet.rig.context.database.read() as connection:
                if (await connection.execute(query)).scalar_one() == count:
                    return
            await asyncio.sleep(0.5)


async def _cost(fleet: Fleet, seconds: float) -> Cost:
    """While nothing is asked of anybody."""
    database = await _database_server(fleet)
    began = _cpu(fleet, database)
    await asyncio.sleep(seconds)
    cpu = {name: (used - began[name]) / seconds * 100 for name, used in _cpu(fleet, database).items()}
    children = sum(len(_children(each)) for each in fleet.processes if each.name == "worker")
    memory = {each.name: resident_mib(each.popen.pid) for each in fleet.processes}
    memory["worker's children"] = sum(
        resident_mib(child.pid) for each in fleet.processes if each.name == "worker" for child in _children(each)
    )
    return Cost(children, memory, cpu)


def _children(process: Process) -> list[psutil.Process]:
    return psutil.Process(process.popen.pid).children(recursive=True)


async def _database_server(fleet: Fleet) -> psutil.Process | None:
    """PostgreSQL's first process; None where it runs on another machine."""
    async with fleet.rig.context.database.read() as connection:
        pid = (await connection.execute(sa.text("SELECT pg_backend_pid()"))).scalar_one()
    try:
        found = psutil.Process(pid).parent()
    except psutil.NoSuchProcess:
        return None
    return found if found is not None and found.name().startswith("postgres") else None


def _cpu(fleet: Fleet, database: psutil.Process | None) -> dict[str, float]:
    """Seconds used so far; of a process with its children."""
    used = {
        each.name: cpu_seconds(each.popen.pid) + sum(cpu_seconds(child.pid) for child in _children(each))
        for each in fleet.processes
    }
    if database is not None:
        ended = database.cpu_times().children_user + database.cpu_times().children_system
        living = sum(cpu_seconds(each.pid) for each in (database, *database.children()))
        used["database"] = ended + living
    return used
