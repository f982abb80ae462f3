"""The dead letters: what could not be handled, read from the bus."""

from __future__ import annotations

from collections.abc import AsyncIterator
from heapq import heappop, heappush
from http import HTTPStatus
from typing import Any

import msgspec
from fastapi import APIRouter, Depends, Request

from penstock.events import bus
from penstock.events.bus import Bus, TopicPartition
from penstock.services.api.guard import needs, require
from penstock.services.api.problems import Refusal, not_found
from penstock.services.api.state import api_of
from penstock.services.api.views import Page, Shown
from penstock.services.redrive import NotRedrivableError, redrive

router = APIRouter(
    prefix="/api/v1/namespaces/{ns}/dead-letters", tags=["dead letters"], dependencies=[Depends(needs("viewer"))]
)
_POLL = 2.0  # seconds without a record after which the rest of a log is taken as empty
_BATCH = 200
_LONG = frozenset({"stack", "value", "key", "headers"})  # told of a single one only


@router.get("")
async def list_dead_letters(request: Request, ns: str, limit: Page = 50) -> dict[str, list[Shown]]:
    """Dead letters, newest first."""
    newest: list[tuple[str, int, Shown]] = []  # a heap, the oldest on top
    number = 0
    async for letter in read_letters(api_of(request).context.bus):
        if letter.get("namespace", "default") == ns:
            number += 1
            brief = {name: value for name, value in letter.items() if name not in _LONG}
            heappush(newest, (str(letter.get("at", "")), number, brief))
            if len(newest) > limit:
                heappop(newest)
    return {"dead_letters": [brief for *_, brief in sorted(newest, reverse=True)]}


@router.get("/{id}")
async def show_dead_letter(request: Request, ns: str, id: str) -> Shown:
    """One dead letter, with its body and the stack of its failure."""
    return await _letter(request, ns, id)


@router.post("/{id}/redrive", status_code=HTTPStatus.ACCEPTED)
async def redrive_dead_letter(request: Request, ns: str, id: str) -> dict[str, str]:
    """Have what failed tried once more. 409: it cannot be, or need not any more; the detail says why."""
    identity, context = require(request, "operator", ns), api_of(request).context
    letter = await _letter(request, ns, id)
    try:
        return {"redriven": await redrive(context, letter, actor=identity.actor, namespace=ns)}
    except NotRedrivableError as error:
        raise Refusal(HTTPStatus.CONFLICT, f"dead letter {id!r} is not re-driven: {error}") from None


async def _letter(request: Request, ns: str, id: str) -> Shown:
    async for letter in read_letters(api_of(request).context.bus):
        if letter.get("id") == id and letter.get("namespace", "default") == ns:
            return letter
    raise not_found("dead letter", id)


async def read_letters(port: Bus) -> AsyncIterator[dict[str, Any]]:
    """Every dead letter that the bus holds now, in order within a partition."""
    topic = await port.topic(bus.DEAD_LETTER)
    ends: dict[TopicPartition, int] = {}
    reader = port.reader()
    try:
        for number in range(topic.partitions if topic else 0):
            log = TopicPartition(bus.DEAD_LETTER, number)
            first, end = await port.beginning(log), (await port.end(log)).position
            if first < end:
                ends[log] = end
                await reader.take(log, first)
        while ends:
            batch = await reader.poll(max_records=_BATCH, timeout=_POLL)
            if not batch:  # offsets are not dense: the end may lie behind the last record
                return
            for log, records in batch.items():
                for record in records:
                    if record.offset < ends.get(log, 0):
                        yield decode_letter(record.value)
                if log in ends and records and records[-1].offset >= ends[log] - 1:
                    await reader.drop(log)
                    del ends[log]
    finally:
        await reader.close()


def decode_letter(value: bytes) -> dict[str, Any]:
    """A dead letter; one that cannot be read itself is shown as such rather than hidden."""
    try:
        found = msgspec.json.decode(value)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        found = None
    return found if isinstance(found, dict) else {"id": "unreadable", "reason": "not a dead letter", "at": ""}
