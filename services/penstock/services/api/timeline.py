"""What one event set going, hop by hop: decisions, messages, approvals, runs, each with its id and its moment."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from fastapi import APIRouter, Depends, Request

from penstock.events.instants import Instant, format_instant
from penstock.services.api.guard import needs
from penstock.services.api.problems import not_found
from penstock.services.api.state import api_of
from penstock.services.api.views import fetch
from penstock.services.database import Database, tables

router = APIRouter(prefix="/api/v1/namespaces/{ns}", tags=["decisions"], dependencies=[Depends(needs("viewer"))])
_LIMIT = 500  # hops; a chain that is longer shows its beginning

Hop = tuple[Instant | None, str, str, str]  # when, what, id, detail


@router.get("/timeline/{correlationid}")
async def timeline(request: Request, ns: str, correlationid: str) -> dict[str, Any]:
    """The hops of everything whose root cause is this event's id, in order of time."""
    database = api_of(request).context.database
    found = [
        hop for part in (_decisions, _deliveries, _approvals, _runs) for hop in await part(database, ns, correlationid)
    ]
    hops = sorted((hop for hop in found if hop[0] is not None), key=lambda hop: hop[0] or 0)[:_LIMIT]
    if not hops:
        raise not_found("decision of an event", correlationid)
    first = hops[0][0] or 0
    return {
        "correlationid": correlationid,
        "hops": [
            {
                "at": format_instant(at or 0),
                "ms": round(((at or 0) - first) / 1_000, 1),
                "hop": what,
                "id": id_,
                "detail": detail,
            }
            for at, what, id_, detail in hops
        ],
    }


async def _decisions(database: Database, ns: str, cause: str) -> list[Hop]:
    row = tables.decision
    hops: list[Hop] = []
    for each in await fetch(database, sa.select(row).where(row.c.namespace == ns, row.c.correlationid == cause)):
        hops.append((each["at"], "event.arrived", cause, "acknowledged by the bus"))
        hops.append((each["created"], f"automation.{each['kind']}", each["id"], each["automation"]))
    return hops


async def _deliveries(database: Database, ns: str, cause: str) -> list[Hop]:
    row = tables.delivery
    hops: list[Hop] = []
    for each in await fetch(database, sa.select(row).where(row.c.namespace == ns, row.c.correlationid == cause)):
        if each["status"] != "pending":
            hops.append((each["updated"], f"message.{each['status']}", each["id"], each["channel"]))
    return hops


async def _approvals(database: Database, ns: str, cause: str) -> list[Hop]:
    row, decision = tables.approval, tables.decision
    mine = sa.select(decision.c.id).where(decision.c.namespace == ns, decision.c.correlationid == cause)
    hops: list[Hop] = []
    for each in await fetch(database, sa.select(row).where(row.c.namespace == ns, row.c.firing_id.in_(mine))):
        hops.append((each["created"], "approval.requested", each["id"], each["ask"]))
        hops.append((each["decided"], f"approval.{each['status']}", each["id"], each["ask"]))
    return hops


async def _runs(database: Database, ns: str, cause: str) -> list[Hop]:
    row, change, call = tables.run, tables.run_event, tables.journal
    mine = sa.select(row.c.id, row.c.flow).where(row.c.namespace == ns, row.c.correlationid == cause)
    flows = {each["id"]: each["flow"] for each in await fetch(database, mine)}
    hops: list[Hop] = []
    for each in await fetch(database, sa.select(change).where(change.c.run_id.in_(list(flows)))):
        hops.append((each["at"], f"run.{each['state']}", each["run_id"], flows[each["run_id"]]))
    for each in await fetch(database, sa.select(call).where(call.c.run_id.in_(list(flows)))):
        hops.append((each["ended"], f"task.{each['state']}", each["run_id"], each["name"]))
    return hops
