"""Refusals as RFC 9457 problem details: every error of the API has this one shape."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

import msgspec
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from sqlalchemy.exc import DBAPIError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from penstock.events.errors import BusError, InvalidEventError, PenstockError
from penstock.services.api.rendering import page
from penstock.services.database import DatabaseUnavailableError, unavailable

MEDIA_TYPE = "application/problem+json"
RETRY_AFTER = "1"  # seconds


class Refusal(PenstockError):
    """A request is refused.

    status: of HTTP.  detail: what is wrong and what would be right.  members: further members of the problem object.
    """

    def __init__(
        self, status: int, detail: str, *, headers: Mapping[str, str] | None = None, **members: object
    ) -> None:
        self.status, self.detail, self.headers, self.members = status, detail, dict(headers or {}), members
        super().__init__(detail)

    def response(self) -> Response:
        """The refusal as a response."""
        body = {"type": "about:blank", "title": HTTPStatus(self.status).phrase, "status": self.status}
        body |= {"detail": self.detail, **self.members}
        return Response(msgspec.json.encode(body), self.status, self.headers, MEDIA_TYPE)


def not_found(kind: str, name: str) -> Refusal:
    """There is no such object (in this namespace)."""
    return Refusal(HTTPStatus.NOT_FOUND, f"there is no {kind} {name!r} here")


def invalid_event(error: InvalidEventError) -> Refusal:
    """An event is refused; `field`, and `index` in a batch, say where."""
    members: dict[str, Any] = {"field": error.field} if error.field else {}
    if error.index is not None:
        members["index"] = error.index
    return Refusal(HTTPStatus.BAD_REQUEST, str(error), **members)


def away(what: str, error: BaseException) -> Refusal:
    """Something that we need is away; the same request may succeed later."""
    detail = f"{what} is away: {error}. Nothing was accepted; send it again"
    return Refusal(HTTPStatus.SERVICE_UNAVAILABLE, detail, headers={"Retry-After": RETRY_AFTER})


def explain(error: Exception) -> Refusal | None:
    """The refusal for an error that is not ours to mend; None for a defect of our own."""
    if isinstance(error, Refusal):
        return error
    if isinstance(error, HTTPException):
        return Refusal(error.status_code, str(error.detail), headers=error.headers)
    if isinstance(error, InvalidEventError):
        return invalid_event(error)
    if isinstance(error, BusError):
        return away("the bus", error)
    if isinstance(error, DatabaseUnavailableError) or unavailable(error):
        return away("the database", RuntimeError("no connection"))
    return None


def _answer(request: Request, refusal: Refusal) -> Response:
    """For a person at the page as a page, for programs as a problem."""
    if request.url.path.startswith("/api/") or "text/html" not in request.headers.get("accept", ""):
        return refusal.response()
    title = HTTPStatus(refusal.status).phrase
    found = page(request, "refusal.html", status=refusal.status, title=title, detail=refusal.detail)
    found.headers.update(refusal.headers)
    return found


def install(app: FastAPI) -> None:
    """Make every error of `app` a problem."""

    async def refused(request: Request, error: Exception) -> Response:
        found = explain(error)
        if found is None:
            raise error
        return _answer(request, found)

    async def malformed(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)  # noqa: S101 -- registered for this class only
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"][1:])
        given = f", not {first['input']!r}" if first["type"] in ("enum", "literal_error") else ""
        return Refusal(HTTPStatus.BAD_REQUEST, f"{field or 'the body'}: {first['msg']}{given}", field=field).response()

    async def defect(request: Request, error: Exception) -> Response:
        """Ours; uvicorn logs it with its stack, the client is told nothing of the inside."""
        return _answer(request, Refusal(HTTPStatus.INTERNAL_SERVER_ERROR, "something went wrong here; the log has it"))

    app.add_exception_handler(Exception, defect)
    app.add_exception_handler(PenstockError, refused)
    app.add_exception_handler(OSError, refused)
    app.add_exception_handler(DBAPIError, refused)
    app.add_exception_handler(HTTPException, refused)
    app.add_exception_handler(RequestValidationError, malformed)
