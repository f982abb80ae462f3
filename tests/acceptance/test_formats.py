"""Processes of two releases side by side: those of today work with the engine, and on the schema, of the next one."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import msgspec
from tests.support.engine_after import expand, extended
from tests.support.fleet import Fleet, Process
from tests.support.rig import Rig

from penstock.automations.facts import StepSucceeded
from penstock.events import Event, bus
from penstock.services.database import migrate, tables
from penstock.services.database.records import tell_firing
from penstock.services.standins import StandIn

ROOT = Path(__file__).parents[2]
FLOWS = """
from penstock.flows import flow, task

@task
def weigh(order: str) -> int:
    return len(order)

@flow
def ship(order: str) -> dict[str, int]:
    return {"weight": weigh(order)}
"""
RULES = """
channels:
  - {{name: ops, slack: {{channel: "#ops", token: "{{{{ secrets.SLACK }}}}"}}, base_url: "{url}", rate: unlimited}}
automations:
  - name: pair-of-orders
    when: {{event: order.placed, per: subject, count: 2, within: 1h}}
    then:
      - {{notify: ops, text: "ship {{{{ event.subject }}}}"}}
      - {{run: ship, name: shipping, with: {{order: "{{{{ event.subject }}}}"}}, wait: completed}}
      - {{emit: {{type: order.shipped, subject: "{{{{ event.subject }}}}"}}}}
"""
SUBJECTS = [f"order/{number}" for number in range(8)]


def orders(part: int) -> list[Event]:
    return [Event(id=f"{each}-{part}", source="/shop", type="order.placed", subject=each) for each in SUBJECTS]


def spawn_engine_after(fleet: Fleet) -> Process:
    """The engine of the next release, as a process of the fleet."""
    log = fleet.folder / f"engine-after-{len(fleet.processes)}.log"
    with log.open("wb") as file:
        popen = subprocess.Popen(
            [sys.executable, "-m", "tests.support.engine_after"],
            env={**fleet.environment, "PYTHONPATH": str(ROOT)},
            cwd=fleet.folder,
            stdout=file,
            stderr=file,
            start_new_session=True,
        )
    process = Process("engine-after", popen, log)
    fleet.processes.append(process)
    return process


async def start_today(fleet: Fleet) -> None:
    """A worker with the flow, and a notifier."""
    (fleet.folder / "shipping.py").write_text(FLOWS)
    await fleet.start("worker", PENSTOCK_FLOWS="shipping.py")
    await fleet.start("notifier", PENSTOCK_SECRET_SLACK="xoxb-1")


async def completed(rig: Rig) -> None:
    """Until every firing has come to its end."""

    async def all_ended() -> bool:
        rows = await rig.rows(tables.firing, tables.firing.c.status == "completed")
        return len(rows) == len(SUBJECTS)

    await rig.until(all_ended, what="the firings to complete")


async def shipped(rig: Rig) -> list[str]:
    """The subjects of the events that the last step emits."""
    await rig.all_read()
    mappings = [json.loads(record.value) for record in await rig.records(bus.EVENTS)]
    return sorted({each["subject"] for each in mappings if each["type"] == "order.shipped"})


async def test_todays_worker_and_notifier_work_for_the_engine_of_the_format_after(fleet: Fleet) -> None:
    await expand(fleet.rig.context.database)
    async with StandIn() as slack:
        await fleet.rig.apply(RULES.format(url=slack.url), flows=["ship"])
        await fleet.ready(spawn_engine_after(fleet))
        await start_today(fleet)
        await fleet.rig.publish([*orders(1), *orders(2)])
        await completed(fleet.rig)
        assert sorted(call.text for call in slack.of("slack")) == [f"ship {each}" for each in SUBJECTS]
    runs = await fleet.rig.rows(tables.run)
    assert [row.state for row in runs] == ["completed"] * len(SUBJECTS)
    assert await shipped(fleet.rig) == SUBJECTS
    [woken, *_] = await fleet.rig.records(bus.runs_topic("default"))
    assert json.loads(woken.value)["v"] == 2


async def test_todays_engine_goes_on_with_what_the_engine_of_the_format_after_has_left(fleet: Fleet) -> None:
    await expand(fleet.rig.context.database)
    async with StandIn() as slack:
        await fleet.rig.apply(RULES.format(url=slack.url), flows=["ship"])
        after = spawn_engine_after(fleet)
        await fleet.ready(after)
        await fleet.rig.publish(orders(1))
        half = await fleet.rig.until(lambda: fleet.rig.rows(tables.state), what="windows")
        assert half
        await fleet.start("engine")
        await fleet.rig.publish(orders(2))
        await fleet.rig.wait_for_decisions(len(SUBJECTS))
        assert after.terminate() == 0
        await start_today(fleet)
        await completed(fleet.rig)
        assert sorted(call.text for call in slack.of("slack")) == [f"ship {each}" for each in SUBJECTS]
    assert await shipped(fleet.rig) == SUBJECTS
    assert await fleet.rig.records(bus.DEAD_LETTER) == []


async def test_todays_engine_takes_facts_of_the_format_after(fleet: Fleet) -> None:
    await expand(fleet.rig.context.database)
    await fleet.rig.apply(RULES.format(url="http://127.0.0.1:9"), flows=["ship"])
    await fleet.start("engine")
    await fleet.rig.publish([*orders(1), *orders(2)])
    await fleet.rig.wait_for_decisions(len(SUBJECTS))
    firings = await fleet.rig.rows(tables.firing)
    async with fleet.rig.context.database.begin() as connection:
        for each in firings:
            fact = extended(msgspec.json.encode(StepSucceeded("0", {"ts": "1"})))
            place = {"namespace": each.namespace, "firing_id": each.id, "lane": each.lane}
            await tell_firing(connection, fact=fact, **place)

    async def launched() -> bool:
        return len(await fleet.rig.rows(tables.run)) == len(SUBJECTS)

    await fleet.rig.until(launched, what="the next step of each firing")


async def test_an_upgrade_by_todays_release_leaves_a_newer_schema_alone(fleet: Fleet) -> None:
    database = fleet.rig.context.database
    await expand(database)
    assert await migrate.is_current(database)
    await migrate.upgrade(database)
    assert await migrate.is_current(database)
