"""What a former process of this data directory held: released at once, instead of when its leases end.

Only where no other process can be alive: `penstock up` holds the directory's lock, and the SQLite file is its own.
"""

from __future__ import annotations

import sqlalchemy as sa

from penstock.services.database import Database
from penstock.services.database.tables import delivery, flow, lease, member, position, run
from penstock.services.worker.registry import all_go_offline


async def release_former(database: Database) -> None:
    """Free partitions, duties, runs and deliveries in one transaction; epochs stay, and each taking raises them.

    Flows go too: what can be run is what this process's worker says, not what an older file held.
    """
    async with database.begin() as connection:
        await connection.execute(sa.update(position).values(owner=None, lease_until=0))
        await connection.execute(sa.update(run).where(run.c.lease_until > 0).values(lease_until=0))
        held = delivery.c.lease_until > 0
        await connection.execute(sa.update(delivery).where(held).values(owner=None, lease_until=0))
        for table in (member, lease, flow):
            await connection.execute(sa.delete(table))
        await all_go_offline(connection)
