"""Who owns which partition: leases in the database, the same for both buses.

A taking raises the partition's epoch; every commit of its owner carries the epoch, so an owner that was stopped past
its lease and continues changes nothing. Partitions are handed over one by one and no rebalance stops the others (with
Kafka's consumer groups, aiokafka has eager rebalances only: each one stops the whole group).
"""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import sqlalchemy as sa
import structlog
from sqlalchemy.ext.asyncio import AsyncConnection

from penstock.events.bus import TopicPartition
from penstock.events.instants import microseconds
from penstock.services.database import Database, StaleEpochError, clock, unavailable
from penstock.services.database.late import Writes
from penstock.services.database.prepared import Prepared
from penstock.services.database.tables import member, position

_log = structlog.get_logger()
FROM_THE_BEGINNING = -1


@dataclass(slots=True, eq=False)
class Lane:
    """A partition that this process owns, and how far it has come."""

    topic: str
    partition: int
    epoch: int
    position: int  # as committed
    revision: int
    read: int = field(init=False)  # read and handled to the end; never ahead of what a commit may store
    leaving: bool = False  # to be handed back as soon as its stage has finished its batch

    def __post_init__(self) -> None:
        self.read = self.position

    @property
    def key(self) -> TopicPartition:
        """Its name on the bus."""
        return TopicPartition(self.topic, self.partition)

    @property
    def name(self) -> str:
        """Its name in the outbox and in firings."""
        return f"{self.topic}/{self.partition}"


class Ownership:
    """Takes a fair share of every topic's partitions and keeps it."""

    def __init__(self, database: Database, instance: str, lease: timedelta) -> None:
        self._database, self._instance = database, instance
        self._lease = microseconds(lease)
        self._topics: dict[str, int] = {}
        self._lanes: dict[TopicPartition, Lane] = {}
        self.changed = asyncio.Event()

    def lanes(self, topic: str | None = None) -> list[Lane]:
        """What this process owns now, of one topic or of all."""
        return [lane for lane in self._lanes.values() if topic is None or lane.topic == topic]

    def partitions(self, topic: str) -> int:
        """How many partitions of a topic are shared; 0 where it is not."""
        return self._topics.get(topic, 0)

    def owns(self, lane: Lane) -> bool:
        """Whether this very taking still holds."""
        return self._lanes.get(lane.key) is lane

    async def add_topic(self, topic: str, partitions: int) -> None:
        """Share the partitions of this topic; a row is made for each one that has none."""
        async with self._database.begin() as connection:
            known = set(await connection.scalars(sa.select(position.c.partition).where(position.c.topic == topic)))
            # Only what is missing: the insert would wait for whoever has a row of the same key locked.
            rows = [{"topic": topic, "partition": number} for number in range(partitions) if number not in known]
            if rows:
                await connection.execute(self._database.insert(position).on_conflict_do_nothing(), rows)
        self._topics[topic] = partitions

    async def run(self) -> None:
        """Renew, take and hand back until cancelled; the lease is renewed three times before it would end."""
        interval = self._lease / 3_000_000
        while True:
            try:
                if ended := await self._database.end_abandoned():
                    _log.warning("ownership.abandoned_transactions_ended", sessions=ended)
                await self.balance()
            except Exception as error:
                if not unavailable(error):
                    raise
                _log.warning("ownership.database_away", error=str(error))
            await asyncio.sleep(min(interval, 1.0))

    async def balance(self) -> None:
        """One round: renew what is ours, forget what is lost, take what is free, offer what is too much."""
        async with self._database.begin() as connection:
            await self._database.skew.measure(connection)
            await self._greet(connection)
            kept = await self._renew(connection)
            members = await self._members(connection)
            taken = [lane for topic in self._topics for lane in await self._take(connection, topic, kept, members)]
        before = set(self._lanes)
        for key in before - kept:
            _log.info("ownership.lost", partition=str(key), epoch=self._lanes[key].epoch)
            del self._lanes[key]
        for lane in taken:
            _log.debug("ownership.partition_taken", partition=lane.name, epoch=lane.epoch, position=lane.position)
            self._lanes[lane.key] = lane
        if taken:
            _log.info("ownership.taken", **Counter(lane.topic for lane in taken))
        self._offer(members)
        if taken or before != set(self._lanes):
            self.changed.set()

    async def hand_back(self, lane: Lane) -> None:
        """Let another one take it at once; where the database is away, when its lease has ended."""
        if self.owns(lane):
            del self._lanes[lane.key]
        mine = (position.c.topic == lane.topic) & (position.c.partition == lane.partition)
        try:
            async with self._database.begin() as connection:
                await connection.execute(
                    sa.update(position)
                    .where(mine, position.c.owner == self._instance, position.c.epoch == lane.epoch)
                    .values(owner=None, lease_until=0)
                )
        except Exception as error:
            if not unavailable(error):
                raise
            _log.warning("ownership.database_away", error=str(error))

    async def leave(self) -> None:
        """Hand back everything, and be counted no more."""
        self._lanes.clear()
        async with self._database.begin() as connection:
            await connection.execute(
                sa.update(position).where(position.c.owner == self._instance).values(owner=None, lease_until=0)
            )
            await connection.execute(sa.delete(member).where(member.c.id == self._instance))

    async def lost(self, lane: Lane) -> None:
        """A commit found another epoch: it is somebody else's now."""
        _log.warning("ownership.stale", partition=lane.name, epoch=lane.epoch)
        if self.owns(lane):
            del self._lanes[lane.key]

    async def _greet(self, connection: AsyncConnection) -> None:
        row = {"id": self._instance, "kind": "engine", "seen_until": clock.now() + self._lease}
        await connection.execute(
            self._database.insert(member)
            .values(**row)
            .on_conflict_do_update(index_elements=["id"], set_={"seen_until": row["seen_until"]})
        )

    async def _renew(self, connection: AsyncConnection) -> set[TopicPartition]:
        """Only what this process knows of: a taking whose commit it never heard of must come free again."""
        held = [(lane.topic, lane.partition, lane.epoch) for lane in self._lanes.values()]
        if not held:
            return set()
        columns = (position.c.topic, position.c.partition, position.c.epoch)
        rows = await connection.execute(
            sa.update(position)
            .where(position.c.owner == self._instance, sa.tuple_(*columns).in_(held))
            .values(lease_until=clock.now() + self._lease)
            .returning(position.c.topic, position.c.partition)
        )
        return {TopicPartition(topic, number) for topic, number in rows}

    async def _members(self, connection: AsyncConnection) -> int:
        await connection.execute(sa.delete(member).where(member.c.seen_until < clock.now() - self._lease))
        alive = sa.select(sa.func.count()).where(member.c.kind == "engine", member.c.seen_until >= clock.now())
        return max(1, (await connection.execute(alive)).scalar_one())

    async def _take(
        self, connection: AsyncConnection, topic: str, kept: set[TopicPartition], members: int
    ) -> list[Lane]:
        wanted = self._share(topic, members) - sum(1 for key in kept if key.topic == topic)
        if wanted <= 0:
            return []
        mine = [key.partition for key in kept if key.topic == topic]
        free = (position.c.owner.is_(None)) | (position.c.lease_until < clock.now())
        # Ours by name, but not kept: given up after a commit that may or may not have gone through, or taken so.
        free |= (position.c.owner == self._instance) & position.c.partition.not_in(mine)
        numbers = sa.select(position.c.partition).where(position.c.topic == topic, free)
        numbers = numbers.where(position.c.partition < self._topics[topic]).limit(wanted)
        if not self._database.is_sqlite:
            numbers = numbers.with_for_update(skip_locked=True)
        rows = await connection.execute(
            sa.update(position)
            .where(position.c.topic == topic, position.c.partition.in_(numbers.scalar_subquery()))
            .values(owner=self._instance, epoch=position.c.epoch + 1, lease_until=clock.now() + self._lease)
            .returning(position.c.partition, position.c.epoch, position.c.position, position.c.revision)
        )
        return [Lane(topic, number, epoch, where, revision) for number, epoch, where, revision in rows]

    def _share(self, topic: str, members: int) -> int:
        return -(-self._topics[topic] // members)

    def _offer(self, members: int) -> None:
        for topic in self._topics:
            mine = self.lanes(topic)
            for lane in mine[self._share(topic, members) :]:
                lane.leaving = True


_mine = (
    sa.update(position)
    .where(
        position.c.topic == sa.bindparam("topic_"),
        position.c.partition == sa.bindparam("number"),
        position.c.epoch == sa.bindparam("mine"),
    )
    .values(updated=clock.now())
    .returning(position.c.epoch)
)
_hold = Prepared(_mine)
_advance = Prepared(
    _mine.where(position.c.position == sa.bindparam("before")).values(
        position=sa.bindparam("to"), revision=sa.bindparam("revision")
    )
)


async def advance_position(connection: AsyncConnection, lane: Lane, *, to: int, revision: int | None = None) -> None:
    """Move the stored position, first thing in a batch's transaction: it locks the row against any other owner.

    Raises StaleEpochError where another one has taken the partition since, or the stored position is not ours.
    """
    if not await _advance.fetch(connection, **_moving(lane, to, revision)):
        raise _overtaken(lane)


async def commit_at_once(
    database: Database, lane: Lane, writes: Writes, *, to: int | None, revision: int | None = None
) -> None:
    """Move the stored position and write all of `writes`, in one transaction.  Raises StaleEpochError, as above.

    to: None to leave the position where it is.
    """
    guard, given = (_hold, _mine_of(lane)) if to is None else (_advance, _moving(lane, to, revision))
    if not await database.at_once(guard, given, writes):
        raise _overtaken(lane)


def _moving(lane: Lane, to: int, revision: int | None) -> dict[str, Any]:
    revision = lane.revision if revision is None else revision
    return _mine_of(lane) | {"before": lane.position, "to": to, "revision": revision}


def _mine_of(lane: Lane) -> dict[str, Any]:
    return {"topic_": lane.topic, "number": lane.partition, "mine": lane.epoch}


def _overtaken(lane: Lane) -> StaleEpochError:
    return StaleEpochError(f"{lane.name}: epoch {lane.epoch} at position {lane.position} is no longer in force")


async def hold(connection: AsyncConnection, lane: Lane) -> None:
    """Lock the partition's row and prove that it is ours, without moving the position.  Raises StaleEpochError."""
    if not await _hold.fetch(connection, **_mine_of(lane)):
        raise StaleEpochError(f"{lane.name}: epoch {lane.epoch} is no longer in force")
