"""Who reads which sensor: one lease each, on the database's clock."""

from __future__ import annotations

import time

import sqlalchemy as sa
import structlog
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection

from penstock.events.instants import SECOND
from penstock.services.database import Database, clock, tables

LEASE = 8.0  # seconds
_lease = tables.lease
_log = structlog.get_logger()

Key = tuple[str, str]


class Leases:
    """The leases of one process."""

    def __init__(self, database: Database, owner: str) -> None:
        self._database, self._owner = database, owner
        self._held: dict[Key, float] = {}  # until when, on the monotonic clock, counted from before we asked

    async def take(self, wanted: set[Key]) -> set[Key]:
        """Renew what we hold of `wanted`, take what is free, give back the rest; returns what we hold now."""
        until = time.monotonic() + LEASE
        async with self._database.begin() as connection:
            held = {key for key in sorted(wanted) if await self._take_one(connection, key)}
            for key in self._held.keys() - wanted:
                await connection.execute(sa.delete(_lease).where(self._is_ours(key)))
        self._held = dict.fromkeys(held, until)
        return held

    def still_held(self) -> set[Key]:
        """What we hold for at least a while, the database unasked."""
        soon = time.monotonic() + LEASE / 4
        return {key for key, until in self._held.items() if until > soon}

    async def give_back(self) -> None:
        """Let others take over at once; a database that is away lets the leases run out."""
        try:
            async with self._database.begin() as connection:
                for key in self._held:
                    await connection.execute(sa.delete(_lease).where(self._is_ours(key)))
        except (SQLAlchemyError, OSError) as error:
            _log.info("sensors.leases_left_to_run_out", error=str(error))
        self._held = {}

    async def _take_one(self, connection: AsyncConnection, key: Key) -> bool:
        until = clock.now() + int(LEASE * SECOND)
        insert = self._database.insert(_lease).values(name=_name(key), owner=self._owner, lease_until=until)
        taken = await connection.execute(
            insert.on_conflict_do_update(
                index_elements=["name"],
                set_={"owner": insert.excluded.owner, "lease_until": insert.excluded.lease_until},
                where=sa.or_(_lease.c.owner == self._owner, _lease.c.lease_until < clock.now()),
            )
        )
        return bool(taken.rowcount)

    def _is_ours(self, key: Key) -> sa.ColumnElement[bool]:
        return sa.and_(_lease.c.name == _name(key), _lease.c.owner == self._owner)


def _name(key: Key) -> str:
    return "sensor/" + "/".join(key)
