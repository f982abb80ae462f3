"""The relay: publishes outbox rows in order, lane by lane, and deletes them once the bus has acknowledged.

Rows are selected by being there, never by a cursor: a row that commits late is still seen. A crash between publishing
and deleting publishes again; every reader takes that (wake-ups only wake, events have identities).
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Collection
from contextlib import suppress

import sqlalchemy as sa
import structlog

from penstock.events.bus import Bus, Outgoing, Publisher
from penstock.events.errors import BusError
from penstock.services import hints as hint
from penstock.services.cancellation import check_cancelled
from penstock.services.database import Database, unavailable
from penstock.services.database.prepared import Prepared, Row, one_of
from penstock.services.database.tables import outbox
from penstock.services.engine.ownership import Ownership
from penstock.services.hints import Hints

_log = structlog.get_logger()
_BATCH = 2_000
_unsent = Prepared(sa.select(outbox).where(one_of(outbox.c.lane, "lanes")).order_by(outbox.c.id).limit(_BATCH))
_sent = Prepared(sa.delete(outbox).where(one_of(outbox.c.id, "ids")))
_LINGER = 0.02  # seconds
_PARTITIONS = 6  # of a topic that a record is the first for: wake-ups, notifications, dead letters


class Relay:
    """Publishes the outbox of the lanes that this process owns."""

    def __init__(self, database: Database, bus: Bus, ownership: Ownership, hints: Hints, ceiling: int) -> None:
        self._database, self._bus, self._ownership, self._hints = database, bus, ownership, hints
        self._ceiling = ceiling
        self._publisher: Publisher | None = None
        self._topics: set[str] = set()  # those that are known to be there
        self.congested = False
        self._news: set[str] = set()
        self._told, self._urgent = asyncio.Event(), asyncio.Event()

    def wake(self, hints: Collection[str] = ()) -> None:
        """There are new rows: relay them, and tell workers and notifiers at once that there is something for them.

        hints: for whom.  They need not wait for the record on the bus: a hint is faster, and the record comes in any
        case. Only events that a rule sends (`hints.EVENTS`) are not left for a moment to be gathered with others.
        """
        if hint.EVENTS in hints:
            self._urgent.set()
        self._hints.wake(hint.OUTBOX)
        self._news |= set(hints) - {hint.EVENTS}
        if self._news:
            self._told.set()

    async def run(self) -> None:
        """Relay until cancelled; woken by hints, and looking by itself four times a second."""
        telling = asyncio.create_task(self._tell())
        try:
            while True:
                await self._hints.wait(hint.OUTBOX, timeout=0.25)
                await self._linger()
                await self._guarded()
                check_cancelled()
        finally:
            telling.cancel()
            if self._publisher is not None:
                await self._publisher.close()

    async def _linger(self) -> None:
        """At low rates, each record alone would cost the bus as much as fifty together."""
        with suppress(TimeoutError):
            async with asyncio.timeout(_LINGER):
                await self._urgent.wait()
        self._urgent.clear()

    async def _tell(self) -> None:
        """In a task of its own: a Redis that does not answer must not hold up the relay."""
        while True:
            await self._told.wait()
            self._told.clear()
            news, self._news = self._news, set()
            await self._hints.give(*sorted(news))

    async def _guarded(self) -> None:
        try:
            while await self.relay() == _BATCH:
                await self._measure()
            self.congested = False
        except BusError as error:
            _log.warning("relay.bus_away", error=str(error))
            await self._measure()
            await asyncio.sleep(0.25)
        except Exception as error:
            if not unavailable(error):
                raise
            _log.warning("relay.database_away", error=str(error))
            await asyncio.sleep(0.25)

    async def relay(self) -> int:
        """One batch.  Returns how many rows were published."""
        names = [lane.name for lane in self._ownership.lanes()]
        if not names:
            return 0
        async with self._database.read() as connection:
            rows = await _unsent.fetch(connection, lanes=names)
        if rows:
            if self._publisher is None:
                self._publisher = await self._bus.publisher()
            for name in {row["topic"] for row in rows} - self._topics:
                await self._bus.ensure_topic(name, _PARTITIONS)
                self._topics.add(name)
            await self._publisher.publish([_outgoing(row) for row in rows])
            await self._forget([row["id"] for row in rows])
        return len(rows)

    async def _forget(self, ids: list[int]) -> None:
        await self._database.alone(_sent, ids=ids)

    async def _measure(self) -> None:
        names = [lane.name for lane in self._ownership.lanes()]
        some = sa.select(outbox.c.id).where(outbox.c.lane.in_(names)).limit(self._ceiling + 1).subquery()
        try:
            async with self._database.read() as connection:
                unsent = (await connection.execute(sa.select(sa.func.count()).select_from(some))).scalar_one()
        except Exception as error:
            if not unavailable(error):
                raise
            return
        self.congested = unsent > self._ceiling


def _outgoing(row: Row) -> Outgoing:
    headers = tuple((name, value.encode()) for name, value in json.loads(row["headers"]))
    return Outgoing(topic=row["topic"], value=row["value"], key=row["key"], partition=row["partition"], headers=headers)
