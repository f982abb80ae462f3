"""`POST /events`."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator

import httpx
import pytest
from tests.support.api_harness import Harness

from penstock.events.bus import EVENTS
from penstock.events.event import MAX_BODY
from penstock.services.api.bodies import LINGER_BYTES

EVENT = {"specversion": "1.0", "id": "1", "source": "/shop", "type": "order.placed", "subject": "order/7"}


async def post(api: Harness, body: object, **headers: str) -> httpx.Response:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    async with api.client(await api.key("operator")) as client:
        return await client.post(
            "/events", content=raw, headers={"content-type": "application/cloudevents+json"} | headers
        )


async def test_an_event_is_on_the_bus_before_it_is_accepted(api: Harness) -> None:
    answer = await post(api, EVENT | {"data": {"n": 1}})
    [record] = api.bus.records(EVENTS)
    assert (answer.status_code, record.key) == (202, b"order/7")
    assert json.loads(record.value) == EVENT | {"data": {"n": 1}, "actor": "user/ann"}


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (b"{", ""),
        ({"source": "/shop", "type": "order.placed"}, "id"),
        ({"id": "1", "type": "order.placed"}, "source"),
        ({"id": "1", "source": "/shop"}, "type"),
        (EVENT | {"time": "yesterday"}, "time"),
        (EVENT | {"data": "a\u0000b"}, "data"),
        (EVENT | {"type": "penstock.run.completed"}, "type"),
    ],
)
async def test_what_is_no_event_of_a_client_is_refused_with_a_problem(api: Harness, body: object, field: str) -> None:
    answer = await post(api, body)
    problem = answer.json()
    assert (answer.status_code, answer.headers["content-type"]) == (400, "application/problem+json")
    assert problem.get("field", "") == field
    assert {"type", "title", "status", "detail"} <= problem.keys()
    assert api.bus.records(EVENTS) == []


async def test_more_than_one_mebibyte_is_refused_and_little_more_of_it_is_read(api: Harness) -> None:
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        while sent < 100 << 20:
            sent += 1 << 16
            yield b"x" * (1 << 16)

    async with api.client(await api.key("operator")) as client:
        answer = await client.post("/events", content=endless())
    assert answer.status_code == 413
    assert sent < MAX_BODY + LINGER_BYTES + (1 << 20)


async def test_an_announced_length_above_the_limit_is_refused_unread(api: Harness) -> None:
    answer = await post(api, b" " * (2 << 20))
    assert (answer.status_code, answer.headers["connection"]) == (413, "close")


async def test_a_bus_that_is_away_means_503_and_when_to_try_again(api: Harness) -> None:
    api.bus.away = True
    answer = await post(api, EVENT)
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    api.bus.away = False
    assert (await post(api, EVENT)).status_code == 202


async def test_concurrent_requests_share_one_publish(api: Harness) -> None:
    api.bus.gate.clear()
    async with api.client(await api.key("operator")) as client:
        await client.get("/health")
        posts = [asyncio.create_task(client.post("/events", json=EVENT | {"id": str(n)})) for n in range(50)]
        async with asyncio.timeout(10):
            while api.publisher.waiting < 50:
                await asyncio.sleep(0)
        api.bus.gate.set()
        answers = await asyncio.gather(*posts)
    assert {answer.status_code for answer in answers} == {202}
    assert len(api.bus.records(EVENTS)) == 50
    assert len(api.bus.publishes) <= 3


BATCH = {"content-type": "application/cloudevents-batch+json"}


async def test_a_batch_is_published_whole_and_in_order(api: Harness) -> None:
    answer = await post(api, [EVENT | {"id": str(n)} for n in range(5)], **BATCH)
    assert answer.status_code == 202
    assert [json.loads(record.value)["id"] for record in api.bus.records(EVENTS)] == ["0", "1", "2", "3", "4"]


@pytest.mark.parametrize("bad", [{"id": "x"}, EVENT | {"type": "penstock.run.failed"}, 7, EVENT | {"time": "no"}])
async def test_one_bad_event_of_a_batch_keeps_all_out_and_is_named(api: Harness, bad: object) -> None:
    answer = await post(api, [EVENT, bad, EVENT], **BATCH)
    assert (answer.status_code, answer.json()["index"]) == (400, 1)
    assert api.bus.records(EVENTS) == []


async def test_an_empty_batch_is_accepted(api: Harness) -> None:
    assert (await post(api, [], **BATCH)).status_code == 202


async def test_binary_mode_is_written_structured(api: Harness) -> None:
    headers = {"ce-specversion": "1.0", "ce-id": "1", "ce-source": "/shop", "ce-type": "order.placed"}
    answer = await post(api, b'{"n": 1}', **headers, **{"content-type": "application/json"})
    assert answer.status_code == 202
    [record] = api.bus.records(EVENTS)
    found = json.loads(record.value)
    assert {name: found[name] for name in ("id", "source", "type", "data")} == {
        "id": "1",
        "source": "/shop",
        "type": "order.placed",
        "data": {"n": 1},
    }


async def test_an_event_without_time_keeps_none(api: Harness) -> None:
    await post(api, EVENT)
    assert "time" not in json.loads(api.bus.records(EVENTS)[0].value)


async def test_events_are_only_posted(api: Harness) -> None:
    async with api.client(await api.key("operator")) as client:
        answer = await client.get("/events")
    assert (answer.status_code, answer.headers["allow"]) == (405, "POST")
