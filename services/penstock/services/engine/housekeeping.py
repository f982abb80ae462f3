"""What some engine must do every so often: end approvals that nobody decided, and remove what is old."""

from __future__ import annotations

import asyncio
import time

import sqlalchemy as sa
import structlog

from penstock.events.instants import microseconds
from penstock.services.approvals import expire_due
from penstock.services.context import Context
from penstock.services.database import clock, tables, unavailable
from penstock.services.engine.effects import wall_clock

_log = structlog.get_logger()
_PRUNE_EVERY = 60.0  # seconds
_SMALL = 1_000  # rows a transaction

# What is pruned, by which column: the audit log is not among them.
_AGED = (
    (tables.decision, tables.decision.c.created, sa.true()),
    (tables.run_log, tables.run_log.c.at, sa.true()),
    (tables.journal, tables.journal.c.ended, sa.true()),
    (tables.run_event, tables.run_event.c.at, sa.true()),
    (tables.run, tables.run.c.ended, tables.run.c.ended.is_not(None)),
    (tables.delivery, tables.delivery.c.updated, tables.delivery.c.status != "pending"),
    (tables.approval, tables.approval.c.decided, tables.approval.c.decided.is_not(None)),
    (tables.schedule_fire, tables.schedule_fire.c.at, sa.true()),
    (tables.firing, tables.firing.c.updated, tables.firing.c.status.not_in(["running", "waiting"])),
    (tables.session, tables.session.c.expires_at, sa.true()),
    (tables.sign_in, tables.sign_in.c.expires_at, sa.true()),
)


class Housekeeping:
    """Runs in every engine; what it does is harmless when done twice."""

    def __init__(self, context: Context) -> None:
        self._context, self._pruned = context, 0.0

    async def run(self) -> None:
        """Once a second until cancelled."""
        while True:
            try:
                await expire_due(self._context, wall_clock())
                if time.monotonic() - self._pruned > _PRUNE_EVERY:
                    self._pruned = time.monotonic()
                    await self.prune()
            except Exception as error:
                if not unavailable(error):
                    raise
                _log.warning("housekeeping.database_away", error=str(error))
            await asyncio.sleep(1.0)

    async def prune(self) -> int:
        """Remove what is older than `keep`, in small batches.  Returns how many rows went."""
        keep = microseconds(self._context.settings.keep)
        removed = 0
        for table, column, finished in _AGED:
            removed += await self._prune(table, (column < clock.now() - keep) & finished)
        return removed

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
