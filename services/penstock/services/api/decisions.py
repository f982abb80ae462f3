"""Decisions, and what became of them: firings with their runs, messages and approvals; and the flows there are."""

from __future__ import annotations

from typing import Annotated, Any

import sqlalchemy as sa
from fastapi import APIRouter, Depends, Query, Request

from penstock.services.api.guard import needs
from penstock.services.api.problems import not_found
from penstock.services.api.state import api_of
from penstock.services.api.views import Page, Shown, fetch, shown
from penstock.services.database import tables

router = APIRouter(prefix="/api/v1/namespaces/{ns}", tags=["decisions"], dependencies=[Depends(needs("viewer"))])


@router.get("/decisions")
async def list_decisions(
    request: Request,
    ns: str,
    automation: str | None = None,
    kind: Annotated[str | None, Query(description="fired, resolved or suppressed")] = None,
    limit: Page = 50,
) -> dict[str, list[Shown]]:
    """Decisions, newest first."""
    row = tables.decision
    query = sa.select(row).where(row.c.namespace == ns)
    if automation is not None:
        query = query.where(row.c.automation == automation)
    if kind is not None:
        query = query.where(row.c.kind == kind)
    query = query.order_by(row.c.at.desc(), row.c.id).limit(limit)
    return {"decisions": [shown(each) for each in await fetch(api_of(request).context.database, query)]}


@router.get("/firings/{id}")
async def show_firing(request: Request, ns: str, id: str) -> Shown:
    """One firing with its decision and all that it has set going."""
    database = api_of(request).context.database

    async def rows(table: sa.Table, column: str, order: str) -> list[Shown]:
        query = sa.select(table).where(table.c.namespace == ns, table.c[column] == id).order_by(table.c[order])
        return [_without_body(shown(row)) for row in await fetch(database, query)]

    firing = await rows(tables.firing, "id", "created")
    if not firing:
        raise not_found("firing", id)
    decision = await rows(tables.decision, "id", "created")
    return firing[0] | {
        "decision": decision[0] if decision else None,
        "runs": await rows(tables.run, "firing_id", "created"),
        "deliveries": await rows(tables.delivery, "firing_id", "created"),
        "approvals": await rows(tables.approval, "firing_id", "created"),
    }


@router.get("/flows")
async def list_flows(request: Request, ns: str) -> dict[str, list[Shown]]:
    """The flows that workers have registered."""
    row = tables.flow
    query = sa.select(row).where(row.c.namespace == ns).order_by(row.c.name)
    return {"flows": [shown(each) for each in await fetch(api_of(request).context.database, query)]}


def _without_body(found: dict[str, Any]) -> Shown:
    """The body is the engine's own: it may hold placeholders, and its form is no contract."""
    return {name: value for name, value in found.items() if name != "body"}
