"""The rules in force, as every service but the api sees them: from the database alone, kept fresh."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass

import sqlalchemy as sa
import structlog
from sqlalchemy.exc import SQLAlchemyError

from penstock.automations import RuleSet, load_texts
from penstock.events.instants import Instant
from penstock.services import hints as hint
from penstock.services.database import Database, tables
from penstock.services.hints import Hints

_KEPT = 8  # revisions besides the one in force: what older firings and partitions that lag go by
_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Revision:
    """One applied version of the rule files; id 0 is "none yet".  applied: when it was put in force."""

    id: int
    rules: RuleSet
    applied: Instant = 0


class RuleBook:
    """Reads revisions of one namespace; `run` keeps `current` fresh."""

    def __init__(self, database: Database, hints: Hints, namespace: str) -> None:
        self._database, self._hints, self._namespace = database, hints, namespace
        self._known: dict[int, Revision] = {0: Revision(0, load_texts({}))}
        self.current: Revision = self._known[0]
        self._changed = asyncio.Condition()

    async def refresh(self) -> Revision:
        """Read the newest revision from the database now."""
        newest = sa.select(sa.func.max(tables.revision.c.id)).where(tables.revision.c.namespace == self._namespace)
        async with self._database.read() as connection:
            number = (await connection.execute(newest)).scalar() or 0
        found = await self.get(number)
        if found.id != self.current.id:
            self.current = found
            async with self._changed:
                self._changed.notify_all()
        return found

    async def get(self, number: int) -> Revision:
        """One revision, by its id.  Raises LookupError where there is none."""
        if number not in self._known:
            query = sa.select(tables.revision.c.files, tables.revision.c.created).where(tables.revision.c.id == number)
            async with self._database.read() as connection:
                row = (await connection.execute(query)).first()
            if row is None:
                raise LookupError(f"there is no revision {number} of the rules in the database")
            # In a thread: 10,000 rules take seconds, in which nothing else could be done.
            rules = await asyncio.to_thread(load_texts, json.loads(row.files))
            self._known[number] = Revision(number, rules, row.created)
            for old in sorted(self._known.keys() - {0, self.current.id, number})[:-_KEPT]:
                del self._known[old]
        return self._known[number]

    async def changed(self, since: int) -> Revision:
        """Wait until the revision in force is another than `since`."""
        async with self._changed:
            await self._changed.wait_for(lambda: self.current.id != since)
        return self.current

    async def run(self) -> None:
        """Follow new revisions until cancelled."""
        while True:
            try:
                await self.refresh()
            except (SQLAlchemyError, OSError) as error:
                _log.warning("rules.unreadable", error=str(error))
            await self._hints.wait(hint.REVISION, timeout=1.0)
