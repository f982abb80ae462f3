"""The page at /approvals: plain HTML that works without scripts. A GET shows, a POST decides."""

from __future__ import annotations

import json
from http import HTTPStatus
from typing import Any

import sqlalchemy as sa
from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from pydantic import ValidationError

from penstock.automations.firing import Firing
from penstock.services.api.approvals import Decision, approval_row, approval_rows, approval_view, vote
from penstock.services.api.guard import check_csrf, identity_of, require
from penstock.services.api.keys import Identity
from penstock.services.api.problems import Refusal
from penstock.services.api.rendering import page
from penstock.services.api.state import Api, api_of
from penstock.services.api.views import Shown, fetch
from penstock.services.context import Context
from penstock.services.database import tables

router = APIRouter(include_in_schema=False)
_PENDING, _RECENT = 100, 20
_EVENTS = 10  # shown of a firing


@router.get("/")
async def home() -> Response:
    """There is one page so far."""
    return RedirectResponse("/approvals", HTTPStatus.SEE_OTHER)


@router.get("/approvals")
async def list_page(request: Request, done: str = "") -> HTMLResponse:
    """What waits for a decision, and what was decided lately."""
    api, identity = api_of(request), require(request, "viewer")
    pending = await _views(api.context, identity, ["pending"], _PENDING)
    pending.sort(key=lambda view: (not view["may_decide"], view["expires_at"]))  # mine, and the most urgent, first
    recent = await _views(api.context, identity, ["approved", "rejected", "expired", "void"], _RECENT)
    told = next((each for each in (*recent, *pending) if each["id"] == done), None) if done else None
    problems = api.watcher.problems if identity.may("operator") else ()
    return page(request, "approvals.html", pending=pending, recent=recent, told=told, problems=problems)


@router.get("/approvals/{id}")
async def show_page(request: Request, id: str) -> HTMLResponse:
    """One approval, with the events behind it."""
    identity = require(request, "viewer")
    return await _show(api_of(request), request, identity, id)


@router.post("/approvals/{id}")
async def decide_page(request: Request, id: str) -> Response:
    """Decide; back to the list, or the page again with the reason why not."""
    identity = identity_of(request)
    form = await request.form(max_files=0, max_fields=10)
    check_csrf(identity, str(form.get("csrf", "")))
    require(request, "approver")
    given = {name: str(form[name]) for name in ("decision", "comment", "shown") if form.get(name)}
    try:
        decision = Decision.model_validate(given)
    except ValidationError as error:
        raise Refusal(HTTPStatus.BAD_REQUEST, f"not a decision: {error.errors()[0]['msg']}") from None
    outcome = await vote(api_of(request).context, identity, id, decision, "page")
    if outcome.kind in ("approved", "rejected", "recorded", "repeated"):
        return RedirectResponse(f"/approvals?done={id}", HTTPStatus.SEE_OTHER)
    status = HTTPStatus.FORBIDDEN if outcome.kind == "refused" else HTTPStatus.CONFLICT
    return await _show(api_of(request), request, identity, id, notice=outcome.message, status=status)


async def _show(
    api: Api, request: Request, identity: Identity, id_: str, *, notice: str = "", status: int = HTTPStatus.OK
) -> HTMLResponse:
    view = await _view(api.context, identity, id_)
    return page(request, "approval.html", status=status, approval=view, notice=notice)


async def _view(context: Context, identity: Identity, id_: str) -> Shown:
    row = await approval_row(context, identity.namespace, id_)
    view = approval_view(context, row, identity)
    return view | {"events": await _events(context, {view["firing_id"]})}


async def _views(context: Context, identity: Identity, statuses: list[Any], limit: int) -> list[Shown]:
    rows = await approval_rows(context, identity.namespace, statuses, limit)
    return [approval_view(context, row, identity) for row in rows]


async def _events(context: Context, firing_ids: set[str | None]) -> list[Shown]:
    """The events that took part in a firing, newest first, with `data` as text."""
    row = tables.firing
    rows = await fetch(context.database, sa.select(row.c.body).where(row.c.id.in_(filter(None, firing_ids))))
    events = [event for each in rows for event in Firing.from_json(each["body"]).events]
    return [event | {"data_text": _pretty(event.get("data"))} for event in reversed(events[-_EVENTS:])]


def _pretty(data: Any) -> str:
    return "" if data is None else json.dumps(data, indent=2, ensure_ascii=False)
