"""The shape of a record on `penstock.dead-letter`: what could not be handled, why, and where it came from.

{"v": 1, "id": …, "namespace": …, "at": RFC 3339, "reason": …, "stack": …,
 "origin": {"topic", "partition", "offset", "group", "automation", "firing"},      only those that are known
 "key": BYTES | null, "headers": [[name, BYTES], …], "value": BYTES}

BYTES is {"text": …}, or {"base64": …} where the bytes are not UTF-8, or {"sha256": …, "length": …} above 1 MiB.
The id is derived from the origin: the same record dead-lettered twice carries the same id.
"""

from __future__ import annotations

import base64
import hashlib
import time
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from penstock.events import bus
from penstock.events.bus import Outgoing
from penstock.events.event import MAX_BODY
from penstock.events.ids import derived_id
from penstock.events.instants import Instant, format_instant

FORMAT = 1
_MAX_STACK = 16_384  # characters; the end tells more than the beginning
_MAX_HEADERS = 65_536  # bytes of all headers; larger ones are told by their digest


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a record came from; what is not known is left out."""

    topic: str
    partition: int | None = None
    offset: int | None = None
    group: str | None = None  # the consumer group that could not handle it
    automation: str | None = None
    firing: str | None = None

    def to_mapping(self) -> dict[str, Any]:
        """As it stands in the dead letter."""
        names = ("topic", "partition", "offset", "group", "automation", "firing")
        return {name: value for name in names if (value := getattr(self, name)) is not None}


def dead_letter(
    reason: str,
    origin: Origin,
    *,
    value: bytes,
    key: bytes | None = None,
    headers: tuple[tuple[str, bytes], ...] = (),
    stack: str = "",
    namespace: str = "default",
    at: Instant | None = None,
) -> Outgoing:
    """A record for the dead-letter topic.

    reason, stack: must already be free of secrets.  at: when it was given up; none: now.
    """
    identity = msgspec.json.encode([origin.to_mapping(), hashlib.sha256(value).hexdigest()]).decode()
    letter_id = derived_id("dead-letter", namespace, identity)
    body = {
        "v": FORMAT,
        "id": letter_id,
        "namespace": namespace,
        "at": format_instant(time.time_ns() // 1_000 if at is None else at),
        "reason": reason,
        "stack": stack[-_MAX_STACK:],
        "origin": origin.to_mapping(),
        "key": None if key is None else _shown(key),
        "headers": [[name, _shown(content, _MAX_HEADERS)] for name, content in headers],
        "value": _shown(value),
    }
    return Outgoing(topic=bus.DEAD_LETTER, key=letter_id.encode(), value=msgspec.json.encode(body))


def stack_of(error: BaseException) -> str:
    """The traceback of an error as text."""
    return "".join(traceback.format_exception(error))


def value_of(letter: Mapping[str, Any]) -> bytes | None:
    """The original body of a decoded dead letter; None where only its digest was kept."""
    return _bytes_of(letter["value"])


def key_of(letter: Mapping[str, Any]) -> bytes | None:
    """The original key of a decoded dead letter."""
    return None if letter.get("key") is None else _bytes_of(letter["key"])


def headers_of(letter: Mapping[str, Any]) -> tuple[tuple[str, bytes], ...]:
    """The original headers of a decoded dead letter, without those of which only a digest was kept."""
    found = ((name, _bytes_of(shown)) for name, shown in letter.get("headers", ()))
    return tuple((name, content) for name, content in found if content is not None)


def _shown(content: bytes, limit: int = MAX_BODY) -> dict[str, Any]:
    if len(content) > limit:
        return {"sha256": hashlib.sha256(content).hexdigest(), "length": len(content)}
    try:
        return {"text": content.decode()}
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(content).decode()}


def _bytes_of(shown: Mapping[str, Any]) -> bytes | None:
    if "text" in shown:
        return str(shown["text"]).encode()
    return base64.b64decode(shown["base64"]) if "base64" in shown else None
