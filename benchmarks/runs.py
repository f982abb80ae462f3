"""`make bench-runs`: durable runs, launched by the `run` action, through separate processes on real services.

Latency of the first line at a steady rate, the most runs a second (on PostgreSQL, and on SQLite beside it), journalled
tasks a second beside a bare asyncpg loop, and what runs that wait cost beside none that do. BENCH_RUNS: runs of the
saturation; BENCH_TASKS: tasks of one run; BENCH_WAITING: runs that wait; BENCH_IDLE: for how many seconds.
Arguments choose among the measures.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import asyncpg
import sqlalchemy as sa
from benchmarks.floor import warm_up
from benchmarks.latency import Bench
from benchmarks.processes import cpu_seconds
from benchmarks.report import Figure, percentile, report
from benchmarks.throughput import put
from benchmarks.waiting import measure as measure_waiting
from tests.support.embedded import Up
from tests.support.fleet import Fleet, open_fleet
from tests.support.services.provide import provide_kafka, provide_postgres, provide_redis

from penstock.events import Event, bus
from penstock.services.bus import connect, parse_address
from penstock.services.database import Database, tables
from penstock.services.database import connect as connect_database

RUNS = int(os.environ.get("BENCH_RUNS", "4000"))
TASKS = int(os.environ.get("BENCH_TASKS", "5000"))
WAITING = int(os.environ.get("BENCH_WAITING", "10000"))
IDLE = float(os.environ.get("BENCH_IDLE", "20"))  # seconds
CHILDREN = "12"  # processes of the worker: a run waits for the disk most of its time
RATE, AT_RATE = 50, 1_000  # runs a second, and how many
WARM = float(os.environ.get("BENCH_WARM", "15"))  # seconds
FLOWS = """
import os
import time

from penstock.flows import flow, sleep_sync, task, wait_for_event_sync


@task
def no_op(n: int) -> int:
    return n


@flow
def mark(path: str, n: int) -> None:
    now = time.time_ns()
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.write(descriptor, f"{n} {now}\\n".encode())
    os.close(descriptor)
    no_op(n)


@flow
def small(n: int) -> None:
    no_op(n)


@flow
def many(how: str, count: int) -> float:
    began = time.perf_counter()
    if how == "map":
        no_op.map(range(count)).result()
    else:
        for number in range(count):
            no_op(number)
    return time.perf_counter() - began


@flow
def waits(n: int) -> None:
    if n % 2:
        sleep_sync(3_600)
    else:
        wait_for_event_sync("bench.never", {"subject": [f"s{n}"]}, timeout=3_600)
"""
RULES = """
automations:
  - name: launch
    when: {event: bench.run}
    then: [{run: mark, with: {path: "%s", n: "{{ event.data.n }}"}}]
  - name: saturate
    when: {event: bench.small}
    then: [{run: small, with: {n: "{{ event.data.n }}"}}]
  - name: tasks
    when: {event: bench.many}
    then: [{run: many, with: {how: "{{ event.data.how }}", count: "{{ event.data.count }}"}}]
  - name: wait
    when: {event: bench.wait}
    then: [{run: waits, with: {n: "{{ event.data.n }}"}}]
"""


async def latency(fleet: Fleet) -> list[Figure]:
    """emit → the flow's first line, at a steady rate."""
    bench = RunBench(fleet)
    await bench.run_latencies(20, 100)  # warm
    found = await bench.run_latencies(RATE, AT_RATE)
    what = f"emit → first line at {RATE} runs/s"
    return [
        Figure(f"{what}, p50", "ms", percentile(found, 0.5), goal=15, higher_is_better=False),
        Figure(f"{what}, p99", "ms", percentile(found, 0.99), goal=60, higher_is_better=False),
    ]


class RunBench(Bench):
    """The flow that marks its first line, with one task behind it."""

    def __init__(self, fleet: Fleet) -> None:
        self.fleet, self.marks = fleet, fleet.folder / "marks"
        self.marks.touch()


async def saturation(fleet: Fleet) -> list[Figure]:
    """Events for thousands of runs at once; runs a second from a tenth of them to nine tenths."""
    await put(fleet, (_event(number) for number in range(RUNS)))
    began = _cpu(fleet)
    rate = await _rate(fleet.rig.context.database, RUNS)
    figures = [Figure("durable runs at saturation, PostgreSQL", "runs/s", rate, goal=300)]
    for name, seconds in _cpu(fleet).items():
        figures.append(
            Figure(f"CPU of the {name}", "ms/run", (seconds - began[name]) * 1e3 / RUNS, higher_is_better=False)
        )
    return figures


def _cpu(fleet: Fleet) -> dict[str, float]:
    return {each.name: cpu_seconds(each.popen.pid) for each in fleet.processes}


def _event(number: int) -> Event:
    return Event(type="bench.small", source="/bench", subject=f"s{number}", data={"n": number})


async def _rate(database: Database, count: int) -> float:
    """Between the ends of runs as their rows tell them."""
    await _until_ended(database, count)
    query = sa.select(tables.run.c.ended).where(tables.run.c.flow == "small").order_by(tables.run.c.ended)
    async with database.read() as connection:
        ends = list(await connection.scalars(query))
    first, last = count // 10, count * 9 // 10
    return float((last - first) * 1e6 / (ends[last] - ends[first]))


async def _until_ended(database: Database, count: int) -> None:
    async with asyncio.timeout(300):
        while await _ended(database) < count:
            await asyncio.sleep(0.1)


async def _ended(database: Database) -> int:
    query = sa.select(sa.func.count()).where(tables.run.c.flow == "small", tables.run.c.state == "completed")
    async with database.read() as connection:
        return int((await connection.execute(query)).scalar_one())


async def embedded(folder: Path) -> list[Figure]:
    """The same in one process, on SQLite and a Redis that writes each record through."""
    (folder / "rules").mkdir()
    (folder / "rules" / "rules.yaml").write_text(RULES % (folder / "marks"))
    (folder / "bench_flows.py").write_text(FLOWS)
    (folder / "penstock.yaml").write_text("rules: [rules/]\nflows: [bench_flows.py]\n")
    up = Up(folder)
    await up.start()
    try:
        async with up.client() as client:
            for start in range(0, RUNS, 500):
                events = [_event(number) for number in range(start, min(start + 500, RUNS))]
                body = b"[" + b",".join(each.to_json() for each in events) + b"]"
                headers = {"content-type": "application/cloudevents-batch+json"}
                (await client.post("/events", content=body, headers=headers)).raise_for_status()
        database = connect_database(f"sqlite+aiosqlite:///{up.data / 'state.db'}")
        rate = await _rate(database, RUNS)
        await database.close()
    finally:
        await asyncio.to_thread(up.end, signal.SIGTERM)
    return [Figure("durable runs at saturation, embedded (SQLite)", "runs/s", rate)]


async def tasks(fleet: Fleet) -> list[Figure]:
    """One run with thousands of tasks, each kept before the next begins, and by `.map`."""
    floor = await _commits(fleet.environment["PENSTOCK_DATABASE_URL"], TASKS)
    figures = []
    for how, goal in (("map", 5_000), ("loop", 800)):
        seconds = await _run_many(fleet, how, TASKS)
        what = {"map": "journalled tasks by .map", "loop": "journalled tasks, one after the other"}[how]
        figures.append(Figure(what, "tasks/s", TASKS / seconds, floor, goal))
    return figures


async def _run_many(fleet: Fleet, how: str, count: int) -> float:
    """Seconds, by the flow's own clock."""
    await put(fleet, [Event(type="bench.many", source="/bench", data={"how": how, "count": count})])
    query = sa.select(tables.run.c.state, tables.run.c.result, tables.run.c.error)
    query = query.where(tables.run.c.flow == "many", tables.run.c.parameters.contains(f'"{how}"'))
    async with asyncio.timeout(300):
        while True:
            async with fleet.rig.context.database.read() as connection:
                row = (await connection.execute(query)).first()
            if row is not None and row.state in ("failed", "crashed"):
                raise RuntimeError(f"the run with {how} {row.state}: {row.error}")
            if row is not None and row.state == "completed":
                return float(row.result)
            await asyncio.sleep(0.05)


async def _commits(url: str, count: int) -> float:
    """A bare loop: one INSERT a transaction, each acknowledged before the next."""
    connection = await asyncpg.connect(url.replace("+asyncpg", ""))
    try:
        await connection.execute("CREATE TABLE IF NOT EXISTS bench_commits (id bigint, body text)")
        statement = await connection.prepare("INSERT INTO bench_commits VALUES ($1, $2)")
        began = time.perf_counter()
        for number in range(count):
            await statement.fetch(number, "null")
        return count / (time.perf_counter() - began)
    finally:
        await connection.close()


async def waiting(fleet: Fleet) -> list[Figure]:
    """Runs that sleep for an hour, or wait for an event; beside the same processes after as many that have ended."""
    database = fleet.rig.context.database
    before = await _ended(database)
    await put(fleet, (_event(number) for number in range(WAITING)))  # memory grows with what is begun at once, too
    await _until_ended(database, before + WAITING)
    return await measure_waiting(fleet, WAITING, IDLE)


MEASURES: dict[str, Callable[[Fleet], Awaitable[list[Figure]]]] = {
    "latency": latency,
    "saturation": saturation,
    "tasks": tasks,
    "waiting": waiting,  # the last: its runs stay
}


async def _production(urls: dict[str, str], chosen: list[str], figures: list[Figure]) -> None:
    with tempfile.TemporaryDirectory(prefix="penstock-bench-") as name:
        folder = Path(name)
        async with open_fleet(**urls, folder=folder) as fleet:
            await fleet.rig.context.bus.ensure_topic(bus.EVENTS, 6)
            (folder / "bench_flows.py").write_text(FLOWS)
            await fleet.start("worker", PENSTOCK_FLOWS=str(folder / "bench_flows.py"), PENSTOCK_CONCURRENCY=CHILDREN)
            await fleet.rig.apply(RULES % (folder / "marks"))
            await fleet.start("engine")
            for each in (each for each in MEASURES if each in chosen):
                figures += await MEASURES[each](fleet)
                report("bench-runs", figures)


async def _embedded(figures: list[Figure]) -> None:
    with tempfile.TemporaryDirectory(prefix="penstock-bench-") as name:
        figures += await embedded(Path(name))


async def _warm_up(url: str) -> None:
    bus_ = await connect(f"{url}?prefix=warm.")
    try:
        await bus_.ensure_topic("up", 1)
        await warm_up(parse_address(url).server, WARM, "warm.up")
    finally:
        await bus_.close()


def main() -> int:
    """Run what is named on the command line; all of it without a name."""
    known = [*MEASURES, "embedded"]
    chosen = sys.argv[1:] or known
    if unknown := set(chosen) - set(known):
        sys.exit(f"{', '.join(sorted(unknown))}: no such measure; there are {', '.join(known)}")
    figures: list[Figure] = []
    if set(chosen) & MEASURES.keys():
        with provide_kafka() as kafka, provide_postgres() as postgres, provide_redis() as redis:
            asyncio.run(_warm_up(kafka.url))
            urls = {"bus_url": kafka.url, "redis_url": redis.url, "database_url": postgres.create_database()}
            asyncio.run(_production(urls, chosen, figures))
    if "embedded" in chosen:
        asyncio.run(_embedded(figures))
    report("bench-runs", figures)
    return 0


if __name__ == "__main__":
    sys.exit(main())
