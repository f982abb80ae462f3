"""`POST /events`: CloudEvents in, 202 once the bus has them."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus

from starlette.requests import Request
from starlette.responses import Response

from penstock.events.bus import Outgoing
from penstock.events.codec import from_http, outgoing, stamp
from penstock.services.api.bodies import read_body
from penstock.services.api.guard import require
from penstock.services.api.state import api_of


async def post_events(request: Request) -> Response:
    """Take events in structured, binary or batch mode; all of a request or none."""
    who = require(request, "operator")
    records = read_events(request.headers, await read_body(request), who.actor)
    if records:
        await api_of(request).publisher.publish(records)
    return Response(status_code=HTTPStatus.ACCEPTED)


def read_events(headers: Mapping[str, str], body: bytes, actor: str) -> list[Outgoing]:
    """The records of one request, stamped with who sends it: four-eyes asks for that later.

    Raises InvalidEventError with the field, and in a batch the index, at fault.
    """
    return [outgoing(stamp(event, actor)) for event in from_http(headers, body)]
