"""The dead letters: what could not be handled, read from the bus."""

from __future__ import annotations

from http import HTTPStatus
from typing import Annotated, Any, TypeAlias

from fastapi import APIRouter, Depends, Query, Request

from penstock.services.api import letters
from penstock.services.api.guard import needs, require
from penstock.services.api.problems import Refusal, not_found
from penstock.services.api.state import api_of
from penstock.services.api.views import Page, Shown
from penstock.services.redrive import NotRedrivableError, redrive

router = APIRouter(
    prefix="/api/v1/namespaces/{ns}/dead-letters", tags=["dead letters"], dependencies=[Depends(needs("viewer"))]
)
Before: TypeAlias = Annotated[str | None, Query(description="older ones only: `next` of the page before")]


@router.get("")
async def list_dead_letters(request: Request, ns: str, limit: Page = 50, before: Before = None) -> dict[str, Any]:
    """The newest dead letters, newest first; `next` is the `before` of older ones, null where there are none."""
    try:
        ends = None if before is None else letters.parse_cursor(before)
    except ValueError as error:
        raise Refusal(HTTPStatus.UNPROCESSABLE_ENTITY, str(error)) from None
    page = await letters.newest(api_of(request).context.bus, ns, limit, ends)
    return {"dead_letters": [each.letter for each in page.entries], "next": letters.format_cursor(page.before)}


@router.get("/{id}")
async def show_dead_letter(request: Request, ns: str, id: str) -> Shown:
    """One dead letter, with its body and the stack of its failure."""
    return await _letter(request, ns, id)


@router.post("/{id}/redrive", status_code=HTTPStatus.ACCEPTED)
async def redrive_dead_letter(request: Request, ns: str, id: str) -> dict[str, str]:
    """Have what failed tried once more. 409: it cannot be, or need not any more; the detail says why."""
    identity, context = require(request, "operator", ns), api_of(request).context
    letter = await _letter(request, ns, id)
    try:
        return {"redriven": await redrive(context, letter, actor=identity.actor, namespace=ns)}
    except NotRedrivableError as error:
        raise Refusal(HTTPStatus.CONFLICT, f"dead letter {id!r} is not re-driven: {error}") from None


async def _letter(request: Request, ns: str, id: str) -> Shown:
    found = await letters.find(api_of(request).context.bus, ns, id)
    if found is None:
        raise not_found("dead letter", id)
    return found
