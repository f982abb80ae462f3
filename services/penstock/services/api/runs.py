"""Runs: what was launched, how it went, what it logged; and a new one."""

from __future__ import annotations

import json
from http import HTTPStatus
from typing import Annotated, Any, Literal

import sqlalchemy as sa
from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import StreamingResponse
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from penstock.events.instants import to_instant
from penstock.flows.states import State
from penstock.services import hints
from penstock.services.api.guard import needs, require
from penstock.services.api.problems import Refusal, not_found
from penstock.services.api.run_stream import follow
from penstock.services.api.run_views import calls_view, run_row, run_view, trace_of, waits_for
from penstock.services.api.state import api_of
from penstock.services.api.views import Page, Shown, fetch, shown
from penstock.services.database import Database, tables
from penstock.services.launching import Launch, UnknownFlowError, launch
from penstock.services.parameters import ParametersError
from penstock.services.run_filter import RunFilter
from penstock.services.runs import RunNotFoundError, TransitionError
from penstock.services.waits import choose_code

router = APIRouter(prefix="/api/v1/namespaces/{ns}/runs", tags=["runs"], dependencies=[Depends(needs("viewer"))])
_LOGS = 1_000  # lines with a run; the rest through /logs


class NewRun(BaseModel):
    """A run to be made. flow: the name of a deployment, or of a flow, also as module:flow."""

    model_config = ConfigDict(extra="forbid")

    flow: str
    parameters: dict[str, Any] = Field(default_factory=dict)
    priority: int = Field(0, ge=-1_000, le=1_000, description="higher ones begin first")


def which(
    state: Annotated[list[State] | None, Query(description="one of these")] = None,
    flow: str | None = None,
    deployment: str | None = None,
    firing: Annotated[str | None, Query(description="runs that this firing launched")] = None,
    automation: Annotated[str | None, Query(description="runs that firings of this one launched")] = None,
    tag: Annotated[str | None, Query(description="its own, or of its flow")] = None,
    since: Annotated[AwareDatetime | None, Query(description="made then or later")] = None,
    until: Annotated[AwareDatetime | None, Query(description="made before")] = None,
) -> RunFilter:
    """The runs that a request is about, by its query."""
    first, last = (None if moment is None else to_instant(moment) for moment in (since, until))
    return RunFilter(tuple(state or ()), flow, deployment, firing, automation, tag, first, last)


Which = Annotated[RunFilter, Depends(which)]


@router.get("")
async def list_runs(
    request: Request,
    ns: str,
    chosen: Which,
    before: Annotated[str | None, Query(description="runs older than this one's id: `next` of the page before")] = None,
    limit: Page = 50,
) -> dict[str, Any]:
    """Runs, newest first; `next` is the `before` of older ones, null where there are none."""
    run, database = tables.run, api_of(request).context.database
    async with database.read() as connection:
        query = sa.select(run).where(*await chosen.where(connection, ns))
    if before is not None:
        last = await run_row(database, ns, before)
        query = query.where(sa.tuple_(run.c.created, run.c.id) < sa.tuple_(last["created"], last["id"]))
    rows = await fetch(database, query.order_by(run.c.created.desc(), run.c.id.desc()).limit(limit + 1))
    page = rows[:limit]
    return {"runs": [run_view(row) for row in page], "next": page[-1]["id"] if len(rows) > limit else None}


@router.post("", status_code=HTTPStatus.CREATED)
async def create_run(request: Request, ns: str, new: NewRun) -> Shown:
    """Make a run. 404: there is no such deployment or flow; 422: not with these parameters, `problems` says why."""
    identity, context = require(request, "operator", ns), api_of(request).context
    try:
        run_id = await launch(context, ns, Launch(new.flow, new.parameters, new.priority), identity.actor)
    except UnknownFlowError as error:
        raise Refusal(HTTPStatus.NOT_FOUND, str(error), flow=new.flow) from None
    except ParametersError as error:
        raise Refusal(HTTPStatus.UNPROCESSABLE_ENTITY, str(error), problems=list(error.problems)) from None
    return run_view(await run_row(context.database, ns, run_id))


@router.get("/{id}")
async def show_run(request: Request, ns: str, id: str) -> Shown:
    """One run: its changes of state, what it waits for, tasks, artifacts, and the first thousand lines of its log."""
    database, event, call = api_of(request).context.database, tables.run_event, tables.journal
    run = await run_row(database, ns, id)
    changes = [
        shown(row) for row in await fetch(database, sa.select(event).where(event.c.run_id == id).order_by(event.c.seq))
    ]
    calls = await fetch(database, sa.select(call).where(call.c.run_id == id).order_by(call.c.started, call.c.call))
    tasks, artifacts = calls_view(run, calls)
    found = run_view(run) | {"waits_for": await waits_for(database, run, changes), "changes": changes}
    found["waits"] = await _waits(database, id)
    found |= {"tasks": tasks, "artifacts": artifacts, "trace": await trace_of(database, run)}
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
    return run_view(await run_row(context.database, ns, id))


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
    await run_row(database, ns, id)
    return {"logs": await _logs(database, id, after, limit)}


@router.get("/{id}/stream")
async def stream_run(
    request: Request,
    ns: str,
    id: str,
    after: Annotated[int, Query(ge=0, description="log lines after the one with this id")] = 0,
    only: Annotated[list[str] | None, Query(description="kinds: state, task, artifact, log; none: all")] = None,
) -> StreamingResponse:
    """What becomes of a run, as it does, until it has ended: one JSON object a line, told apart by `kind`.

    The last one is of kind `end`. An empty line says that the stream is alive.
    """
    database = api_of(request).context.database
    await run_row(database, ns, id)
    lines = follow(database, ns, id, after=after, only=frozenset(only or ()), gone=request.is_disconnected)
    return StreamingResponse(lines, media_type="application/x-ndjson")


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
