"""What some engine must do every so often: end approvals that nobody decided, and remove what is old."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from datetime import timedelta

import sqlalchemy as sa
import structlog

from penstock.events import bus
from penstock.events.bus import TopicPartition
from penstock.events.errors import BusError
from penstock.events.instants import Instant, microseconds
from penstock.services.approvals import expire_due
from penstock.services.context import Context
from penstock.services.database import clock, tables, unavailable
from penstock.services.engine.dispatch import tell_storms
from penstock.services.engine.effects import wall_clock
from penstock.services.engine.suppressions import tell_suppressed

_log = structlog.get_logger()
_PRUNE_EVERY = 60.0  # seconds
_SMALL = 1_000  # rows a transaction
_KEEP_READ = timedelta(hours=1)  # records that every stage has read stay on the bus so long, to be looked at


def _of_ended_run(table: sa.Table) -> sa.ColumnElement[bool]:
    """A run may last for weeks: what belongs to one that has not ended stays."""
    run = tables.run
    return ~sa.exists().where(run.c.id == table.c.run_id, run.c.ended.is_(None))


# What is pruned, by which column: the audit log is not among them.
_AGED = (
    (tables.decision, tables.decision.c.created, sa.true()),
    (tables.suppression, tables.suppression.c.minute, tables.suppression.c.told == 1),
    (tables.run_log, tables.run_log.c.at, _of_ended_run(tables.run_log)),
    (tables.journal, tables.journal.c.ended, _of_ended_run(tables.journal)),
    (tables.run_wait, tables.run_wait.c.created, _of_ended_run(tables.run_wait)),
    (tables.run_event, tables.run_event.c.at, _of_ended_run(tables.run_event)),
    (tables.run, tables.run.c.ended, tables.run.c.ended.is_not(None)),
    (tables.delivery, tables.delivery.c.updated, tables.delivery.c.status != "pending"),
    (tables.approval, tables.approval.c.decided, tables.approval.c.decided.is_not(None)),
    (tables.schedule_fire, tables.schedule_fire.c.at, sa.true()),
    (tables.firing, tables.firing.c.updated, tables.firing.c.status.not_in(["queued", "running", "waiting"])),
    (tables.notice, tables.notice.c.at, sa.true()),
    (tables.session, tables.session.c.expires_at, sa.true()),
    (tables.sign_in, tables.sign_in.c.expires_at, sa.true()),
)


class Housekeeping:
    """Runs in every engine; what it does is harmless when done twice."""

    def __init__(self, context: Context) -> None:
        self._context, self._pruned = context, 0.0
        self._positions: deque[tuple[Instant, dict[TopicPartition, int]]] = deque()  # as they were each minute

    async def run(self) -> None:
        """Once a second until cancelled."""
        while True:
            try:
                await expire_due(self._context, await self._database_clock())
                await tell_suppressed(self._context, wall_clock())
                await tell_storms(self._context, wall_clock())
                if time.monotonic() - self._pruned > _PRUNE_EVERY:
                    self._pruned = time.monotonic()
                    await self.prune()
                    await self.trim(wall_clock())
            except Exception as error:
                if not (unavailable(error) or isinstance(error, BusError)):
                    raise
                _log.warning("housekeeping.interrupted", error=str(error))
            await asyncio.sleep(1.0)

    async def _database_clock(self) -> Instant:
        async with self._context.database.read() as connection:
            return int((await connection.execute(sa.select(clock.now()))).scalar_one())

    async def prune(self) -> int:
        """Remove what is older than `keep`, in small batches.  Returns how many rows went."""
        keep = microseconds(self._context.settings.keep)
        removed = 0
        for table, column, finished in _AGED:
            removed += await self._prune(table, (column < clock.now() - keep) & finished)
        return removed

    async def trim(self, now: Instant) -> None:
        """Let go of records that were read `_KEEP_READ` ago: below the stored positions of then, never by length."""
        topics = [bus.EVENTS, bus.SYSTEM, bus.MATCHES]
        query = sa.select(tables.position).where(tables.position.c.topic.in_(topics), tables.position.c.position > 0)
        async with self._context.database.read() as connection:
            rows = (await connection.execute(query)).all()
        self._positions.append((now, {TopicPartition(row.topic, row.partition): row.position for row in rows}))
        old = now - microseconds(_KEEP_READ)
        below: dict[TopicPartition, int] = {}
        while self._positions and self._positions[0][0] <= old:
            below = self._positions.popleft()[1]
        for partition, position in below.items():
            await self._context.bus.trim(partition, position)

    async def _prune(self, table: sa.Table, old: sa.ColumnElement[bool]) -> int:
        keys = list(table.primary_key.columns)
        some = sa.select(*keys).where(old).limit(_SMALL)
        removed = 0
        while True:
            chosen = sa.delete(table).where(sa.tuple_(*keys).in_(some) if len(keys) > 1 else keys[0].in_(some))
            async with self._context.database.begin() as connection:
                count = (await connection.execute(chosen)).rowcount
            removed += count
            if count < _SMALL:
                return removed
