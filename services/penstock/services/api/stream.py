"""What the bus carries, read live: `penstock events tail`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from fnmatch import translate
from re import compile as compile_pattern
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import StreamingResponse

from penstock.events import bus
from penstock.events.bus import Bus, Reader, TopicPartition
from penstock.services.api.guard import needs
from penstock.services.api.state import api_of

router = APIRouter(prefix="/api/v1/namespaces/{ns}", tags=["events"], dependencies=[Depends(needs("viewer"))])
_POLL = 1.0  # seconds between two looks at whether the reader is still there
_BATCH = 500


@router.get("/events/stream")
async def stream_events(
    request: Request,
    ns: str,
    type: Annotated[list[str] | None, Query(description="only these types; `*` is any run of characters")] = None,
    from_beginning: Annotated[
        bool, Query(description="begin with the oldest event there is, not with the next")
    ] = False,
) -> StreamingResponse:
    """Events as they are published, ours among them: one JSON object a line, until the client hangs up."""
    wanted = type_filter(type or [])
    port = api_of(request).context.bus
    reader = port.reader()
    try:
        await _take(port, reader, (bus.EVENTS, bus.SYSTEM), from_beginning=from_beginning)
    except BaseException:
        await reader.close()
        raise
    return StreamingResponse(_lines(request, reader, wanted), media_type="application/x-ndjson")


def type_filter(patterns: Sequence[str]) -> Callable[[str], bool]:
    """Whether a type is one of `patterns` (none: all are); `*` is any run of characters."""
    if not patterns:
        return lambda type_: True
    # Only `*` means something in our patterns; fnmatch knows `?` and `[` too.
    escaped = [pattern.replace("[", "[[]").replace("?", "[?]") for pattern in patterns]
    alternatives = compile_pattern("|".join(f"(?:{translate(pattern)})" for pattern in escaped))
    return lambda type_: alternatives.match(type_) is not None


async def _lines(request: Request, reader: Reader, wanted: Callable[[str], bool]) -> AsyncIterator[bytes]:
    try:
        while not await request.is_disconnected():
            found = await reader.poll(max_records=_BATCH, timeout=_POLL)
            for records in found.values():
                for record in records:
                    event = _event(record.value)
                    if event is not None and wanted(str(event.get("type", ""))):
                        yield msgspec.json.encode(event) + b"\n"
            await asyncio.sleep(0)
    finally:
        await reader.close()


async def _take(port: Bus, reader: Reader, topics: Sequence[str], *, from_beginning: bool) -> None:
    for name in topics:
        topic = await port.topic(name)
        for number in range(topic.partitions if topic else 0):
            log = TopicPartition(name, number)
            start = await port.beginning(log) if from_beginning else (await port.end(log)).position
            await reader.take(log, start)


def _event(value: bytes) -> dict[str, Any] | None:
    """A record's event; None for what is no JSON object: the engine dead-letters it, it is not shown here."""
    try:
        found = msgspec.json.decode(value)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return found if isinstance(found, dict) else None
