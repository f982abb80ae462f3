"""Dead letters that are re-driven, on both pairs: a firing from its failed step on, a record as it had come."""

from __future__ import annotations

import json
from typing import Any

import pytest
import sqlalchemy as sa
from tests.support.rig import Rig

from penstock.events import Event, bus
from penstock.events.bus import Outgoing
from penstock.services.api.letters import find, newest
from penstock.services.database import tables
from penstock.services.redrive import NotRedrivableError, redrive

RULES = """
automations:
  - name: shipped
    when: {event: order.placed}
    then:
      - emit: {type: order.seen, subject: "{{ event.subject }}"}
      - run: ship
        retry: {attempts: 1}
"""
ORDER = Event(id="o1", source="/shop", type="order.placed", subject="A-1")


async def letters(rig: Rig, count: int) -> list[dict[str, Any]]:
    """The dead letters, once there are `count`."""

    async def enough() -> list[dict[str, Any]] | None:
        entries = (await newest(rig.context.bus, "default", 1_000)).entries
        if len(entries) < count:
            return None
        found = [await find(rig.context.bus, "default", each.letter["id"]) for each in reversed(entries)]
        return [letter for letter in found if letter is not None]

    found: list[dict[str, Any]] = await rig.until(enough, what=f"{count} dead letters")
    return found


async def wish(rig: Rig, letter: dict[str, Any]) -> str:
    return await redrive(rig.context, letter, actor="user/ann", namespace="default")


async def test_a_firing_goes_on_from_its_failed_step_once_its_cause_is_mended(rig: Rig) -> None:
    await rig.apply(RULES)  # no worker has the flow
    engine = await rig.start_engine()
    await rig.publish([ORDER])
    [letter] = await letters(rig, 1)
    await rig.stop(engine)  # both wishes are there before one is fulfilled
    await rig.apply(RULES + "\n", flows=["ship"])
    assert [await wish(rig, letter), await wish(rig, letter)] == ["firing", "firing"]
    await rig.start_engine()

    async def completed() -> bool:
        return [row.status for row in await rig.rows(tables.firing)] == ["completed"]

    await rig.until(completed, what="the firing to complete")
    await rig.all_read()
    assert len(await rig.rows(tables.run)) == 1
    types = [json.loads(record.value)["type"] for record in await rig.records(bus.EVENTS)]
    assert sorted(types) == ["order.placed", "order.seen"], "the step before the failed one is not repeated"
    with pytest.raises(NotRedrivableError, match="completed by now"):
        await wish(rig, letter)
    actions = [row.action for row in await rig.rows(tables.audit, tables.audit.c.actor == "user/ann")]
    assert actions == ["dead_letter.redriven"] * 2


async def test_a_record_comes_back_as_it_was_and_leads_to_nothing_twice(rig: Rig) -> None:
    await rig.apply(RULES, flows=["ship"])
    await rig.start_engine()
    await rig.publish([ORDER])
    publisher = await rig.context.bus.publisher()
    await publisher.publish([Outgoing(bus.EVENTS, b'{"no": "event"}', b"A-1", headers=(("a", b"b"),))])
    await publisher.close()
    [letter] = await letters(rig, 1)
    assert await wish(rig, letter) == "record"
    first, second = await letters(rig, 2)
    came = [record for record in await rig.records(bus.EVENTS) if record.value == b'{"no": "event"}']
    assert len(came) == 2
    assert {(record.key, record.headers, record.partition) for record in came} == {
        (b"A-1", (("a", b"b"),), came[0].partition)
    }
    assert first["id"] != second["id"], "what fails again is a dead letter of its own"
    assert len(await rig.decisions()) == 1


async def test_what_cannot_be_tried_again_says_why_and_changes_nothing(rig: Rig) -> None:
    origin = {"topic": bus.EVENTS, "partition": 0, "offset": 1}
    digest = {"sha256": "00", "length": 2 << 20}
    for letter, why in (
        ({"id": "l1", "origin": origin, "value": digest}, "digest"),
        ({"id": "l2", "origin": origin | {"topic": bus.MATCHES}, "value": {"text": "{}"}}, "only records of"),
        ({"id": "l3", "origin": origin | {"firing": "gone", "automation": "a"}, "value": {"text": "{}"}}, "not kept"),
        ({"id": "unreadable", "reason": "not a dead letter"}, "only records of"),
    ):
        with pytest.raises(NotRedrivableError, match=why):
            await wish(rig, letter)
    async with rig.context.database.read() as connection:
        counts = [
            (await connection.execute(sa.select(sa.func.count()).select_from(table))).scalar_one()
            for table in (tables.outbox, tables.fact, tables.audit)
        ]
    assert counts == [0, 0, 0]
