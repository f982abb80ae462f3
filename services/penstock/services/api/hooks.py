"""`POST /hooks/NAME`: signed requests of others become events, as the rule files say; 202 once the bus has them."""

from __future__ import annotations

import os
import time
from http import HTTPStatus

import structlog
from fastapi import APIRouter, Request
from fastapi.responses import Response

from penstock.automations import RenderError, UnknownSecretError, environment_lookup
from penstock.automations.resources import HmacVerify, Webhook
from penstock.automations.templates import render_json
from penstock.events.codec import outgoing
from penstock.events.event import Event
from penstock.events.signatures import SignatureError, verify
from penstock.events.webhooks import to_event
from penstock.services.api.bodies import read_body
from penstock.services.api.problems import Refusal, not_found
from penstock.services.api.state import api_of

router = APIRouter(tags=["webhooks"])
_log = structlog.get_logger()


@router.post("/hooks/{name}", status_code=HTTPStatus.ACCEPTED, response_class=Response)
async def receive_hook(request: Request, name: str) -> Response:
    """Take a delivery. 401: it is not signed as the rule files say; 404: they know no such webhook."""
    api = api_of(request)
    context = api.context
    hook = context.rulebook.current.rules.webhooks.get((context.settings.namespace, name))
    if hook is None:
        raise not_found("webhook", name)
    body = await read_body(request)
    check(hook, request, body)
    event = event_of(hook, request, body).model_copy(update={"actor": f"webhook/{name}"})
    await api.publisher.publish([outgoing(event)])
    return Response(status_code=HTTPStatus.ACCEPTED)


def check(hook: Webhook, request: Request, body: bytes) -> None:
    """Raises Refusal 401 where the raw body is not what was signed, 503 where we lack the secret to tell."""
    try:
        secret = hook.verify.secret.clear(environment_lookup(os.environ))
        header = hook.verify.header if isinstance(hook.verify, HmacVerify) else None
        now = time.time_ns() // 1_000
        verify(hook.verify.preset, secret, request.headers, body, now=now, header=header)
    except SignatureError as error:
        _log.warning("webhook.refused", webhook=hook.name, reason=str(error))
        raise Refusal(HTTPStatus.UNAUTHORIZED, f"webhook {hook.name!r}: {error}") from None
    except (UnknownSecretError, RenderError) as error:
        _log.error("webhook.unusable", webhook=hook.name, reason=str(error))
        detail = f"webhook {hook.name!r} cannot be verified here: its secret is not set"
        raise Refusal(HTTPStatus.SERVICE_UNAVAILABLE, detail, headers={"Retry-After": "60"}) from None


def event_of(hook: Webhook, request: Request, body: bytes) -> Event:
    """The event of a verified delivery.  Raises InvalidEventError, and Refusal 400 where a template fails on it."""
    wanted = hook.event
    names = ("type", "id", "source", "subject", "data")
    template = None if wanted is None else {name: getattr(wanted, name) for name in names}
    try:
        return to_event(hook.name, hook.verify.preset, request.headers, body, template=template, render=render_json)
    except RenderError as error:
        raise Refusal(HTTPStatus.BAD_REQUEST, f"webhook {hook.name!r}: {error}") from None
