"""What people do with runs, over HTTP: with one by its id, with many by the filters of the list."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from fastapi import APIRouter, Depends, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from penstock.services.api.guard import needs, require
from penstock.services.api.keys import Identity
from penstock.services.api.problems import Refusal
from penstock.services.api.runs import Which
from penstock.services.api.state import api_of
from penstock.services.api.views import Shown
from penstock.services.run_operations import Done, Order, matching, operate, operate_on_many
from penstock.services.run_rules import Operation, OperationRefusedError, done
from penstock.services.runs import RunNotFoundError

router = APIRouter(prefix="/api/v1/namespaces/{ns}/runs", tags=["runs"], dependencies=[Depends(needs("operator"))])


class How(BaseModel):
    """How an operation is done; all may be left out."""

    model_config = ConfigDict(extra="forbid")

    at_once: bool = Field(False, description="cancel, suspend: end its process without a word to its code")
    from_start: bool = Field(False, description="retry: forget what its tasks have returned")
    reason: str = Field("", max_length=1_000, description="stands in the run's history and in the audit log")
    dry_run: bool = Field(False, description="by filter: only tell which runs it would be")


@router.post("/{id}/{operation}")
async def operate_on_run(
    request: Request, response: Response, ns: str, id: str, operation: Operation, how: How | None = None
) -> Shown:
    """Do it. 202: its worker was asked, the state follows; 409: its state does not allow it."""
    identity, context = require(request, "operator", ns), api_of(request).context
    order = _order(operation, how or How(), identity)
    if how is not None and how.dry_run:
        raise Refusal(HTTPStatus.UNPROCESSABLE_ENTITY, "dry_run is for operations by filter; look at the run itself")
    try:
        found = await operate(context, ns, id, order)
    except RunNotFoundError as error:
        raise Refusal(HTTPStatus.NOT_FOUND, str(error)) from None
    except OperationRefusedError as error:
        raise Refusal(HTTPStatus.CONFLICT, str(error)) from None
    if found.asked:
        response.status_code = HTTPStatus.ACCEPTED
    return _view(found)


@router.post("/{operation}")
async def operate_on_runs(
    request: Request, ns: str, operation: Operation, chosen: Which, how: How | None = None
) -> dict[str, Any]:
    """Do it with all runs that match the filters of the query and whose state allows it, a thousand at most.

    `more`: there are others; ask again. `refused`: id → why, for runs that have changed meanwhile.
    """
    identity, context = require(request, "operator", ns), api_of(request).context
    order = _order(operation, how or How(), identity)
    if chosen.is_empty:
        raise Refusal(
            HTTPStatus.UNPROCESSABLE_ENTITY,
            f"which runs are to be {done(operation)}? give a filter, e.g. ?flow=… or ?state=…",
        )
    if how is not None and how.dry_run:
        ids, more = await matching(context.database, ns, chosen, operation)
        return {"runs": [{"id": each} for each in ids], "refused": {}, "more": more}
    found = await operate_on_many(context, ns, chosen, order)
    return {"runs": [_view(each) for each in found.done], "refused": found.refused, "more": found.more}


def _order(operation: Operation, how: How, identity: Identity) -> Order:
    if how.at_once and operation not in ("cancel", "suspend"):
        raise Refusal(HTTPStatus.UNPROCESSABLE_ENTITY, f"at_once is for cancel and suspend, not for {operation}")
    if how.from_start and operation != "retry":
        raise Refusal(HTTPStatus.UNPROCESSABLE_ENTITY, f"from_start is for retry, not for {operation}")
    return Order(operation, identity.actor, how.at_once, how.from_start, how.reason)


def _view(found: Done) -> Shown:
    return {"id": found.id, "state": found.state.value, "asked": found.asked}
