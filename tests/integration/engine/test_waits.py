"""Runs that wait for an event: what fails between the match and its storing loses nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import sqlalchemy as sa
from tests.support.rig import Rig
from tests.support.runs import add, claimer, look, rows

from penstock.events import Event, bus
from penstock.events.bus import TopicPartition
from penstock.services.database import StaleEpochError, tables
from penstock.services.engine.ownership import Lane, Ownership
from penstock.services.engine.topics import ensure_topics
from penstock.services.engine.waits import Wait, Waits
from penstock.services.runs import NewRun
from penstock.services.waits import request_event


async def wait_for(rig: Rig, *types: str) -> None:
    """Runs r0, r1 … wait for an event of these types, from now on."""
    await ensure_topics(rig.context.bus, rig.context.database, rig.context.settings.event_partitions)
    await add(rig.context.database, *(NewRun(f"r{number}", "reroute") for number in range(len(types))))
    claimed = (await look(rig.context.database, claimer("w1"), len(types))).claimed
    partitions = [TopicPartition(bus.EVENTS, number) for number in range(rig.context.settings.event_partitions)]
    ends = {each: (await rig.context.bus.end(each)).position for each in partitions}
    for run, type_ in zip(claimed, types, strict=True):
        wanted = {"pattern": {"type": [type_]}, "since": 0, "seconds": None, "parent": ""}
        async with rig.context.database.begin() as connection:
            await request_event(connection, run.id, run.epoch, "c", wanted, ends)


async def recorded(rig: Rig) -> dict[str, str]:
    """What stands in the journals: the event by run."""
    found = await rows(rig.context.database, tables.journal)
    return {row["run_id"]: Event.model_validate_json(row["result"]).id for row in found}


def event(type_: str, id_: str) -> Event:
    return Event(type=type_, source="/shop", id=id_, subject=id_)


async def test_a_match_that_could_not_be_stored_is_found_again(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    keep = Waits.keep
    failures: list[Mapping[Wait, bytes]] = []

    async def fails_once(self: Waits, found: Mapping[Wait, bytes]) -> None:
        if not failures:
            failures.append(found)
            raise OSError("the database is away")
        await keep(self, found)

    monkeypatch.setattr(Waits, "keep", fails_once)
    await rig.publish([event("a", "before")])
    await wait_for(rig, "a", "b")
    await rig.start_engine()
    await rig.publish([event("a", "first"), event("a", "second"), event("x", "other")])

    async def told() -> bool:
        return bool(await recorded(rig))

    await rig.until(told)
    assert failures
    found = await recorded(rig)
    assert list(found) == ["r0"]
    assert found["r0"] in ("first", "second")  # between partitions there is no order
    assert await rows(rig.context.database, tables.wait_position, tables.wait_position.c.run_id == "r0") == []
    waits = await rows(rig.context.database, tables.run_wait)
    assert [row["status"] for row in waits] == ["done", "open"]


async def test_an_owner_that_has_been_replaced_joins_nothing(rig: Rig) -> None:
    ownership = Ownership(rig.context.database, "e1", rig.context.settings.ownership_lease)
    await ownership.add_topic(bus.EVENTS, rig.context.settings.event_partitions)
    await wait_for(rig, "a")
    lane = Lane(bus.EVENTS, 0, epoch=3, position=0, revision=0)
    waits = Waits(rig.context, ownership)
    await waits.taken(lane)
    with pytest.raises(StaleEpochError):
        await waits._join(lane)
    assert not any(row["joined"] for row in await rows(rig.context.database, tables.wait_position))
    update: Any = sa.update(tables.position).where(tables.position.c.partition == 0).values(epoch=3)
    async with rig.context.database.begin() as connection:
        await connection.execute(update)
    await waits._join(lane)
    assert [row["joined"] for row in await rows(rig.context.database, tables.wait_position)] == [1, 0, 0]


async def test_a_wait_sees_the_partitions_that_its_topic_has_grown_by(rig: Rig) -> None:
    await wait_for(rig, "a", "b")
    third = tables.wait_position.c.partition == 2
    async with rig.context.database.begin() as connection:
        await connection.execute(sa.delete(tables.wait_position).where(third))
    waits = Waits(rig.context, Ownership(rig.context.database, "e1", rig.context.settings.ownership_lease))
    for number in (0, 2, 2):
        await waits.taken(Lane(bus.EVENTS, number, epoch=0, position=0, revision=0))
    found = await rows(rig.context.database, tables.wait_position, third)
    assert [(row["run_id"], row["position"], row["joined"]) for row in found] == [("r0", 0, 0), ("r1", 0, 0)]
