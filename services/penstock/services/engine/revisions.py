"""Where in its stream a partition changes to another revision of the rules: a committed row, read by everybody."""

from __future__ import annotations

import structlog

from penstock.services.database import Database, clock
from penstock.services.database.tables import partition_revision
from penstock.services.engine.compiled import Compiled, CompiledRules
from penstock.services.engine.ownership import Lane, advance_position

_log = structlog.get_logger()


async def change_revision(database: Database, rules: CompiledRules, lane: Lane, current: Compiled) -> Compiled:
    """The rules for the next batch of `lane`: `current`, once the change to it is committed.

    Everything before the change is decided by the revision before; so whoever reads the stream again, decides the same.
    """
    if lane.revision == current.revision:
        return await rules.get(lane.revision)
    row = {
        "topic": lane.topic,
        "partition": lane.partition,
        "revision": current.revision,
        "from_offset": lane.read,
    }
    async with database.begin() as connection:
        await advance_position(connection, lane, to=lane.read, revision=current.revision)
        insert = database.insert(partition_revision).values(at=clock.now(), **row)
        await connection.execute(insert.on_conflict_do_nothing())
    _log.debug("engine.revision", partition=lane.name, revision=current.revision, from_offset=lane.read)
    lane.position, lane.revision = lane.read, current.revision
    return current
