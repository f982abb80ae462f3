"""Runs: what was launched, how it went, what it logged."""

from __future__ import annotations

import json
from http import HTTPStatus
from typing import Annotated, Literal

import sqlalchemy as sa
from fastapi import APIRouter, Depends, Query, Request
from pydantic import BaseModel, ConfigDict

from penstock.flows.states import State
from penstock.services import hints
from penstock.services.api.guard import needs, require
from penstock.services.api.problems import Refusal, not_found
from penstock.services.api.state import api_of
from penstock.services.api.views import Page, Row, Shown, fetch, shown
from penstock.services.database import Database, tables
from penstock.services.runs import RunNotFoundError, TransitionError
from penstock.services.waits import choose_code

router = APIRouter(prefix="/api/v1/namespaces/{ns}/runs", tags=["runs"], dependencies=[Depends(needs("viewer"))])
_LOGS = 1_000  # lines with a run; the rest through /logs


@router.get("")
async def list_runs(
    request: Request,
    ns: str,
    state: State | None = None,
    flow: str | None = None,
    firing: Annotated[str | None, Query(description="runs that this firing launched")] = None,
    before: Annotated[str | None, Query(description="runs older than this one's id")] = None,
    limit: Page = 50,
) -> dict[str, list[Shown]]:
    """Runs, newest first."""
    run, database = tables.run, api_of(request).context.database
    query = sa.select(run).where(run.c.namespace == ns)
    for column, wanted in ((run.c.state, state), (run.c.flow, flow), (run.c.firing_id, firing)):
        if wanted is not None:
            query = query.where(column == wanted)
    if before is not None:
        last = await _run(database, ns, before)
        query = query.where(sa.tuple_(run.c.created, run.c.id) < sa.tuple_(last["created"], last["id"]))
    rows = await fetch(database, query.order_by(run.c.created.desc(), run.c.id.desc()).limit(limit))
    return {"runs": [shown(row) for row in rows]}


@router.get("/{id}")
async def show_run(request: Request, ns: str, id: str) -> Shown:
    """One run with its changes of state, what it waits for, and the first thousand lines of its log."""
    database, event, call = api_of(request).context.database, tables.run_event, tables.journal
    run = await _run(database, ns, id)
    changes = await fetch(database, sa.select(event).where(event.c.run_id == id).order_by(event.c.seq))
    tasks = await fetch(database, sa.select(call).where(call.c.run_id == id).order_by(call.c.started, call.c.call))
    found = shown(run) | {"changes": [shown(row) for row in changes], "tasks": [shown(row) for row in tasks]}
    found["waits"] = await _waits(database, id)
    return found | {"logs": await _logs(database, id, 0, _LOGS)}


class CodeChoice(BaseModel):
    """What becomes of a paused or waiting run whose code changed."""

    model_config = ConfigDict(extra="forbid")

    choice: Literal["continue", "restart"]


@router.post("/{id}/code")
async def choose_run_code(request: Request, ns: str, id: str, chosen: CodeChoice) -> Shown:
    """Let a paused or waiting run go on with the code as it is now, or begin anew. 409: it is in another state."""
    identity, context = require(request, "operator", ns), api_of(request).context
    async with context.database.begin() as connection:
        try:
            await choose_code(connection, ns, id, chosen.choice, identity.actor)
        except RunNotFoundError:
            raise not_found("run", id) from None
        except TransitionError as error:
            raise Refusal(HTTPStatus.CONFLICT, str(error), state=error.old) from None
    await context.hints.give(hints.OUTBOX, hints.RUNS)
    return shown(await _run(context.database, ns, id))


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


async def _waits(database: Database, run_id: str) -> list[Shown]:
    """What the run waits for at present: approvals by their ids, events by their patterns."""
    row = tables.run_wait
    columns = (row.c.kind, row.c.body, row.c.created, row.c.expires_at)
    query = sa.select(*columns).where(row.c.run_id == run_id, row.c.status == "open").order_by(row.c.created)
    found = []
    for each in await fetch(database, query):
        body = json.loads(each["body"])
        names = ("approval",) if each["kind"] == "approval" else ("pattern",)
        told = shown({name: each[name] for name in ("kind", "created", "expires_at")})
        found.append(told | {name: body[name] for name in names})
    return found


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
