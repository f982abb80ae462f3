"""Who an event is from: the door says so, not its sender; four-eyes stands on it."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest
from tests.support.api_harness import Harness

from penstock.events.bus import EVENTS
from penstock.events.codec import from_http, stamp
from penstock.events.errors import InvalidEventError
from penstock.events.event import MAX_BODY
from penstock.events.signatures import sign
from penstock.services.rules import Applied, apply

EVENT = {"specversion": "1.0", "id": "1", "source": "/shop", "type": "order.placed"}
STRUCTURED = {"content-type": "application/cloudevents+json"}
BATCH = {"content-type": "application/cloudevents-batch+json"}
BINARY = {"ce-specversion": "1.0", "ce-id": "1", "ce-source": "/shop", "ce-type": "order.placed"}


async def post(api: Harness, body: bytes, headers: dict[str, str], actor: str = "user/ann") -> httpx.Response:
    async with api.client(await api.key("operator", actor=actor)) as client:
        return await client.post("/events", content=body, headers=headers)


def actors(api: Harness) -> list[Any]:
    return [json.loads(record.value).get("actor") for record in api.bus.records(EVENTS)]


async def test_an_event_carries_who_posted_it(api: Harness) -> None:
    assert (await post(api, json.dumps(EVENT).encode(), STRUCTURED)).status_code == 202
    assert (await post(api, json.dumps(EVENT).encode(), STRUCTURED, actor="service/shop")).status_code == 202
    assert actors(api) == ["user/ann", "service/shop"]


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        (json.dumps(EVENT | {"actor": "user/bob"}).encode(), STRUCTURED),
        (json.dumps(EVENT).encode()[:-1] + b', "\\u0061ctor": "user/bob"}', STRUCTURED),
        (json.dumps(EVENT).encode()[:-1] + b', "actor": "user/ann", "actor": "user/bob"}\n', STRUCTURED),
        (json.dumps([EVENT | {"actor": "user/bob"}]).encode(), BATCH),
        (b'{"actor": "user/bob"}', BINARY | {"ce-actor": "user/bob", "content-type": "application/json"}),
    ],
)
async def test_nobody_posts_as_somebody_else(api: Harness, body: bytes, headers: dict[str, str]) -> None:
    answer = await post(api, body, headers)
    assert (answer.status_code, actors(api)) == (202, ["user/ann"]), answer.text
    assert api.bus.records(EVENTS)[0].value.count(b"user/bob") == (1 if headers.keys() >= BINARY.keys() else 0)


async def test_a_session_is_somebody_too(api: Harness) -> None:
    browser = await api.browser("operator", "approver", actor="user/eve")
    page = (await browser.get("/approvals")).text
    token = page.split('name="csrf" value="')[1].split('"')[0]
    assert (await browser.post("/events", json=EVENT, headers={"x-csrf-token": token})).status_code == 202
    assert actors(api) == ["user/eve"]


async def test_a_webhook_is_no_person(api: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PENSTOCK_SECRET_REPO", "s3cr3t")
    text = 'webhooks: [{name: repo, verify: {preset: github, secret: "{{ secrets.REPO }}"}}]'
    assert isinstance(await apply(api.context, {"hooks.yaml": text}, "user/ann"), Applied)
    await api.context.rulebook.refresh()
    body = b'{"actor": "user/bob"}'
    async with api.client() as client:
        signed = {"x-hub-signature-256": "sha256=" + sign("s3cr3t", body), "content-type": "application/json"}
        assert (await client.post("/hooks/repo", content=body, headers=signed)).status_code == 202
    assert actors(api) == ["webhook/repo"]


def test_an_event_that_is_too_large_with_its_actor_is_refused_at_the_door() -> None:
    frame = len(json.dumps(EVENT | {"data": ""}, separators=(",", ":")))
    body = json.dumps(EVENT | {"data": "x" * (MAX_BODY - frame)}, separators=(",", ":")).encode()
    (found,) = from_http(STRUCTURED, body)
    with pytest.raises(InvalidEventError, match="1 MiB"):
        stamp(found, "user/ann")
