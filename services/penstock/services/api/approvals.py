"""Approvals as a resource: list, look, decide. The page in `pages` shows the same."""

from __future__ import annotations

from http import HTTPStatus
from typing import Annotated, Any, Literal

import sqlalchemy as sa
from fastapi import APIRouter, Depends, Query, Request
from pydantic import BaseModel, ConfigDict, Field

from penstock.automations.approval import Approval, Outcome, Vote, may_decide
from penstock.events.instants import format_instant
from penstock.services.api.guard import needs, require
from penstock.services.api.keys import Identity
from penstock.services.api.problems import Refusal, not_found
from penstock.services.api.state import api_of
from penstock.services.api.views import Page, Row, Shown, fetch
from penstock.services.approvals import UnknownApprovalError, decide, groups_of
from penstock.services.context import Context
from penstock.services.database import tables

router = APIRouter(
    prefix="/api/v1/namespaces/{ns}/approvals", tags=["approvals"], dependencies=[Depends(needs("viewer"))]
)
Status = Literal["pending", "approved", "rejected", "expired", "void"]
CLI_AGENT = "penstock-cli"


class Decision(BaseModel):
    """A vote."""

    model_config = ConfigDict(extra="forbid")

    decision: Literal["approve", "reject"]
    comment: str | None = Field(None, max_length=4_000)
    shown: str | None = Field(None, max_length=200, description="digest of what was seen; another one now: refused")
    form: dict[str, Any] | None = Field(None, description="what is filled in, as the approval's `form` describes it")


@router.get("")
async def list_approvals(
    request: Request, ns: str, status: Annotated[Status | None, Query()] = None, limit: Page = 50
) -> dict[str, list[Shown]]:
    """Approvals, the latest first."""
    identity, context = require(request, "viewer", ns), api_of(request).context
    rows = await approval_rows(context, ns, [status] if status else None, limit)
    return {"approvals": [approval_view(context, row, identity) for row in rows]}


@router.get("/{id}")
async def show_approval(request: Request, ns: str, id: str) -> Shown:
    """One approval with its votes."""
    identity, context = require(request, "viewer", ns), api_of(request).context
    return approval_view(context, await approval_row(context, ns, id), identity)


@router.post("/{id}/decision")
async def decide_approval(request: Request, ns: str, id: str, decision: Decision) -> Shown:
    """Vote. 403: you may not; 409: it had been decided before, the detail says by whom and when; 422: the form."""
    identity, context = require(request, "approver", ns), api_of(request).context
    channel = "cli" if request.headers.get("user-agent", "").startswith(CLI_AGENT) else "api"
    outcome = await vote(context, identity, id, decision, channel)
    view = approval_view(context, await approval_row(context, ns, id), identity)
    if outcome.kind == "refused":
        raise Refusal(HTTPStatus.FORBIDDEN, outcome.message, outcome=outcome.kind)
    if outcome.kind == "invalid":
        raise Refusal(HTTPStatus.UNPROCESSABLE_ENTITY, outcome.message, outcome=outcome.kind, form=view["form"])
    if outcome.kind in ("late", "expired", "void"):
        members = {name: view[name] for name in ("id", "decided_by", "decided_at")}
        raise Refusal(HTTPStatus.CONFLICT, outcome.message, outcome=outcome.kind, result=view["status"], **members)
    return view | {"outcome": outcome.kind, "message": outcome.message}


async def vote(context: Context, identity: Identity, id_: str, decision: Decision, channel: str) -> Outcome:
    """Cast the identity's vote.  Raises Refusal 404."""
    given = (decision.shown or "", decision.comment or "", decision.form)
    cast = Vote(identity.actor, decision.decision, channel, *given)
    try:
        return await decide(context, id_, cast, namespace=identity.namespace)
    except UnknownApprovalError:
        raise not_found("approval", id_) from None


async def approval_rows(context: Context, namespace: str, statuses: list[Status] | None, limit: int) -> list[Row]:
    """Rows of approvals; what happened last, the decision or the question, comes first."""
    row = tables.approval
    query = sa.select(row).where(row.c.namespace == namespace)
    if statuses is not None:
        query = query.where(row.c.status.in_(statuses))
    return await fetch(
        context.database, query.order_by(sa.func.coalesce(row.c.decided, row.c.created).desc(), row.c.id).limit(limit)
    )


async def approval_row(context: Context, namespace: str, id_: str) -> Row:
    """One row.  Raises Refusal 404."""
    row = tables.approval
    found = await fetch(context.database, sa.select(row).where(row.c.namespace == namespace, row.c.id == id_))
    if not found:
        raise not_found("approval", id_)
    return found[0]


def approval_view(context: Context, row: Row, identity: Identity) -> Shown:
    """An approval for the reader; `may_decide` is about the one who reads."""
    approval = Approval.from_json(row["body"])
    groups = groups_of(context, row["namespace"])
    mine = identity.may("approver") and may_decide(approval, identity.actor, groups)
    mine = mine and not (approval.four_eyes and approval.starter == identity.actor)
    return {
        "id": approval.id,
        "status": row["status"],
        "ask": approval.ask,
        "automation": row["automation"],
        "firing_id": row["firing_id"],
        "run_id": row["run_id"],
        "form": approval.form,
        "approvers": list(approval.approvers),
        "needs": approval.needs,
        "approvals": sum(cast.verdict == "approve" for cast in approval.votes),
        "votes": [
            {
                "person": cast.person,
                "verdict": cast.verdict,
                "at": format_instant(cast.at),
                "channel": cast.channel,
                "comment": cast.comment,
                "form": cast.form,
            }
            for cast in approval.votes
        ],
        "four_eyes": approval.four_eyes,
        "on_timeout": approval.on_timeout,
        "shown": approval.shown,
        "created": format_instant(row["created"]),
        "expires_at": format_instant(approval.deadline),
        "decided_by": approval.decided_by,
        "decided_at": format_instant(approval.decided_at) if approval.decided_at is not None else None,
        "may_decide": mine and row["status"] == "pending",
    }
