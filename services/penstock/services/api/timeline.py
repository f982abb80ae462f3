"""What one event set going, hop by hop: decisions, messages, approvals, runs, each with its id and its moment."""

from __future__ import annotations

import json
from datetime import datetime
from http import HTTPStatus
from typing import Any

import sqlalchemy as sa
from fastapi import APIRouter, Depends, Request

from penstock.automations.firing import FINAL, Firing
from penstock.events.instants import Instant, format_instant, to_instant
from penstock.services.api.guard import needs
from penstock.services.api.problems import Refusal
from penstock.services.api.state import api_of
from penstock.services.api.views import Row, fetch
from penstock.services.database import Database, tables

router = APIRouter(prefix="/api/v1/namespaces/{ns}", tags=["decisions"], dependencies=[Depends(needs("viewer"))])
_LIMIT = 500  # hops; a chain that is longer shows its beginning
_EMITTED = {"id", "type", "time"}  # what a firing keeps of an event that it has emitted
_DEAD = "dead_lettered"

Hop = tuple[Instant | None, str, str, str]  # when, what, id, detail


@router.get("/timeline/{id}")
async def timeline(request: Request, ns: str, id: str) -> dict[str, Any]:
    """The hops of everything that an event took part in, or is the root cause of, in order of time."""
    database = api_of(request).context.database
    decisions = await _decisions_of(database, ns, id)
    if not decisions:
        raise Refusal(
            HTTPStatus.NOT_FOUND,
            f"no decision: no rule has fired for an event with the id {id!r} (or it has not arrived)",
        )
    causes = list({each["correlationid"] for each in decisions})
    found = _decisions(decisions)
    for part in (_firings, _deliveries, _approvals, _runs):
        found += await part(database, ns, causes)
    hops = sorted((hop for hop in found if hop[0] is not None), key=lambda hop: hop[0] or 0)[:_LIMIT]
    return {"correlationid": causes[0] if len(causes) == 1 else id, "hops": _shown(hops)}


def _shown(hops: list[Hop]) -> list[dict[str, Any]]:
    """`ms`: since the first hop."""
    first = hops[0][0] or 0
    return [
        {
            "at": format_instant(at or 0),
            "ms": round(((at or 0) - first) / 1_000, 1),
            "hop": what,
            "id": id_,
            "detail": detail,
        }
        for at, what, id_, detail in hops
    ]


async def _decisions_of(database: Database, ns: str, id_: str) -> list[Row]:
    return await fetch(database, decisions_of(ns, id_, sqlite=database.is_sqlite))


def decisions_of(ns: str, id_: str, *, sqlite: bool) -> sa.Select[Any]:
    """The decisions whose evidence or root cause the event is, and all others of the same root causes."""
    row = tables.decision
    part = (
        row.c.events.contains(json.dumps(id_), autoescape=True)
        if sqlite  # which has no index over what is in a list
        else tables.decision_events.contains([id_])
    )
    causes = sa.select(row.c.correlationid).where(row.c.namespace == ns, part | (row.c.correlationid == id_))
    query = sa.select(row).where(row.c.namespace == ns, row.c.correlationid.in_(causes))
    return query.order_by(row.c.created, row.c.id).limit(_LIMIT)


def _decisions(rows: list[Row]) -> list[Hop]:
    """Each root cause arrives once, however many rules fired for it."""
    arrived: dict[str, Instant] = {}
    for each in rows:
        cause = each["correlationid"]
        arrived[cause] = min(each["at"], arrived.get(cause, each["at"]))
    hops: list[Hop] = [(at, "event.arrived", cause, "acknowledged by the bus") for cause, at in arrived.items()]
    return hops + [(each["created"], f"automation.{each['kind']}", each["id"], each["automation"]) for each in rows]


async def _firings(database: Database, ns: str, causes: list[str]) -> list[Hop]:
    """What firings have emitted, and how they ended."""
    row, decision = tables.firing, tables.decision
    mine = sa.select(decision.c.id).where(decision.c.namespace == ns, decision.c.correlationid.in_(causes))
    hops: list[Hop] = []
    for each in await fetch(database, sa.select(row).where(row.c.namespace == ns, row.c.id.in_(mine))):
        firing = Firing.from_json(each["body"])
        hops += _emitted(firing)
        if each["status"] in FINAL:
            hops.append((each["updated"], f"firing.{each['status']}", each["id"], _end(firing, each["status"])))
    return hops


def _emitted(firing: Firing) -> list[Hop]:
    """Results that name an event's type are those of `emit`."""
    results = [each for each in firing.results.values() if isinstance(each, dict) and set(each) == _EMITTED]
    return [
        (to_instant(datetime.fromisoformat(each["time"])), "event.emitted", each["id"], each["type"])
        for each in results
    ]


def _end(firing: Firing, status: str) -> str:
    """Why it ended so, where there is a reason, and how to go on."""
    result = firing.results.get(firing.cursor)
    reason = result.get("error") if isinstance(result, dict) and status != "completed" else None
    told = f"{firing.automation}: {reason}" if reason else firing.automation
    return f"{told} (`penstock dlq list` has it, `penstock dlq redrive` tries it again)" if status == _DEAD else told


async def _deliveries(database: Database, ns: str, causes: list[str]) -> list[Hop]:
    row = tables.delivery
    hops: list[Hop] = []
    for each in await fetch(database, sa.select(row).where(row.c.namespace == ns, row.c.correlationid.in_(causes))):
        if each["status"] != "pending":
            hops.append((each["updated"], f"message.{each['status']}", each["id"], each["channel"]))
    return hops


async def _approvals(database: Database, ns: str, causes: list[str]) -> list[Hop]:
    row, decision = tables.approval, tables.decision
    mine = sa.select(decision.c.id).where(decision.c.namespace == ns, decision.c.correlationid.in_(causes))
    hops: list[Hop] = []
    for each in await fetch(database, sa.select(row).where(row.c.namespace == ns, row.c.firing_id.in_(mine))):
        hops.append((each["created"], "approval.requested", each["id"], each["ask"]))
        hops.append((each["decided"], f"approval.{each['status']}", each["id"], each["ask"]))
    return hops


async def _runs(database: Database, ns: str, causes: list[str]) -> list[Hop]:
    row, change, call = tables.run, tables.run_event, tables.journal
    mine = sa.select(row.c.id, row.c.flow).where(row.c.namespace == ns, row.c.correlationid.in_(causes))
    flows = {each["id"]: each["flow"] for each in await fetch(database, mine)}
    hops: list[Hop] = []
    for each in await fetch(database, sa.select(change).where(change.c.run_id.in_(list(flows)))):
        hops.append((each["at"], f"run.{each['state']}", each["run_id"], flows[each["run_id"]]))
    for each in await fetch(database, sa.select(call).where(call.c.run_id.in_(list(flows)))):
        hops.append((each["ended"], f"task.{each['state']}", each["run_id"], each["name"]))
    return hops
