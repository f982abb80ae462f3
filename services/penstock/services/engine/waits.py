"""Runs that wait for an event: the engine watches for it where it reads events anyway, and tells the run.

A wait has a row for each partition: where it begins to count. The partition's owner *joins* it: from the position that
it has reached it matches each batch against the wait, too, before it stores a later position; what lies before is
looked through once, beside the reading. Then the row says so, under the owner's epoch, and the next owner goes on from
the stored position. So nothing is passed over by a crash; and what is seen twice changes nothing, since a wait is
answered once. While nobody waits, a batch costs stage one the look into an empty dictionary.

A match is stored with the wait at once. The run is told a moment later, in turns: a thousand runs that wait for one
event do not wake in one instant.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from functools import partial
from typing import Any, NamedTuple, cast

import msgspec
import sqlalchemy as sa
import structlog
from sqlalchemy.ext.asyncio import AsyncConnection

from penstock.events import bus
from penstock.events.bus import Record, TopicPartition
from penstock.events.codec import from_record
from penstock.events.errors import BusError, InvalidEventError, PositionLostError
from penstock.events.event import RESERVED_PREFIX
from penstock.services import hints as hint
from penstock.services.context import Context
from penstock.services.database import StaleEpochError, clock, unavailable
from penstock.services.database.tables import IS_NEW_WAIT, IS_OPEN, IS_UNTOLD, position, run_wait, wait_position
from penstock.services.engine.ownership import Lane, Ownership
from penstock.services.waits import Turns, answer, end_waits, ended_with_waits, lock
from penstock.triggers import Matcher, Pattern

_log = structlog.get_logger()
_LOOK = 1.0  # seconds between looks for what hints have not told
_FORGET = 10.0  # seconds between looks for waits that are over
_PORTION = 100  # rows at a time
_BATCH = 1_000  # records, of what lies before
_NAMED = ("run_id", "call", "namespace", "topic")
_NOTHING = b"null"  # the answer where no event came in time


class Wait(NamedTuple):
    """Whose wait it is."""

    run_id: str
    call: str


class _Joining(NamedTuple):
    wait: Wait
    pattern: Pattern
    since: int
    position: int


Found = dict[Wait, bytes]  # the event that each of them waited for


class Waits:
    """The waits for events of one engine's partitions."""

    def __init__(self, context: Context, ownership: Ownership) -> None:
        self._context, self._database, self._ownership = context, context.database, ownership
        self._matcher = Matcher()
        self._live: dict[Lane, dict[Wait, int]] = {}  # from which offset on each counts
        self._matched: dict[Lane, int] = {}  # the position up to which this process has matched
        self._forgotten = time.monotonic()
        self._turns = Turns()

    # What stage one calls.

    async def taken(self, lane: Lane) -> None:
        """The partition is ours from now on: know the waits that the owner before has joined."""
        await self._add_partition(lane)
        self._matched[lane] = lane.position
        live = self._live.setdefault(lane, {})
        for each in await self._rows(lane, joined=1):
            self._matcher.add(each.wait, each.pattern)
            live[each.wait] = each.position

    def match(self, lane: Lane, records: Sequence[Record]) -> Found:
        """Who has waited for one of these."""
        self._matched[lane] = records[-1].offset + 1
        live = self._live.get(lane)
        return self._match(self._matcher, records, live) if live else {}

    async def keep(self, found: Mapping[Wait, bytes]) -> None:
        """Store what the waits were for; the first one counts."""
        mine = (run_wait.c.run_id == sa.bindparam("of"), run_wait.c.call == sa.bindparam("under"))
        values = {"status": "matched", "answer": sa.bindparam("event"), "answered": clock.now()}
        update = sa.update(run_wait).where(*mine, run_wait.c.status == "open").values(values)
        rows = [{"of": wait.run_id, "under": wait.call, "event": body.decode()} for wait, body in sorted(found.items())]
        async with self._database.begin() as connection:
            await connection.execute(update, rows)
        self._forget(found)
        self._context.hints.wake(hint.WAITS)

    # What goes on beside it.

    async def run(self) -> None:
        """Join, tell and give up until cancelled."""
        while True:
            try:
                await self._join_all()
                await self._give_up()
                while await self._tell():
                    pass
                await self._clean_up()
            except StaleEpochError as error:
                _log.info("waits.partition_lost", error=str(error))
            except Exception as error:
                if not (unavailable(error) or isinstance(error, BusError)):
                    raise
                _log.warning("waits.interrupted", error=str(error))
                await asyncio.sleep(_LOOK)
            await self._context.hints.wait(hint.WAITS, _LOOK)

    async def _join_all(self) -> None:
        lanes = [*self._ownership.lanes(bus.EVENTS), *self._ownership.lanes(bus.SYSTEM)]
        for gone in self._live.keys() - set(lanes):
            self._live.pop(gone)
            self._matched.pop(gone, None)
        ready = {lane.key: lane for lane in lanes if lane in self._live}
        if not ready:
            return
        columns = (wait_position.c.topic, wait_position.c.partition)
        query = sa.select(*columns).distinct().where(IS_NEW_WAIT)
        async with self._database.read() as connection:
            new = {TopicPartition(*row) for row in await connection.execute(query)}
        for key in new & ready.keys():
            await self._join(ready[key])

    async def _join(self, lane: Lane) -> None:
        """Watch for what is new in a partition, and look through what lies before.  Raises StaleEpochError."""
        new = await self._rows(lane, joined=0)
        # From here to the next await nothing else runs: what is matched later is matched against these, too.
        reached = max(lane.read, self._matched[lane])
        for each in new:
            self._matcher.add(each.wait, each.pattern)
            self._live[lane][each.wait] = max(reached, each.position)
        before = [each for each in new if each.position < reached]
        if before and (found := await self._look_back(lane, before, reached)):
            await self.keep(found)
        mine = (position.c.topic == lane.topic, position.c.partition == lane.partition, position.c.epoch == lane.epoch)
        here = (wait_position.c.topic == lane.topic, wait_position.c.partition == lane.partition)
        which = (wait_position.c.run_id == sa.bindparam("of"), wait_position.c.call == sa.bindparam("under"))
        update = sa.update(wait_position).where(*here, *which).values(position=sa.bindparam("from"), joined=1)
        rows = [
            {"of": it.wait.run_id, "under": it.wait.call, "from": max(reached, it.position)}
            for it in sorted(new, key=lambda it: it.wait)
        ]
        async with self._database.begin() as connection:
            held = sa.select(position.c.epoch).where(*mine).with_for_update(read=True)
            if (await connection.execute(held)).one_or_none() is None:
                raise StaleEpochError(f"{lane.name}: epoch {lane.epoch} is no longer in force")
            if rows:
                await connection.execute(update, rows)

    async def _look_back(self, lane: Lane, joining: Iterable[_Joining], end: int) -> Found:
        """The first match of each between its position and `end`, and of what arrived since it is asked for."""
        matcher, live, since = Matcher(), {}, {}
        for each in joining:
            matcher.add(each.wait, each.pattern)
            live[each.wait], since[each.wait] = each.position, each.since
        at = max(min(live.values()), await self._context.bus.beginning(lane.key))
        found: Found = {}
        reader = self._context.bus.reader()
        try:
            await reader.take(lane.key, at)
            last = (await self._context.bus.end(lane.key)).position
            while at < min(end, last) and live:
                records = (await reader.poll(max_records=_BATCH, timeout=_LOOK)).get(lane.key, ())
                if not records:
                    raise BusError(f"{lane.name} is not read from {at} to {end}; looked through again")
                wanted = [record for record in records if record.offset < end]
                new = self._match(matcher, wanted, live, since)
                found |= new
                live = {wait: offset for wait, offset in live.items() if wait not in new}
                at = records[-1].offset + 1
        except PositionLostError as lost:  # trimmed meanwhile: the next round begins with what is left
            raise BusError(str(lost)) from lost
        finally:
            await reader.close()
        return found

    def _match(
        self,
        matcher: Matcher,
        records: Iterable[Record],
        live: Mapping[Wait, int],
        since: Mapping[Wait, int] | None = None,
    ) -> Found:
        found: Found = {}
        for record in records:
            try:
                body, envelope = from_record(record.headers, record.value)
            except InvalidEventError:
                continue  # stage one buries it
            if record.topic == bus.EVENTS and envelope.type.startswith(RESERVED_PREFIX):
                continue
            for wait in cast("set[Wait]", matcher.match_json(body)):
                early = since is not None and record.appended_at < since.get(wait, 0)
                if wait not in found and record.offset >= live.get(wait, 1 << 63) and not early:
                    found[wait] = body
        return found

    async def _add_partition(self, lane: Lane) -> None:
        """Waits from before the topic grew by this partition: all that lies there came after them."""
        row, there = wait_position, wait_position.alias("there")
        same = (there.c.run_id == row.c.run_id, there.c.call == row.c.call, there.c.topic == row.c.topic)
        known = sa.exists().where(*same, there.c.partition == lane.partition)
        values = (row.c.run_id, row.c.call, row.c.namespace, row.c.topic, sa.literal(lane.partition), sa.literal(0))
        missing = sa.select(*values).distinct().where(row.c.topic == lane.topic, ~known)
        async with self._database.read() as connection:
            if (await connection.execute(missing.limit(1))).first() is None:
                return
        insert = self._database.insert(row).from_select([*_NAMED, "partition", "position"], missing)
        async with self._database.begin() as connection:
            await connection.execute(insert.on_conflict_do_nothing())

    async def _rows(self, lane: Lane, *, joined: int) -> list[_Joining]:
        """The open waits of a partition."""
        row = wait_position
        same = (run_wait.c.run_id == row.c.run_id) & (run_wait.c.call == row.c.call)
        columns = (row.c.run_id, row.c.call, row.c.position, run_wait.c.body)
        where = (row.c.topic == lane.topic, row.c.partition == lane.partition, row.c.joined == joined)
        mine = run_wait.c.namespace == self._context.settings.namespace
        query = sa.select(*columns).join(run_wait, same).where(*where, mine, IS_OPEN)
        async with self._database.read() as connection:
            rows = (await connection.execute(query)).all()
        found = []
        for each in rows:
            body = json.loads(each.body)
            found.append(_Joining(Wait(each.run_id, each.call), Pattern(body["pattern"]), body["since"], each.position))
        return found

    async def _give_up(self) -> None:
        """Waits whose time is over are answered by nothing."""
        over = {"status": "matched", "answer": _NOTHING.decode(), "answered": clock.now()}
        late = run_wait.c.expires_at <= clock.now()
        async with self._database.read() as connection:
            if (await connection.execute(sa.select(run_wait.c.call).where(IS_OPEN, late).limit(1))).first() is None:
                return
        async with self._database.begin() as connection:
            await connection.execute(sa.update(run_wait).where(IS_OPEN, late).values(over))

    async def _tell(self) -> bool:
        """Let the runs go on whose waits are over: the earliest first, in turns.  Returns whether there may be more."""
        columns = (run_wait.c.run_id, run_wait.c.call, run_wait.c.answer)
        query = sa.select(*columns).where(IS_UNTOLD).order_by(run_wait.c.answered, run_wait.c.run_id).limit(_PORTION)
        async with self._database.read() as connection:
            rows = (await connection.execute(query)).all()
        now = time.monotonic()
        told = [partial(_tell, row=row, due_in=self._turns.take(now)) for row in rows]
        await asyncio.gather(*(self._database.write(each) for each in told))
        if rows:
            await self._context.hints.give(hint.OUTBOX, hint.RUNS)
        return len(rows) == _PORTION

    async def _clean_up(self) -> None:
        """Forget what is over: answered through another partition, or its run has ended."""
        if time.monotonic() - self._forgotten < _FORGET:
            return
        self._forgotten = time.monotonic()
        watched = {wait for live in self._live.values() for wait in live}  # not those that come meanwhile
        async with self._database.read() as connection:
            ended = await ended_with_waits(connection, _PORTION)
            known = (run_wait.c.run_id, run_wait.c.call)
            still = {Wait(*row) for row in await connection.execute(sa.select(*known).where(IS_OPEN))}
        for run_id in ended:
            async with self._database.begin() as connection:
                await end_waits(connection, run_id)
        self._forget(watched - still)

    def _forget(self, waits: Iterable[Wait]) -> None:
        for wait in waits:
            for live in self._live.values():
                live.pop(wait, None)
            if wait in self._matcher:
                self._matcher.remove(wait)


async def _tell(connection: AsyncConnection, row: Any, due_in: timedelta) -> None:
    """Let one run go on.  row: of its wait, which is over."""
    run = await lock(connection, row.run_id)
    if run is not None:
        body = row.answer.encode()
        detail = "no event came in time" if body == _NOTHING else f"event {_name(body)} came"
        await answer(connection, run, row.call, body, actor="system", detail=detail, due_in=due_in)


def _name(body: bytes) -> str:
    envelope = msgspec.json.decode(body)
    return f"{envelope.get('type')} {envelope.get('id')}"
