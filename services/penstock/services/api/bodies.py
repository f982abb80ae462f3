"""Bodies of requests, read with a bound: what is too large is refused before it is held in memory."""

from __future__ import annotations

from http import HTTPStatus

from starlette.requests import Request

from penstock.events.event import MAX_BODY
from penstock.services.api.problems import Refusal


async def read_body(request: Request, limit: int = MAX_BODY) -> bytes:
    """The whole body, `limit` bytes at most.  Raises Refusal 413 as soon as it is known to be longer."""
    announced = request.headers.get("content-length", "")
    if announced.isdecimal() and int(announced) > limit:
        raise _too_large(limit)
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size > limit:
            raise _too_large(limit)
        parts.append(part)
    return b"".join(parts)


def _too_large(limit: int) -> Refusal:
    detail = f"the body is larger than {limit} bytes; send a reference to the data instead"
    # The rest of the body is never read, so the connection cannot serve another request.
    return Refusal(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, detail, headers={"Connection": "close"}, limit=limit)
