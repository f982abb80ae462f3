"""A run that a person or a program asks for: before it exists, its parameters are checked against the flow."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from penstock.automations.problems import did_you_mean
from penstock.events.errors import PenstockError
from penstock.events.ids import new_id
from penstock.services import hints as hint
from penstock.services.context import Context
from penstock.services.database.records import publish_later, service_lane, write_audit
from penstock.services.database.tables import flow
from penstock.services.parameters import check_parameters
from penstock.services.runs import NewRun, create_runs
from penstock.services.targets import Target, all_targets


class UnknownFlowError(PenstockError, LookupError):
    """There is no such deployment in this namespace, and no worker has registered such a flow."""

    def __init__(self, name: str, known: list[str]) -> None:
        hint = did_you_mean(name, known) if known else "no worker has registered any; is one running?"
        super().__init__(f"there is no deployment or flow {name!r} here" + (f" ({hint})" if hint else ""))


@dataclass(frozen=True, slots=True)
class Launch:
    """What is to be run: a deployment, else a flow.  priority: higher ones first; 0 is that of a rule's runs."""

    flow: str
    parameters: Mapping[str, Any] = field(default_factory=dict)
    priority: int = 0


async def launch(context: Context, namespace: str, wanted: Launch, actor: str) -> str:
    """Make a run that is due at once.  Returns its id.  Raises UnknownFlowError, ParametersError."""
    run_id = new_id()

    async def make(connection: AsyncConnection) -> NewRun:
        target = await _checked(connection, namespace, wanted)
        new = target.run(
            run_id,
            wanted.parameters,
            namespace=namespace,
            priority=wanted.priority,
            correlationid=run_id,  # nothing before has caused it
            actor=actor,
        )
        publish_later(connection, service_lane(run_id), await create_runs(connection, [new]))
        await write_audit(
            connection,
            namespace=namespace,
            actor=actor,
            action="run.created",
            object_=f"run/{run_id}",
            detail={"flow": new.flow} | ({"deployment": new.deployment} if new.deployment else {}),
        )
        return new

    new = await context.database.write(make)
    await context.hints.give(hint.OUTBOX, hint.RUNS if new.gate is None else hint.PLACES)
    return run_id


async def _checked(connection: AsyncConnection, namespace: str, wanted: Launch) -> Target:
    """What the name stands for, if it takes the parameters."""
    targets = await all_targets(connection, namespace)
    target = targets.get(wanted.flow)
    if target is None:
        raise UnknownFlowError(wanted.flow, sorted(targets))
    query = sa.select(flow.c.parameters).where(flow.c.namespace == namespace, flow.c.name == target.flow)
    schema = (await connection.execute(query)).scalar_one_or_none()
    if schema is not None:  # of a deployment's flow that no worker has (yet), nothing is known
        check_parameters(target.flow, json.loads(schema), {**target.parameters, **wanted.parameters})
    return target
