"""CloudEvents 1.0.2 on the wire: Kafka structured and binary mode, HTTP structured, binary and batch.

Whatever the mode, what comes out is the structured JSON body and its envelope. Decided here, and tested:

- An attribute given twice: each one must be valid, the last one counts; what is published carries it once.
- NaN, infinities, numbers beyond a double, halves of surrogate pairs, NUL, and nesting deeper than 100 are refused.
- Integers of any size stay as they are in `data`; those of extension attributes have 32 bits.
- `data_base64` is kept beside the other attributes; an event has it or `data`.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple
from urllib.parse import unquote

import msgspec

from penstock.events import bus
from penstock.events.bus import Outgoing
from penstock.events.errors import InvalidEventError
from penstock.events.event import MAX_BODY, Envelope, Event, decode, encode_mapping, refuse_reserved

STRUCTURED = "application/cloudevents+json"
BATCH = "application/cloudevents-batch+json"
STRUCTURED_HEADERS = (("content-type", b"application/cloudevents+json; charset=utf-8"),)

_QUOTED_PAIR = re.compile(r"\\(.)")
_TEXT_TYPES = ("application/xml", "application/x-www-form-urlencoded", "application/javascript")


class Decoded(NamedTuple):
    """One event: its structured JSON, and what the services need of it."""

    body: bytes
    envelope: Envelope


def outgoing(event: Event | Decoded) -> Outgoing:
    """An event as the record that is published: structured, keyed by what orders it.

    Raises InvalidEventError for Penstock's own types and for what cannot be written.
    """
    if isinstance(event, Event):
        refuse_reserved(event.type)
        return _record(event.to_json(), event.ordering_key)
    refuse_reserved(event.envelope.type)
    return _record(event.body, event.envelope.ordering_key)


def stamp(found: Decoded, actor: str) -> Decoded:
    """The event with the extension attribute `actor`: who brought it to the door, whatever its sender claims.

    Raises InvalidEventError where it becomes too large by that.
    """
    if b'"actor"' in found.body:
        body = msgspec.json.encode(msgspec.json.decode(found.body, type=dict[str, msgspec.Raw]) | {"actor": actor})
    else:
        body = found.body.rstrip()[:-1] + b',"actor":' + msgspec.json.encode(actor) + b"}"
    if len(body) > MAX_BODY:
        raise InvalidEventError(f"{len(body)} bytes with its actor; at most {MAX_BODY} (1 MiB) are taken")
    return Decoded(body, found.envelope)


def _record(body: bytes, key: str) -> Outgoing:
    return Outgoing(bus.EVENTS, body, key.encode(), headers=STRUCTURED_HEADERS)


# --- Kafka ----------------------------------------------------------------------------------------------------------


def from_record(headers: Sequence[tuple[str, bytes]], value: bytes) -> Decoded:
    """An event as it lies on the bus, in either mode; without headers it is taken as structured.

    Raises InvalidEventError. Whether its type is allowed depends on the topic, and is for the caller to judge.
    """
    if not headers or headers == STRUCTURED_HEADERS:  # as Penstock's own clients write
        return Decoded(value, decode(value))
    given = {name.lower(): _utf8(name, text) for name, text in headers if text is not None}
    media = _media_type(given.get("content-type", ""))
    if media == STRUCTURED or not (media.startswith("application/cloudevents") or "ce_id" in given):
        return Decoded(value, decode(value))
    if media.startswith("application/cloudevents"):
        raise InvalidEventError(f"{media!r} is not read from the bus; write {STRUCTURED}", field="content-type")
    attributes = {name[3:]: text for name, text in given.items() if name.startswith("ce_")}
    return _from_binary(attributes, given.get("content-type"), value)


def _utf8(name: str, text: bytes) -> str:
    try:
        return text.decode()
    except UnicodeDecodeError:
        if name.lower().startswith("ce_") or name.lower() == "content-type":
            raise InvalidEventError("the header is not UTF-8", field=name) from None
        return ""  # a header that is not ours to read


# --- HTTP -----------------------------------------------------------------------------------------------------------


def from_http(headers: Mapping[str, str], body: bytes) -> list[Decoded]:
    """The events of one request, in any of the three modes; names of headers may be in any case.

    `application/json`, or no content type at all, is taken as structured, and a JSON array as a batch.
    Raises InvalidEventError: for a batch with the index of the first event at fault; Penstock's own types are refused.
    """
    given = {name.lower(): value for name, value in headers.items()}
    media = _media_type(given.get("content-type", ""))
    if media == BATCH or (media in ("application/json", "") and "ce-id" not in given and body.lstrip()[:1] == b"["):
        return _from_batch(body)
    found = _allowed(_from_one(given, media, body))
    return [found]


def _from_one(given: Mapping[str, str], media: str, body: bytes) -> Decoded:
    if media == STRUCTURED:
        return _canonical(body)
    if media.startswith("application/cloudevents"):
        raise InvalidEventError(f"{media!r} is not taken; send {STRUCTURED} or {BATCH}", field="content-type")
    attributes = {name[3:]: _unescaped(name, text) for name, text in given.items() if name.startswith("ce-")}
    if attributes:
        return _from_binary(attributes, given.get("content-type"), body)
    if media in ("application/json", ""):
        return _canonical(body)
    raise InvalidEventError(
        f"{media!r} is neither a structured event ({STRUCTURED}), a batch ({BATCH}) nor in binary mode (`ce-` headers)",
        field="content-type",
    )


def _from_batch(body: bytes) -> list[Decoded]:
    try:
        parts = msgspec.json.decode(body, type=list[msgspec.Raw])
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, ValueError) as error:
        raise InvalidEventError(f"a batch is a JSON array of events: {error}") from None
    return list(_each(parts))


def _each(parts: Iterable[msgspec.Raw]) -> Iterable[Decoded]:
    for index, part in enumerate(parts):
        try:
            yield _allowed(_canonical(bytes(part)))
        except InvalidEventError as error:
            raise InvalidEventError(error.reason, field=error.field, index=index) from None


def _canonical(body: bytes) -> Decoded:
    """Checked, and written anew: an attribute that was given twice is there once, for every reader the same."""
    envelope = decode(body)
    return Decoded(msgspec.json.encode(msgspec.json.decode(body)), envelope)


def _allowed(found: Decoded) -> Decoded:
    refuse_reserved(found.envelope.type)
    return found


def _unescaped(name: str, text: str) -> str:
    """A header's value: RFC 7230 quotes taken off, then percent-decoded as UTF-8."""
    if len(text) >= 2 and text[0] == text[-1] == '"':
        text = _QUOTED_PAIR.sub(r"\1", text[1:-1])
    try:
        text.encode("ascii")
        return unquote(text, errors="strict")
    except UnicodeEncodeError:
        raise InvalidEventError("holds characters outside ASCII; percent-encode them as UTF-8", field=name) from None
    except UnicodeDecodeError:
        raise InvalidEventError("its percent-encoding is not UTF-8", field=name) from None


# --- binary mode, both ----------------------------------------------------------------------------------------------


def _from_binary(attributes: dict[str, str], content_type: str | None, payload: bytes) -> Decoded:
    """Attributes from headers, data from the payload, as one structured body."""
    mapping: dict[str, Any] = {"specversion": "1.0", **attributes}
    if content_type:
        mapping["datacontenttype"] = content_type
    for name in ("data", "data_base64"):
        if name in attributes:
            raise InvalidEventError("is no attribute; in binary mode the payload is the data", field=name)
    if "hops" in mapping:
        mapping["hops"] = _integer("hops", mapping["hops"])
    if payload:
        mapping |= _data(_media_type(content_type or ""), payload)
    body = encode_mapping(mapping)
    return Decoded(body, decode(body))


def _data(media: str, payload: bytes) -> dict[str, Any]:
    """JSON as a value, text as a string, anything else as Base64."""
    if media in ("", "application/json", "text/json") or media.endswith("+json"):
        try:
            return {"data": msgspec.json.decode(payload)}
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, ValueError) as error:
            raise InvalidEventError(f"the payload is not JSON: {error}", field="data") from None
    if media.startswith("text/") or media.endswith("+xml") or media in _TEXT_TYPES:
        try:
            return {"data": payload.decode()}
        except UnicodeDecodeError:
            pass  # text in another character set: bytes, as far as we can tell
    return {"data_base64": base64.b64encode(payload).decode()}


def _integer(name: str, text: str) -> int:
    if not re.fullmatch(r"\d{1,6}", text, re.ASCII):
        raise InvalidEventError(f"{text!r} is no whole number", field=name)
    return int(text)


def _media_type(content_type: str) -> str:
    return content_type.partition(";")[0].strip().lower()
