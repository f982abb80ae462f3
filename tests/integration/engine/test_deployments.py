"""Rules that run deployments, on both pairs."""

from __future__ import annotations

import json
from typing import Any

from tests.support.deployed import deployed
from tests.support.rig import Rig

from penstock.events import Event
from penstock.services.database import tables

RULE = """
automations:
  - name: place
    when: {event: order.placed}
    then:
      - {run: nightly, with: {n: "{{ event.data.n }}"}}
      - {run: "flows_of_tests:quick", with: {n: 5}}
"""


async def test_a_rule_runs_a_deployment_with_its_defaults_and_a_flow_by_its_module(rig: Rig) -> None:
    database = rig.context.database
    more: dict[str, Any] = {"parameters": {"n": 1, "path": "x"}, "tags": ["trucks"], "limits": ["erp"], "pool": "gpu"}
    await deployed(database, concurrency={"limit": 1}, **more)
    await rig.apply(RULE)
    await rig.start_engine()
    await rig.publish([Event(id="o1", source="/shop", type="order.placed", data={"n": 7})])

    async def launched() -> bool:
        return len(await rig.rows(tables.run)) == 2

    await rig.until(launched)
    runs = {row.deployment: row for row in await rig.rows(tables.run)}
    mine, plain = runs["nightly"], runs[None]
    assert json.loads(mine.parameters) == {"n": 7, "path": "x"}
    assert (mine.flow, mine.pool, json.loads(mine.tags), json.loads(mine.limits)) == (
        "quick",
        "gpu",
        ["trucks"],
        ["erp"],
    )
    assert (mine.version, mine.state, mine.gate) == ("c0ffee", "scheduled", 0)
    assert (plain.flow, json.loads(plain.parameters), plain.state, plain.gate) == ("quick", {"n": 5}, "pending", None)
    assert plain.version == "c0ffee"
