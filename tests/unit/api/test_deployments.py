"""Deployments through the API: who may change them, where they are, and what runs tell of them."""

from __future__ import annotations

import json
from typing import Any

import sqlalchemy as sa
from tests.support.api_harness import Harness
from tests.support.deployed import deployed, launch

from penstock.services.database import tables

URL = "/api/v1/namespaces/default/deployments"
FLOW = {"name": "quick", "module": "flows", "parameters": {"properties": {"n": {"type": "integer"}}}}


def body(name: str = "nightly", **definition: Any) -> dict[str, Any]:
    return {"deployments": [{"definition": {"name": name, "flow": "quick"} | definition, "flow": FLOW}]}


async def test_an_operator_changes_and_a_viewer_looks(api: Harness) -> None:
    async with api.client(await api.key("viewer")) as client:
        assert (await client.post(URL, json=body())).status_code == 403
        assert (await client.get(URL)).json() == {"deployments": []}
    async with api.client(await api.key("operator", actor="user/bob")) as client:
        answer = await client.post(URL, json=body(schedules=[{"every": "5m"}]))
        assert answer.json()["changes"] == [{"name": "nightly", "what": "created", "parts": []}]
        shown = (await client.get(f"{URL}/nightly")).json()
        assert (shown["actor"], shown["schedules"][0]["every"], shown["paused"]) == ("user/bob", "5m", False)
        assert (await client.post(f"{URL}/nightly/pause")).json()["changed"] is True
        assert (await client.get("/api/v1/namespaces/other/deployments")).status_code in (403, 404)
        for path in ("nothing", "nothing/pause"):
            asked = client.get if path == "nothing" else client.post
            assert (await asked(f"{URL}/{path}")).status_code == 404
        assert (await client.delete(f"{URL}/nightly")).json()["what"] == "removed"
    async with api.database.read() as connection:
        query = sa.select(tables.audit.c.action, tables.audit.c.actor).where(tables.audit.c.object.like("deployment/%"))
        told = [tuple(row) for row in await connection.execute(query.order_by(tables.audit.c.at))]
    assert told == [(f"deployment.{what}", "user/bob") for what in ("created", "paused", "removed")]
    assert {"deployments", "places"} <= set(api.redis.published)


async def test_runs_tell_of_their_deployment_and_are_found_by_it(api: Harness) -> None:
    await deployed(api.database, tags=["trucks"], concurrency={"limit": 1})
    await deployed(api.database, "other")
    await launch(api.database, "r1", "r2")
    await launch(api.database, "r3", name="other")
    async with api.client(await api.key("viewer")) as client:
        found = (await client.get("/api/v1/namespaces/default/runs?deployment=nightly")).json()["runs"]
        assert {run["id"] for run in found} == {"r1", "r2"}
        run = (await client.get("/api/v1/namespaces/default/runs/r1")).json()
        listed = {each["name"]: each for each in (await client.get(URL)).json()["deployments"]}
    assert (run["deployment"], run["version"], run["tags"], run["state"]) == (
        *("nightly", "c0ffee", ["trucks"]),
        "scheduled",
    )
    assert run["changes"][0]["detail"] == "waits for a place of deployment nightly"
    assert (listed["nightly"]["holding"], listed["nightly"]["waiting"]) == (0, 2)
    assert "holding" not in listed["other"]
    assert "gate" not in json.dumps(run)


async def test_a_definition_that_is_none_is_refused_by_its_place(api: Harness) -> None:
    async with api.client(await api.key("operator")) as client:
        for wrong, told in (
            ({"concurrency": {"limit": 0}}, "concurrency.limit"),
            ({"schedules": [{"every": "5m", "cron": "* * * * *"}]}, "has `cron` and `every`"),
            ({"parameters": {"m": 1}}, "it has no parameter `m`"),
        ):
            answer = await client.post(URL, json=body(**wrong))
            assert (answer.status_code, told in answer.json()["detail"]) == (422, True), answer.text
        both = {"deployments": [*body()["deployments"], *body()["deployments"]]}
        assert "defined twice" in (await client.post(URL, json=both)).json()["detail"]
        assert (await client.get(URL)).json() == {"deployments": []}
