"""What came of an event, hop by hop."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
import sqlalchemy as sa
from tests.support.api_harness import Harness

from penstock.automations.firing import Firing
from penstock.services.database import tables

TIMELINE = "/api/v1/namespaces/default/timeline"


async def decide(api: Harness, id_: str, events: list[str], *, at: int = 1_000_000, **ended: Any) -> None:
    """A decision as the engine writes it; `ended`: what differs in its firing."""
    row = {"automation": f"rule-{id_}", "when_digest": "w", "kind": "fired", "key": "null", "at": at}
    firing = Firing(id_, "default", f"rule-{id_}", 1, (), {}, "nonce", events[-1], cursor="0")
    firing = msgspec.structs.replace(firing, **ended)
    async with api.database.begin() as connection:
        values = {"events": json.dumps(events), "correlationid": events[-1], "created": at + 1_000}
        await connection.execute(sa.insert(tables.decision).values(id=id_, **row, **values))
        body = {"body": firing.to_json().decode(), "status": firing.status, "lane": "m/0", "created": at + 1_000}
        values = {"id": id_, "automation": firing.automation, "updated": at + 9_000, **body}
        await connection.execute(sa.insert(tables.firing).values(**values))


async def hops(api: Harness, id_: str) -> list[tuple[str, str, str]]:
    async with api.client(await api.key("viewer")) as client:
        answer = await client.get(f"{TIMELINE}/{id_}")
    assert answer.status_code == 200, answer.text
    return [(each["hop"], each["id"], each["detail"]) for each in answer.json()["hops"]]


async def test_an_event_without_a_decision_is_told_as_that(api: Harness) -> None:
    await decide(api, "d1", ["e1_"])
    async with api.client(await api.key("viewer")) as client:
        for id_ in ("nonsense", "e1%", "e1"):
            answer = await client.get(f"{TIMELINE}/{id_}")
            assert answer.status_code == 404
            assert "no rule has fired" in answer.json()["detail"]


async def test_an_event_arrives_once_however_many_rules_fire_for_it(api: Harness) -> None:
    await decide(api, "d1", ["e1"], status="waiting")
    await decide(api, "d2", ["e1"], status="waiting")
    assert await hops(api, "e1") == [
        ("event.arrived", "e1", "acknowledged by the bus"),
        ("automation.fired", "d1", "rule-d1"),
        ("automation.fired", "d2", "rule-d2"),
    ]


async def test_any_event_that_took_part_finds_the_decision(api: Harness) -> None:
    await decide(api, "d1", ["e1", "e2", "e3"], status="waiting")
    found = [await hops(api, id_) for id_ in ("e1", "e2", "e3")]
    assert found[0] == found[1] == found[2]
    assert ("automation.fired", "d1", "rule-d1") in found[0]


async def test_an_emitted_event_is_a_hop_with_its_id_and_its_type(api: Harness) -> None:
    result = {"id": "e2", "type": "order.seen", "time": "1970-01-01T00:00:01.002Z"}
    await decide(api, "d1", ["e1"], status="completed", results={"0": result}, cursor="0")
    assert (await hops(api, "e1"))[2:] == [
        ("event.emitted", "e2", "order.seen"),
        ("firing.completed", "d1", "rule-d1"),
    ]


@pytest.mark.parametrize("status", ["completed", "rejected", "failed"])
async def test_the_end_of_a_firing_is_a_hop(api: Harness, status: str) -> None:
    await decide(api, "d1", ["e1"], status=status)
    assert (await hops(api, "e1"))[-1] == (f"firing.{status}", "d1", "rule-d1")


async def test_a_dead_lettered_firing_says_why_and_how_to_go_on(api: Harness) -> None:
    await decide(api, "d1", ["e1"], status="dead_lettered", results={"0": {"error": "no flow `x`"}})
    what, id_, detail = (await hops(api, "e1"))[-1]
    assert (what, id_) == ("firing.dead_lettered", "d1")
    assert "rule-d1: no flow `x`" in detail
    assert "penstock dlq list" in detail
