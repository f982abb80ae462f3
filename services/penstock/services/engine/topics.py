"""The topics that the engine reads: made once, and held to what the database recorded of them."""

from __future__ import annotations

import sqlalchemy as sa

from penstock.events import bus
from penstock.events.bus import Bus, Topic
from penstock.events.errors import PenstockError, TopicReplacedError
from penstock.services.database import Database
from penstock.services.database.tables import topic


class PartitionsChangedError(PenstockError):
    """`penstock.matches` has another number of partitions than its windows were placed by."""


async def ensure_topics(connection: Bus, database: Database, event_partitions: int) -> dict[str, Topic]:
    """The engine's source topics and `penstock.matches`, by name.

    Raises TopicReplacedError where a topic is not the one that positions were stored for, and PartitionsChangedError
    where `penstock.matches` was given another number of partitions: windows would be looked for in the wrong place.
    """
    wanted = {bus.EVENTS: event_partitions, bus.SYSTEM: event_partitions, bus.MATCHES: bus.MATCH_PARTITIONS}
    found = {name: await connection.ensure_topic(name, partitions) for name, partitions in wanted.items()}
    for each in found.values():
        await _hold_to_record(database, each)
    return found


async def _hold_to_record(database: Database, found: Topic) -> None:
    async with database.begin() as connection:
        row = {"name": found.name, "topic_id": found.id, "partitions": found.partitions}
        await connection.execute(database.insert(topic).values(**row).on_conflict_do_nothing())
        recorded = (await connection.execute(sa.select(topic).where(topic.c.name == found.name))).one()
    if recorded.topic_id != found.id:
        raise TopicReplacedError(found.name, recorded=recorded.topic_id, found=found.id)
    if found.name == bus.MATCHES and recorded.partitions != found.partitions:
        raise PartitionsChangedError(
            f"{found.name} has {found.partitions} partitions, its windows were placed on {recorded.partitions}:"
            " give it that number again"
        )
