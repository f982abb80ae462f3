"""Runs outlive their workers and their engine: what has been done stays done, and no answer is lost."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from tests.support.fleet import Fleet, Process, open_fleet
from tests.support.incidents import Orchestrator, Stopped
from tests.support.scale import scaled

from penstock.events import Event, bus
from penstock.events.ids import derived_id
from penstock.services.database import tables

CHILDREN = 2  # of each worker
BATCH = scaled(250, at_least=20)  # runs before each incident
RUNS = 4 * BATCH
FLOWS = """
import os
import time
from dataclasses import dataclass

from penstock.flows import approve, flow, get_run_context, task, wait_for_event


@task
def deed(log: str, word: str) -> str:
    line = f"{get_run_context().run_id} {word}\\n"
    file = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(file, line.encode())
    os.close(file)
    time.sleep(0.03)  # done, and not yet in the journal: here an incident finds it
    return word


@flow
def pair(log: str) -> list[str]:
    return [deed(log, "one"), deed(log, "two")]


@dataclass
class Payment:
    amount: int


@flow
async def pays(log: str) -> int:
    deed(log, "asked")
    paid = await approve("Pay?", approvers=["user/owner"], form=Payment)
    deed(log, "paid")
    return paid.amount


@flow
async def listens(log: str) -> int:
    deed(log, "listening")
    heard = await wait_for_event("stock.counted", {"subject": ["shelf/7"]}, timeout=3600)
    deed(log, "heard")
    return heard.data["n"]
"""
RULES = """
users: [{{name: owner}}]
automations:
  - {{name: pair, when: {{event: pair.wanted}}, then: [{{run: pair, with: {{log: "{log}"}}}}]}}
  - {{name: pays, when: {{event: payment.wanted}}, then: [{{run: pays, with: {{log: "{log}"}}}}]}}
  - {{name: listens, when: {{event: count.wanted}}, then: [{{run: listens, with: {{log: "{log}"}}}}]}}
"""
OF_A_RUN = (tables.run_event, tables.journal, tables.run_log, tables.run_wait)


@pytest.fixture
async def fleet(postgres_url: str, kafka_bus_url: str, redis_url: str, tmp_path: Path) -> AsyncIterator[Fleet]:
    """Leases of three seconds, and workers with the flows of this page."""
    (tmp_path / "durable.py").write_text(FLOWS)
    settings: dict[str, Any] = {"run_lease": "PT3S", "ownership_lease": "PT3S", "concurrency": CHILDREN}
    settings |= {"flows": tmp_path / "durable.py", "rules": tmp_path / "no-rules", "event_partitions": 2}
    urls = {"database_url": postgres_url, "bus_url": kafka_bus_url, "redis_url": redis_url}
    async with open_fleet(folder=tmp_path, **urls, **settings) as made:
        yield made


async def begin(fleet: Fleet, *services: str) -> Orchestrator:
    """The rules in force, and a process of each of these side by side, with a worker."""
    await fleet.rig.apply(RULES.format(log=fleet.folder / "deeds"), flows=["pair", "pays", "listens"])
    orchestrator = Orchestrator(fleet)
    await orchestrator.start("worker", *services)
    return orchestrator


def deeds(fleet: Fleet) -> list[tuple[str, str]]:
    """(run, word), as the bodies of the tasks have noted them."""
    lines = (fleet.folder / "deeds").read_text().splitlines()
    return [(run, word) for run, word in (line.split() for line in lines)]


# --- killed, stopped, joined ----------------------------------------------------------------------------------------


async def test_each_run_completes_once_and_its_deeds_are_done_once_whatever_befalls_its_workers(fleet: Fleet) -> None:
    second = fleet.spawn("worker")
    orchestrator = await begin(fleet, "engine")
    first, events = orchestrator.running["worker"], wanted("pair", RUNS)
    batches = iter([events[start : start + BATCH] for start in range(0, RUNS, BATCH)])

    await at_work(fleet, first, next(batches))
    third = await killed(orchestrator, first)
    await at_work(fleet, second, next(batches))
    await goes_on_in_vain(fleet, await stopped(orchestrator, second))
    await at_work(fleet, third, next(batches))
    await killed(orchestrator, third)
    await at_work(fleet, second, next(batches))  # it is none the worse for having been stopped
    await goes_on_in_vain(fleet, await stopped(orchestrator, second, with_children=True))
    await all_ended(fleet, RUNS)

    await orchestrator.retire()
    orchestrator.assert_nobody_fell()
    await fleet.rig.all_read()
    await assert_each_run_completed_once(fleet)
    await assert_each_change_of_state_is_one_event(fleet)
    assert_deeds_were_done_once_but_for_those_in_flight(fleet, orchestrator)


def wanted(what: str, count: int) -> list[Event]:
    """Events that launch as many runs."""
    return [Event(id=f"{what}-{number}", source="/test", type=f"{what}.wanted") for number in range(count)]


async def at_work(fleet: Fleet, worker: Process, events: Sequence[Event]) -> None:
    """Launch runs, until this worker has as many as it has children."""
    await fleet.ready(worker)
    await fleet.rig.publish(events)

    async def busy() -> bool:
        assert worker.alive, worker.text()[-3_000:]
        return len(await held(fleet, worker)) >= CHILDREN

    await fleet.rig.until(busy, what=f"worker {worker.popen.pid} to have runs")


async def held(fleet: Fleet, worker: Process) -> dict[str, int]:
    """The runs that a worker carries out (id → epoch)."""
    mine = tables.run.c.worker.like(f"%-{worker.popen.pid}-%")
    rows = await fleet.rig.rows(tables.run, mine, tables.run.c.state == "running")
    return {row.id: row.epoch for row in rows}


async def killed(orchestrator: Orchestrator, worker: Process) -> Process:
    """SIGKILL.  Returns the one that joins in its place."""
    orchestrator.running["worker"] = worker
    await orchestrator.kill("worker")
    return orchestrator.running["worker"]


async def stopped(orchestrator: Orchestrator, worker: Process, *, with_children: bool = False) -> Stopped:
    """SIGSTOP, until its leases have ended; another one joins."""
    orchestrator.running["worker"] = worker
    return await orchestrator.stop("worker", with_children=with_children)


async def goes_on_in_vain(fleet: Fleet, stopped: Stopped) -> None:
    """Others have carried out the runs of a stopped worker: what it writes when it goes on is refused."""

    async def carried_out() -> list[str]:
        rows = await fleet.rig.rows(tables.run, tables.run.c.id.in_(stopped.incident.held))
        return [row.id for row in rows] if all(row.ended for row in rows) else []

    ids = await fleet.rig.until(carried_out, what="the stopped worker's runs to be carried out by others")
    before = await all_about(fleet, ids)
    itself = f"-{stopped.process.popen.pid}-"
    ends = [row for row in before["run_event"] if row.state == "completed"]
    taken_over = [row.run_id for row in ends if itself not in row.actor]
    assert taken_over, "all of its runs had ended when it was stopped: nothing was tried"
    stopped.go_on()

    async def refused() -> bool:
        lost = [line for line in stopped.process.text().splitlines() if "run.lost" in line]
        return all(any(each in line for line in lost) for each in taken_over)

    await fleet.rig.until(refused, what="it to be refused each of these runs")
    assert await all_about(fleet, ids) == before


async def all_about(fleet: Fleet, ids: list[str]) -> dict[str, list[Any]]:
    """Every row of these runs."""
    found = {"run": await fleet.rig.rows(tables.run, tables.run.c.id.in_(ids))}
    for table in OF_A_RUN:
        found[table.name] = await fleet.rig.rows(table, table.c.run_id.in_(ids))
    return {name: sorted(rows, key=str) for name, rows in found.items()}


async def all_ended(fleet: Fleet, count: int) -> None:
    """Until that many runs have ended."""

    async def ended() -> bool:
        async with fleet.rig.context.database.read() as connection:
            query = sa.select(sa.func.count()).select_from(tables.run).where(tables.run.c.ended.is_not(None))
            return int((await connection.execute(query)).scalar_one()) >= count

    await fleet.rig.until(ended, within=120, what=f"{count} runs to end")


async def assert_each_run_completed_once(fleet: Fleet) -> None:
    runs = await fleet.rig.rows(tables.run)
    assert Counter(run.state for run in runs) == {"completed": RUNS}
    ends = await fleet.rig.rows(tables.run_event, tables.run_event.c.state == "completed")
    assert Counter(end.run_id for end in ends) == Counter(run.id for run in runs)


async def assert_each_change_of_state_is_one_event(fleet: Fleet) -> None:
    changes = await fleet.rig.rows(tables.run_event)
    told = [json.loads(record.value) for record in await fleet.rig.records(bus.SYSTEM)]
    ids = Counter(event["id"] for event in told if event["type"].startswith("penstock.run."))
    assert ids == Counter(derived_id("run", change.run_id, str(change.seq)) for change in changes)


def assert_deeds_were_done_once_but_for_those_in_flight(fleet: Fleet, orchestrator: Orchestrator) -> None:
    """A child carries out one run at a time, one task after the other: an incident repeats one task of each at most."""
    incidents = orchestrator.incidents
    assert any(each.held for each in incidents if each.what == "killed"), "no worker had a run when it was killed"
    times = Counter(deeds(fleet))
    assert Counter(word for _, word in times) == dict.fromkeys(("one", "two"), RUNS)
    doubled = {key: count - 1 for key, count in times.items() if count > 1}
    assert sum(doubled.values()) <= CHILDREN * len(incidents), doubled
    for run, word in doubled:
        in_flight = sum(run in incident.held for incident in incidents)
        assert doubled[run, word] <= in_flight, f"{word} of {run} was done {times[run, word]} times"


# --- waiting --------------------------------------------------------------------------------------------------------


async def test_runs_that_wait_are_answered_after_their_worker_and_their_engine_were_killed(fleet: Fleet) -> None:
    orchestrator = await begin(fleet, "engine", "api")
    await fleet.rig.publish([*wanted("payment", 1), *wanted("count", 1)])
    await in_state(fleet, pays="paused", listens="waiting")
    for name in ("worker", "engine"):
        orchestrator.running[name].kill()
    orchestrator.running |= await fleet.start_all("worker", "engine")

    [approval] = await fleet.rig.rows(tables.approval)
    said = await penstock(fleet, "approvals", "approve", approval.id, "--form", "amount=30")
    assert f"{approval.id}: approved" in said
    await fleet.rig.publish([Event(type="stock.counted", source="/test", subject="shelf/7", data={"n": 4})])

    runs = await in_state(fleet, pays="completed", listens="completed")
    assert [json.loads(runs[name].result) for name in ("pays", "listens")] == [30, 4]
    done = Counter((word for _, word in deeds(fleet)))
    assert done == dict.fromkeys(("asked", "paid", "listening", "heard"), 1)


async def in_state(fleet: Fleet, **states: str) -> dict[str, Any]:
    """Until the run of each flow is in its state, and held by no worker.  Returns their rows."""

    async def there() -> dict[str, Any] | None:
        rows = {row.flow: row for row in await fleet.rig.rows(tables.run)}
        found = {name: row.state for name, row in rows.items() if row.worker is None}
        return rows if found == states else None

    found: dict[str, Any] = await fleet.rig.until(there, what=f"runs to be {states}")
    return found


async def penstock(fleet: Fleet, *arguments: str) -> str:
    """Run a command as the owner, and return what it printed."""

    def run() -> str:
        environment = {**fleet.environment, "PENSTOCK_API_URL": fleet.url, "PENSTOCK_API_KEY": fleet.key}
        command = [sys.executable, "-m", "penstock.services.cli", *arguments]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return await asyncio.to_thread(run)
