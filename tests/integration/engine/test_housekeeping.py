"""What is old goes; what is unfinished, and the audit log, stay."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from tests.support.rig import Rig

from penstock.events import Event, bus
from penstock.events.bus import TopicPartition
from penstock.services.database import clock, tables
from penstock.services.engine.housekeeping import Housekeeping

HOUR = 3600 * 1_000_000
DAY = 24 * 3600 * 1_000_000


async def add(rig: Rig, table: sa.Table, **row: Any) -> None:
    async with rig.context.database.begin() as connection:
        await connection.execute(sa.insert(table).values(**row))


def decision(name: str, days: int) -> dict[str, Any]:
    fixed = {"automation": "a", "when_digest": "d", "kind": "fired", "key": "null", "at": 0, "events": "[]"}
    return {"id": name, **fixed, "created": clock.now() - days * DAY}


async def ids(rig: Rig, table: sa.Table) -> set[str]:
    return {row.id for row in await rig.rows(table)}


async def test_decisions_older_than_keep_are_removed_and_younger_ones_stay(rig: Rig) -> None:
    await add(rig, tables.decision, **decision("old", 31))
    await add(rig, tables.decision, **decision("young", 29))
    assert await Housekeeping(rig.context).prune() == 1
    assert await ids(rig, tables.decision) == {"young"}


async def test_an_unfinished_firing_stays_however_old_it_is(rig: Rig) -> None:
    for status in ("waiting", "running", "completed", "dead_lettered"):
        row = {
            "id": status,
            "automation": "a",
            "lane": "x/0",
            "status": status,
            "body": "{}",
            "created": 1,
            "updated": 1,
        }
        await add(rig, tables.firing, **row)
    await Housekeeping(rig.context).prune()
    assert await ids(rig, tables.firing) == {"waiting", "running"}


async def test_the_audit_log_is_never_pruned(rig: Rig) -> None:
    await add(rig, tables.audit, id="1", at=1, actor="user/ann", action="approval.decided", object="approval/1")
    await Housekeeping(rig.context).prune()
    assert await ids(rig, tables.audit) == {"1"}


async def test_more_than_one_batch_of_old_rows_goes_in_small_transactions(rig: Rig) -> None:
    rows = [{"run_id": "r", "at": 1, "level": "info", "line": str(number)} for number in range(2_500)]
    async with rig.context.database.begin() as connection:
        await connection.execute(sa.insert(tables.run_log), rows)
    assert await Housekeeping(rig.context).prune() == 2_500
    assert await rig.rows(tables.run_log) == []


async def test_what_belongs_to_a_run_that_goes_on_stays_however_old_it_is(rig: Rig) -> None:
    for name, ended in (("done", 1), ("going-on", None)):
        await add(rig, tables.run, id=name, flow="f", state="x", parameters="{}", created=1, ended=ended)
        kept = {"run_id": name, "call": "c", "name": "t", "state": "completed", "epoch": 1, "started": 1, "ended": 1}
        await add(rig, tables.journal, **kept)
    await Housekeeping(rig.context).prune()
    assert {row.run_id for row in await rig.rows(tables.journal)} == {"going-on"}


async def test_records_stay_on_the_bus_for_an_hour_after_they_were_read(rig: Rig) -> None:
    await rig.apply("automations: []")
    await rig.start_engine()
    await rig.publish([Event(id=f"e{n}", source="/t", type="t.x", subject="s") for n in range(10)])
    await rig.all_read()
    [row] = [row for row in await rig.rows(tables.position, tables.position.c.topic == bus.EVENTS) if row.position > 0]
    partition, keeper = TopicPartition(bus.EVENTS, row.partition), Housekeeping(rig.context)
    await keeper.trim(0)
    await keeper.trim(HOUR - 1)
    before = await rig.context.bus.beginning(partition)
    assert before < row.position
    await keeper.trim(HOUR)
    trims = rig.context.settings.bus_url.startswith("redis")  # Kafka's own retention does it
    assert await rig.context.bus.beginning(partition) == (row.position if trims else before)
