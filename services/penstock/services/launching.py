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


class UnknownFlowError(PenstockError, LookupError):
    """No worker of this namespace has registered such a flow."""

    def __init__(self, name: str, known: list[str]) -> None:
        hint = did_you_mean(name, known) if known else "no worker has registered any; is one running?"
        super().__init__(f"there is no flow {name!r} here" + (f" ({hint})" if hint else ""))


@dataclass(frozen=True, slots=True)
class Launch:
    """What is to be run.  priority: higher ones first; 0 is that of a rule's runs."""

    flow: str
    parameters: Mapping[str, Any] = field(default_factory=dict)
    priority: int = 0


async def launch(context: Context, namespace: str, wanted: Launch, actor: str) -> str:
    """Make a run that is due at once.  Returns its id.  Raises UnknownFlowError, ParametersError."""
    run_id = new_id()

    async def make(connection: AsyncConnection) -> None:
        pool = await _checked(connection, namespace, wanted)
        new = NewRun(
            run_id,
            wanted.flow,
            json.dumps(wanted.parameters),
            namespace=namespace,
            pool=pool,
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
            detail={"flow": wanted.flow},
        )

    await context.database.write(make)
    await context.hints.give(hint.OUTBOX, hint.RUNS)
    return run_id


async def _checked(connection: AsyncConnection, namespace: str, wanted: Launch) -> str:
    """The pool that has the flow, if it takes the parameters."""
    query = sa.select(flow.c.pool, flow.c.parameters).where(flow.c.namespace == namespace, flow.c.name == wanted.flow)
    row = (await connection.execute(query)).one_or_none()
    if row is None:
        names = sa.select(flow.c.name).where(flow.c.namespace == namespace)
        raise UnknownFlowError(wanted.flow, list((await connection.execute(names)).scalars()))
    check_parameters(wanted.flow, json.loads(row.parameters), wanted.parameters)
    return str(row.pool)
