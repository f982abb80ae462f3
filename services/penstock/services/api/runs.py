"""Runs: what was launched, how it went, what it logged."""

from __future__ import annotations

from typing import Annotated

import sqlalchemy as sa
from fastapi import APIRouter, Depends, Query, Request

from penstock.flows.states import State
from penstock.services.api.guard import needs
from penstock.services.api.problems import not_found
from penstock.services.api.state import api_of
from penstock.services.api.views import Page, Row, Shown, fetch, shown
from penstock.services.database import Database, tables

router = APIRouter(prefix="/api/v1/namespaces/{ns}/runs", tags=["runs"], dependencies=[Depends(needs("viewer"))])
_LOGS = 1_000  # lines with a run; the rest through /logs


@router.get("")
async def list_runs(
    request: Request,
    ns: str,
    state: State | None = None,
    flow: str | None = None,
    deployment: str | None = None,
    firing: Annotated[str | None, Query(description="runs that this firing launched")] = None,
    before: Annotated[str | None, Query(description="runs older than this one's id")] = None,
    limit: Page = 50,
) -> dict[str, list[Shown]]:
    """Runs, newest first."""
    run, database = tables.run, api_of(request).context.database
    query = sa.select(run).where(run.c.namespace == ns)
    chosen = ((run.c.state, state), (run.c.flow, flow), (run.c.deployment, deployment), (run.c.firing_id, firing))
    for column, wanted in chosen:
        if wanted is not None:
            query = query.where(column == wanted)
    if before is not None:
        last = await _run(database, ns, before)
        query = query.where(sa.tuple_(run.c.created, run.c.id) < sa.tuple_(last["created"], last["id"]))
    rows = await fetch(database, query.order_by(run.c.created.desc(), run.c.id.desc()).limit(limit))
    return {"runs": [shown(row) for row in rows]}


@router.get("/{id}")
async def show_run(request: Request, ns: str, id: str) -> Shown:
    """One run with its changes of state and the first thousand lines of its log."""
    database, event, call = api_of(request).context.database, tables.run_event, tables.journal
    run = await _run(database, ns, id)
    changes = await fetch(database, sa.select(event).where(event.c.run_id == id).order_by(event.c.seq))
    tasks = await fetch(database, sa.select(call).where(call.c.run_id == id).order_by(call.c.started, call.c.call))
    found = shown(run) | {"changes": [shown(row) for row in changes], "tasks": [shown(row) for row in tasks]}
    return found | {"logs": await _logs(database, id, 0, _LOGS)}


@router.get("/{id}/logs")
async def run_logs(
    request: Request,
    ns: str,
    id: str,
    after: Annotated[int, Query(ge=0, description="lines after the one with this id")] = 0,
    limit: Page = 1_000,
) -> dict[str, list[Shown]]:
    """Lines that a run has logged, oldest first."""
    database = api_of(request).context.database
    await _run(database, ns, id)
    return {"logs": await _logs(database, id, after, limit)}


async def _logs(database: Database, run_id: str, after: int, limit: int) -> list[Shown]:
    log = tables.run_log
    query = sa.select(log).where(log.c.run_id == run_id, log.c.id > after).order_by(log.c.id).limit(limit)
    return [shown(row) for row in await fetch(database, query)]


async def _run(database: Database, namespace: str, id_: str) -> Row:
    run = tables.run
    found = await fetch(database, sa.select(run).where(run.c.namespace == namespace, run.c.id == id_))
    if not found:
        raise not_found("run", id_)
    return found[0]
