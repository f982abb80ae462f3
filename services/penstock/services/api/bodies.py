"""Bodies of requests, read with a bound: what is too large is refused before it is held in memory."""

from __future__ import annotations

import asyncio
from http import HTTPStatus

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.types import Message, Receive, Send

from penstock.events.event import MAX_BODY

LINGER_BYTES = 8 << 20  # of a refused body that are still read, and thrown away
LINGER = 2.0  # seconds


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


def lingering(receive: Receive, send: Send) -> Send:
    """`send`, which after a 413 reads on for a while before the connection is closed.

    Closing it while the client still writes resets it, and the client would see that instead of our answer.
    """
    refused = False

    async def sent(message: Message) -> None:
        nonlocal refused
        if message["type"] == "http.response.start":
            refused = message["status"] == HTTPStatus.REQUEST_ENTITY_TOO_LARGE
        if not refused or message["type"] != "http.response.body" or message.get("more_body", False):
            await send(message)
            return
        await send({**message, "more_body": True})
        await _read_on(receive)
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    return sent


async def _read_on(receive: Receive) -> None:
    left = LINGER_BYTES
    try:
        async with asyncio.timeout(LINGER):
            while left > 0:
                message = await receive()
                left -= len(message.get("body", b""))
                if message["type"] != "http.request" or not message.get("more_body", False):
                    return
    except TimeoutError:
        return


def _too_large(limit: int) -> HTTPException:
    # FastAPI lets this class alone through. The rest is never read, so the connection can serve nothing else.
    detail = f"the body is larger than {limit} bytes; send a reference to the data instead"
    return HTTPException(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, detail, {"Connection": "close"})
