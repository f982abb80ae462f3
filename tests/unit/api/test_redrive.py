"""`POST …/dead-letters/ID/redrive`."""

from __future__ import annotations

import json

import pytest
import sqlalchemy as sa
from tests.support.api_harness import Harness

from penstock.events.bus import EVENTS
from penstock.services.database import tables
from penstock.services.dead_letters import Origin, dead_letter

LETTERS = "/api/v1/namespaces/default/dead-letters"


async def buried(api: Harness, origin: Origin, value: bytes = b"{}") -> str:
    """Put a dead letter onto the bus; returns its id."""
    letter = dead_letter("broken", origin, value=value, key=b"k")
    await api.bus.append(letter)
    return str(json.loads(letter.value)["id"])


async def test_a_record_waits_in_the_outbox_as_it_had_come(api: Harness) -> None:
    letter = await buried(api, Origin(EVENTS, 2, 7), b'{"no": "event"}')
    async with api.client(await api.key("operator")) as client:
        answer = await client.post(f"{LETTERS}/{letter}/redrive")
    assert (answer.status_code, answer.json()) == (202, {"redriven": "record"})
    async with api.database.read() as connection:
        row = (await connection.execute(sa.select(tables.outbox))).one()
    assert (row.topic, row.partition, row.key, row.value) == (EVENTS, 2, b"k", b'{"no": "event"}')


@pytest.mark.parametrize(
    ("origin", "why"),
    [(Origin("penstock.matches", 0, 3), "penstock.matches"), (Origin("a", 0, automation="b", firing="c"), "not kept")],
)
async def test_what_cannot_be_tried_again_is_a_conflict_that_says_why(api: Harness, origin: Origin, why: str) -> None:
    letter = await buried(api, origin)
    async with api.client(await api.key("operator")) as client:
        answer = await client.post(f"{LETTERS}/{letter}/redrive")
    assert (answer.status_code, answer.headers["content-type"]) == (409, "application/problem+json")
    assert why in answer.json()["detail"]


async def test_it_takes_an_operator_and_a_letter_that_is_there(api: Harness) -> None:
    letter = await buried(api, Origin(EVENTS, 0, 1))
    async with api.client(await api.key("viewer")) as client:
        assert (await client.post(f"{LETTERS}/{letter}/redrive")).status_code == 403
    async with api.client(await api.key("operator")) as client:
        assert (await client.post(f"{LETTERS}/none/redrive")).status_code == 404
