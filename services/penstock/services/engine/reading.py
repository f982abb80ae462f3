"""The loop under both stages: read the partitions that are ours, handle each one's batch, and go back on failure.

Whatever fails for a reason that passes (database or bus away) sends the partition back to its committed position: the
same records are read again, and handling them twice changes nothing. Whatever the database or a rule refuses is
narrowed down by halving until the culprit is alone; that record goes to the dead letters, and the line goes on.
"""

from __future__ import annotations

import asyncio
import time
import traceback
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Protocol, TypeAlias

import sqlalchemy as sa
import structlog

from penstock.events.bus import Bus, Reader, Record
from penstock.events.errors import BusError, PositionLostError
from penstock.services.cancellation import check_cancelled
from penstock.services.database import Database, StaleEpochError, is_broken, unavailable
from penstock.services.database.tables import position
from penstock.services.engine.ownership import FROM_THE_BEGINNING, Lane, Ownership

_log = structlog.get_logger()
EachRound: TypeAlias = Callable[[Reader], Awaitable[None]]
_BREATH = 0.02  # seconds that a loop that gathers waits at most
_AT_ONCE = 12  # partitions handled at once: with a connection for each of 24, each of them is slower
_FULL = 8  # a batch of more than one part in so many needs no more gathering


class Stage(Protocol):
    """What one stage does with the records of a partition."""

    async def taken(self, lane: Lane) -> None:
        """The partition is ours from now on: load what belongs to it."""

    async def handle(self, lane: Lane, records: Sequence[Record]) -> None:
        """Decide on these and commit, or leave the commit to `settle`; sets `lane.read` (and `lane.position`)."""

    async def bury(self, lane: Lane, record: Record, reason: str, stack: str) -> None:
        """Commit past this record, with a dead letter."""

    def overdue(self, lane: Lane) -> bool:
        """Whether what is handled has waited long enough to be committed."""

    async def settle(self, lane: Lane) -> None:
        """Commit what is handled and not committed yet."""

    async def gap(self, lane: Lane, lost: PositionLostError) -> None:
        """Records between the stored position and the oldest one left are gone: say so, and go on from there."""


class PartitionLoop:
    """Drives one stage over the partitions of its topics."""

    def __init__(
        self,
        stage: Stage,
        topics: Sequence[str],
        *,
        bus: Bus,
        database: Database,
        ownership: Ownership,
        batch: int,
        may_read: Callable[[], bool],
        each_round: EachRound | None = None,
        gathers: bool = False,
    ) -> None:
        """gathers: after a round of small batches, let as much time pass as it took, so that the next ones are larger:
        where each batch is a transaction, a busy partition would otherwise spend most of its time on beginning them.
        """
        self._stage, self._topics, self._bus, self._database = stage, topics, bus, database
        self._ownership, self._batch, self._may_read, self._each_round = ownership, batch, may_read, each_round
        self._reader = bus.reader()
        self._reading: dict[tuple[str, int], Lane] = {}
        self._backoff = 0.0
        self._gathers = gathers
        self._turns = asyncio.Semaphore(_AT_ONCE)

    async def run(self) -> None:
        """Read until cancelled; what is handled by then is committed."""
        try:
            while True:
                await self._reconcile()
                await self._round()
                check_cancelled()
        finally:
            await asyncio.shield(self._finish())

    async def _round(self) -> None:
        if not self._may_read():
            await asyncio.sleep(0.05)
            return
        try:
            batches = await self._reader.poll(max_records=self._batch, timeout=0.2)
        except PositionLostError as lost:
            lane = self._reading[lost.topic, lost.partition]
            await self._guarded(lane, partial(self._lost_position, lane, lost))
            return
        except BusError as error:
            await self._bus_away(error)
            return
        began = time.monotonic()
        known = [(self._reading.get((key.topic, key.partition)), records) for key, records in batches.items()]
        work = ((lane, partial(self._narrowed, lane, records)) for lane, records in known if lane is not None)
        await asyncio.gather(*(self._guarded(lane, each) for lane, each in work))
        await self._after_round()
        if self._gathers and max(map(len, batches.values()), default=0) * _FULL < self._batch:
            await asyncio.sleep(min(_BREATH, time.monotonic() - began))

    async def _after_round(self) -> None:
        for lane in list(self._reading.values()):
            if lane.read != lane.position and self._stage.overdue(lane):
                await self._guarded(lane, partial(self._stage.settle, lane))
        if self._each_round is not None:
            try:
                await self._each_round(self._reader)
            except BusError as error:
                await self._bus_away(error)

    async def _bus_away(self, error: BusError) -> None:
        _log.warning("engine.bus_away", error=str(error))
        await asyncio.sleep(0.5)

    async def _guarded(self, lane: Lane, work: Callable[[], Awaitable[None]]) -> None:
        """Whatever is done for a partition: what fails for a reason that passes sends it back, never ends the loop."""
        try:
            await work()
            self._backoff = 0.0
        except StaleEpochError:
            await self._ownership.lost(lane)
        except Exception as error:
            if not _passes(error):
                raise
            _log.warning("engine.going_back", partition=lane.name, position=lane.position, error=str(error))
            await self._go_back(lane)

    async def _narrowed(self, lane: Lane, records: Sequence[Record]) -> None:
        try:
            async with self._turns:
                await self._stage.handle(lane, records)
        except (StaleEpochError, BusError):
            raise
        except Exception as error:
            if unavailable(error) or is_broken(error):
                raise
            if len(records) == 1:
                _log.error("engine.dead_letter", partition=lane.name, offset=records[0].offset, error=str(error))
                await self._stage.bury(lane, records[0], f"{type(error).__name__}: {error}", traceback.format_exc())
                return
            half = len(records) // 2
            await self._narrowed(lane, records[:half])
            await self._narrowed(lane, records[half:])

    async def _reconcile(self) -> None:
        """Read what is ours, stop reading what is not, hand back what is too much."""
        owned = {lane.key: lane for topic in self._topics for lane in self._ownership.lanes(topic)}
        for key, lane in list(self._reading.items()):
            if owned.get(lane.key) is not lane:
                await self._reader.drop(lane.key)
                del self._reading[key]
            elif lane.leaving:
                await self._hand_back(lane)
                owned.pop(lane.key)
        for lane in owned.values():
            if (lane.topic, lane.partition) in self._reading:
                continue
            if lane.leaving:  # too much before it was begun: nobody else would let go of it
                await self._ownership.hand_back(lane)
            else:
                await self._begin(lane)

    async def _begin(self, lane: Lane) -> None:
        try:
            await self._recall(lane)
            await self._stage.taken(lane)
            await self._start_reading(lane)
        except StaleEpochError:
            await self._ownership.lost(lane)
            return
        except Exception as error:
            if not _passes(error):
                raise
            _log.warning("engine.cannot_begin", partition=lane.name, error=str(error))
            await asyncio.sleep(0.2)
            return
        self._reading[lane.topic, lane.partition] = lane

    async def _recall(self, lane: Lane) -> None:
        """The position as the database knows it: a commit may have gone through unheard.  Raises StaleEpochError."""
        columns = (position.c.position, position.c.revision, position.c.epoch)
        mine = (position.c.topic == lane.topic) & (position.c.partition == lane.partition)
        async with self._database.read() as connection:
            row = (await connection.execute(sa.select(*columns).where(mine))).one()
        if row.epoch != lane.epoch:
            raise StaleEpochError(f"{lane.name}: epoch {lane.epoch} is no longer in force")
        lane.position, lane.read, lane.revision = row.position, row.position, row.revision

    async def _start_reading(self, lane: Lane) -> None:
        if lane.position == FROM_THE_BEGINNING:
            lane.read = await self._bus.beginning(lane.key)  # an empty partition is read to its end, too
            await self._reader.take(lane.key, lane.read)
            return
        try:
            await self._reader.take(lane.key, lane.position)
        except PositionLostError as lost:
            await self._stage.gap(lane, lost)
            await self._reader.take(lane.key, lane.position)

    async def _lost_position(self, lane: Lane, lost: PositionLostError) -> None:
        await self._reader.drop(lane.key)
        await self._stage.gap(lane, lost)
        await self._reader.take(lane.key, lane.position)

    async def _go_back(self, lane: Lane) -> None:
        """To the committed position: the next round begins with it anew."""
        self._backoff = min(2.0, self._backoff * 2 or 0.05)
        await asyncio.sleep(self._backoff)
        self._reading.pop((lane.topic, lane.partition), None)
        await self._reader.drop(lane.key)

    async def _hand_back(self, lane: Lane) -> None:
        try:
            await self._stage.settle(lane)
        except StaleEpochError:
            _log.info("engine.already_taken", partition=lane.name)
        except Exception as error:
            if not _passes(error):
                raise
            _log.warning("engine.left_uncommitted", partition=lane.name, error=str(error))  # it is read again
        await self._reader.drop(lane.key)
        self._reading.pop((lane.topic, lane.partition), None)
        await self._ownership.hand_back(lane)

    async def _finish(self) -> None:
        for lane in list(self._reading.values()):
            try:
                async with asyncio.timeout(5):
                    await self._stage.settle(lane)
            except Exception as error:  # stopping: what is not committed is read again by the next owner
                _log.info("engine.left_uncommitted", partition=lane.name, error=str(error))
        await self._reader.close()


def _passes(error: Exception) -> bool:
    """Whether the bus or the database is away, which is waited for."""
    return isinstance(error, BusError) or unavailable(error)
