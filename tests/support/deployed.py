"""Deployments in a database, for tests of what comes of them."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from tests.support.runs import LANE

from penstock.automations.deployments import DeploymentModel
from penstock.services.database import Database, tables
from penstock.services.database.records import publish_later
from penstock.services.deployments import FlowOffer, Offer, deploy
from penstock.services.runs import create_runs
from penstock.services.targets import resolve_target

SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}, "path": {"type": "string"}}}


async def deployed(database: Database, name: str = "nightly", *, flow: str = "quick", **more: Any) -> None:
    """Make or change a deployment of a flow that takes `n` and `path`."""
    model = DeploymentModel.model_validate({"name": name, "flow": flow, **more})
    offer = Offer(model, FlowOffer(flow, "flows_of_tests", SCHEMA, version="c0ffee"))
    await deploy(database, "default", [offer], actor="user/ann")


async def launch(database: Database, *run_ids: str, name: str = "nightly", **parameters: Any) -> None:
    """Make runs of it, one after the other, as whoever launches runs does."""
    for run_id in run_ids:
        async with database.begin() as connection:
            target = await resolve_target(connection, "default", name)
            assert target is not None
            publish_later(connection, LANE, await create_runs(connection, [target.run(run_id, parameters)]))


async def move_due(database: Database, by: int) -> None:
    """As if `by` microseconds had passed for every schedule of every deployment."""
    schedule = tables.deployment_schedule
    async with database.begin() as connection:
        await connection.execute(sa.update(schedule).values(next_at=schedule.c.next_at - by))
