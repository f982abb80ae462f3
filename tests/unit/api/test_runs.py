"""Runs over HTTP: made, found, shown, followed and steered."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import httpx
import pytest
import sqlalchemy as sa
from tests.support.api_harness import Harness

from penstock.flows.states import State
from penstock.services.database import clock, tables
from penstock.services.runs import NewRun, change_state, create_runs

NS = "/api/v1/namespaces/default/runs"
SCHEMA = {
    "type": "object",
    "properties": {"truck": {"type": "string"}, "n": {"type": "integer"}},
    "required": ["truck"],
    "additionalProperties": False,
}


async def insert(api: Harness, table: sa.Table, **row: Any) -> None:
    async with api.database.begin() as connection:
        await connection.execute(sa.insert(table).values(**row))


async def flow(api: Harness, name: str = "ship", tags: tuple[str, ...] = ()) -> None:
    options = json.dumps({"tags": tags})
    row = {"pool": "heavy", "module": "flows", "parameters": json.dumps(SCHEMA), "options": options}
    await insert(api, tables.flow, name=name, updated=1, **row)


async def add(api: Harness, *runs: NewRun) -> None:
    async with api.database.begin() as connection:
        await create_runs(connection, runs)


async def move(api: Harness, run_id: str, *new: State, **columns: Any) -> None:
    async with api.database.begin() as connection:
        for each in new:
            await change_state(connection, run_id, None, each, **columns)


async def held(api: Harness, run_id: str) -> None:
    """A worker has it, and its code runs."""
    await move(api, run_id, State.RUNNING)
    values = {"worker": "w1", "lease_until": clock.now() + 60_000_000}
    async with api.database.begin() as connection:
        await connection.execute(sa.update(tables.run).where(tables.run.c.id == run_id).values(**values))


async def send(api: Harness, method: str, path: str, role: Any = "operator", **more: Any) -> httpx.Response:
    async with api.client(await api.key(role)) as client:
        return await client.request(method, NS + path, **more)


async def listed(api: Harness, query: str) -> list[str]:
    answer = await send(api, "GET", query, "viewer")
    assert answer.status_code == 200, answer.text
    return [each["id"] for each in answer.json()["runs"]]


async def test_a_run_is_made_with_its_event_its_wake_up_and_its_audit(api: Harness) -> None:
    await flow(api)
    answer = await send(api, "POST", "", json={"flow": "ship", "parameters": {"truck": "t7"}, "priority": 5})
    found = answer.json()
    assert (answer.status_code, found["state"], found["pool"], found["priority"]) == (201, "pending", "heavy", 5)
    async with api.database.read() as connection:
        topics = (await connection.execute(sa.select(tables.outbox.c.topic).order_by(tables.outbox.c.id))).scalars()
        assert list(topics) == ["penstock.runs.heavy", "penstock.system"]
        audit = (await connection.execute(sa.select(tables.audit))).mappings().all()
        event = (await connection.execute(sa.select(tables.run_event))).mappings().one()
    assert [(row["actor"], row["action"]) for row in audit if row["object"] == f"run/{found['id']}"] == [
        ("user/ann", "run.created")
    ]
    assert event["actor"] == "user/ann"
    assert "runs" in api.redis.published


@pytest.mark.parametrize(
    ("body", "status", "told"),
    [
        ({"flow": "shp"}, 404, "there is no deployment or flow 'shp' here (did you mean `ship`?)"),
        ({"flow": "ship"}, 422, "'truck' is missing"),
        ({"flow": "ship", "parameters": {"truck": "t7", "n": "x"}}, 422, """'n' is "x", not of type integer"""),
        ({"flow": "ship", "parameters": {"truck": "t7", "m": 1}}, 422, "there is no parameter 'm'"),
        ({"flow": "ship", "parameters": [1]}, 400, "parameters"),
    ],
)
async def test_what_cannot_run_is_refused_before_there_is_a_run(
    api: Harness, body: dict[str, Any], status: int, told: str
) -> None:
    await flow(api)
    answer = await send(api, "POST", "", json=body)
    assert (answer.status_code, told in answer.json()["detail"]) == (status, True), answer.text
    assert await listed(api, "") == []


async def test_runs_are_found_by_what_they_are(api: Harness) -> None:
    await flow(api, "ship", ("erp",))
    await flow(api, "report")
    await add(api, NewRun("r1", "ship", firing_id="f1"), NewRun("r2", "report"), NewRun("r3", "ship"))
    row = {"lane": "x/0", "status": "waiting", "body": "{}", "created": 1, "updated": 1}
    await insert(api, tables.firing, id="f1", automation="cold-chain", **row)
    await move(api, "r3", State.RUNNING, State.FAILED)
    assert await listed(api, "?tag=erp") == ["r3", "r1"]
    assert await listed(api, "?automation=cold-chain") == ["r1"]
    assert await listed(api, "?state=failed&state=running") == ["r3"]
    assert await listed(api, "?since=2999-01-01T00:00:00Z") == []
    assert await listed(api, "?until=2999-01-01T00:00:00Z&flow=report") == ["r2"]
    assert (await send(api, "GET", "?since=soon", "viewer")).status_code == 400
    first = (await send(api, "GET", "?limit=2", "viewer")).json()
    assert ([each["id"] for each in first["runs"]], first["next"]) == (["r3", "r2"], "r2")
    last = (await send(api, "GET", f"?limit=2&before={first['next']}", "viewer")).json()
    assert ([each["id"] for each in last["runs"]], last["next"]) == (["r1"], None)


async def call(api: Harness, key: str, name: str, result: Any, ended: int) -> None:
    row = {"name": name, "state": "completed", "result": json.dumps(result), "epoch": 1, "started": 1}
    await insert(api, tables.journal, run_id="r1", call=key, ended=ended, **row)


async def test_a_run_shows_its_artifacts_its_trace_and_what_it_waits_for(api: Harness) -> None:
    await add(api, NewRun("r1", "ship", nonce="n0nce"))
    assert (await send(api, "GET", "/r1")).json()["waits_for"] == "a worker of pool 'default', and none is online"
    secret = "\u27e6secret:ERP:n0nce\u27e7"
    await call(api, "c1", "artifact", {"kind": "progress", "data": 40.0, "key": "upload", "v": 1}, 2)
    await call(api, "c2", "artifact", {"kind": "markdown", "data": "# All well", "v": 1}, 3)
    await call(api, "c3", "artifact", {"kind": "progress", "data": 90.0, "key": "upload", "v": 1}, 4)
    await call(api, "c4", "find", {"token": secret}, 5)
    await call(api, "c5", "artifact", "a task of that name", 6)
    for line in ("Traceback (most recent call last):", "ValueError: no"):
        await insert(api, tables.run_log, run_id="r1", at=9, level="ERROR", line=line)
    await move(api, "r1", State.RUNNING, detail="", error=None)
    later = timedelta(hours=1)
    await move(api, "r1", State.RETRYING, detail="ValueError: no", error="ValueError: no", due_in=later)
    found = (await send(api, "GET", "/r1")).json()
    assert [(each["kind"], each["key"], each["data"]) for each in found["artifacts"]] == [
        ("markdown", "", "# All well"),
        ("progress", "upload", 90.0),
    ]
    assert {each["call"]: each["result"] for each in found["tasks"]} == {
        "c4": {"token": "{{ secrets.ERP }}"},
        "c5": "a task of that name",
    }
    assert found["trace"] == ["Traceback (most recent call last):", "ValueError: no"]
    assert found["waits_for"].startswith("ValueError: no, until ")


async def test_a_stream_tells_what_becomes_of_a_run_until_its_end(api: Harness) -> None:
    await add(api, NewRun("r1", "ship"))
    await call(api, "c1", "find", 7, 2)
    await call(api, "c2", "artifact", {"kind": "progress", "data": 40.0, "key": "upload", "v": 1}, 3)
    await insert(api, tables.run_log, run_id="r1", at=4, level="INFO", line="off we go")
    await move(api, "r1", State.RUNNING)
    await move(api, "r1", State.COMPLETED, result="7")
    answer = await send(api, "GET", "/r1/stream", "viewer")
    found = [json.loads(line) for line in answer.text.splitlines()]
    assert [each["kind"] for each in found] == ["task", "artifact", "log", "state", "state", "state", "end"]
    assert (found[-1]["state"], found[-1]["result"], found[2]["line"]) == ("completed", 7, "off we go")
    only = await send(api, "GET", f"/r1/stream?only=log&after={found[2]['id']}", "viewer")
    assert [json.loads(line)["kind"] for line in only.text.splitlines()] == ["end"]


async def test_an_operation_is_done_asked_for_or_refused(api: Harness) -> None:
    await add(api, NewRun("r1", "ship"), NewRun("r2", "ship"))
    answer = await send(api, "POST", "/r1/cancel", json={"reason": "not today"})
    assert (answer.status_code, answer.json()) == (200, {"id": "r1", "state": "cancelled", "asked": False})
    answer = await send(api, "POST", "/r1/cancel")
    assert answer.status_code == 409
    assert "r1 is cancelled: only a run that is" in answer.json()["detail"]
    await held(api, "r2")
    answer = await send(api, "POST", "/r2/suspend")
    assert (answer.status_code, answer.json()) == (202, {"id": "r2", "state": "running", "asked": True})
    assert "asked" in api.redis.published
    assert "user/ann has asked" in (await send(api, "GET", "/r2")).json()["waits_for"]
    answer = await send(api, "POST", "/r2/suspend", json={"at_once": True})
    assert answer.json()["state"] == "paused"
    assert (await send(api, "POST", "/none/cancel")).status_code == 404


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/r1/retry", {"at_once": True}),
        ("/r1/cancel", {"from_start": True}),
        ("/r1/cancel", {"dry_run": True}),
        ("/cancel", {}),
    ],
)
async def test_an_operation_that_means_nothing_is_refused(api: Harness, path: str, body: dict[str, Any]) -> None:
    await add(api, NewRun("r1", "ship"))
    assert (await send(api, "POST", path, json=body)).status_code == 422
    assert (await send(api, "GET", "/r1")).json()["state"] == "pending"


async def test_many_runs_are_found_first_and_then_done(api: Harness) -> None:
    await add(api, *(NewRun(f"r{number}", "ship") for number in range(3)), NewRun("other", "report"))
    dry = (await send(api, "POST", "/cancel?flow=ship", json={"dry_run": True})).json()
    assert ([each["id"] for each in dry["runs"]], dry["more"]) == (["r0", "r1", "r2"], False)
    assert await listed(api, "?state=cancelled") == []
    done = (await send(api, "POST", "/cancel?flow=ship")).json()
    assert [each["state"] for each in done["runs"]] == ["cancelled"] * 3
    assert await listed(api, "?state=pending") == ["other"]


@pytest.mark.parametrize("path", ["", "/r1/cancel", "/cancel?flow=ship"])
async def test_a_viewer_steers_nothing(api: Harness, path: str) -> None:
    assert (await send(api, "POST", path, "viewer", json={"flow": "ship"})).status_code == 403
