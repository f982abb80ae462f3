"""One run as it goes on: its changes of state, finished tasks, artifacts and log lines, read from the database."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field

import sqlalchemy as sa

from penstock.events.instants import SECOND, Instant
from penstock.flows.states import State
from penstock.services.api.problems import Refusal
from penstock.services.api.run_views import call_view, json_line, run_row, run_view
from penstock.services.api.views import Row, Shown, fetch, shown
from penstock.services.database import Database, tables

LOOK = 0.25  # seconds between two looks
ALIVE = 15.0  # seconds without news after which an empty line is sent
_BATCH = 1_000  # rows of one kind in one look
_LATE = 2 * SECOND  # calls that end at the same time may be written one after the other

_News = tuple[Instant, Shown]  # when, what


@dataclass(slots=True)
class _Cursor:
    """How far one reader has come.  log: id of the last line.  seq: of the last change.  calls: key → its end."""

    log: int
    seq: int = 0
    ended: Instant = 0
    calls: dict[str, Instant] = field(default_factory=dict)


async def follow(
    database: Database,
    namespace: str,
    run_id: str,
    *,
    after: int,
    only: frozenset[str],
    gone: Callable[[], Awaitable[bool]],
) -> AsyncIterator[bytes]:
    """Lines of JSON until the run has ended, or the reader is `gone`.

    after: id of the last log line that the reader has.  only: these kinds of lines, and the end; none: all.
    """
    cursor, quiet = _Cursor(after), 0.0
    while not await gone():
        try:
            run = await run_row(database, namespace, run_id)
        except Refusal:  # pruned meanwhile
            return
        found, more = await _news(database, run, cursor)
        for each in found:
            if not only or each["kind"] in only:
                yield json_line(each)
        # The row was read first: whatever belongs to its end had been written by then.
        if State(run["state"]).is_final and not more:
            yield json_line({"kind": "end", **run_view(run)})
            return
        quiet = 0.0 if found else quiet + LOOK
        if quiet >= ALIVE:
            quiet = 0.0
            yield b"\n"
        if not more:
            await asyncio.sleep(LOOK)


async def _news(database: Database, run: Row, cursor: _Cursor) -> tuple[list[Shown], bool]:
    """What is new, in order of time, and whether there is more of it already."""
    changes = await _changes(database, run["id"], cursor)
    lines = await _lines(database, run["id"], cursor)
    calls, more = await _calls(database, run, cursor)
    found = sorted([*changes, *lines, *calls], key=lambda each: each[0])
    return [each for _, each in found], more or len(lines) == _BATCH


async def _changes(database: Database, run_id: str, cursor: _Cursor) -> list[_News]:
    event = tables.run_event
    query = sa.select(event).where(event.c.run_id == run_id, event.c.seq > cursor.seq).order_by(event.c.seq)
    rows = await fetch(database, query)
    cursor.seq = max([cursor.seq, *(row["seq"] for row in rows)])
    return [(row["at"], {"kind": "state", **shown(row)}) for row in rows]


async def _lines(database: Database, run_id: str, cursor: _Cursor) -> list[_News]:
    log = tables.run_log
    query = sa.select(log).where(log.c.run_id == run_id, log.c.id > cursor.log).order_by(log.c.id).limit(_BATCH)
    rows = await fetch(database, query)
    cursor.log = max([cursor.log, *(row["id"] for row in rows)])
    return [(row["at"], {"kind": "log", **shown(row)}) for row in rows]


async def _calls(database: Database, run: Row, cursor: _Cursor) -> tuple[list[_News], bool]:
    call = tables.journal
    since = (call.c.run_id == run["id"], call.c.ended >= cursor.ended - _LATE)
    known = await fetch(database, sa.select(call.c.call, call.c.ended).where(*since).order_by(call.c.ended))
    new = [row for row in known if cursor.calls.get(row["call"]) != row["ended"]]
    some = [row["call"] for row in new[:_BATCH]]
    if not some:
        return [], False
    rows = await fetch(database, sa.select(call).where(call.c.run_id == run["id"], call.c.call.in_(some)))
    cursor.calls |= {row["call"]: row["ended"] for row in rows}
    cursor.ended = max(cursor.ended, *(row["ended"] for row in rows))
    found: list[_News] = []
    for row in rows:
        view = call_view(run, row)
        made = view.pop("artifact", None)
        kind: Shown = {"kind": "task"} if made is None else {"kind": "artifact", "artifact": made}
        found.append((row["ended"], view | kind))
    return found, len(new) > _BATCH
