"""A verified webhook request becomes an event.

Without an `event` of the user's own, or where it leaves something out:

| | `github` | others |
| --- | --- | --- |
| type | `github.EVENT`, `github.EVENT.ACTION` where the body has an `action` | `webhook.NAME` |
| source | `/webhooks/NAME` | `/webhooks/NAME` |
| id | a digest of the body | `webhook-id` (Standard Webhooks), the body's `id` (Stripe), else a digest of the body |
| subject | the repository's full name | none |
| data | the body: JSON, form fields, or text | the same |

So a delivery that is sent again is the same event. Where only the digest is left, two deliveries with equal bodies
are one event, too: name an `id` where that is not meant.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import parse_qs

import msgspec

from penstock.events.errors import InvalidEventError
from penstock.events.event import Event, from_mapping, refuse_reserved
from penstock.events.ids import derived_id

Template = Mapping[str, Any]  # of the attributes type, id, source, subject, data: whatever `render` understands
Render = Callable[[Any, Mapping[str, Any]], Any]  # (template, variables) -> JSON value

_PART = re.compile(r"[A-Za-z0-9_-]{1,64}\Z")


def to_event(
    name: str,
    preset: str,
    headers: Mapping[str, str],
    body: bytes,
    *,
    template: Template | None = None,
    render: Render | None = None,
) -> Event:
    """The event of a request whose signature was verified.

    name: the webhook's.  template: attributes as the user wrote them, None for those left out.  render: makes values
    of them, from the variables `body` and `headers` (names in lower case).  Raises InvalidEventError, and whatever
    `render` raises.
    """
    given = {key.lower(): value for key, value in headers.items()}
    content = read_body(given.get("content-type", ""), body)
    wanted = {key: value for key, value in (template or {}).items() if value is not None}
    if render is not None:
        variables = {"body": content, "headers": given}
        wanted = {key: render(value, variables) for key, value in wanted.items()}
    mapping = {**_defaults(name, preset, given, content, body), **_texts(wanted)}
    event = from_mapping(mapping)
    refuse_reserved(event.type)
    return event


def read_body(content_type: str, body: bytes) -> Any:
    """The content: JSON, the fields of a form, text, or {"base64": …} for other bytes.

    Raises InvalidEventError where it is not what its content type says.
    """
    media = content_type.partition(";")[0].strip().lower()
    if media == "application/x-www-form-urlencoded":
        return _form(body)
    try:
        return msgspec.json.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, ValueError) as error:
        if media == "application/json" or media.endswith("+json"):
            raise InvalidEventError(f"the body is not JSON: {error}", field="data") from None
    try:
        return body.decode()
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(body).decode()}


def _form(body: bytes) -> Any:
    """Fields with their first values; a lone field `payload` is JSON, as GitHub sends it."""
    try:
        fields = {key: values[0] for key, values in parse_qs(body.decode(), keep_blank_values=True).items()}
        return msgspec.json.decode(fields["payload"]) if list(fields) == ["payload"] else fields
    except (msgspec.MsgspecError, ValueError) as error:
        raise InvalidEventError(f"the form cannot be read: {error}", field="data") from None


def _defaults(name: str, preset: str, headers: Mapping[str, str], content: Any, body: bytes) -> dict[str, Any]:
    """The id must be covered by the signature: an unsigned header would make a captured request new again and again."""
    delivery = headers.get("webhook-id", "").strip() if preset == "standard-webhooks" else ""
    if preset == "stripe" and isinstance(content, dict) and isinstance(content.get("id"), str):
        delivery = content["id"]
    found = {
        "id": delivery or derived_id("webhook", name, body.hex()),
        "source": f"/webhooks/{name}",
        "type": f"webhook.{name}",
        "data": content,
    }
    return found | (_github(headers, content) if preset == "github" else {})


def _github(headers: Mapping[str, str], content: Any) -> dict[str, Any]:
    found: dict[str, Any] = {}
    kind = headers.get("x-github-event", "")
    if _PART.match(kind):
        action = content.get("action") if isinstance(content, dict) else None
        found["type"] = f"github.{kind}" + (f".{action}" if isinstance(action, str) and _PART.match(action) else "")
    repository = content.get("repository") if isinstance(content, dict) else None
    if isinstance(repository, dict) and isinstance(repository.get("full_name"), str):
        found["subject"] = repository["full_name"]
    return found


def _texts(rendered: Mapping[str, Any]) -> dict[str, Any]:
    """Attributes are texts, whatever kind of JSON their template came to; an empty subject is none."""
    found: dict[str, Any] = {}
    for key, value in rendered.items():
        if key == "data":
            found[key] = value
        elif value is None or value == "":
            if key != "subject":
                raise InvalidEventError("the template came to nothing", field=key)
        elif isinstance(value, str):
            found[key] = value
        else:
            found[key] = msgspec.json.encode(value).decode()
    return found
