"""Bodies of requests, read with a bound: what is too large is refused before it is held in memory."""

from __future__ import annotations

from http import HTTPStatus

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.types import Message, Receive

from penstock.events.event import MAX_BODY


async def read_body(request: Request, limit: int = MAX_BODY) -> bytes:
    """The whole body; refused with 413 as soon as it is known to be longer than `limit` bytes."""
    announced = request.headers.get("content-length", "")
    if announced.isdecimal() and int(announced) > limit:
        raise _too_large(limit)
    return b"".join([part async for part in request.stream()])


def bounded(receive: Receive, limit: int) -> Receive:
    """`receive`, which refuses with 413 to give more than `limit` bytes of a body."""
    size = 0

    async def received() -> Message:
        nonlocal size
        message = await receive()
        size += len(message.get("body", b""))
        if size > limit:
            raise _too_large(limit)
        return message

    return received


def _too_large(limit: int) -> HTTPException:
    # FastAPI lets this class alone through. The rest is never read, so the connection can serve nothing else.
    detail = f"the body is larger than {limit} bytes; send a reference to the data instead"
    return HTTPException(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, detail, {"Connection": "close"})
