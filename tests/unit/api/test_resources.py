"""Runs, decisions, flows, dead letters and the stream, as the API shows them."""

from __future__ import annotations

import json
from typing import Any

import httpx
import msgspec
import pytest
import sqlalchemy as sa
from tests.support.api_harness import Harness
from tests.support.approvals_rows import ask
from tests.support.fake_bus import FakeBus
from tests.support.served import served

from penstock.events.bus import DEAD_LETTER, EVENTS, SYSTEM, Outgoing
from penstock.services.api.stream import type_filter
from penstock.services.database import tables
from penstock.services.dead_letters import Origin, dead_letter

NS = "/api/v1/namespaces/default"


async def insert(api: Harness, table: sa.Table, **row: Any) -> None:
    async with api.database.begin() as connection:
        await connection.execute(sa.insert(table).values(**row))


async def run(api: Harness, id_: str, created: int, **more: Any) -> None:
    row = {"flow": "reroute", "state": "completed", "parameters": "{}", "nonce": "n0nce"} | more
    await insert(api, tables.run, id=id_, created=created, **row)


async def get(api: Harness, path: str, role: Any = "viewer") -> httpx.Response:
    async with api.client(await api.key(role)) as client:
        return await client.get(NS + path)


async def test_runs_are_listed_newest_first_and_page_by_page(api: Harness) -> None:
    for number in range(5):
        await run(api, f"r{number}", 1_000_000 + number // 2, state="failed" if number == 3 else "completed")
    pages, before = [], ""
    while page := (await get(api, f"/runs?limit=2{before}")).json()["runs"]:
        pages += [each["id"] for each in page]
        before = f"&before={pages[-1]}"
    assert pages == ["r4", "r3", "r2", "r1", "r0"]
    assert [each["id"] for each in (await get(api, "/runs?state=failed")).json()["runs"]] == ["r3"]


async def test_what_becomes_of_a_run_whose_code_changed_is_chosen_by_an_operator(api: Harness) -> None:
    await run(api, "r1", 1, state="paused", waiting_for="code", seq=3)
    await run(api, "r2", 1)
    async with api.client(await api.key("operator")) as client:
        answer = await client.post(f"{NS}/runs/r1/code", json={"choice": "continue"})
        assert (answer.status_code, answer.json()["state"]) == (200, "pending")
        assert (await client.post(f"{NS}/runs/r1/code", json={"choice": "continue"})).status_code == 409
        assert (await client.post(f"{NS}/runs/r2/code", json={"choice": "restart"})).status_code == 409
        assert (await client.post(f"{NS}/runs/none/code", json={"choice": "restart"})).status_code == 404
        assert (await client.post(f"{NS}/runs/r1/code", json={"choice": "guess"})).status_code == 400
    async with api.client(await api.key("viewer")) as client:
        assert (await client.post(f"{NS}/runs/r1/code", json={"choice": "continue"})).status_code == 403
    assert {"runs", "outbox"} <= set(api.redis.published)


async def test_a_run_has_its_states_its_tasks_and_its_log_but_no_secrets(api: Harness) -> None:
    secret = "\u27e6secret:ERP:n0nce\u27e7"
    await run(api, "r1", 5_000_000, parameters=json.dumps({"token": secret, "truck": 7}), result='{"ok": true}')
    for seq, state in enumerate(("pending", "running", "completed")):
        await insert(api, tables.run_event, run_id="r1", seq=seq, state=state, actor="system", at=seq)
    for number in range(3):
        await insert(api, tables.run_log, run_id="r1", at=number, level="info", line=f"line {number}")
    found = (await get(api, "/runs/r1")).json()
    assert found["parameters"] == {"token": "{{ secrets.ERP }}", "truck": 7}
    assert found["result"] == {"ok": True}
    assert found["created"] == "1970-01-01T00:00:05Z"
    assert "n0nce" not in json.dumps(found)
    assert [change["state"] for change in found["changes"]] == ["pending", "running", "completed"]
    assert [line["line"] for line in found["logs"]] == ["line 0", "line 1", "line 2"]
    rest = (await get(api, f"/runs/r1/logs?after={found['logs'][0]['id']}")).json()["logs"]
    assert [line["line"] for line in rest] == ["line 1", "line 2"]


async def test_a_firing_shows_all_that_it_has_set_going(api: Harness) -> None:
    await ask(api.database)
    await run(api, "r1", 1, firing_id="f-a1")
    found = (await get(api, "/firings/f-a1")).json()
    assert (found["status"], [each["id"] for each in found["runs"]], found["approvals"][0]["id"]) == (
        "waiting",
        ["r1"],
        "a1",
    )
    assert "nonce" not in json.dumps(found)


@pytest.mark.parametrize("path", ["/runs/x", "/runs/x/logs", "/firings/x", "/approvals/x", "/dead-letters/x"])
async def test_what_is_not_there_is_a_404_that_names_it(api: Harness, path: str) -> None:
    answer = await get(api, path)
    assert answer.status_code == 404
    assert "'x'" in answer.json()["detail"]


async def test_decisions_and_flows_are_listed(api: Harness) -> None:
    row = {"automation": "a", "when_digest": "w", "kind": "fired", "key": '"truck/7"', "at": 1, "events": '["e1"]'}
    await insert(api, tables.decision, id="d1", created=1, **row)
    row = {"name": "reroute", "pool": "default", "module": "flows", "parameters": '{"type": "object"}'}
    await insert(api, tables.flow, updated=1, **row)
    [decision] = (await get(api, "/decisions?automation=a&kind=fired")).json()["decisions"]
    assert (decision["key"], decision["events"]) == ("truck/7", ["e1"])
    assert (await get(api, "/flows")).json()["flows"][0]["parameters"] == {"type": "object"}


async def test_dead_letters_are_listed_newest_first_and_shown_whole(api: Harness) -> None:
    assert (await get(api, "/dead-letters")).json() == {"dead_letters": [], "next": None}
    for number in range(7):
        letter = dead_letter("no JSON", Origin(EVENTS, 0, number), value=b"{", at=number * 1_000_000)
        await api.bus.append(letter)
    await api.bus.append(Outgoing(DEAD_LETTER, b"\xff", b"key"))
    found = (await get(api, "/dead-letters?limit=3")).json()["dead_letters"]
    assert [each["origin"]["offset"] for each in found if "origin" in each][:2] == [6, 5]
    known = next(each for each in found if "origin" in each)
    whole = (await get(api, f"/dead-letters/{known['id']}")).json()
    assert (whole["value"], whole["reason"]) == ({"text": "{"}, "no JSON")
    answer = await get(api, "/dead-letters?before=nonsense")
    assert answer.status_code == 422
    assert "'nonsense' is no place in the dead letters" in answer.json()["detail"]


@pytest.mark.parametrize(
    ("patterns", "type_", "wanted"),
    [
        ([], "order.placed", True),
        (["order.*"], "order.placed", True),
        (["order.*"], "orders", False),
        (["*.placed", "x"], "x", True),
        (["order[.]placed"], "order.placed", False),
        (["order?placed"], "order.placed", False),
    ],
)
def test_a_filter_knows_the_asterisk_alone(patterns: list[str], type_: str, wanted: bool) -> None:
    assert type_filter(patterns)(type_) is wanted


async def test_the_stream_gives_what_is_published_from_now_on(sqlite_url: str) -> None:
    bus = FakeBus()
    await bus.ensure_topic(EVENTS, 2)
    await bus.ensure_topic(SYSTEM, 1)

    async def publish(topic: str, id_: str, type_: str) -> None:
        event = {"specversion": "1.0", "id": id_, "source": "/s", "type": type_}
        await bus.append(Outgoing(topic, msgspec.json.encode(event), id_.encode()))

    await publish(EVENTS, "old", "order.placed")
    async with served(sqlite_url, bus) as api, httpx.AsyncClient(base_url=api.url) as client:
        headers = {"Authorization": f"Bearer {api.key}"}
        stream = f"{NS}/events/stream"
        async with client.stream("GET", stream, params={"type": "order.*"}, headers=headers) as answer:
            assert answer.headers["content-type"] == "application/x-ndjson"
            await publish(SYSTEM, "ours", "penstock.run.started")
            await publish(EVENTS, "new", "order.placed")
            async for line in answer.aiter_lines():
                assert json.loads(line)["id"] == "new"
                break
        query = {"from_beginning": True}
        async with client.stream("GET", stream, params=query, headers=headers) as answer:
            seen = []
            async for line in answer.aiter_lines():
                seen.append(json.loads(line)["id"])
                if len(seen) == 3:
                    break
        assert set(seen) == {"old", "ours", "new"}


async def test_the_api_describes_itself(api: Harness) -> None:
    async with api.client(await api.key("viewer")) as client:
        document = (await client.get("/api/v1/openapi.json")).json()
    assert "/api/v1/namespaces/{ns}/approvals/{id}/decision" in document["paths"]
